// The stage: the picture under its map, and over both a grid of patches to click, erase or draw on.

const cells = [];

/** Make the grid of patches. */
function buildStage() {
  const grid = byId("grid");
  grid.style.setProperty("--columns", COLUMNS);
  for (let y = 0; y < ROWS; y++) {
    const row = make("div", { role: "row" });
    for (let x = 0; x < COLUMNS; x++) {
      const cell = make("div", { role: "gridcell" });
      cells.push(cell);
      row.append(cell);
    }
    grid.append(row);
  }
  roving(cells, COLUMNS, Math.floor(ROWS / 2) * COLUMNS + Math.floor(COLUMNS / 2));
  cells.forEach((cell, n) => cell.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    actOnPatch(n);
  }));
  document.documentElement.style.setProperty("--ratio", model.imageSize[1] / model.imageSize[0]);
  listenToPointer(grid);
}

/** What Enter or the space bar does to a patch. */
function actOnPatch(patch) {
  if (state.tool === "look") return ask(patch + 1);
  if (!state.picture) return;
  const { picture } = state, inside = (x, y) => Math.floor(y / model.patch) * COLUMNS + Math.floor(x / model.patch) === patch;
  if (state.tool === "erase") {
    const [x, y] = [(patch % COLUMNS) * model.patch, Math.floor(patch / COLUMNS) * model.patch];
    const was = picture.erased[y * model.imageSize[1] + x];
    picture.erase((px, py, before) => (inside(px, py) ? !was : before));
  } else {
    const half = model.patch / 2, y = (Math.floor(patch / COLUMNS) + 0.5) * model.patch, x = (patch % COLUMNS) * model.patch;
    picture.draw([x + half, y], [x + half, y], half, state.colour);
  }
  pictureChanged();
}

/** Let a token ask; a patch that asks already hands back to the class token. */
function ask(token) {
  state.query = state.query === token ? 0 : token;
  render();
}

function listenToPointer(grid) {
  let last = null;
  const at = (event) => {
    const box = grid.getBoundingClientRect(), [h, w] = model.imageSize;
    return [((event.clientX - box.left) / box.width) * w, ((event.clientY - box.top) / box.height) * h];
  };
  const stroke = (event) => {
    const next = at(event), from = last ?? next;
    if (state.tool === "erase") {
      const steps = Math.ceil(Math.hypot(next[0] - from[0], next[1] - from[1])) + 1;
      const points = Array.from({ length: steps + 1 }, (_, n) => from.map((value, axis) => value + ((next[axis] - value) * n) / steps));
      state.picture.erase((x, y, before) => before || points.some(([a, b]) => Math.hypot(x + 0.5 - a, y + 0.5 - b) <= state.brush));
    } else {
      state.picture.draw(from, next, state.brush, state.colour);
    }
    last = next;
    pictureChanged();
  };
  grid.addEventListener("pointerdown", (event) => {
    if (event.button || state.tool === "look" || !state.picture) return;
    event.preventDefault();
    grid.setPointerCapture(event.pointerId);
    stroke(event);
  });
  grid.addEventListener("pointermove", (event) => { if (last) stroke(event); });
  for (const end of ["pointerup", "pointercancel"]) grid.addEventListener(end, () => { last = null; });
  grid.addEventListener("click", (event) => {
    if (state.tool !== "look") return;
    const [x, y] = at(event), [h, w] = model.imageSize;
    const patch = clamp(Math.floor((y / h) * ROWS), 0, ROWS - 1) * COLUMNS + clamp(Math.floor((x / w) * COLUMNS), 0, COLUMNS - 1);
    cells.forEach((cell, n) => { cell.tabIndex = n === patch ? 0 : -1; });
    ask(patch + 1);
  });
}

/** After the brush: show the picture, and run the model on it. */
function pictureChanged() {
  paintStage();
  paintInput();
  forward();
}

/** Erase an eighth of the patches: those not yet erased that the map gives the most to, or the least. */
function eraseByMap(most) {
  const row = currentRow();
  if (!row) return;
  const { picture } = state, w = model.imageSize[1], middle = Math.floor(model.patch / 2);
  const gone = (patch) => picture.erased[(Math.floor(patch / COLUMNS) * model.patch + middle) * w + (patch % COLUMNS) * model.patch + middle];
  const left = [...Array(PATCHES).keys()].filter((patch) => !gone(patch)).sort((a, b) => (row[b + 1] - row[a + 1]) * (most ? 1 : -1));
  const chosen = new Set(left.slice(0, EIGHTH));
  picture.erase((x, y, before) => before || chosen.has(Math.floor(y / model.patch) * COLUMNS + Math.floor(x / model.patch)));
  pictureChanged();
}
const EIGHTH = Math.max(1, Math.round(PATCHES / 8));

/** Draw the picture and its map. */
function paintStage() {
  const { picture, opacity, smooth, sharp, query, method } = state, canvas = byId("canvas");
  if (!picture) return;
  const row = currentRow(), { width, height } = picture.view, context = canvas.getContext("2d");
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const shown = picture.base?.sharp === sharp ? picture.base : (picture.base = { sharp, image: picture.shown(sharp) });
  shown.dim ??= painter.base(shown.image.data);
  const weights = row?.subarray(1), high = row ? robustHigh(weights) : 0;
  if (row && opacity) context.putImageData(painter.overlay(shown.dim, height, width, weights, model.grid, high, opacity, smooth), 0, 0);
  else context.putImageData(shown.image, 0, 0);
  const box = byId("box"), patch = query - 1;
  box.hidden = query === 0 || method === "relevance";
  box.style.top = `${(100 * Math.floor(patch / COLUMNS)) / ROWS}%`;
  box.style.left = `${(100 * (patch % COLUMNS)) / COLUMNS}%`;
  box.style.height = `${100 / ROWS}%`;
  box.style.width = `${100 / COLUMNS}%`;
  byId("grid").classList.toggle("lined", state.lines);
  byId("frame").dataset.tool = state.tool;
  painter.strip(byId("strip"), opacity);
  byId("high").textContent = row ? (weights.some((weight) => weight > high) ? `≥ ${three(high)}` : three(high)) : "";
  cells.forEach((cell, n) => {
    cell.setAttribute("aria-label", `${placeOf(n)}${row ? `, ${three(weights[n])}` : ""}`);
    cell.setAttribute("aria-selected", String(n === patch));
  });
}
