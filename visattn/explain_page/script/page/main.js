// Everything together: pictures come in, controls change the state, and the state is drawn.

/** Draw all from the state. */
function render() {
  const start = performance.now();
  paintControls();
  paintStage();
  describe();
  paintClasses();
  paintWall();
  timings.map = performance.now() - start;
  explain();
  const { load: read, forward: run } = timings, by = state.vectors ? "WebAssembly" : "JavaScript";
  if (run !== null) say(byId("speed"), `Computed in this browser, in ${by}: the model in ${Math.round(run)} ms, after ${Math.round(read)} ms to read its weights.`);
  document.documentElement.dataset.run = state.run?.number ?? "";
}

/** A sentence for the reader where something cannot be done; none takes it away. */
function refuse(sentence = "") {
  byId("message").replaceChildren(sentence);
  byId("message").hidden = !sentence;
}

const PAPER = { name: "white paper", tool: "draw" };
let opened = 0;

/** Show a picture from a blob or data URL, or white paper (null). */
async function open(source, { name, credit = "", tool = "look" }) {
  const number = ++opened;
  refuse();
  try {
    const bitmap = source === null ? null : await decoded(source, name), picture = new Picture(bitmap, { name, credit });
    bitmap?.close();
    if (number !== opened) return; // another was chosen meanwhile
    Object.assign(state, { picture, run: null, first: null, target: null, query: 0, tool });
    picture.again = () => open(source, { name, credit, tool: state.tool });
  } catch (error) {
    if (number !== opened) return;
    if (!(error instanceof Refusal)) throw error;
    return refuse(error.message);
  }
  byId("credit").replaceChildren(own(name), credit && ` · ${credit}`);
  byId("canvas").setAttribute("aria-label", name);
  for (const button of byId("samples").querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.source === source));
  paintInput();
  render();
  forward();
}

/** The input, pixel for pixel. */
function paintInput() {
  const [h, w] = model.imageSize, canvas = byId("input"), image = new ImageData(w, h), input = state.picture.input();
  for (let n = 0; n < h * w; n++) image.data.set([...input.subarray(3 * n, 3 * n + 3), 255], 4 * n);
  Object.assign(canvas, { width: w, height: h });
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function openFiles(files) {
  const file = files?.[0];
  if (file) open(file, { name: file.name || "The picture" });
}

function buildSamples() {
  const offer = (source, image, sample) => {
    const button = make("button", { type: "button", "aria-pressed": "false" }, image, own(sample.name));
    button.source = source;
    button.addEventListener("click", () => open(source, sample));
    byId("samples").append(make("li", {}, button));
  };
  for (const sample of data.samples) {
    offer(sample.source, make("img", { src: sample.source, alt: "" }), sample);
  }
  offer(null, make("span", { class: "paper" }), PAPER);
}

function listen() {
  const set = (change) => { Object.assign(state, change); render(); };
  const on = (id, kind, act) => byId(id).addEventListener(kind, act);
  for (const radio of document.querySelectorAll("[name=method]")) radio.addEventListener("change", () => { choose(radio.value); render(); });
  for (const radio of document.querySelectorAll("[name=tool]")) radio.addEventListener("change", () => set({ tool: radio.value }));
  on("layer", "input", (event) => set({ layer: Number(event.target.value) - 1 }));
  on("head", "input", (event) => set({ head: Number(event.target.value) ? Number(event.target.value) - 1 : null }));
  on("opacity", "input", (event) => set({ opacity: Number(event.target.value) }));
  on("brush", "input", (event) => set({ brush: Number(event.target.value) }));
  on("colour", "input", (event) => { state.colour = event.target.value; });
  for (const name of ["smooth", "sharp", "lines"]) on(name, "change", (event) => set({ [name]: event.target.checked }));
  on("class-token", "click", () => set({ query: 0 }));
  on("erase-most", "click", () => eraseByMap(true));
  on("erase-least", "click", () => eraseByMap(false));
  on("restore", "click", () => state.picture?.again());
  on("file", "change", (event) => { openFiles(event.target.files); event.target.value = ""; });
  on("choose", "click", () => byId("file").click());
  on("help-open", "click", () => byId("help").showModal());
  document.addEventListener("paste", (event) => openFiles(event.clipboardData?.files));
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
  }
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    openFiles(event.dataTransfer.files);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || byId("help").open) return;
    if (event.target.matches("select, input:not([type=radio], [type=checkbox], [type=range])")) return;
    const layer = (by) => set({ layer: clamp(state.layer + by, 0, model.depth - 1) });
    const methods = Object.keys(METHODS), heads = model.heads > 1 ? [null, ...Array(model.heads).keys()] : [null];
    const keys = {
      Escape: () => set({ query: 0 }), "[": () => layer(-1), "]": () => layer(1), "?": () => byId("help").showModal(),
      h: () => set({ method: "raw", head: heads[(heads.indexOf(state.head) + 1) % heads.length] }),
      m: () => { choose(methods[(methods.indexOf(state.method) + 1) % methods.length]); render(); },
      t: () => visit(step === null ? 0 : null),
    };
    if (Object.hasOwn(keys, event.key)) { event.preventDefault(); keys[event.key](); }
  });
}

// For the console, and for tests: what the page shows, as numbers.
window.visattn = { state, timings, model, currentRow, input: () => state.picture.input(), ask, open, eraseByMap, render };

buildStage();
buildClasses();
buildWall();
buildSamples();
listen();
listenToTour();
byId("erase-most").append(plural(EIGHTH, "patch"));
byId("erase-least").append(plural(EIGHTH, "patch"));
paintControls();
describe();
startEngine();
open(data.samples[0]?.source ?? null, data.samples[0] ?? PAPER);
