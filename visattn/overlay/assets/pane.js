// One model's reading of the picture.

/** An element with attributes and children; text stays text, whatever it says. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Say that an element of several is the current one, or is not. */
function setCurrent(element, is) {
  if (is) element.setAttribute("aria-current", "true"); else element.removeAttribute("aria-current");
}

/** A text of its own direction, which reaches no further than itself. */
const own = (text, name = null) => make("bdi", { class: name }, text);

const NAMES = { alpha: "attention α", layers: "attention", rollout: "attention rollout", glimpse: "sharpness of the glimpse", so_far: "sharpness of all so far" };
const nameOf = (stack) => NAMES[stack.name] ?? stack.name.replaceAll("_", " ");

/** What the view of all maps of these panes is called. */
const allOf = (panes) => `All ${panes.every((pane) => pane.reading.kind === "class") ? "maps" : panes.every((pane) => pane.reading.unit === "fixation") ? "fixations" : "words"}`;

/** A colour scale: what it means, and its two ends. */
class Scale {
  constructor() {
    this.strip = make("canvas", { class: "strip", width: 256, height: 1, "aria-hidden": "true" });
    this.meaning = make("span", { class: "meaning" });
    this.high = make("span");
    this.element = make("p", { class: "scale" }, this.meaning, make("span", {}, "0"), this.strip, this.high);
  }

  /** For one map, as `Pane.read` gives it; null hides all but the meaning's place. */
  show(meaning, map) {
    this.meaning.textContent = meaning;
    this.element.classList.toggle("idle", map === null);
    if (map === null) return;
    this.high.textContent = map.largest > map.high ? `≥ ${three(map.high)}, max ${three(map.largest)}` : three(map.high);
    paintStrip(this.strip, state);
  }
}

/** Frame (top, left, bottom, right), in shares of the sides; hide the frame where there is none. */
function placeBox(element, box) {
  element.hidden = !box?.length;
  if (box?.length) ["top", "left", "bottom", "right"].forEach((side, k) => {
    element.style[side] = `${100 * (k < 2 ? box[k] : 1 - box[k])}%`;
  });
}

/**
 * Canvas, scale and words of a model; of several captions the one of this rank.
 *
 * What can be shown is an item: a word's map, a layer's, or where a place attends: {label, stack, word, layer, place}.
 */
class Pane {
  constructor(first, model, place, scene, rank = 0) {
    const readings = [first, ...first.further], reading = readings[rank], { queries } = reading;
    Object.assign(this, { readings, reading, rank, model, place, scene, pinned: null, hovered: null, asked: null, refusal: "", picture: null });
    this.canvas = make("canvas", { role: "img" });
    this.box = make("i", { class: "box", hidden: "" });
    this.scale = new Scale();
    this.readout = make("p", { class: "readout", "aria-live": "polite" });
    this.back = make("button", { type: "button", class: "quiet", hidden: "" }, "Back to the map");
    this.back.addEventListener("click", () => { escape(); this.frame.focus({ preventScroll: true }); });
    this.frame = make("div", { class: "frame" }, this.canvas, this.box);
    this.element = make(
      "section", { class: "pane", "aria-label": model },
      data.models.length > 1 ? make("h2", {}, own(model)) : null,
      make("div", { class: "stage" }, this.frame),
      make("div", { class: "text" }, this.scale.element, ...(reading.kind === "caption" ? this.caption(model) : [this.classes(), queries ? this.readout : null, queries ? this.back : null].filter(Boolean))),
    );
    this.element.addEventListener("pointerdown", () => activate(place));
    if (queries) this.askable();
  }

