// Reading the weights: a safetensors file in half precision.

/** The numbers of half-precision bits (Uint16Array), as float32. */
function fromHalf(bits) {
  const value = new Float32Array(65536); // of every pattern of bits
  for (let n = 0; n < 32768; n++) {
    const exponent = n >> 10, mantissa = n & 1023;
    value[n] = exponent === 0 ? mantissa * 2 ** -24 : exponent === 31 ? (mantissa ? NaN : Infinity) : (1 + mantissa / 1024) * 2 ** (exponent - 15);
    value[n + 32768] = -value[n];
  }
  const out = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) out[i] = value[bits[i]];
  return out;
}

/** The tensors of a safetensors file (ArrayBuffer): by name {shape, values}; whole numbers are left out. */
function readTensors(file) {
  const length = Number(new DataView(file).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(file, 8, length)));
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: [start, stop] = [] }] of Object.entries(header)) {
    if (dtype === "F16") tensors[name] = { shape, values: fromHalf(new Uint16Array(file.slice(8 + length + start, 8 + length + stop))) };
  }
  return tensors;
}
