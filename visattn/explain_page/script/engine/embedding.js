// From pixels to tokens: `PatchEmbedding`, one convolution, or `ConvolutionalStem`. Grids are (height, width, channels).

/** A convolution whose batch norm, if there is one, is folded into its weights: {weight (out, kernel, kernel, in), bias, …}. */
function convolutionOf(tensors, name, norm, stride, padding, eps) {
  const { shape: [outputs, inputs, kernel], values } = tensors[`${name}.weight`];
  const weight = new Float32Array(values.length), bias = new Float32Array(outputs);
  for (let o = 0; o < outputs; o++) {
    const of = (part) => tensors[`${norm}.${part}`].values[o];
    const scale = norm ? of("weight") / Math.sqrt(of("running_var") + eps) : 1;
    bias[o] = norm ? of("bias") - of("running_mean") * scale : tensors[`${name}.bias`].values[o];
    for (let c = 0; c < inputs; c++) {
      for (let place = 0; place < kernel * kernel; place++) {
        weight[(o * kernel * kernel + place) * inputs + c] = scale * values[(o * inputs + c) * kernel * kernel + place];
      }
    }
  }
  return { weight, bias, inputs, outputs, kernel, stride, padding };
}

/** Convolve a grid {height, width, values}, by one matrix product. */
function convolve({ height, width, values }, { weight, bias, inputs, outputs, kernel, stride, padding }, relu) {
  const high = Math.floor((height + 2 * padding - kernel) / stride) + 1, wide = Math.floor((width + 2 * padding - kernel) / stride) + 1;
  const row = kernel * inputs, windows = new Float32Array(high * wide * kernel * row);
  for (let y = 0, at = 0; y < high; y++) {
    for (let x = 0; x < wide; x++) {
      const left = x * stride - padding, first = Math.max(left, 0), last = Math.min(left + kernel, width);
      for (let k = 0; k < kernel; k++, at += row) {
        const from = y * stride - padding + k;
        if (from >= 0 && from < height) {
          windows.set(values.subarray((from * width + first) * inputs, (from * width + last) * inputs), at + (first - left) * inputs);
        }
      }
    }
  }
  const out = layer(windows, weight, bias, high * wide, outputs, kernel * row);
  if (relu) for (let n = 0; n < out.length; n++) if (out[n] < 0) out[n] = 0;
  return { height: high, width: wide, values: out };
}

/** A function from a normalised picture, a grid, to the grid of tokens. */
function embeddingOf(tensors, { patch, halvings, stemEps: eps }) {
  if (tensors["patch_embed.proj.weight"]) {
    const projection = convolutionOf(tensors, "patch_embed.proj", null, patch, 0);
    return (picture) => convolve(picture, projection, false);
  }
  const part = (number, first, second, stride) => {
    const layer = `patch_embed.layers.${number}`;
    return convolutionOf(tensors, `${layer}.${first}`, `${layer}.${second}`, stride, 1, eps);
  };
  const opening = part(0, 0, 1, 1), stages = [];
  for (let n = 0; n < halvings; n++) {
    stages.push([part(2 * n + 1, 0, 1, 2), part(2 * n + 2, "added.0", "added.1", 1), part(2 * n + 2, "added.3", "added.4", 1)]);
  }
  return (picture) => stages.reduce((grid, [halve, first, second]) => {
    const narrow = convolve(grid, halve, true), more = convolve(convolve(narrow, first, true), second, false);
    return { ...narrow, values: added(narrow.values, more.values) };
  }, convolve(picture, opening, true));
}
