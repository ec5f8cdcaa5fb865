"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const { table, luma, saturation, light, hatch } = data.palette;
const byId = (id) => document.getElementById(id);
const still = matchMedia("(prefers-reduced-motion: reduce)");

const LARGE = 640; // pixels of the longer side that a small picture is enlarged to, by a whole factor
const TINY = 150; // a picture of no more is shown as whole, square pixels
const PACE = 900; // milliseconds for each word

const state = { scene: 0, map: null, layer: Infinity, head: 0, opacity: data.palette.opacity, scale: "own", smooth: true };
let panes = [], active = 0, playing = null;

// ------------------------------------------------------------------------------------------------------------- numbers

const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
const three = (x) => (x === 0 ? "0" : Math.abs(x) < 1e-4 ? x.toExponential(1) : String(Number(x.toPrecision(3))));
const percent = (p) => (p > 0.995 && p < 1 ? "> 99 %" : p > 0 && p < 0.005 ? "< 1 %" : `${Math.round(100 * p)} %`);
const minus = (x, digits = 2) => x.toFixed(digits).replace("-", "−");
const about = (x) => (x < 10 ? x.toFixed(1) : String(Math.round(x)));
const plural = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

/** A map's weights from its bytes; map number n of a stack. */
function weightsOf(stack, n) {
  stack.bytes ??= Uint8Array.from(atob(stack.cells), (sign) => sign.charCodeAt(0));
  const cells = stack.shape[3] * stack.shape[4], low = stack.low[n], step = (stack.high[n] - low) / 255;
  return Float32Array.from(stack.bytes.subarray(n * cells, (n + 1) * cells), (byte) => low + byte * step);
}

/** The map of a word, layer and head; head 0 is the mean of them all. */
function mapOf(stack, word, layer, head) {
  const [, layers, heads] = stack.shape, first = (word * layers + clamp(layer, 0, layers - 1)) * heads;
  if (head > 0) return weightsOf(stack, first + clamp(head, 1, heads) - 1);
  const sum = weightsOf(stack, first);
  for (let h = 1; h < heads; h++) weightsOf(stack, first + h).forEach((weight, i) => { sum[i] += weight; });
  return sum.map((weight) => weight / heads);
}

/** Along one axis, the first and the last input pixel that reaches any cell: `Geometry.seen`. */
function seenOf(geometry, axis) {
  const size = geometry[1][axis], [low, high] = geometry.length > 5 ? [geometry[6][axis], geometry[7][axis]] : [0, size];
  return [Math.max(low, 0), Math.min(high, size)];
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
function overlay(picture, weights, grid, geometry, high, opacity, smooth) {
  const { height, width, pixels, grey, base } = picture, out = new ImageData(width, height), to = out.data;
  const rows = reader(height, 0, geometry, grid[0], smooth), columns = reader(width, 1, geometry, grid[1], smooth);
  const colours = Float32Array.from(table.flat(), (value) => value * opacity);
  const row = new Float32Array(grid[1]);
  for (let y = 0, i = 0; y < height; y++) {
    const above = rows.first[y] * grid[1], below = rows.second[y] * grid[1], t = rows.share[y];
    for (let c = 0; c < grid[1]; c++) row[c] = weights[above + c] * (1 - t) + weights[below + c] * t;
    for (let x = 0; x < width; x++, i++) {
      if (rows.seen[y] && columns.seen[x]) {
        const s = columns.share[x], weight = row[columns.first[x]] * (1 - s) + row[columns.second[x]] * s;
        const level = 4 * (high > 0 ? Math.round(255 * clamp(weight / high, 0, 1)) : 0), left = 1 - colours[level + 3];
        for (let k = 0; k < 3; k++) to[4 * i + k] = base[3 * i + k] * left + colours[level + k];
      } else {
        to[4 * i] = to[4 * i + 1] = to[4 * i + 2] = hatched(grey[i], x, y, height, width);
      }
      to[4 * i + 3] = 255;
    }
  }
  return out;
}

/** A scene's picture with what every overlay begins with: its grey, and itself dimmed and partly desaturated. */
async function load(scene) {
  const image = new Image();
  image.src = scene.picture;
  await image.decode();
  const longest = Math.max(image.naturalWidth, image.naturalHeight), factor = Math.max(1, Math.round(LARGE / longest));
  const width = image.naturalWidth * factor, height = image.naturalHeight * factor;
  const context = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d");
  context.imageSmoothingEnabled = longest > TINY;
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, width, height);
  const pixels = context.getImageData(0, 0, width, height), from = pixels.data;
  const grey = new Float32Array(width * height), base = new Float32Array(3 * width * height);
  for (let i = 0; i < grey.length; i++) {
    grey[i] = luma[0] * from[4 * i] + luma[1] * from[4 * i + 1] + luma[2] * from[4 * i + 2];
    for (let k = 0; k < 3; k++) base[3 * i + k] = light * (saturation * from[4 * i + k] + (1 - saturation) * grey[i]);
  }
  return { width, height, factor, pixels, grey, base };
}

