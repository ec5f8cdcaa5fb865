// The page around the panes: its state, keys and controls.

const byId = (id) => document.getElementById(id);
const still = matchMedia("(prefers-reduced-motion: reduce)");
const PACE = 900; // milliseconds for each word

const state = {
  scene: 0, view: "picture", map: null, layer: Infinity, head: 0, asking: Infinity, // the layer in which places are asked
  opacity: data.palette.opacity, scale: "own", smooth: true, sides: [], wipe: 50,
};
let panes = [], views = [], active = 0, playing = null;
let following = false; // a link, which says which word is shown, wherever the focus goes

// --------------------------------------------------------------------------------------------------------------- acting

const paintAll = () => [...panes, ...views].forEach((part) => part.paint());

function activate(place) {
  active = place;
  panes.forEach((pane, n) => pane.element.classList.toggle("active", n === place && panes.length > 1));
}

/** Show a picture: captions of these ranks, then what `then` sets, before anything is painted. */
async function show(number, { ranks = [], then = null, linked = false } = {}) {
  stop();
  const scene = data.scenes[number], focused = panes.map((pane) => pane.focused);
  const start = (reading, n) => new Pane(reading, data.models[n], n, scene, ranks[n] in [reading, ...reading.further] ? ranks[n] : 0);
  state.scene = number;
  panes = scene.readings.map(start);
  then?.();
  document.documentElement.style.setProperty("--ratio", scene.size[1] / scene.size[0]);
  activate(Math.min(active, panes.length - 1));
  byId("place").replaceChildren(`${number + 1} of ${data.scenes.length} · `, own(scene.name));
  [...byId("gallery").children].forEach((item, n) => setCurrent(item.firstChild, n === number));
  reveal(byId("gallery"), byId("gallery").children[number]);
  arrange();
  following = linked;
  panes.forEach((pane, n) => pane.focus(focused[n]));
  following = false;
  const picture = await load(scene);
  if (panes.some((pane) => pane.scene !== scene)) return; // another picture was asked for meanwhile
  panes.forEach((pane) => { pane.picture = picture; });
  paintAll();
  document.documentElement.dataset.shown = number;
}

/** Another picture, as a step to go back from. */
function go(number) {
  if (number === state.scene) return;
  settle();
  show(number);
  forget(); // what the new picture's first word asked to be kept
  remember(true);
}

/** Put what the view shows into the page. */
function arrange() {
  const compared = state.view === "compare";
  views = state.view === "words" ? panes.map((pane) => new Grid(pane)) : compared ? [new Comparison()] : [];
  byId("panes").replaceChildren(...(views.length ? views : panes).map((part) => part.element));
  byId("panes").dataset.view = state.view;
  document.body.classList.toggle("single", compared || (state.view === "picture" && data.models.length === 1));
  controls();
  legend();
  paintAll();
}

/** Change the view; the keyboard's focus stays in it. */
function turn(view) {
  const inside = byId("panes").contains(document.activeElement);
  state.view = view;
  stop();
  arrange();
  const part = { picture: "[role=option][tabindex='0'], .askable", words: "[aria-current], .tile", compare: "#wipe" }[view];
  if (inside) (views[active] ?? views[0] ?? panes[active]).element.querySelector(part)?.focus({ preventScroll: true });
}

/** Scroll a list, and nothing around it, until an item is in sight. */
function reveal(list, item) {
  const outer = list.getBoundingClientRect(), inner = item.getBoundingClientRect();
  list.scrollBy({
    left: Math.min(0, inner.left - outer.left) + Math.max(0, inner.right - outer.right),
    top: Math.min(0, inner.top - outer.top) + Math.max(0, inner.bottom - outer.bottom),
  });
}

