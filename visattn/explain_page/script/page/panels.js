// Beside the stage: classes, controls of the map, and the wall of all layers and heads.

const MANY = 12; // classes; of more, only the likeliest are shown, and the explained one is chosen from a list
const classRows = [], wall = [];

function buildClasses() {
  const shown = Math.min(model.classes, model.classes > MANY ? 8 : MANY);
  for (let n = 0; n < shown; n++) {
    const name = make("bdi"), bar = make("i"), before = make("b"), number = make("span", { class: "number" });
    const button = make("button", { type: "button" }, name, number, make("span", { class: "bar", "aria-hidden": "true" }, bar, before));
    classRows.push({ button, name, bar, before, number, index: n });
    button.addEventListener("click", () => { state.target = classRows[n].index; choose("relevance"); render(); });
    byId("classes").append(make("li", {}, button));
  }
  byId("target").append(make("option", { value: "" }, "the likeliest"), ...model.names.map((name, n) => make("option", { value: n }, name)));
  byId("target").addEventListener("change", (event) => { state.target = event.target.value === "" ? null : Number(event.target.value); render(); });
}

function paintClasses() {
  const { run, first } = state;
  if (!run) return;
  const order = [...run.probabilities.keys()].sort((a, b) => run.probabilities[b] - run.probabilities[a]);
  classRows.forEach((row, n) => {
    row.index = model.classes > MANY ? order[n] : n;
    const now = run.probabilities[row.index], before = first[row.index], change = Math.round(100 * now) - Math.round(100 * before);
    say(row.name, model.names[row.index]);
    row.bar.style.width = `${100 * now}%`;
    row.before.style.left = `${100 * before}%`;
    row.before.hidden = first === run.probabilities;
    row.number.replaceChildren(change && !row.before.hidden ? make("span", { class: "change" }, `${change > 0 ? "+" : "−"}${Math.abs(change)}`) : "", percent(now));
    row.button.classList.toggle("best", row.index === order[0]);
    row.button.setAttribute("aria-pressed", String(state.method === "relevance" && row.index === target()));
  });
  say(byId("verdict"), `${list(order.slice(0, 3).map((n) => `${model.names[n]} ${percent(run.probabilities[n])}`))}.`);
  byId("target").value = state.target ?? "";
}

function buildWall() {
  const names = [...Array.from({ length: model.heads }, (_, n) => `${n + 1}`), ...(model.heads > 1 ? ["mean"] : [])];
  const table = byId("wall");
  table.style.setProperty("--heads", names.length);
  table.append(make("span", { class: "name" }, "head"), ...names.map((name) => make("span", {}, name)));
  for (let layer = 0; layer < model.depth; layer++) {
    table.append(make("span", { class: "name" }, `layer ${layer + 1}`));
    names.forEach((name, n) => {
      const head = n < model.heads ? n : null, canvas = make("canvas");
      const button = make("button", { type: "button", "aria-label": `layer ${layer + 1}, ${head === null ? "mean of heads" : `head ${name}`}` }, canvas);
      button.addEventListener("click", () => { Object.assign(state, { method: "raw", layer, head }); render(); });
      wall.push({ button, canvas, layer, head });
      table.append(button);
    });
  }
  roving(wall.map(({ button }) => button), names.length);
}

function paintWall() {
  const { run, method, query } = state;
  if (!run) return;
  for (const { button, canvas, layer, head } of wall) {
    const weights = run.maps.raw(layer, model.heads > 1 ? head : 0, query).subarray(1);
    painter.small(canvas, weights, model.grid, robustHigh(weights));
    const same = head === state.head || model.heads === 1;
    button.setAttribute("aria-pressed", String(method === "raw" && layer === state.layer && same));
  }
  const asker = query ? `the patch in ${placeOf(query - 1)}` : "the class token";
  say(byId("wall-of"), `Where ${asker} attends; each map on its own scale.`);
}

/** Set the controls to the state. */
function paintControls() {
  const { method, layer, head, query } = state, upTo = method !== "raw";
  for (const name of Object.keys(METHODS)) document.querySelector(`[name=method][value=${name}]`).checked = name === method;
  for (const radio of document.querySelectorAll("[name=tool]")) radio.checked = radio.value === state.tool;
  Object.assign(byId("layer"), { max: model.depth, value: layer + 1 });
  say(byId("layer-name"), upTo ? "Layers" : "Layer");
  byId("layer-value").value = upTo ? (layer ? `1 to ${layer + 1}` : "1") : `${layer + 1} of ${model.depth}`;
  byId("layer").setAttribute("aria-valuetext", byId("layer-value").value);
  Object.assign(byId("head"), { max: model.heads, value: head === null ? 0 : head + 1 });
  byId("head-value").value = head === null ? "mean" : `${head + 1} of ${model.heads}`;
  byId("head").setAttribute("aria-valuetext", byId("head-value").value);
  byId("head-control").hidden = upTo || model.heads === 1;
  byId("layer-control").hidden = model.depth === 1;
  byId("target-control").hidden = method !== "relevance";
  byId("opacity").value = state.opacity;
  byId("opacity-value").value = `${Math.round(100 * state.opacity)}%`;
  for (const name of ["smooth", "sharp", "lines"]) byId(name).checked = state[name];
  const asks = state.tool === "look" && query > 0 && method !== "relevance";
  byId("class-token").hidden = !asks;
  byId("hint").hidden = asks || state.tool !== "look";
  say(byId("hint"), method === "relevance" ? "Click a class to see what speaks for it." : "Click a patch to see what it attends to.");
  for (const part of document.querySelectorAll("[data-for]")) part.hidden = !part.dataset.for.split(" ").includes(state.tool);
  byId("brush").value = state.brush;
  byId("brush-value").value = `${three(2 * state.brush)} px`;
}

/** What is shown, in a sentence. */
function describe() {
  const { run, method, layer, head, query } = state, row = currentRow();
  if (!run) return say(byId("meaning"), timings.load === null ? "The model is being read …" : "The model is running …");
  const asker = query ? `the patch in ${placeOf(query - 1)}` : "the class token", through = `layers 1 to ${layer + 1}`;
  const where = `layer ${layer + 1}, ${model.heads === 1 ? "its head" : head === null ? "mean of heads" : `head ${head + 1}`}`;
  const heading = {
    raw: () => `Attention of ${asker} in ${where}`,
    rollout: () => `Rollout: what reaches ${asker} through ${through}`,
    relevance: () => `Relevance for “${model.names[target()]}” through ${through}`,
  }[method]();
  say(byId("meaning"), heading);
  if (!row) return say(byId("readout"), "The gradient is being computed …");
  const weights = row.subarray(1), most = weights.indexOf(Math.max(...weights)), total = weights.reduce((a, b) => a + b, 0);
  const facts = [`most at ${placeOf(most)}: ${method === "relevance" ? three(weights[most]) : percent(weights[most])}`];
  if (method !== "relevance") facts.push(`on all patches together ${percent(total)}, on the class token ${percent(row[0])}`);
  if (method === "relevance" && query) facts.push("relevance is always the class token’s; attention and rollout can be asked from a patch");
  say(byId("readout"), `${heading}: ${facts.join("; ")}.`);
}