// --------------------------------------------------------------------------------------------------------------- parts

/** An element with attributes and children; text stays text, whatever it says. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** A text of its own direction, which reaches no further than itself. */
const own = (text, name = null) => make("bdi", { class: name }, text);

const NAMES = { alpha: "attention α", layers: "attention", rollout: "attention rollout" };
const nameOf = (stack) => NAMES[stack.name] ?? stack.name.replaceAll("_", " ");

/** One model's reading of the picture: canvas, scale, words; of several captions the one of this rank. */
class Pane {
  constructor(first, model, place, scene, rank = 0) {
    const readings = [first, ...first.further], reading = readings[rank];
    Object.assign(this, { readings, reading, rank, model, place, scene, pinned: null, hovered: null, picture: null });
    this.canvas = make("canvas", { role: "img" });
    this.box = make("i", { class: "box", hidden: "" });
    this.strip = make("canvas", { class: "strip", width: 256, height: 1, "aria-hidden": "true" });
    this.meaning = make("span", { class: "meaning" });
    this.high = make("span");
    this.scale = make("p", { class: "scale" }, this.meaning, make("span", {}, "0"), this.strip, this.high);
    this.readout = make("p", { class: "readout", "aria-live": "polite" });
    const frame = make("div", { class: "frame" }, this.canvas, this.box);
    this.element = make(
      "section", { class: "pane", "aria-label": model },
      data.models.length > 1 ? make("h2", {}, own(model)) : null,
      make("div", { class: "stage" }, frame),
      make("div", { class: "text" }, this.scale, ...(reading.kind === "caption" ? this.caption(model) : [this.classes()])),
    );
    this.element.addEventListener("pointerdown", () => activate(place));
  }

  caption(model) {
    const { words, gates, entropies, maps } = this.reading, places = maps[0].shape[3] * maps[0].shape[4];
    this.options = words.map((word, t) => {
      const bars = [
        gates && ["gate", "β", gates[t], gates[t].toFixed(2)],
        entropies && ["spread", "entropy", Math.exp(entropies[t]) / places, entropies[t].toFixed(2)],
      ].filter(Boolean);
      const option = make(
        "li", {
          role: "option", tabindex: t ? -1 : 0, "aria-selected": "false",
          "aria-label": [word || "(empty)", ...bars.map(([, name, , number]) => `${name} ${number}`)].join(", "),
        },
        own(word || "(empty)", "word"),
        make("span", { class: "bars", "aria-hidden": "true" }, ...bars.flatMap(([kind, , share, number]) => {
          const fill = make("i");
          fill.style.width = `${100 * clamp(share, 0, 1)}%`;
          return [make("span", { class: `bar ${kind}` }, fill), make("span", {}, number)];
        })),
      );
      option.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse") this.hover(t); });
      option.addEventListener("pointerleave", () => this.hover(null));
      option.addEventListener("click", () => this.pin(this.pinned === t && this.picked ? null : t, true));
      option.addEventListener("focus", () => { if (option.matches(":focus-visible")) { activate(this.place); this.pin(t); } });
      return option;
    });
    this.list = make("ol", { class: "words", role: "listbox", "aria-label": `Words of ${model}`, "aria-orientation": "horizontal" }, ...this.options);
    // Captions of a script that runs from right to left do so here.
    this.backwards = /^[^\p{L}]*[\p{Script=Arabic}\p{Script=Hebrew}]/u.test(words.join(" "));
    if (this.backwards) this.list.dir = "rtl";
    return [words.length ? this.list : make("p", { class: "readout" }, "The caption has no words."), this.readout, ...this.whole()];
  }

