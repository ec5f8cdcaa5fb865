// What is shown, and the engine's answers to it.

const METHODS = { raw: "Attention", rollout: "Rollout", relevance: "Relevance" };

const state = {
  picture: null, // a Picture
  run: null, // the last forward pass: {logits, probabilities, maps}
  first: null, // probabilities of the picture before anything was erased or drawn
  tool: "look", method: "raw", layer: Math.floor(model.depth / 2), head: null, // head null: the mean of all
  query: 0, // the token that asks: 0 is the class token, n + 1 patch n
  target: null, // the class that relevance explains; null is the likeliest
  opacity: data.palette.opacity, smooth: true, sharp: false, lines: false,
  brush: model.patch * 0.75, colour: "#d63031",
  vectors: false, // whether linear layers run in WebAssembly
};
const timings = { load: null, forward: null, explain: null, map: null }; // milliseconds, the last of each

const target = () => state.target ?? state.run.probabilities.indexOf(Math.max(...state.run.probabilities));

/** Change the method; those that go through the layers begin with all of them. */
function choose(method) {
  if (state.method === "raw" && method !== "raw") state.layer = model.depth - 1;
  state.method = method;
}

/** The row (N) that the map is drawn from: of all tokens, the class token first; null while it is being computed. */
function currentRow() {
  const { run, method, layer, head, query } = state;
  if (!run) return null;
  if (method === "raw") return run.maps.raw(layer, head, query);
  return method === "rollout" ? run.maps.rollout(layer, query) : run.maps.relevance(target(), layer);
}

let sender = null, busy = false, waiting = false, asked = null, runs = 0;

/** Start the engine in a worker, or in this page where a browser refuses workers to a page that was opened as a file. */
function startEngine() {
  let worker;
  try {
    const source = `"use strict"; const receive = (${engine})(postMessage); onmessage = ({ data }) => receive(data);`;
    worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  } catch {
    return startHere();
  }
  worker.onmessage = ({ data: message }) => answered(message);
  worker.onerror = () => { if (timings.load === null) startHere(); };
  sender = (message) => worker.postMessage(message);
  load();
}

function startHere() {
  const receive = engine((message) => setTimeout(answered, 0, message));
  sender = (message) => setTimeout(receive, 0, message);
  load();
  busy = false; // what the worker was asked
  forward();
}

/** Give the engine its weights. */
function load() {
  const text = atob(byId("weights").textContent), bytes = new Uint8Array(text.length);
  for (let n = 0; n < bytes.length; n++) bytes[n] = text.charCodeAt(n);
  sender({ kind: "load", weights: bytes.buffer, model });
}

/** Run the model on the picture as it is now; while it runs, only the last request is kept. */
function forward() {
  waiting = busy;
  if (busy || !state.picture) return;
  busy = true;
  sender({ kind: "forward", run: ++runs, pixels: state.picture.input() });
  asked = { picture: state.picture, clean: state.picture.clean };
}
function answered(message) {
  if (message.kind === "loaded") {
    timings.load = message.milliseconds;
    state.vectors = message.vectors;
    return;
  }
  if (message.kind === "failed") {
    busy = false;
    return refuse(`The model could not be run: ${message.text}`);
  }
  if (message.kind === "forward") {
    busy = false;
    timings.forward = message.milliseconds;
    if (asked.picture === state.picture) {
      const probabilities = softmax(message.logits);
      state.run = { number: message.run, logits: message.logits, probabilities, maps: new Maps(message, model) };
      if (asked.clean || !state.first) state.first = probabilities;
      render();
    }
    if (waiting) forward();
  } else if (message.kind === "explain") {
    timings.explain = message.milliseconds;
    if (state.run?.number === message.run) {
      state.run.maps.explain(message.target, message.contributions);
      render();
    }
  }
}

/** Ask for the relevance of the chosen class, if it is wanted and not there yet. */
function explain() {
  const { run } = state;
  if (!run || state.method !== "relevance" || run.maps.relevances.has(target()) || run.explaining === target() || busy) return;
  run.explaining = target();
  sender({ kind: "explain", target: run.explaining });
}

function softmax(logits) {
  const largest = Math.max(...logits), powers = Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}