  caption(model) {
    const { words, unit, logProbs, gates, entropies, maps } = this.reading, places = maps[0].shape[3] * maps[0].shape[4];
    this.options = words.map((word, t) => {
      const bars = [
        logProbs && ["sure", "probability", Math.exp(logProbs[t]), percent(Math.exp(logProbs[t]))],
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
      option.addEventListener("click", () => { this.pin(this.pinned === t && this.picked ? null : t, true); remember(true); });
      option.addEventListener("focus", () => { if (option.matches(":focus-visible") && !following) { activate(this.place); this.pin(t); remember(); } });
      return option;
    });
    this.list = make("ol", { class: "words", role: "listbox", "aria-label": `${unit === "word" ? "Words" : "Fixations"} of ${model}`, "aria-orientation": "horizontal" }, ...this.options);
    // Captions of a script that runs from right to left do so here.
    this.backwards = /^[^\p{L}]*[\p{Script=Arabic}\p{Script=Hebrew}]/u.test(words.join(" "));
    if (this.backwards) this.list.dir = "rtl";
    return [words.length ? this.list : make("p", { class: "readout" }, "The caption has no words."), this.readout, ...this.whole()];
  }

  classes() {
    const { answer, others } = this.reading;
    this.options = [];
    if (!answer[0] && !others.length) return null;
    return make("ol", { class: "classes", "aria-label": "Likeliest classes" }, ...[answer, ...others].filter(([name]) => name).map(([name, score]) => {
      const fill = make("i");
      fill.style.width = `${100 * clamp(score ?? 0, 0, 1)}%`;
      return make("li", {}, own(name, "word"), make("span", { class: "number" }, score === null ? "" : percent(score)),
        score === null ? null : make("span", { class: "bar", "aria-hidden": "true" }, fill));
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
    activate(this.place);
    arrange();
    next.focus(focused);
    remember(true);
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

  /** The item that is shown, or null for the bare picture. */
  get current() {
    if (this.asked !== null) return { label: this.named(this.asked), place: this.asked };
    return this.word === null ? null : this.item(this.stack, this.word, state.layer);
  }

  /** All words under the chosen map; of a class all maps, with each of their layers. */
  get items() {
    if (this.reading.kind === "caption") return this.reading.words.map((_, t) => this.item(this.stack, t, state.layer));
    return this.reading.maps.flatMap((stack) => Array.from({ length: stack.shape[1] }, (_, layer) => this.item(stack, 0, layer)));
  }

  /** What can be compared: words under all maps, or maps, and the place that was asked. */
  get all() {
    const { kind, maps, words } = this.reading;
    const items = kind === "class" ? this.items : maps.flatMap((stack) => words.map((_, t) => this.item(stack, t, state.layer)));
    return this.asked === null ? items : [...items, this.current];
  }

  item(stack, word, layer) {
    const { kind, words } = this.reading, several = stack.shape[1] > 1;
    const label = kind === "caption" ? words[word] || "(empty)" : nameOf(stack) + (several ? `, layer ${clamp(layer, 0, stack.shape[1] - 1)}` : "");
    return { label, stack, word, layer };
  }

  /** Whether an item is the one that is shown. */
  shows({ stack, word, layer }) {
    const { kind } = this.reading, { current } = this;
    return current?.stack === stack && current.word === word && (kind === "caption" || clamp(current.layer, 0, stack.shape[1] - 1) === layer);
  }

  /** An item as a map: weights on their grid, the geometry, the largest weight, and the scale's end. */
  read({ stack, word, layer, place }) {
    const { queries, kind, geometry } = this.reading, asking = place !== undefined;
    const weights = asking ? rowOf(queries, this.layerAsked, place) : mapOf(stack, word, layer, state.head);
    const largest = largestOf(weights), ownHigh = kind === "class" ? robustHigh(weights) : largest;
    const shared = () => (asking ? highOfQueries() : sharedHigh(stack.name));
    return { weights, grid: asking ? queries.grid : stack.shape.slice(3), geometry, largest, high: state.scale === "own" ? ownHigh : shared() };
  }

  /** What an item's colours mean. */
  meaning({ stack, layer, place }) {
    if (place !== undefined) {
      const { layers, depth, grid } = this.reading.queries;
      return `where ${this.named(place)} attends, layer ${counted(layers[this.layerAsked], depth)}, mean of the heads · ${grid.join("×")}`;
    }
    const [, layers, heads, height, width] = stack.shape;
    const where = [
      layers > 1 && `layer ${counted(clamp(layer, 0, layers - 1), layers)}`,
      heads > 1 && (state.head ? `head ${counted(clamp(state.head, 1, heads) - 1, heads)}` : `mean of ${heads} heads`),
    ].filter(Boolean);
    return `${[nameOf(stack), ...where].join(", ")} · ${height}×${width}`;
  }

  /** The frame of an item: the place that hard attention used, or the one that was asked. */
  boxed({ word, place }) {
    return place !== undefined ? boxOf(this.reading.queries, place) : this.reading.boxes[word];
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

  /** Show an item of the grid. */
  select(item) {
    activate(this.place);
    this.asked = null;
    if (this.reading.kind === "caption") return this.pin(item.word, true);
    Object.assign(state, { map: item.stack.name, layer: item.layer });
    controls();
    panes.forEach((pane) => pane.paint());
  }

  /** Back to the class token's maps, or to the picture without a map. */
  clear() {
    Object.assign(this, { hovered: null, asked: null, refusal: "" });
    if (this.options.length) this.pin(null); else this.paint();
  }

  // ------------------------------------------------------------------------------------------------- where a place attends

  /** Let places be asked by clicks and, with the picture in focus, by arrow keys. */
  askable() {
    const { frame, reading: { queries: { grid } } } = this, moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    frame.classList.add("askable");
    for (const [name, value] of Object.entries({
      tabindex: 0, role: "application", "aria-label": "Picture: arrow keys choose a place, and show where it attends; Escape goes back",
    })) frame.setAttribute(name, value);
    frame.addEventListener("mousedown", (event) => event.preventDefault()); // arrow keys go on walking for who points
    frame.addEventListener("click", (event) => {
      const { left, top, width, height } = frame.getBoundingClientRect();
      this.ask(cellAt(this.reading.queries, [(event.clientY - top) / height, (event.clientX - left) / width]));
      remember(true);
    });
    frame.addEventListener("keydown", (event) => {
      if (!Object.hasOwn(moves, event.key) || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      event.stopPropagation();
      const from = this.asked ?? Math.floor(grid[0] / 2) * grid[1] + Math.floor(grid[1] / 2), by = this.asked === null ? [0, 0] : moves[event.key];
      const [row, column] = [Math.floor(from / grid[1]), from % grid[1]].map((at, k) => clamp(at + by[k], 0, grid[k] - 1));
      this.ask(row * grid[1] + column);
      remember();
    });
  }

  /** Show where a cell attends; a sentence instead of a cell is shown in its place. */
  ask(cell) {
    stop();
    const refused = typeof cell === "string";
    Object.assign(this, { asked: refused ? null : cell, refusal: refused ? cell : "" });
    controls();
    this.paint();
  }

  /** Of the layers that the page carries, the number of the one that is asked. */
  get layerAsked() {
    return clamp(state.asking, 0, this.reading.queries.layers.length - 1);
  }

  /** A cell in words. */
  named(cell) {
    const { grid } = this.reading.queries;
    return `row ${Math.floor(cell / grid[1]) + 1}, column ${(cell % grid[1]) + 1}`;
  }

  // -------------------------------------------------------------------------------------------------------------- showing

  paint() {
    const { picture, current, canvas } = this;
    this.options.forEach((option, n) => option.classList.toggle("shown", n === this.word));
    const map = current && this.read(current);
    this.describe(current, map);
    if (!picture || state.view !== "picture") return;
    paintMap(canvas, picture.large, map, state);
    placeBox(this.box, current && this.boxed(current));
  }

  /** What is shown, in words. */
  describe(current, map) {
    const { reading, scene, word: t } = this, { kind, unit, answer, words } = reading, asking = current?.place !== undefined;
    const meaning = current ? this.meaning(current) : this.reading.maps.length ? this.meaning(this.item(this.stack, 0, state.layer)) : "";
    this.scale.show(meaning, map);
    const subject = asking ? null : kind === "class" ? answer[0] : t === null ? null : words[t] || "(empty)";
    this.canvas.setAttribute("aria-label", asking ? `${scene.name}: ${meaning}` : subject === null ? scene.name : `${scene.name}: ${meaning}${subject && ` for “${subject}”`}`);
    this.back.hidden = !asking;
    if (kind === "class") return this.readout.replaceChildren(this.refusal || (asking ? this.foundAt(map) : "Click or tap a place of the picture to see where it attends."));
    this.scale.element.dataset.hint = words.length ? `Hover over a ${unit}, tap it, or press →` : "";
    this.readout.replaceChildren(...(t === null ? [] : [make("b", {}, own(subject)), " · ", this.facts(t).join(" · ")]));
  }

  /** What is known of a word. */
  facts(t) {
    const { words, unit, logProbs, gates, entropies, boxes } = this.reading, [, , , height, width] = this.stack.shape;
    return [
      `${unit} ${t + 1} of ${words.length}`,
      logProbs && `probability ${percent(Math.exp(logProbs[t]))}`,
      gates && `β ${gates[t].toFixed(2)}`,
      entropies && `H ${entropies[t].toFixed(2)}, as if ${about(Math.exp(entropies[t]))} of ${height * width} places`,
      boxes[t] && !boxes[t].length && "the place used lies in the margin",
    ].filter(Boolean);
  }

  /** What the asked place attends to most. */
  foundAt({ weights, largest }) {
    const most = weights.indexOf(largest), itself = most === this.asked;
    return `${this.named(this.asked).replace("row", "Row")} attends most to ${itself ? "itself" : this.named(most)}, by ${three(largest)}.`;
  }
}

/** The largest weight of one name in all maps of the picture, of all its captions: the high end of the shared scale. */
function sharedHigh(name) {
  const stacks = panes.flatMap((pane) => pane.readings.flatMap(({ maps }) => maps.filter((stack) => stack.name === name)));
  return Math.max(0, ...stacks.map((stack) => largestOf(stack.high)));
}

/** The largest weight of any place of the picture in the layers that are carried. */
function highOfQueries() {
  return Math.max(0, ...panes.map(({ reading: { queries } }) => (queries ? largestOf(queries.high) : 0)));
}
