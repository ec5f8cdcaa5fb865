// From a decoded picture to the pixels that the model sees: Pillow's resampling, step by step (its Resample.c).

const PRECISION = 22; // bits after the point of Pillow's whole-numbered filter weights

/** Python's round: halves go to the even number. */
function rounded(x) {
  const low = Math.floor(x), rest = x - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low;
}

/**
 * Where the model's input (h, w) lies in a picture (height, width), as `visattn.images.fit_geometry` has it.
 *
 * Returns null where the shorter side would be less than a pixel, else {box, size, at}: the part of the picture that is
 * resized [top, left, bottom, right], to which size [h, w], and at which pixel [y, x] of the input it begins.
 */
function placement([height, width], [h, w], fit) {
  if (fit === "squash") return { box: [0, 0, height, width], size: [h, w], at: [0, 0] };
  const scale = (fit === "crop" ? Math.max : Math.min)(h / height, w / width);
  if (Math.min(height, width) * scale < 1) return null;
  const size = [Math.max(1, rounded(height * scale)), Math.max(1, rounded(width * scale))];
  const offset = [Math.floor((size[0] - h) / 2), Math.floor((size[1] - w) / 2)];
  if (fit === "pad") return { box: [0, 0, height, width], size, at: [-offset[0], -offset[1]] };
  const scales = [size[0] / height, size[1] / width];
  const edge = (axis, input) => (input + offset[axis]) / scales[axis];
  const box = [Math.max(edge(0, 0), 0), Math.max(edge(1, 0), 0), Math.min(edge(0, h), height), Math.min(edge(1, w), width)];
  return { box, size: [h, w], at: [0, 0] };
}

/** For each of `outputs` pixels along an axis: the first pixel that it is made of, and their weights in 1 / 2²². */
function filters(inputs, low, high, outputs) {
  const [start, stop] = [Math.fround(low), Math.fround(high)], scale = Math.fround(stop - start) / outputs;
  const support = Math.max(scale, 1);
  return Array.from({ length: outputs }, (_, n) => {
    const centre = start + (n + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5)), last = Math.min(inputs, Math.trunc(centre + support + 0.5));
    const weights = Array.from({ length: last - first }, (_, k) => Math.max(0, 1 - Math.abs((k + first - centre + 0.5) * (1 / support))));
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: Int32Array.from(weights, (weight) => Math.trunc(0.5 + (weight / (sum || 1)) * 2 ** PRECISION)) };
  });
}

/** A sum of weighted bytes as a byte. */
function byteOf(sum) {
  return Math.min(255, Math.max(0, (sum + (1 << (PRECISION - 1))) >> PRECISION));
}

/** Resample a row of pixels, each of `stride` numbers, from `start` on: three channels of each output pixel, to `out`. */
function across(row, start, stride, places, out, to) {
  for (const { first, weights } of places) {
    for (let k = 0; k < 3; k++, to++) {
      let sum = 0;
      for (let n = 0, at = start + stride * first + k; n < weights.length; n++, at += stride) sum += row[at] * weights[n];
      out[to] = byteOf(sum);
    }
  }
}

/**
 * Part of a picture as (h, w, 3) uint8, bit for bit as `PIL.Image.resize(…, BILINEAR, box)` makes it of the same pixels.
 *
 * Like Pillow from version 13 on, it begins with the columns of a picture whose height shrinks by much more than its width.
 * rowsOf(top, count): (count, width, 4) RGBA of the picture's rows, so that a large one is never in memory as a whole.
 */
function resized(rowsOf, [height, width], [top, left, bottom, right], [h, w]) {
  const places = filters(width, left, right, w), down = filters(height, top, bottom, h);
  const band = Math.max(1, Math.floor(2 ** 20 / width)), out = new Uint8Array(h * w * 3);
  const banded = (from, count, act) => {
    for (let y = from; y < from + count; y += band) {
      const rows = rowsOf(y, Math.min(band, from + count - y));
      for (let n = 0; n < rows.length / (4 * width); n++) act(rows, 4 * width * n, y + n);
    }
  };
  if (height > h && height - h > 2 * (width - w)) {
    down.forEach(({ first, weights }, y) => {
      const sums = new Int32Array(4 * width);
      banded(first, weights.length, (rows, start, n) => {
        for (let x = 0; x < 4 * width; x++) sums[x] += rows[start + x] * weights[n - first];
      });
      across(sums.map(byteOf), 0, 4, places, out, 3 * w * y);
    });
    return out;
  }
  const first = down[0].first, narrow = new Uint8Array((down[h - 1].first + down[h - 1].weights.length - first) * w * 3);
  banded(first, narrow.length / (3 * w), (rows, start, n) => across(rows, start, 4, places, narrow, (n - first) * 3 * w));
  down.forEach(({ first: from, weights }, y) => {
    for (let x = 0; x < 3 * w; x++) {
      let sum = 0;
      for (let n = 0; n < weights.length; n++) sum += narrow[(from - first + n) * 3 * w + x] * weights[n];
      out[3 * w * y + x] = byteOf(sum);
    }
  });
  return out;
}

/** The model's input (h, w, 3) uint8 of a picture, as `visattn.images.fit_image` makes it. */
function fitted(rowsOf, size, { imageSize, fit, margin }) {
  const { box, size: inner, at } = placement(size, imageSize, fit), [h, w] = imageSize;
  const part = resized(rowsOf, size, box, inner);
  if (fit !== "pad") return part;
  const out = Uint8Array.from({ length: h * w * 3 }, (_, n) => margin[n % 3]);
  for (let y = 0; y < inner[0]; y++) out.set(part.subarray(y * inner[1] * 3, (y + 1) * inner[1] * 3), ((y + at[0]) * w + at[1]) * 3);
  return out;
}
