"use strict";

// The page's data, and maps as arrays of numbers and pixels. The other parts follow: pane, views, links, page.

const data = JSON.parse(document.getElementById("data").textContent);
const { table, luma, saturation, light, hatch } = data.palette;

const LARGE = 640; // pixels of the longer side that a small picture is enlarged to, by a whole factor
const TINY = 150; // a picture of no more is shown as whole, square pixels
const TILE = 360; // pixels of the longer side of a picture among others

// ------------------------------------------------------------------------------------------------------------- numbers

const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
const three = (x) => (x === 0 ? "0" : Math.abs(x) < 1e-4 ? x.toExponential(1) : String(Number(x.toPrecision(3))));
const percent = (p) => (p > 0.995 && p < 1 ? "> 99%" : p > 0 && p < 0.005 ? "< 1%" : `${Math.round(100 * p)}%`);
const minus = (x, digits = 2) => x.toFixed(digits).replace("-", "−");
const about = (x) => (x < 10 ? x.toFixed(1) : String(Math.round(x)));
const plural = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;
const largestOf = (numbers) => numbers.reduce((a, b) => Math.max(a, b), 0);

/** The bytes of a stack of maps, or of queries. */
function bytesOf(stack) {
  stack.bytes ??= Uint8Array.from(atob(stack.cells), (sign) => sign.charCodeAt(0));
  return stack.bytes;
}

/** A map's weights from its bytes; map number n of a stack. */
function weightsOf(stack, n) {
  const cells = stack.shape[3] * stack.shape[4], low = stack.low[n], step = (stack.high[n] - low) / 255;
  return Float32Array.from(bytesOf(stack).subarray(n * cells, (n + 1) * cells), (byte) => low + byte * step);
}

/** A layer's or head's number, from 0 as the command line counts them. */
const counted = (number, count) => `${number} of 0–${count - 1}`;

/** The map of a word, layer and head; head 0 is the mean of them all. */
function mapOf(stack, word, layer, head) {
  const [, layers, heads] = stack.shape, first = (word * layers + clamp(layer, 0, layers - 1)) * heads;
  if (head > 0) return weightsOf(stack, first + clamp(head, 1, heads) - 1);
  const sum = weightsOf(stack, first);
  for (let h = 1; h < heads; h++) weightsOf(stack, first + h).forEach((weight, i) => { sum[i] += weight; });
  return sum.map((weight) => weight / heads);
}

/** Where a place attends in one of the layers that queries has. */
function rowOf(queries, layer, cell) {
  const cells = queries.grid[0] * queries.grid[1], n = layer * cells + cell, step = queries.high[n] / 255;
  return Float32Array.from(bytesOf(queries).subarray(n * cells, (n + 1) * cells), (byte) => byte * step);
}

/** The cell of queries at a place, (y, x) in shares of the picture's sides; or a sentence that says why there is none. */
function cellAt(queries, point) {
  const inside = (low, high, at) => low <= at && at < high;
  const { crop, rows, columns } = queries, sides = [rows, columns];
  if (point.some((at, k) => !inside(crop[k], crop[k + 2], at))) return "That place is outside the crop: the model did not see it.";
  if (point.some((at, k) => !inside(sides[k][0], sides[k].at(-1), at))) return "That place is in no patch: what the patches do not cover reaches no layer.";
  const [row, column] = point.map((at, k) => sides[k].findLastIndex((edge) => edge <= at));
  return row * queries.grid[1] + column;
}

/** A cell of queries as (top, left, bottom, right), in shares of the picture's sides. */
function boxOf({ rows, columns, grid }, cell) {
  const row = Math.floor(cell / grid[1]), column = cell % grid[1];
  return [rows[row], columns[column], rows[row + 1], columns[column + 1]].map((side) => clamp(side, 0, 1));
}

/** Where a map's own scale ends: below a few cells far above all others (`robust_limits` in heatmap.py). */
function robustHigh(weights) {
  const sorted = Float64Array.from([0, ...weights]).sort(), last = sorted.length - 1;
  const rest = last > 1 ? sorted[last - Math.max(1, Math.round(0.005 * sorted.length))] : 0;
  return rest > 0 && 4 * rest < sorted[last] ? rest : sorted[last];
}

// -------------------------------------------------------------------------------------------------------------- pixels

/** Along one axis, the first and the last input pixel that reaches any cell: `Geometry.seen`. */
function seenOf(geometry, axis) {
  const size = geometry[1][axis], [low, high] = geometry.length > 5 ? [geometry[6][axis], geometry[7][axis]] : [0, size];
  return [Math.max(low, 0), Math.min(high, size)];
}

/** The geometry of the picture at another size: `Geometry.resized`. */
function resized([original, input, scale, ...rest], size) {
  return [size, input, scale.map((s, axis) => (s * original[axis]) / size[axis]), ...rest];
}

/**
 * For each of n pixels along one axis: the two cells between whose middles it lies, the second one's share, and whether
 * the model saw it. As `visattn.images.Geometry.to_original_map` has it.
 */
