// The picture: read from a file or made on a canvas, shown as what the model sees of it, and its input pixels.

const TILE = 8192; // pixels; canvases cannot have more than some multiple of it on a side
const VIEW = 512; // of the longer side of what is shown
const TINY = 150; // a picture of no more pixels is shown as squares

/** A sentence for the reader. */
class Refusal extends Error {}

/** The width and height of a picture in a blob or data URL, decoded: an ImageBitmap; a `Refusal` where it cannot be. */
async function decoded(source, name) {
  const image = new Image(), url = typeof source === "string" ? source : URL.createObjectURL(source);
  try {
    await new Promise((resolve, reject) => { Object.assign(image, { onload: resolve, onerror: reject, src: url }); });
    const { naturalWidth: width, naturalHeight: height } = image; // known before any pixel is decoded
    const pixels = (width * height) / 1e6, most = data.limits.pixels / 1e6;
    if (pixels > most) throw new Refusal(`${name} has ${Math.round(pixels).toLocaleString("en")} million pixels; make it smaller, to ${most} million at most.`);
    if (Math.max(width, height) > data.limits.ratio * Math.min(width, height)) {
      throw new Refusal(`${name} is ${width}×${height} pixels: one side is more than ${data.limits.ratio} times the other; crop it first.`);
    }
    return await createImageBitmap(image);
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw new Refusal(`${name} is not a picture that this browser can read; choose a JPEG, PNG or WebP file.`);
  } finally {
    if (typeof source !== "string") URL.revokeObjectURL(url);
  }
}

/** An RGBA reader of a bitmap's or canvas's rows, transparent pixels on white, for `resized`. */
function rowReader(source) {
  const { width } = source;
  return (top, count) => {
    const rows = new Uint8ClampedArray(width * count * 4);
    for (let left = 0; left < width; left += TILE) {
      const wide = Math.min(TILE, width - left), context = new OffscreenCanvas(wide, count).getContext("2d", { willReadFrequently: true });
      context.fillStyle = "#fff";
      context.fillRect(0, 0, wide, count);
      context.drawImage(source, left, top, wide, count, 0, 0, wide, count);
      const tile = context.getImageData(0, 0, wide, count).data;
      for (let y = 0; y < count; y++) rows.set(tile.subarray(y * wide * 4, (y + 1) * wide * 4), (y * width + left) * 4);
    }
    return rows;
  };
}

/** What is looked at: `view`, a canvas of the part that the model sees; `pixels`, its input; `erased`, of each input pixel. */
class Picture {
  constructor(bitmap, { name, credit = "" }) {
    const [h, w] = model.imageSize, factor = Math.max(1, Math.round(VIEW / Math.max(h, w)));
    Object.assign(this, { name, credit, factor, erased: new Uint8Array(h * w), changed: false });
    this.view = Object.assign(document.createElement("canvas"), { width: w * factor, height: h * factor });
    this.context = this.view.getContext("2d", { willReadFrequently: true });
    this.context.fillStyle = `rgb(${model.margin})`;
    this.context.fillRect(0, 0, w * factor, h * factor);
    if (bitmap) this.show(bitmap);
    else this.blank();
  }

  show(bitmap) {
    const size = [bitmap.height, bitmap.width], placed = placement(size, model.imageSize, model.fit);
    if (!placed) throw new Refusal(`${this.name} is too long for the model, whose input has ${model.imageSize[1]}×${model.imageSize[0]} pixels; crop it first.`);
    const { box: [top, left, bottom, right], size: [high, wide], at } = placed;
    this.pixels = fitted(rowReader(bitmap), size, model);
    this.context.imageSmoothingEnabled = Math.max(bottom - top, right - left) > TINY;
    this.context.imageSmoothingQuality = "high";
    const to = [at[1], at[0], wide, high].map((value) => value * this.factor);
    this.context.fillStyle = "#fff"; // behind transparent pixels
    this.context.fillRect(...to);
    this.context.drawImage(bitmap, left, top, right - left, bottom - top, ...to);
    this.erase(() => false);
  }

  /** White paper to draw on. */
  blank() {
    this.context.fillStyle = "#fff";
    this.context.fillRect(0, 0, this.view.width, this.view.height);
    this.refit();
  }

  /** Take the input from what is shown, after it was drawn on. */
  refit() {
    const [h, w] = model.imageSize, { height, width } = this.view;
    this.pixels = resized(rowReader(this.view), [height, width], [0, 0, height, width], [h, w]);
    this.base = null;
  }

  /** Draw a line between two points of the input, in input pixels. */
  draw([x0, y0], [x1, y1], radius, colour) {
    const { context, factor } = this;
    Object.assign(context, { strokeStyle: colour, lineWidth: 2 * radius * factor, lineCap: "round" });
    context.beginPath();
    context.moveTo(x0 * factor, y0 * factor);
    context.lineTo(x1 * factor + 0.01, y1 * factor);
    context.stroke();
    this.changed = true;
    this.refit();
  }

  /** Set whether input pixels are erased, from (x, y, before). */
  erase(rule) {
    const [, w] = model.imageSize;
    this.erased = this.erased.map((before, n) => Number(rule(n % w, Math.floor(n / w), before)));
    this.base = null;
  }

  get clean() {
    return !this.changed && !this.erased.includes(1);
  }

  /** The model's input (h, w, 3), erased pixels in the colour that is nearest to 0 for the model. */
  input() {
    return this.pixels.map((value, n) => (this.erased[Math.floor(n / 3)] ? model.neutral[n % 3] : value));
  }

  /** The pixels shown, RGBA: the picture, or the model's input enlarged; what is erased looks erased in both. */
  shown(sharp) {
    const { width, height } = this.view, [, w] = model.imageSize, input = this.input();
    const image = this.context.getImageData(0, 0, width, height), to = image.data;
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i += 4) {
        const from = Math.floor(y / this.factor) * w + Math.floor(x / this.factor);
        if (sharp || this.erased[from]) for (let k = 0; k < 3; k++) to[i + k] = input[3 * from + k];
      }
    }
    return image;
  }
}
