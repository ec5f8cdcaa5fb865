// Other views of the picture: all of its maps at once, two of them under one slider, and what is printed.

/** All items of a pane, each over a small picture; a click goes to one. */
class Grid {
  constructor(pane, printed = false) {
    Object.assign(this, { pane, printed, scale: new Scale() });
    this.tiles = pane.items.map((item) => {
      const canvas = make("canvas", { role: "img", "aria-label": "" }), box = make("i", { class: "box", hidden: "" }), number = make("span", { class: "number" });
      const inside = [make("span", { class: "frame" }, canvas, box), make("span", { class: "label" }, own(item.label), number)];
      const element = printed ? make("div", { class: "tile" }, ...inside) : make("button", { type: "button", class: "tile" }, ...inside);
      if (!printed) element.addEventListener("click", () => { pane.select(item); turn("picture"); remember(true); });
      return { item, canvas, box, number, element };
    });
    this.element = make(
      "section", { class: "grid", "aria-label": data.models.length > 1 ? pane.model : allOf([pane]) },
      data.models.length > 1 && !printed ? make("h2", {}, own(pane.model)) : null,
      this.scale.element,
      this.tiles.length ? make("div", { class: "tiles" }, ...this.tiles.map(({ element }) => element)) : make("p", { class: "readout" }, "The caption has no words."),
    );
  }

  paint() {
    const { pane, tiles } = this, shared = state.scale === "shared", kinds = new Set(tiles.map(({ item }) => item.stack));
    const maps = tiles.map(({ item }) => pane.read(item));
    tiles.forEach(({ item, canvas, box, number }, n) => {
      if (pane.picture) paintMap(canvas, pane.picture.tile, maps[n], state);
      placeBox(box, pane.boxed(item));
      number.textContent = shared && kinds.size === 1 ? "" : `${maps[n].largest > maps[n].high ? "≥ " : ""}${three(maps[n].high)}`;
    });
    this.mark();
    if (!tiles.length) return this.scale.show("", null);
    const one = kinds.size === 1 ? pane.meaning({ ...tiles[0].item, layer: state.layer }) : "all maps";
    this.scale.show(shared ? one : `${one}, each on its own scale`, maps[0]);
    if (!shared || kinds.size > 1) this.scale.high.textContent = "its end";
  }

  /** Tell the tile of what the picture itself shows. */
  mark() {
    for (const { item, element } of this.tiles) setCurrent(element, this.pane.shows(item));
  }

  /** To the tile after the current one. */
  step(by) {
    const { tiles, pane } = this, at = tiles.findIndex(({ item }) => pane.shows(item)), last = tiles.length - 1;
    if (last < 0) return;
    const next = tiles[at < 0 ? (by > 0 ? 0 : last) : clamp(at + by, 0, last)], focused = this.element.contains(document.activeElement);
    pane.select(next.item);
    this.mark();
    if (focused) next.element.focus();
    next.element.scrollIntoView({ block: "nearest" });
  }
}

/** Two maps of the picture, left and right of a line that is drawn over it. */
class Comparison {
  constructor() {
    this.canvases = [make("canvas", { role: "img" }), make("canvas", { role: "img" })];
    this.boxes = [make("i", { class: "box", hidden: "" }), make("i", { class: "box", hidden: "" })];
    this.scales = [new Scale(), new Scale()];
    this.chips = [make("span", { class: "chip", "aria-hidden": "true" }), make("span", { class: "chip", "aria-hidden": "true" })];
    this.wipe = make("input", { type: "range", id: "wipe", min: 0, max: 100, step: 1, "aria-label": "Wipe between the two maps" });
    this.parts = [0, 1].map((k) => make("div", { class: "part" }, this.canvases[k], this.boxes[k]));
    this.selects = ["Left", "Right"].map((side, k) => this.select(side, k));
    const swap = make("button", { type: "button", class: "quiet" }, "Swap sides");
    swap.addEventListener("click", () => { state.sides.reverse(); state.wipe = 100 - state.wipe; this.paint(); remember(); });
    this.wipe.addEventListener("input", () => { this.move(Number(this.wipe.value)); remember(); });
    this.element = make(
      "section", { class: "pane comparison", "aria-label": "Two maps compared" },
      make("div", { class: "stage" }, make("div", { class: "frame" }, ...this.parts, make("i", { class: "line" }), ...this.chips, this.wipe)),
      make("div", { class: "text" }, ...["Left", "Right"].map((side, k) => make("div", { class: "side" },
        make("label", {}, make("span", {}, side), this.selects[k]), this.scales[k].element)), swap),
    );
  }

