// Linear layers in WebAssembly, whose instructions work on four numbers at once: several times as fast as JavaScript.
// The one function that this takes is assembled here, from its instructions to the bytes of a module.

const ROWS_AT_ONCE = 4, COLUMNS_AT_ONCE = 8, PAGE_BYTES = 65536;

/** Bytes of a whole number in LEB128, as modules have them. */
function leb(value) {
  const bytes = [];
  for (;;) {
    const low = value & 127, rest = value >> 7;
    if ((rest === 0 && !(low & 64)) || (rest === -1 && low & 64)) return [...bytes, low];
    bytes.push(low | 128);
    value = rest;
  }
}

/**
 * The bytes of a module with one function, product(x, w, out, n, m, k), all of it in an imported memory.
 *
 * x (n, k) and out (n, m) are row by row, w is (m / 8, k, 8); n is a multiple of 4, m of 8. For each block of 4×8 outputs
 * there are eight vectors of sums, to which the products of 4 numbers of x and 8 of w are added for each of the k.
 */
function productModule() {
  const [x, w, out, n, m, k, row, column, t, weight, to, ...from] = Array(15).keys(); // locals: six arguments, nine numbers
  const sum = (r, half) => 15 + 2 * r + half, left = 23, right = 24, splat = 25; // and eleven vectors
  const get = (local) => [0x20, local], set = (local) => [0x21, local], number = (value) => [0x41, ...leb(value)];
  const plus = [0x6a], times = [0x6c], less = [0x49], end = [0x0b];
  const load = (offset) => [0xfd, 0x00, 2, ...leb(offset)], loadSplat = [0xfd, 0x09, 2, 0], store = (offset) => [0xfd, 0x0b, 2, ...leb(offset)];
  const addVectors = [0xfd, 0xe4, 0x01], multiplyVectors = [0xfd, 0xe6, 0x01], zeros = [0xfd, 0x0c, ...Array(16).fill(0)];
  const bytes = (local) => [...get(local), ...number(4), ...times]; // of so many numbers
  const raise = (local, ...by) => [...get(local), ...by.flat(), ...plus, ...set(local)];
  const loop = (counter, limit, stride, ...body) => [
    ...number(0), ...set(counter), 0x03, 0x40, ...body.flat(), ...raise(counter, number(stride)), ...get(counter), ...get(limit), ...less, 0x0d, 0, ...end,
  ];
  const rows = [0, 1, 2, 3], halves = [0, 1];
  const rowOf = (start, r, width) => [...get(start), ...bytes(width), ...number(r), ...times, ...plus];
  const inner = [
    [...get(weight), ...load(0), ...set(left), ...get(weight), ...load(16), ...set(right)],
    rows.map((r) => [
      ...get(from[r]), ...loadSplat, ...set(splat), ...raise(from[r], number(4)),
      ...halves.flatMap((half) => [...get(sum(r, half)), ...get(splat), ...get(half ? right : left), ...multiplyVectors, ...addVectors, ...set(sum(r, half))]),
    ]).flat(),
    raise(weight, number(32)),
  ];
  const block = [
    rows.flatMap((r) => halves.flatMap((half) => [...zeros, ...set(sum(r, half))])),
    [...get(x), ...get(row), ...bytes(k), ...times, ...plus, ...set(from[0])],
    [1, 2, 3].flatMap((r) => [...rowOf(from[0], r, k), ...set(from[r])]),
    [...get(w), ...get(column), ...bytes(k), ...times, ...plus, ...set(weight)],
    loop(t, k, 1, inner.flat()),
    [...get(out), ...get(row), ...bytes(m), ...times, ...plus, ...bytes(column), ...plus, ...set(to)],
    rows.flatMap((r) => halves.flatMap((half) => [...rowOf(to, r, m), ...get(sum(r, half)), ...store(16 * half)])),
  ];
  const code = [2, 9, 0x7f, 11, 0x7b, ...loop(column, m, COLUMNS_AT_ONCE, loop(row, n, ROWS_AT_ONCE, block.flat())), ...end];
  const section = (id, ...content) => [id, ...unsigned(content.flat().length), ...content.flat()];
  const text = (name) => [name.length, ...new TextEncoder().encode(name)];
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, 6, ...Array(6).fill(0x7f), 0]),
    ...section(2, [1, ...text("page"), ...text("memory"), 2, 0, 1]),
    ...section(3, [1, 0]),
    ...section(7, [1, ...text("product"), 0, 0]),
    ...section(10, [1, ...unsigned(code.length), ...code]),
  ]);
}

/** As `leb`, for lengths, which have no sign. */
function unsigned(value) {
  return value < 128 ? [value] : [(value & 127) | 128, ...unsigned(value >> 7)];
}

/** The weights of linear layers in a memory, and their products; null where WebAssembly or its vectors are missing. */
function vectorUnit() {
  let memory, product;
  try {
    memory = new WebAssembly.Memory({ initial: 1 });
    product = new WebAssembly.Instance(new WebAssembly.Module(productModule()), { page: { memory } }).exports.product;
  } catch {
    return null;
  }
  let used = 0; // bytes with weights; behind them is room for one product
  const places = new WeakMap(), multiple = (value, of) => Math.ceil(value / of) * of;
  const reserve = (bytes) => {
    const missing = used + bytes - memory.buffer.byteLength;
    if (missing > 0) memory.grow(Math.ceil(missing / PAGE_BYTES));
  };
  /** Weights (m, k) put as the product takes them; where they are. */
  const placed = (w, m, k) => {
    if (places.has(w)) return places.get(w);
    const wide = multiple(m, COLUMNS_AT_ONCE), start = used;
    reserve(4 * wide * k);
    const to = new Float32Array(memory.buffer, start, wide * k);
    for (let j = 0; j < m; j++) {
      const block = (j - (j % COLUMNS_AT_ONCE)) * k + (j % COLUMNS_AT_ONCE);
      for (let t = 0; t < k; t++) to[block + COLUMNS_AT_ONCE * t] = w[j * k + t];
    }
    used += 4 * wide * k;
    places.set(w, start);
    return start;
  };
  /** `linear` for weights that stay. */
  return (x, w, bias, n, m, k) => {
    const weights = placed(w, m, k), high = multiple(n, ROWS_AT_ONCE), wide = multiple(m, COLUMNS_AT_ONCE), out = new Float32Array(n * m);
    reserve(4 * high * (k + wide));
    const products = used + 4 * high * k;
    new Float32Array(memory.buffer, used, n * k).set(x.subarray(0, n * k));
    product(used, weights, products, high, wide, k);
    const from = new Float32Array(memory.buffer, products, high * wide);
    for (let i = 0; i < n; i++) for (let j = 0; j < m; j++) out[i * m + j] = from[i * wide + j] + (bias ? bias[j] : 0);
    return out;
  };
}

const vectors = vectorUnit();

/** `linear` with weights that stay, in WebAssembly where it can be. */
function layer(x, w, bias, n, m, k) {
  return vectors ? vectors(x, w, bias, n, m, k) : linear(x, w, bias, n, m, k);
}
