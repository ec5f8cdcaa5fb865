// `visattn.models.VisionTransformer`, forward, and backward from a logit to each layer's attention.

class Transformer {
  /** tensors: by their names in the model's state dict; model: its sizes, see model.py. */
  constructor(tensors, model) {
    this.model = model;
    const of = (name) => tensors[name]?.values ?? null;
    const part = (name) => ({ weight: of(`${name}.weight`), bias: of(`${name}.bias`), eps: model.eps });
    this.embed = embeddingOf(tensors, model);
    this.classToken = of("cls_token");
    this.positions = of("pos_embed");
    this.blocks = Array.from({ length: model.depth }, (_, n) => ({
      norm1: part(`blocks.${n}.norm1`), qkv: part(`blocks.${n}.attn.qkv`), proj: part(`blocks.${n}.attn.proj`),
      norm2: part(`blocks.${n}.norm2`), fc1: part(`blocks.${n}.mlp.fc1`), fc2: part(`blocks.${n}.mlp.fc2`),
    }));
    this.norm = part("norm");
    this.head = part("head");
  }

  /** Pixels (h, w, 3) uint8 to tokens (N, D), with positions. */
  tokens(pixels) {
    const { imageSize: [height, width], mean, std, size } = this.model;
    const values = Float32Array.from(pixels, (value, n) => (value / 255 - mean[n % 3]) / std[n % 3]);
    const grid = this.embed({ height, width, values }).values, out = new Float32Array(size + grid.length);
    out.set(this.classToken);
    out.set(grid, size);
    return added(out, this.positions);
  }

  /**
   * Pixels (h, w, 3) uint8 to {logits, attention (depth, heads, N, N)}.
   *
   * Of the last block only the class token's output is computed, but all of its attention. What the backward pass needs
   * is kept until the next call.
   */
  forward(pixels) {
    const { size, depth, heads, classes } = this.model;
    let x = this.tokens(pixels);
    const count = x.length / size, attention = new Float32Array(depth * heads * count * count);
    this.kept = this.blocks.map((block, n) => {
      const rows = n === depth - 1 ? 1 : count; // that anything depends on
      const normed1 = layerNorm(x, block.norm1, count, size);
      const qkv = layer(normed1.out, block.qkv.weight, block.qkv.bias, count, 3 * size, size);
      const weights = attention.subarray(n * heads * count * count, (n + 1) * heads * count * count);
      const attended = this.attend(qkv, weights, rows, count);
      const middle = added(x.subarray(0, rows * size), layer(attended, block.proj.weight, block.proj.bias, rows, size, size));
      const normed2 = layerNorm(middle, block.norm2, rows, size), hidden = block.fc1.bias.length;
      const before = layer(normed2.out, block.fc1.weight, block.fc1.bias, rows, hidden, size);
      x = added(middle, layer(gelu(before), block.fc2.weight, block.fc2.bias, rows, size, hidden));
      return { rows, count, normed1, qkv, weights, normed2, before, hidden };
    });
    this.normed = layerNorm(x, this.norm, 1, size);
    return { logits: linear(this.normed.out, this.head.weight, this.head.bias, 1, classes, size), attention };
  }

  /** One of a head's query (0), key (1) or value (2) in the columns of qkv (N, 3 D): (N, d). */
  part(qkv, which, head, count) {
    const { size, heads } = this.model, width = size / heads;
    return columns(qkv, count, 3 * size, which * size + head * width, width);
  }

  /** softmax(Q Kᵀ / √d) V of all heads, of the first rows (rows, D); all of the softmax goes into weights (heads, N, N). */
  attend(qkv, weights, rows, count) {
    const { size, heads } = this.model, width = size / heads, out = new Float32Array(rows * size);
    for (let head = 0; head < heads; head++) {
      const [query, key, value] = [0, 1, 2].map((which) => this.part(qkv, which, head, count));
      const own = weights.subarray(head * count * count, (head + 1) * count * count);
      softmaxRows(linear(query, key, null, count, count, width, own), count, count, 1 / Math.sqrt(width));
      setColumns(out, linear(own, transposed(value, count, width), null, rows, width, count), rows, size, head * width, width);
    }
    return out;
  }