  /** A choice among all items of all panes, and the picture alone. */
  select(side, k) {
    const groups = new Map();
    panes.forEach((pane, p) => pane.all.forEach((item, n) => {
      const several = item.stack && pane.reading.kind === "caption" && pane.reading.maps.length > 1;
      const name = [data.models.length > 1 && pane.model, several && nameOf(item.stack)].filter(Boolean).join(" · ");
      const number = item.stack && pane.reading.kind === "caption" ? `${item.word + 1} · ` : "";
      groups.set(name, [...(groups.get(name) ?? []), make("option", { value: `${p + 1}.${n + 1}` }, number + item.label)]);
    }));
    const choices = [...groups].flatMap(([name, options]) => (name ? [make("optgroup", { label: name }, ...options)] : options));
    const select = make("select", { id: side.toLowerCase(), "aria-label": `${side} map` }, ...choices, make("option", { value: "0" }, "the picture alone"));
    select.addEventListener("change", () => { state.sides[k] = select.value; this.paint(); remember(true); });
    return select;
  }

  /** What a side shows: [pane, item], or null for the picture alone. */
  side(k) {
    const [p, n] = String(state.sides[k]).split(".").map(Number), pane = panes[p - 1], item = pane?.all[n - 1];
    return item ? [pane, item] : null;
  }

  /** Choose two maps where none are chosen, or where the picture has no such ones: the shown one, and one beside it. */
  settle() {
    const first = panes[active], { all, current } = first, value = (p, n) => `${p + 1}.${n + 1}`;
    const valid = (choice) => choice === "0" || [...this.selects[0].options].some((option) => option.value === choice);
    if (state.sides.length === 2 && state.sides.every(valid)) return;
    const shown = all.findIndex((item) => (current?.place !== undefined ? item.place === current.place : item.stack && first.shows(item)));
    const left = Math.max(shown, 0), other = panes.find((pane) => pane !== first && pane.all.length);
    const beside = left + 1 < all.length ? left + 1 : left - 1;
    const right = other ? value(other.place, Math.min(left, other.all.length - 1)) : beside >= 0 ? value(active, beside) : "0";
    state.sides = [all.length ? value(active, left) : "0", right];
  }

  paint() {
    this.settle();
    [0, 1].forEach((k) => {
      const chosen = this.side(k), [pane, item] = chosen ?? [panes[0], null], map = item && pane.read(item);
      const name = item ? `${data.models.length > 1 ? `${pane.model}: ` : ""}${item.label}` : "the picture alone";
      this.selects[k].value = state.sides[k];
      this.scales[k].show(item ? pane.meaning(item) : "", map);
      this.chips[k].replaceChildren(own(name));
      this.canvases[k].setAttribute("aria-label", `${["Left", "Right"][k]}: ${name}`);
      placeBox(this.boxes[k], item && pane.boxed(item));
      if (pane.picture) paintMap(this.canvases[k], pane.picture.large, map, state);
    });
    this.move(state.wipe);
  }

  /** Put the line at so many hundredths of the width. */
  move(at) {
    state.wipe = clamp(at, 0, 100);
    this.wipe.value = state.wipe;
    this.wipe.setAttribute("aria-valuetext", `${state.wipe}% of the width is the left map`);
    this.element.style.setProperty("--at", `${state.wipe}%`);
  }
}

/** The picture with its map, and below it all maps: what is printed, in place of the page. */
function paper() {
  const scene = data.scenes[state.scene];
  return [
    make("h1", {}, document.querySelector("h1").textContent),
    make("p", { class: "whole" }, own(scene.name)),
    ...panes.flatMap((pane) => {
      const { current, reading, picture } = pane, map = current && pane.read(current);
      const canvas = make("canvas"), box = make("i", { class: "box", hidden: "" }), scale = new Scale(), grid = new Grid(pane, true);
      if (picture) paintMap(canvas, picture.large, map, state);
      placeBox(box, current && pane.boxed(current));
      scale.show(current ? pane.meaning(current) : "", map);
      grid.paint();
      const said = reading.kind === "caption"
        ? reading.words.flatMap((word, t) => [make(t === pane.word ? "b" : "span", {}, own(word || "(empty)")), " "])
        : [[reading.answer, ...reading.others].filter(([name]) => name).map(([name, score]) => (score === null ? name : `${name} ${percent(score)}`)).join(" · ")];
      const facts = reading.kind === "caption" ? (pane.word === null ? "" : pane.facts(pane.word).join(" · ")) : pane.asked === null ? "" : pane.foundAt(map);
      return [
        data.models.length > 1 ? make("h2", {}, own(pane.model)) : null,
        make("div", { class: "lead" }, make("div", { class: "frame" }, canvas, box), make("div", { class: "text" },
          said.length && said[0] !== "" ? make("p", { class: "said" }, ...said) : null, facts ? make("p", { class: "readout" }, facts) : null, current ? scale.element : null)),
        grid.tiles.length ? grid.element : null,
      ].filter(Boolean);
    }),
  ];
}