  classes() {
    const { answer, others } = this.reading;
    this.options = [];
    return make("ol", { class: "classes", "aria-label": "Likeliest classes" }, ...[answer, ...others].filter(([name]) => name).map(([name, score]) => {
      const fill = make("i");
      fill.style.width = `${100 * clamp(score ?? 0, 0, 1)}%`;
      return make("li", {}, own(name, "word"), make("span", { class: "number" }, score === null ? "" : percent(score)),
        make("span", { class: "bar", "aria-hidden": "true" }, fill));
    }));
  }

  /** The caption as a whole, and the others that a search found. */
  whole() {
    const { answer: [, score] } = this.reading, { others } = this.readings[0], several = this.readings.length > 1;
    const parts = ([text, score]) => [own(text || "(no words)"), make("span", { class: "number" }, score === null ? "" : minus(score))];
    const line = (answer) => make("li", {}, ...parts(answer));
    return [
      several || score === null ? null : make("p", { class: "whole" }, `Log-probability of the caption ${minus(score)}`),
      several ? this.ranks(parts) : null,
      others.length ? make("details", {}, make("summary", {}, `${plural(others.length, "other caption")}, without maps`), make("ol", {}, ...others.map(line))) : null,
    ].filter(Boolean);
  }

  /** All captions that have maps: a button each. */
  ranks(parts) {
    const buttons = this.readings.map(({ answer }, rank) => {
      const button = make("button", { type: "button", "aria-current": rank === this.rank ? "true" : null, "aria-keyshortcuts": "c" }, ...parts(answer));
      button.addEventListener("click", () => this.choose(rank));
      return button;
    });
    return make("section", { class: "ranks", "aria-label": `Captions of ${this.model}` },
      make("p", { class: "whole", "aria-hidden": "true" }, make("span", {}, plural(buttons.length, "caption")), make("span", {}, "log-probability")),
      make("ol", {}, ...buttons.map((button) => make("li", {}, button))));
  }

  /** Put another of the captions in this one's place. */
  choose(rank) {
    if (rank === this.rank) return;
    stop();
    const focused = this.focused, open = this.element.querySelector("details")?.open;
    const next = new Pane(this.readings[0], this.model, this.place, this.scene, rank);
    next.picture = this.picture;
    next.element.querySelector("details")?.toggleAttribute("open", open);
    panes[this.place] = next;
    this.element.replaceWith(next.element);
    activate(this.place);
    controls();
    legend();
    next.paint();
    next.focus(focused);
  }

  /** Which of its parts has the keyboard's focus, or null. */
  get focused() {
    return [".words", ".ranks", "summary"].find((part) => this.element.querySelector(part)?.contains(document.activeElement)) ?? null;
  }

  /** Give the focus to a part, or to one that stands for it where there is none. */
  focus(part) {
    const find = { ".words": "[role=option][tabindex='0']", ".ranks": ".ranks [aria-current]", summary: "summary" };
    if (part) [part, ".ranks", ".words"].map((name) => this.element.querySelector(find[name])).find(Boolean)?.focus();
  }

  get stack() {
    const { maps } = this.reading;
    return maps.find((stack) => stack.name === state.map) ?? maps[0];
  }

  /** The word that is shown; 0 for a class, null for the bare picture. */
  get word() {
    return this.reading.kind === "class" ? 0 : this.hovered ?? this.pinned;
  }

  get steps() {
    return this.reading.kind === "class" ? this.stack.shape[1] : this.options.length;
  }

  hover(t) {
    this.hovered = t;
    this.paint();
  }

  pin(t, picked = false) {
    Object.assign(this, { pinned: t, picked });
    if (picked) { activate(this.place); this.hovered = null; stop(); }
    this.options.forEach((option, n) => {
      option.setAttribute("aria-selected", String(n === t));
      option.tabIndex = n === (t ?? 0) ? 0 : -1;
    });
    if (t !== null && this.list.contains(document.activeElement)) this.options[t].focus();
    this.paint();
  }

