// Drawing a map over a picture with the colours of `visattn.overlay.heatmap`.

/** Where a map's own scale ends: below a few cells far above all others (`robust_limits` in heatmap.py). */
function robustHigh(weights) {
  const sorted = Float64Array.from([0, ...weights]).sort(), last = sorted.length - 1;
  const rest = last > 1 ? sorted[last - Math.max(1, Math.round(0.005 * sorted.length))] : 0;
  return rest > 0 && 4 * rest < sorted[last] ? rest : sorted[last];
}

/** For each of n pixels along an axis of `cells` cells: the two between whose centres it lies, and the second's share. */
function between(n, cells, smooth) {
  const first = new Int32Array(n), second = new Int32Array(n), share = new Float32Array(n);
  for (let i = 0; i < n; i++) {
    const place = ((i + 0.5) * cells) / n, at = smooth ? Math.min(Math.max(place - 0.5, 0), cells - 1) : Math.floor(place);
    first[i] = Math.floor(at);
    second[i] = Math.min(first[i] + 1, cells - 1);
    share[i] = at - first[i];
  }
  return { first, second, share };
}

class Painter {
  constructor({ table, luma, saturation, light }) {
    Object.assign(this, { table: Float32Array.from(table.flat()), luma, saturation, light });
  }

  /** RGBA pixels (Uint8ClampedArray) dimmed and partly desaturated, (…, 3): what every map is laid over. */
  base(pixels) {
    const out = new Float32Array((pixels.length / 4) * 3), { luma, saturation, light } = this;
    for (let i = 0, at = 0; i < pixels.length; i += 4, at += 3) {
      const grey = luma[0] * pixels[i] + luma[1] * pixels[i + 1] + luma[2] * pixels[i + 2];
      for (let k = 0; k < 3; k++) out[at + k] = light * (saturation * pixels[i + k] + (1 - saturation) * grey);
    }
    return out;
  }

  /** A map (rows, columns) over the base of a picture: ImageData. */
  overlay(base, height, width, weights, [rows, columns], high, opacity, smooth) {
    const out = new ImageData(width, height), to = out.data, row = new Float32Array(columns);
    const table = this.table.map((value) => value * opacity), down = between(height, rows, smooth), across = between(width, columns, smooth);
    const { first, second, share } = across, scale = high > 0 ? 255 / high : 0;
    for (let y = 0, i = 0, at = 0; y < height; y++) {
      const above = down.first[y] * columns, below = down.second[y] * columns, t = down.share[y];
      for (let c = 0; c < columns; c++) row[c] = weights[above + c] * (1 - t) + weights[below + c] * t;
      for (let x = 0; x < width; x++, i += 4, at += 3) {
        const weight = row[first[x]] + (row[second[x]] - row[first[x]]) * share[x];
        const level = Math.min(Math.max(weight * scale, 0), 255), low = 4 * Math.min(Math.floor(level), 254), q = level - low / 4, p = 1 - q;
        const rest = 1 - table[low + 3] * p - table[low + 7] * q;
        for (let k = 0; k < 3; k++) to[i + k] = base[at + k] * rest + table[low + k] * p + table[low + 4 + k] * q;
        to[i + 3] = 255;
      }
    }
    return out;
  }

  /** A small map without a picture, over a middle grey: one pixel for each cell. */
  small(canvas, weights, [rows, columns], high) {
    const grey = new Float32Array(rows * columns * 3).fill(150 * this.light);
    Object.assign(canvas, { width: columns, height: rows });
    canvas.getContext("2d").putImageData(this.overlay(grey, rows, columns, weights, [rows, columns], high, 1, false), 0, 0);
  }

  /** The scale from low to high. */
  strip(canvas, opacity) {
    const grey = new Float32Array(256 * 3).fill(150 * this.light), ramp = Float32Array.from({ length: 256 }, (_, n) => n);
    canvas.getContext("2d").putImageData(this.overlay(grey, 1, 256, ramp, [1, 256], 255, opacity, false), 0, 0);
  }
}
