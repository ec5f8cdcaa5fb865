// Drawing a map over a picture with the colours of `visattn.overlay.heatmap`.

/** Where a map's own scale ends: below a few cells far above all others (`robust_limits` in heatmap.py). */
function robustHigh(weights) {
  const sorted = Float64Array.from([0, ...weights]).sort(), last = sorted.length - 1;
  const rest = last > 1 ? sorted[last - Math.max(1, Math.round(0.005 * sorted.length))] : 0;
  return rest > 0 && 4 * rest < sorted[last] ? rest : sorted[last];
}

/** For each of n pixels along an axis of `cells` cells: the two between whose centres it lies, and the second's share. */
function between(n, cells, smooth) {
  return Array.from({ length: n }, (_, i) => {
    const place = ((i + 0.5) * cells) / n;
    const at = smooth ? Math.min(Math.max(place - 0.5, 0), cells - 1) : Math.floor(place);
    return [Math.floor(at), Math.min(Math.floor(at) + 1, cells - 1), at - Math.floor(at)];
  });
}

/** Level 0 to 255 of a weight on the scale from 0 to high. */
function levelOf(weight, high) {
  return high > 0 ? Math.round(255 * Math.min(Math.max(weight / high, 0), 1)) : 0;
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
    const out = new ImageData(width, height), to = out.data, { table } = this, row = new Float32Array(columns);
    const down = between(height, rows, smooth), across = between(width, columns, smooth);
    for (let y = 0, i = 0; y < height; y++) {
      const [above, below, t] = down[y];
      for (let c = 0; c < columns; c++) row[c] = weights[above * columns + c] * (1 - t) + weights[below * columns + c] * t;
      for (let x = 0; x < width; x++, i++) {
        const [left, right, s] = across[x], level = 4 * levelOf(row[left] * (1 - s) + row[right] * s, high);
        const rest = 1 - opacity * table[level + 3];
        for (let k = 0; k < 3; k++) to[4 * i + k] = base[3 * i + k] * rest + opacity * table[level + k];
        to[4 * i + 3] = 255;
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