  paint() {
    const { picture, stack, word: t, reading, canvas } = this;
    this.options.forEach((option, n) => option.classList.toggle("shown", n === t));
    this.describe();
    if (!picture) return;
    if (canvas.width !== picture.width || canvas.height !== picture.height) Object.assign(canvas, { width: picture.width, height: picture.height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    this.scale.classList.toggle("idle", t === null);
    if (t === null) {
      context.putImageData(picture.pixels, 0, 0);
    } else {
      const [original, input, scale, ...rest] = reading.geometry, { factor } = picture;
      const geometry = [original.map((n) => n * factor), input, scale.map((s) => s / factor), ...rest];
      const weights = mapOf(stack, t, state.layer, state.head);
      const largest = weights.reduce((a, b) => Math.max(a, b), 0);
      const ownHigh = reading.kind === "class" ? robustHigh(weights) : largest;
      const high = state.scale === "own" ? ownHigh : sharedHigh(stack.name);
      context.putImageData(overlay(picture, weights, stack.shape.slice(3), geometry, high, state.opacity, state.smooth), 0, 0);
      this.high.textContent = largest > high ? `≥ ${three(high)}, max ${three(largest)}` : three(high);
      paintStrip(this.strip);
    }
    const box = t === null ? null : reading.boxes[t];
    this.box.hidden = !box?.length;
    if (box?.length) ["top", "left", "bottom", "right"].forEach((side, k) => {
      this.box.style[side] = `${100 * (k < 2 ? box[k] : 1 - box[k])}%`;
    });
  }

  /** What is shown, in words. */
  describe() {
    const { reading, stack, word: t } = this, { answer, words, logProbs, gates, entropies, boxes } = reading;
    const [, layers, heads, height, width] = stack.shape;
    const where = [
      layers > 1 && `layer ${clamp(state.layer, 0, layers - 1) + 1} of ${layers}`,
      heads > 1 && (state.head ? `head ${clamp(state.head, 1, heads)} of ${heads}` : `mean of ${heads} heads`),
    ].filter(Boolean);
    this.meaning.textContent = `${[nameOf(stack), ...where].join(", ")} · ${height}×${width}`;
    const subject = reading.kind === "class" ? answer[0] : t === null ? null : words[t] || "(empty)";
    this.canvas.setAttribute("aria-label", subject === null ? this.scene.name : `${this.scene.name}: ${this.meaning.textContent}${subject && ` for “${subject}”`}`);
    const facts = t === null ? [words.length ? "Hover over a word, tap it, or press →" : ""] : [
      `word ${t + 1} of ${words.length}`,
      logProbs && `probability ${percent(Math.exp(logProbs[t]))}`,
      gates && `β ${gates[t].toFixed(2)}`,
      entropies && `H ${entropies[t].toFixed(2)}, as if ${about(Math.exp(entropies[t]))} of ${height * width} places`,
      boxes[t] && !boxes[t].length && "the place used lies in the margin",
    ];
    this.readout.replaceChildren(subject === null ? "" : make("b", {}, own(subject)), subject === null ? "" : " · ", facts.filter(Boolean).join(" · "));
  }
}

/** Where a map's own scale ends: below a few cells far above all others (`robust_limits` in heatmap.py). */
function robustHigh(weights) {
  const sorted = Float64Array.from([0, ...weights]).sort(), last = sorted.length - 1;
  const rest = last > 1 ? sorted[last - Math.max(1, Math.round(0.005 * sorted.length))] : 0;
  return rest > 0 && 4 * rest < sorted[last] ? rest : sorted[last];
}

/** The largest weight of one name in all maps of the picture, of all its captions: the high end of the shared scale. */
function sharedHigh(name) {
  const stacks = panes.flatMap((pane) => pane.readings.flatMap(({ maps }) => maps.filter((stack) => stack.name === name)));
  return Math.max(0, ...stacks.map((stack) => stack.high.reduce((a, b) => Math.max(a, b), 0)));
}

/** The scale from low to high over a middle grey. */
function paintStrip(canvas) {
  const context = canvas.getContext("2d"), out = new ImageData(256, 1);
  table.forEach((colour, i) => {
    for (let k = 0; k < 3; k++) out.data[4 * i + k] = light * 150 * (1 - colour[3] * state.opacity) + colour[k] * state.opacity;
    out.data[4 * i + 3] = 255;
  });
  context.putImageData(out, 0, 0);
}

// --------------------------------------------------------------------------------------------------------------- acting

const paintAll = () => panes.forEach((pane) => pane.paint());

function activate(place) {
  active = place;
  panes.forEach((pane, n) => pane.element.classList.toggle("active", n === place && panes.length > 1));
}

async function show(number) {
  stop();
  const scene = data.scenes[number], focused = panes.map((pane) => pane.focused);
  state.scene = number;
  panes = scene.readings.map((reading, n) => new Pane(reading, data.models[n], n, scene));
  document.documentElement.style.setProperty("--ratio", scene.size[1] / scene.size[0]);
  byId("panes").replaceChildren(...panes.map((pane) => pane.element));
  activate(Math.min(active, panes.length - 1));
  byId("place").replaceChildren(`${number + 1} of ${data.scenes.length} · `, own(scene.name));
  [...byId("gallery").children].forEach((item, n) => {
    const button = item.firstChild;
    if (n === number) button.setAttribute("aria-current", "true"); else button.removeAttribute("aria-current");
  });
  reveal(byId("gallery"), byId("gallery").children[number]);
  controls();
  legend();
  paintAll();
  panes.forEach((pane, n) => pane.focus(focused[n]));
  const picture = await load(scene);
  if (panes.some((pane) => pane.scene !== scene)) return; // another picture was asked for meanwhile
  panes.forEach((pane) => { pane.picture = picture; pane.paint(); });
  document.documentElement.dataset.shown = number;
}

/** Scroll a list, and nothing around it, until an item is in sight. */
function reveal(list, item) {
  const outer = list.getBoundingClientRect(), inner = item.getBoundingClientRect();
  list.scrollBy({
    left: Math.min(0, inner.left - outer.left) + Math.max(0, inner.right - outer.right),
    top: Math.min(0, inner.top - outer.top) + Math.max(0, inner.bottom - outer.bottom),
  });
}

function step(by) {
  const pane = panes[active];
  if (pane.reading.kind === "class") return walkLayers(by);
  const count = pane.options.length;
  if (count) pane.pin(pane.pinned === null ? (by > 0 ? 0 : count - 1) : clamp(pane.pinned + by, 0, count - 1));
}

function walkLayers(by) {
  const layers = Math.max(...panes.map((pane) => pane.stack.shape[1]));
  state.layer = clamp(clamp(state.layer, 0, layers - 1) + by, 0, layers - 1);
  controls();
  paintAll();
}

function play() {
  if (playing !== null) return stop();
  const last = Math.max(...panes.map((pane) => pane.steps)) - 1;
  if (last < 0) return;
  let t = Math.max(...panes.map((pane) => (pane.reading.kind === "class" ? clamp(state.layer, 0, last) : pane.pinned ?? -1)));
  if (t >= last) t = -1;
  const next = () => {
    t += 1;
    for (const pane of panes) if (pane.options.length) pane.pin(Math.min(t, pane.options.length - 1));
    if (panes.some((pane) => pane.reading.kind === "class")) { state.layer = t; controls(); paintAll(); }
    if (t >= last) stop();
  };
  playing = setInterval(next, still.matches ? 2 * PACE : PACE);
  byId("play").textContent = "Stop";
  next();
}

function stop() {
  clearInterval(playing);
  playing = null;
  byId("play").textContent = "Play";
}

// ------------------------------------------------------------------------------------------------------------- controls

/** Set the controls to the state, and hide those that have nothing to choose from here. */
function controls() {
  const names = [...new Map(panes.flatMap((pane) => pane.reading.maps.map((stack) => [stack.name, nameOf(stack)])))];
  const shown = panes.map((pane) => pane.stack);
  const layers = Math.max(...shown.map((stack) => stack.shape[1])), heads = Math.max(...shown.map((stack) => stack.shape[2]));
  byId("map").replaceChildren(...names.map(([name, text]) => make("option", { value: name, selected: name === shown[0].name ? "" : null }, text)));
  byId("map-control").hidden = names.length < 2;
  byId("layer-control").hidden = layers < 2;
  byId("head-control").hidden = heads < 2;
  const layer = clamp(state.layer, 0, layers - 1) + 1, head = clamp(state.head, 0, heads);
  Object.assign(byId("layer"), { max: layers, value: layer });
  Object.assign(byId("head"), { max: heads, value: head });
  byId("layer-value").value = `${layer} of ${layers}`;
  byId("head-value").value = head ? `${head} of ${heads}` : "mean";
  byId("head").setAttribute("aria-valuetext", byId("head-value").value);
  byId("opacity").value = state.opacity;
  byId("opacity-value").value = `${Math.round(100 * state.opacity)} %`;
  document.querySelector(`[name=scale][value=${state.scale}]`).checked = true;
  byId("play").disabled = Math.max(...panes.map((pane) => pane.steps)) < 2;
}

/** Of the legend, what this picture needs. */
function legend() {
  const readings = panes.map((pane) => pane.reading), has = {
    ".of-words": readings.some((reading) => reading.words.length),
    ".of-gates": readings.some((reading) => reading.gates?.length),
    ".of-boxes": readings.some((reading) => reading.boxes.some(Boolean)),
    ".of-margins": readings.some(({ geometry }) => [0, 1].some((axis) => {
      const [low, high] = seenOf(geometry, axis), [size, , scale, offset] = geometry.map((pair) => pair[axis]);
      return (low + offset) / scale > 0.5 || (high + offset) / scale < size - 0.5;
    })),
  };
  for (const [name, there] of Object.entries(has)) for (const item of document.querySelectorAll(`#legend ${name}`)) item.hidden = !there;
}

function paintHatch() {
  const canvas = byId("hatch"), out = new ImageData(canvas.width, canvas.height);
  for (let y = 0, i = 0; y < canvas.height; y++) {
    for (let x = 0; x < canvas.width; x++, i += 4) out.data.set([...Array(3).fill(hatched(150, x, y, 320, 320)), 255], i);
  }
  canvas.getContext("2d").putImageData(out, 0, 0);
}

function listen() {
  const set = (change) => { Object.assign(state, change); controls(); paintAll(); };
  byId("map").addEventListener("change", (event) => set({ map: event.target.value }));
  byId("layer").addEventListener("input", (event) => { stop(); set({ layer: Number(event.target.value) - 1 }); });
  byId("head").addEventListener("input", (event) => set({ head: Number(event.target.value) }));
  byId("opacity").addEventListener("input", (event) => set({ opacity: Number(event.target.value) }));
  for (const radio of document.querySelectorAll("[name=scale]")) radio.addEventListener("change", () => set({ scale: radio.value }));
  for (const radio of document.querySelectorAll("[name=cells]")) radio.addEventListener("change", () => set({ smooth: radio.value === "smooth" }));
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("play").addEventListener("click", play);
  byId("ask").addEventListener("click", () => byId("help").showModal());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || byId("help").open) return;
    const at = document.activeElement, field = at.matches("input, select"), pane = panes[active];
    const forward = pane.backwards ? -1 : 1, keys = {
      ArrowLeft: () => { stop(); step(-forward); },
      ArrowRight: () => { stop(); step(forward); },
      ArrowUp: () => show(Math.max(state.scene - 1, 0)),
      ArrowDown: () => show(Math.min(state.scene + 1, data.scenes.length - 1)),
      Home: () => { stop(); step(-Infinity); },
      End: () => { stop(); step(Infinity); },
      " ": play,
      Escape: () => { stop(); panes.forEach((each) => { each.hovered = null; if (each.options.length) each.pin(null); }); },
      "1": () => activate(0),
      "2": () => activate(panes.length - 1),
      c: () => pane.choose((pane.rank + 1) % pane.readings.length),
      "?": () => byId("help").showModal(),
    };
    // Arrows and letters are a field's own; a focused button takes the space bar.
    const taken = (field && !["Escape", "?"].includes(event.key)) || (event.key === " " && at.matches("button, summary"));
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (!taken && Object.hasOwn(keys, key)) { event.preventDefault(); keys[key](); }
  });
}

function gallery() {
  byId("gallery").replaceChildren(...data.scenes.map((scene, n) => {
    const { kind, answer } = scene.readings[0];
    const button = make("button", { type: "button" }, make("img", { src: scene.thumb, alt: "", loading: "lazy" }),
      make("span", {}, own(answer[0] || (kind === "caption" ? "(no words)" : "attention")), own(scene.name, "file")));
    button.addEventListener("click", () => show(n));
    return make("li", {}, button);
  }));
}

if (data.scenes.some((scene) => scene.readings.some((reading) => reading.kind === "caption"))) state.scale = "shared";
document.body.classList.toggle("single", data.models.length === 1);
gallery();
listen();
paintHatch();
show(0);
