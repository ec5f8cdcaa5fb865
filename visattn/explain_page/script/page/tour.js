// A guided tour of eight steps; each sets the page to what it tells of.

const tokens = PATCHES + 1, [HIGH, WIDE] = model.imageSize;
const STEPS = [
  {
    title: "A picture becomes patches",
    text: [
      `The model sees ${WIDE}×${HIGH} pixels, cut into ${COLUMNS}×${ROWS} patches. ${model.halvings ? "A few convolutions turn each patch, with what surrounds it," : "One linear layer turns each patch"} into a token: a vector of ${model.size} numbers, to which its place is added.`,
      "On the stage are the very pixels that the model sees. Choose another picture, or draw one.",
    ],
    show: { method: "raw", layer: 0, head: null, query: 0, sharp: true, lines: true, opacity: 0, tool: "look" },
  },
  {
    title: "One more token asks for all",
    text: [
      `A further one, the class token, is the same for every picture. In each of ${plural(model.depth, "layer")} it collects something from the ${plural(PATCHES, "patch")}; at the end, the class is read from it alone.`,
      "The colours are what it attends to in the first layer: bright is a large weight.",
    ],
    show: { method: "raw", layer: 0, head: null, query: 0, sharp: false, lines: false, opacity: data.palette.opacity, tool: "look" },
  },
  {
    title: "Queries, keys and values",
    text: [
      `softmax(Q Kᵀ / √d) V: each token sends out a query, which is compared with the key of every token. The softmax makes weights of the scores, positive and with the sum 1; the answer is the mean of the values with these weights. Here d is ${model.size / model.heads}.`,
      "Move the slider “Layer”: what is asked for changes from layer to layer.",
    ],
    show: { method: "raw", layer: model.depth - 1, head: null, query: 0, tool: "look", opacity: data.palette.opacity, sharp: false },
  },
  {
    title: "Heads ask different questions",
    text: [
      `Each layer has ${plural(model.heads, "head")} with queries, keys and values of their own. The wall shows the class token’s weights in all of them; the mean hides how much they differ.`,
      "Click a map of the wall to see it on the picture.",
    ],
    show: { method: "raw", layer: Math.floor(model.depth / 2), head: 0, query: 0, tool: "look", opacity: data.palette.opacity, sharp: false },
  },
  {
    title: "Every patch asks, too",
    text: [
      `Attention is computed from each of the ${tokens} tokens to each. The framed patch now asks: does it attend to itself, to its neighbours, to what looks alike?`,
      "Click other patches, in several layers and heads. Click the framed one, or press Escape, to return to the class token.",
    ],
    show: () => ({ method: "raw", layer: Math.floor(model.depth / 2), head: null, query: brightest(), tool: "look", opacity: data.palette.opacity, sharp: false }),
  },
  {
    title: "Through all layers: rollout",
    text: [
      "What a token holds in the last layer was mixed in all layers before. Rollout (Abnar and Zuidema 2020) follows it back: it takes (A + I) / 2 for each layer, half attention and half what the token held already, and multiplies the layers.",
      "Move the slider to roll out through more or fewer layers.",
    ],
    show: { method: "rollout", layer: model.depth - 1, query: 0, tool: "look", opacity: data.palette.opacity, sharp: false },
  },
  {
    title: "For one class: relevance",
    text: [
      "Attention and rollout are the same for every class. Relevance (Chefer, Gur and Wolf 2021) weights each layer’s attention by its gradient, how much the class’s score would rise with it, keeps what is positive, and adds up the layers.",
      "Click another class: what speaks for it lies elsewhere, or nowhere.",
    ],
    show: { method: "relevance", layer: model.depth - 1, query: 0, target: null, tool: "look", opacity: data.palette.opacity, sharp: false },
  },
  {
    title: "Does the map tell the truth?",
    text: [
      "A map is a claim: these patches matter. Test it. Erase the brightest patches and watch the probability; restore the picture; erase as many of the darkest. If the map is faithful, the first costs more.",
      "Or erase with the brush what you think matters. What is erased gets the colour that is nearest to 0 for the model.",
    ],
    show: { method: "rollout", layer: model.depth - 1, query: 0, tool: "erase", opacity: data.palette.opacity, sharp: false },
  },
];
let step = null;

/** The token of the patch that the class token attends to most. */
function brightest() {
  if (!state.run) return 1;
  const weights = state.run.maps.raw(Math.floor(model.depth / 2), null, 0).subarray(1);
  return 1 + weights.indexOf(Math.max(...weights));
}

/** Go to a step, or leave the tour (null). */
function visit(number) {
  step = number;
  byId("tour").hidden = number === null;
  byId("tour-open").setAttribute("aria-expanded", String(number !== null));
  if (number === null) {
    Object.assign(state, { lines: false, sharp: false, opacity: state.opacity || data.palette.opacity });
    render();
    return byId("tour-open").focus({ preventScroll: true });
  }
  const { title, text, show } = STEPS[number];
  Object.assign(state, { lines: false }, typeof show === "function" ? show() : show);
  say(byId("tour-count"), `Step ${number + 1} of ${STEPS.length}`);
  say(byId("tour-title"), title);
  byId("tour-text").replaceChildren(...text.map((part) => make("p", {}, part)));
  byId("tour-back").disabled = number === 0;
  say(byId("tour-next"), number === STEPS.length - 1 ? "Finish" : "Next");
  render();
  byId("tour-title").focus();
}

function listenToTour() {
  byId("tour-open").addEventListener("click", () => visit(step === null ? 0 : null));
  byId("tour-close").addEventListener("click", () => visit(null));
  byId("tour-back").addEventListener("click", () => visit(step - 1));
  byId("tour-next").addEventListener("click", () => visit(step === STEPS.length - 1 ? null : step + 1));
}