function reader(n, axis, geometry, cells, smooth) {
  const [, input, scale, offset, shift, stride] = geometry.map((pair) => pair[axis]), [low, high] = seenOf(geometry, axis);
  const first = new Int32Array(n), second = new Int32Array(n), share = new Float32Array(n), seen = new Uint8Array(n);
  for (let i = 0; i < n; i++) {
    const centre = (i + 0.5) * scale - offset, position = (centre - shift) / (stride ?? input / cells);
    const place = smooth ? clamp(position - 0.5, 0, cells - 1) : clamp(Math.floor(position), 0, cells - 1);
    first[i] = Math.floor(place);
    second[i] = Math.min(first[i] + 1, cells - 1);
    share[i] = place - first[i];
    seen[i] = centre >= low && centre <= high;
  }
  return { first, second, share, seen };
}

/** The colour of one pixel that the model did not see, as `visattn.overlay.heatmap.hatched` has it. */
function hatched(grey, x, y, height, width) {
  const spacing = Math.max(4, Math.round(Math.min(Math.max(height, width), 3 * Math.min(height, width)) / 32));
  const distance = Math.abs((x + y) % spacing - spacing / 2) / Math.SQRT2;
  const line = clamp(spacing / 18 + 0.5 - distance, 0, 1);
  return (0.3 * grey + 0.7 * hatch[0]) * (1 - line) + hatch[1] * line;
}

/** Lay a map over a picture's pixels, as `visattn.overlay.heatmap.heatmap` does. */
function overlay(picture, { weights, grid, geometry, high }, opacity, smooth) {
  const { height, width, grey, base } = picture, out = new ImageData(width, height), to = out.data;
  const fitted = resized(geometry, [height, width]);
  const rows = reader(height, 0, fitted, grid[0], smooth), columns = reader(width, 1, fitted, grid[1], smooth);
  const colours = Float32Array.from(table.flat(), (value) => value * opacity);
  const row = new Float32Array(grid[1]);
  for (let y = 0, i = 0; y < height; y++) {
    const above = rows.first[y] * grid[1], below = rows.second[y] * grid[1], t = rows.share[y];
    for (let c = 0; c < grid[1]; c++) row[c] = weights[above + c] * (1 - t) + weights[below + c] * t;
    for (let x = 0; x < width; x++, i++) {
      if (rows.seen[y] && columns.seen[x]) {
        const s = columns.share[x], weight = row[columns.first[x]] * (1 - s) + row[columns.second[x]] * s;
        const level = high > 0 ? 255 * clamp(weight / high, 0, 1) : 0, at = 4 * Math.min(Math.floor(level), 254), q = level - at / 4;
        const left = 1 - colours[at + 3] * (1 - q) - colours[at + 7] * q;
        for (let k = 0; k < 3; k++) to[4 * i + k] = base[3 * i + k] * left + colours[at + k] * (1 - q) + colours[at + 4 + k] * q;
      } else {
        to[4 * i] = to[4 * i + 1] = to[4 * i + 2] = hatched(grey[i], x, y, height, width);
      }
      to[4 * i + 3] = 255;
    }
  }
  return out;
}

/** A scene's picture, large and, once it is asked for, as a tile. */
async function load(scene) {
  const image = new Image();
  image.src = scene.picture;
  await image.decode();
  const longest = Math.max(image.naturalWidth, image.naturalHeight), whole = (side) => Math.max(1, Math.round(side / longest));
  const at = (scale) => based(image, ...[image.naturalHeight, image.naturalWidth].map((side) => Math.max(1, Math.round(side * scale))), longest > TINY);
  let tile = null;
  return { large: at(whole(LARGE)), get tile() { return (tile ??= at(longest > TINY ? Math.min(1, TILE / longest) : whole(TILE))); } };
}

/** A picture at some size with what every overlay begins with: its grey, and itself dimmed and partly desaturated. */
function based(image, height, width, smoothing) {
  const context = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d");
  context.imageSmoothingEnabled = smoothing;
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, width, height);
  const pixels = context.getImageData(0, 0, width, height), from = pixels.data;
  const grey = new Float32Array(width * height), base = new Float32Array(3 * width * height);
  for (let i = 0; i < grey.length; i++) {
    grey[i] = luma[0] * from[4 * i] + luma[1] * from[4 * i + 1] + luma[2] * from[4 * i + 2];
    for (let k = 0; k < 3; k++) base[3 * i + k] = light * (saturation * from[4 * i + k] + (1 - saturation) * grey[i]);
  }
  return { width, height, pixels, grey, base };
}

/** Show a map over a picture in a canvas, or, where it is null, the picture alone. */
function paintMap(canvas, picture, map, { opacity, smooth }) {
  if (canvas.width !== picture.width || canvas.height !== picture.height) Object.assign(canvas, { width: picture.width, height: picture.height });
  const pixels = map === null ? picture.pixels : overlay(picture, map, opacity, smooth);
  canvas.getContext("2d", { willReadFrequently: true }).putImageData(pixels, 0, 0);
}

/** The scale from low to high over a middle grey. */
function paintStrip(canvas, { opacity }) {
  const context = canvas.getContext("2d"), out = new ImageData(256, 1);
  table.forEach((colour, i) => {
    for (let k = 0; k < 3; k++) out.data[4 * i + k] = light * 150 * (1 - colour[3] * opacity) + colour[k] * opacity;
    out.data[4 * i + 3] = 255;
  });
  context.putImageData(out, 0, 0);
}