/** To the next word, layer or tile; in a comparison, the line to the side. */
function step(by) {
  const pane = panes[active], count = pane.options.length;
  stop();
  if (state.view === "compare") views[0].move(state.wipe + 5 * by);
  else if (state.view === "words") views[active].step(by);
  else if (pane.asked !== null) { state.asking = clamp(pane.layerAsked + by, 0, pane.reading.queries.layers.length - 1); controls(); paintAll(); }
  else if (pane.reading.kind === "class") walkLayers(by);
  else if (count) pane.pin(pane.pinned === null ? (by > 0 ? 0 : count - 1) : clamp(pane.pinned + by, 0, count - 1));
  remember();
}

function walkLayers(by) {
  const layers = Math.max(...panes.map((pane) => pane.stack.shape[1]));
  state.layer = clamp(clamp(state.layer, 0, layers - 1) + by, 0, layers - 1);
  controls();
  paintAll();
}

function play() {
  if (playing !== null) return stop();
  if (state.view !== "picture") turn("picture");
  panes.forEach((pane) => { pane.asked = null; });
  const last = Math.max(...panes.map((pane) => pane.steps)) - 1;
  if (last < 0) return;
  let t = Math.max(...panes.map((pane) => (pane.reading.kind === "class" ? clamp(state.layer, 0, last) : pane.pinned ?? -1)));
  if (t >= last) t = -1;
  const next = () => {
    t += 1;
    for (const pane of panes) if (pane.options.length) pane.pin(Math.min(t, pane.options.length - 1));
    if (panes.some((pane) => pane.reading.kind === "class")) { state.layer = t; controls(); paintAll(); }
    if (t >= last) stop();
    remember();
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

/** From another view to the picture; there, to the picture without a map, or from a place to the class token's map. */
function escape() {
  stop();
  if (state.view !== "picture") turn("picture"); else panes.forEach((pane) => pane.clear());
  controls();
  remember();
}

// ------------------------------------------------------------------------------------------------------------- controls

/** Set the controls to the state, and hide those that have nothing to choose from here. */
function controls() {
  const names = [...new Map(panes.flatMap((pane) => pane.reading.maps.map((stack) => [stack.name, nameOf(stack)])))];
  const shown = panes.map((pane) => pane.stack), asking = panes.filter((pane) => pane.asked !== null && state.view === "picture");
  const layers = Math.max(...shown.map((stack) => stack.shape[1])), heads = Math.max(...shown.map((stack) => stack.shape[2]));
  const all = state.view !== "picture" && panes.every((pane) => pane.reading.kind === "class") || asking.length === panes.length;
  byId("map").replaceChildren(...names.map(([name, text]) => make("option", { value: name, selected: name === shown[0].name ? "" : null }, text)));
  byId("map-control").hidden = names.length < 2 || all || state.view === "compare";
  byId("layer-control").hidden = layers < 2 || all;
  byId("head-control").hidden = heads < 2 || asking.length === panes.length;
  const layer = clamp(state.layer, 0, layers - 1) + 1, head = clamp(state.head, 0, heads);
  Object.assign(byId("layer"), { max: layers, value: layer });
  Object.assign(byId("head"), { max: heads, value: head });
  byId("layer-value").value = counted(layer - 1, layers);
  byId("head-value").value = head ? counted(head - 1, heads) : "mean";
  for (const name of ["layer", "head"]) byId(name).setAttribute("aria-valuetext", byId(`${name}-value`).value);
  const queries = asking[0]?.reading.queries;
  byId("asking-control").hidden = !(queries?.layers.length > 1);
  if (queries) byId("asking").replaceChildren(...queries.layers.map((n, k) => make("option", { value: k, selected: k === asking[0].layerAsked ? "" : null }, counted(n, queries.depth))));
  byId("opacity").value = state.opacity;
  byId("opacity-value").value = `${Math.round(100 * state.opacity)}%`;
  for (const name of ["scale", "view"]) document.querySelector(`[name=${name}][value=${state[name]}]`).checked = true;
  byId("all").textContent = allOf(panes);
  byId("play").disabled = Math.max(...panes.map((pane) => pane.steps)) < 2;
}

/** Of the legend, what this picture needs in this view. */
function legend() {
  const readings = panes.map((pane) => pane.reading), words = state.view === "picture", has = {
    ".of-words": words && readings.some((reading) => reading.entropies?.length),
    ".of-gates": words && readings.some((reading) => reading.gates?.length),
    ".of-sure": words && readings.some((reading) => reading.unit === "fixation"),
    ".of-probabilities": words && readings.some((reading) => reading.unit === "word" && reading.logProbs?.length),
    ".of-boxes": readings.some((reading) => reading.unit === "word" && reading.boxes.some(Boolean)),
    ".of-fixations": readings.some((reading) => reading.unit === "fixation"),
    ".of-places": readings.some((reading) => reading.queries),
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
  const choose = (change) => { Object.assign(state, change); arrange(); remember(); }; // which maps there are
  const pick = (name, act) => { for (const radio of document.querySelectorAll(`[name=${name}]`)) radio.addEventListener("change", () => act(radio.value)); };
  byId("map").addEventListener("change", (event) => choose({ map: event.target.value }));
  byId("layer").addEventListener("input", (event) => { stop(); choose({ layer: Number(event.target.value) - 1 }); });
  byId("head").addEventListener("input", (event) => choose({ head: Number(event.target.value) }));
  byId("asking").addEventListener("change", (event) => choose({ asking: Number(event.target.value) }));
  byId("opacity").addEventListener("input", (event) => set({ opacity: Number(event.target.value) }));
  pick("scale", (scale) => set({ scale }));
  pick("cells", (cells) => set({ smooth: cells === "smooth" }));
  pick("view", (view) => { turn(view); remember(true); });
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  for (const [id, act] of [["play", play], ["ask", () => byId("help").showModal()], ["copy", copyLink], ["dark", toggleDark]]) byId(id).addEventListener("click", act);
  const toggled = (view) => { turn(state.view === view ? "picture" : view); remember(true); };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || byId("help").open) return;
    const at = document.activeElement, field = at.matches("input, select"), pane = panes[active];
    const forward = pane.backwards && state.view !== "compare" ? -1 : 1, keys = {
      ArrowLeft: () => step(-forward),
      ArrowRight: () => step(forward),
      ArrowUp: () => go(Math.max(state.scene - 1, 0)),
      ArrowDown: () => go(Math.min(state.scene + 1, data.scenes.length - 1)),
      Home: () => step(-Infinity),
      End: () => step(Infinity),
      " ": play,
      Escape: escape,
      "1": () => activate(0),
      "2": () => activate(panes.length - 1),
      c: () => pane.choose((pane.rank + 1) % pane.readings.length),
      g: () => toggled("words"),
      w: () => toggled("compare"),
      l: copyLink,
      d: toggleDark,
      "?": () => byId("help").showModal(),
    };
    // Arrows and letters are a field's own; a focused button takes the space bar.
    const taken = (field && !["Escape", "?"].includes(event.key)) || (event.key === " " && at.matches("button, summary"));
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (!taken && Object.hasOwn(keys, key)) { event.preventDefault(); keys[key](); }
  });
  addEventListener("popstate", () => { forget(); restore(location.hash); });
  night.addEventListener("change", () => colours(kept((storage) => storage.getItem(KEPT))));
  const print = () => byId("paper").replaceChildren(...paper());
  addEventListener("beforeprint", print);
  matchMedia("print").addEventListener("change", (event) => { if (event.matches) print(); });
}

function gallery() {
  byId("gallery").replaceChildren(...data.scenes.map((scene, n) => {
    const { kind, answer } = scene.readings[0];
    const button = make("button", { type: "button" }, make("img", { src: scene.thumb, alt: "", loading: "lazy" }),
      make("span", {}, own(answer[0] || (kind === "caption" ? "(no words)" : "attention")), own(scene.name, "file")));
    button.addEventListener("click", () => go(n));
    return make("li", {}, button);
  }));
}

if (data.scenes.some((scene) => scene.readings.some((reading) => reading.kind === "caption"))) state.scale = "shared";
gallery();
listen();
paintHatch();
colours(kept((storage) => storage.getItem(KEPT)));
restore(location.hash);