  /**
   * Of the last forward pass, each layer's contribution to a logit, Ā = E_h((∇A ∘ A)⁺) (Chefer, Gur and Wolf 2021, eq. 5):
   * (depth, N, N), as `visattn.explain.relevance` has it.
   */
  contributions(target) {
    const { size, depth } = this.model, { count } = this.kept[0];
    const out = new Float32Array(depth * count * count);
    let gradient = this.head.weight.subarray(target * size, (target + 1) * size);
    gradient = layerNormBackward(gradient, this.normed, this.norm, 1, size);
    for (let n = depth - 1; n >= 0; n--) {
      gradient = this.blockBackward(n, gradient, out.subarray(n * count * count, (n + 1) * count * count));
    }
    return out;
  }

  /** The gradient by a block's input (N, D), from that by its output (rows, D); its layer's contribution is added up. */
  blockBackward(n, gradient, contribution) {
    const { size } = this.model, block = this.blocks[n], { rows, count, normed1, normed2, before, hidden } = this.kept[n];
    const ofHidden = geluBackward(layer(gradient, this.turned(block.fc2, size, hidden), null, rows, hidden, size), before);
    const ofNormed2 = layer(ofHidden, this.turned(block.fc1, hidden, size), null, rows, size, hidden);
    const ofMiddle = added(gradient, layerNormBackward(ofNormed2, normed2, block.norm2, rows, size));
    const ofAttended = layer(ofMiddle, this.turned(block.proj, size, size), null, rows, size, size);
    const ofQkv = this.attendBackward(n, ofAttended, contribution);
    if (n === 0) return null; // nothing is asked of what comes before
    const ofNormed1 = layer(ofQkv, this.turned(block.qkv, 3 * size, size), null, count, size, 3 * size);
    const ofInput = layerNormBackward(ofNormed1, normed1, block.norm1, count, size);
    for (let i = 0; i < rows * size; i++) ofInput[i] += ofMiddle[i];
    return ofInput;
  }

  /** The gradient by qkv (N, 3 D), from that by what was attended (rows, D). */
  attendBackward(n, gradient, contribution) {
    const { size, heads } = this.model, width = size / heads, { rows, count, qkv, weights } = this.kept[n];
    const out = new Float32Array(count * 3 * size);
    for (let head = 0; head < heads; head++) {
      const [query, key, value] = [0, 1, 2].map((which) => this.part(qkv, which, head, count));
      const own = weights.subarray(head * count * count, head * count * count + rows * count);
      const ofOut = columns(gradient, rows, size, head * width, width);
      const ofWeights = linear(ofOut, value, null, rows, count, width), ofScores = new Float32Array(rows * count);
      for (let i = 0; i < rows; i++) {
        let along = 0;
        for (let j = i * count; j < (i + 1) * count; j++) {
          const product = own[j] * ofWeights[j];
          along += product;
          contribution[j] += Math.max(product, 0) / heads;
        }
        for (let j = i * count; j < (i + 1) * count; j++) ofScores[j] = own[j] * (ofWeights[j] - along) / Math.sqrt(width);
      }
      const ofQuery = linear(ofScores, transposed(key, count, width), null, rows, width, count);
      const turned = transposed(ofScores, rows, count), asked = transposed(query.subarray(0, rows * width), rows, width);
      const ofKey = linear(turned, asked, null, count, width, rows);
      const ofValue = linear(transposed(own, rows, count), transposed(ofOut, rows, width), null, count, width, rows);
      setColumns(out, ofQuery, rows, 3 * size, head * width, width);
      setColumns(out, ofKey, count, 3 * size, size + head * width, width);
      setColumns(out, ofValue, count, 3 * size, 2 * size + head * width, width);
    }
    return out;
  }

  /** A linear layer's weight (out, in) transposed, for its backward pass. */
  turned(part, outputs, inputs) {
    part.turned ??= transposed(part.weight, outputs, inputs);
    return part.turned;
  }
}
