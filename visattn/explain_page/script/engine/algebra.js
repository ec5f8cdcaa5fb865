// Linear algebra on row-major Float32Arrays. Sums are accumulated in double precision.

/**
 * x (n, k) times the transpose of w (m, k), plus a bias (m) or null: (n, m).
 *
 * Blocks of 4×4 outputs are computed together, so that each number is read once for four products. At the edges rows and
 * columns are repeated, and the same output is written more than once.
 */
function linear(x, w, bias, n, m, k, out = new Float32Array(n * m)) {
  for (let j = 0; j < m; j += 4) {
    const j1 = Math.min(j + 1, m - 1), j2 = Math.min(j + 2, m - 1), j3 = Math.min(j + 3, m - 1);
    const b0 = j * k, b1 = j1 * k, b2 = j2 * k, b3 = j3 * k;
    let c0 = 0, c1 = 0, c2 = 0, c3 = 0;
    if (bias) { c0 = bias[j]; c1 = bias[j1]; c2 = bias[j2]; c3 = bias[j3]; }
    for (let i = 0; i < n; i += 4) {
      const i1 = Math.min(i + 1, n - 1), i2 = Math.min(i + 2, n - 1), i3 = Math.min(i + 3, n - 1);
      const a0 = i * k, a1 = i1 * k, a2 = i2 * k, a3 = i3 * k;
      let s00 = c0, s01 = c1, s02 = c2, s03 = c3, s10 = c0, s11 = c1, s12 = c2, s13 = c3;
      let s20 = c0, s21 = c1, s22 = c2, s23 = c3, s30 = c0, s31 = c1, s32 = c2, s33 = c3;
      for (let t = 0; t < k; t++) {
        const x0 = x[a0 + t], x1 = x[a1 + t], x2 = x[a2 + t], x3 = x[a3 + t];
        const w0 = w[b0 + t], w1 = w[b1 + t], w2 = w[b2 + t], w3 = w[b3 + t];
        s00 += x0 * w0; s01 += x0 * w1; s02 += x0 * w2; s03 += x0 * w3;
        s10 += x1 * w0; s11 += x1 * w1; s12 += x1 * w2; s13 += x1 * w3;
        s20 += x2 * w0; s21 += x2 * w1; s22 += x2 * w2; s23 += x2 * w3;
        s30 += x3 * w0; s31 += x3 * w1; s32 += x3 * w2; s33 += x3 * w3;
      }
      const o0 = i * m, o1 = i1 * m, o2 = i2 * m, o3 = i3 * m;
      out[o3 + j3] = s33; out[o3 + j2] = s32; out[o3 + j1] = s31; out[o3 + j] = s30;
      out[o2 + j3] = s23; out[o2 + j2] = s22; out[o2 + j1] = s21; out[o2 + j] = s20;
      out[o1 + j3] = s13; out[o1 + j2] = s12; out[o1 + j1] = s11; out[o1 + j] = s10;
      out[o0 + j3] = s03; out[o0 + j2] = s02; out[o0 + j1] = s01; out[o0 + j] = s00;
    }
  }
  return out;
}

/** x (n, m) to (m, n). */
function transposed(x, n, m) {
  const out = new Float32Array(n * m);
  for (let i = 0; i < n; i++) for (let j = 0; j < m; j++) out[j * n + i] = x[i * m + j];
  return out;
}

/** Of x (n, width), columns from `first` on: (n, count). */
function columns(x, n, width, first, count) {
  const out = new Float32Array(n * count);
  for (let i = 0; i < n; i++) out.set(x.subarray(i * width + first, i * width + first + count), i * count);
  return out;
}

/** Write `part` (n, count) into the columns of x (n, width) from `first` on. */
function setColumns(x, part, n, width, first, count) {
  for (let i = 0; i < n; i++) x.set(part.subarray(i * count, (i + 1) * count), i * width + first);
}

function added(x, y) {
  return x.map((value, n) => value + y[n]);
}

/** Layer norm of rows x (n, size): {out, unit, scale}, unit what the weights multiply, scale 1 / σ of each row. */
function layerNorm(x, { weight, bias, eps }, n, size) {
  const out = new Float32Array(n * size), unit = new Float32Array(n * size), scale = new Float32Array(n);
  for (let i = 0; i < n; i++) {
    const row = i * size;
    let mean = 0, variance = 0;
    for (let j = 0; j < size; j++) mean += x[row + j];
    mean /= size;
    for (let j = 0; j < size; j++) variance += (x[row + j] - mean) ** 2;
    scale[i] = 1 / Math.sqrt(variance / size + eps);
    for (let j = 0; j < size; j++) {
      unit[row + j] = (x[row + j] - mean) * scale[i];
      out[row + j] = unit[row + j] * weight[j] + bias[j];
    }
  }
  return { out, unit, scale };
}

/** The gradient by x, from that by `layerNorm(x).out` (n, size). */
function layerNormBackward(gradient, { unit, scale }, { weight }, n, size) {
  const out = new Float32Array(n * size);
  for (let i = 0; i < n; i++) {
    const row = i * size;
    let mean = 0, along = 0;
    for (let j = 0; j < size; j++) {
      const g = gradient[row + j] * weight[j];
      mean += g;
      along += g * unit[row + j];
    }
    mean /= size;
    along /= size;
    for (let j = 0; j < size; j++) out[row + j] = scale[i] * (gradient[row + j] * weight[j] - mean - unit[row + j] * along);
  }
  return out;
}

/** Softmax of each row of x (n, m) times `factor`, in place. */
function softmaxRows(x, n, m, factor = 1) {
  for (let i = 0; i < n; i++) {
    const row = x.subarray(i * m, (i + 1) * m);
    let largest = -Infinity, sum = 0;
    for (let j = 0; j < m; j++) largest = Math.max(largest, row[j]);
    for (let j = 0; j < m; j++) sum += row[j] = Math.exp(factor * (row[j] - largest));
    for (let j = 0; j < m; j++) row[j] /= sum;
  }
  return x;
}

/** Φ, the standard normal distribution function, to 1e-7 (Abramowitz and Stegun 1964, 7.1.26). */
function normalShare(x) {
  const z = Math.abs(x) * Math.SQRT1_2, t = 1 / (1 + 0.3275911 * z);
  const series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  const tail = 0.5 * series * Math.exp(-z * z);
  return x < 0 ? tail : 1 - tail;
}

/** GELU, x Φ(x), of each number. */
function gelu(x) {
  return x.map((value) => value * normalShare(value));
}

/** Its derivative at x, Φ(x) + x φ(x), times the gradient by its output. */
function geluBackward(gradient, x) {
  return gradient.map((g, n) => g * (normalShare(x[n]) + x[n] * Math.exp(-0.5 * x[n] * x[n]) / Math.sqrt(2 * Math.PI)));
}
