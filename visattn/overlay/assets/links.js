// Links to what is shown, the way back, and light or dark.

// ------------------------------------------------------------------------------------------------------------ fragments

/** A picture in a link: its name where that says which, else its number. */
function nameInLink(number) {
  const { name } = data.scenes[number], alone = data.scenes.filter((scene) => scene.name === name).length === 1;
  return alone && name && !/^\d+$/.test(name) ? name : String(number + 1);
}

/** Values of each pane, separated by commas; nothing where all are empty. */
const listed = (values) => values.map((value) => value || "").join(",").replace(/,+$/, "");

/** What is shown, as a URL's fragment; what is as it is at first is left out. */
function fragment() {
  const parts = new URLSearchParams({ picture: nameInLink(state.scene) }), shapes = panes.map((pane) => pane.stack.shape);
  const layers = Math.max(...shapes.map((shape) => shape[1])), classes = panes.some((pane) => pane.reading.kind === "class");
  const said = {
    model: active > 0 && active + 1,
    caption: listed(panes.map((pane) => pane.rank > 0 && pane.rank + 1)),
    word: listed(panes.map((pane) => pane.pinned !== null && pane.pinned + 1)),
    map: state.map,
    layer: (classes || layers > 1) && state.layer < layers - 1 && state.layer + 1,
    head: state.head || null,
    place: listed(panes.map(({ asked, reading: { queries } }) => asked !== null && `${Math.floor(asked / queries.grid[1]) + 1}.${(asked % queries.grid[1]) + 1}`)),
    asking: panes.some((pane) => pane.asked !== null) && Number.isFinite(state.asking) && state.asking + 1,
    view: state.view === "picture" ? null : state.view,
    sides: state.view === "compare" && state.sides.join(","),
    wipe: state.view === "compare" && state.wipe !== 50 && state.wipe,
  };
  for (const [name, value] of Object.entries(said)) if (value) parts.set(name, value);
  return `#${parts}`;
}

/** Show what a fragment says; what it says wrongly is left out. */
async function restore(text) {
  const parts = new URLSearchParams(text.replace(/^#/, "")), wanted = parts.get("picture");
  const number = (name, low, high) => { const value = parts.get(name); return /^\d+$/.test(value ?? "") && value >= low && value <= high ? Number(value) : null; };
  const each = (name) => (parts.get(name) ?? "").split(",");
  let found = 0;
  if (wanted !== null) {
    found = /^\d+$/.test(wanted) ? Number(wanted) - 1 : data.scenes.findIndex((scene) => scene.name === wanted);
    if (!data.scenes[found]) { tell("The picture of this link is not in this page."); found = 0; }
  }
  Object.assign(state, {
    map: parts.get("map"), layer: (number("layer", 1, 1e6) ?? Infinity) - 1, head: number("head", 0, 1e6) ?? 0, asking: (number("asking", 1, 1e6) ?? Infinity) - 1,
    sides: (parts.get("sides") ?? "").split(",").filter(Boolean), wipe: number("wipe", 0, 100) ?? 50,
    view: ["words", "compare"].includes(parts.get("view")) ? parts.get("view") : "picture",
  });
  const ranks = each("caption").map((rank) => Number(rank) - 1), words = each("word"), places = each("place");
  active = (number("model", 1, data.models.length) ?? 1) - 1;
  await show(found, {
    ranks,
    linked: true,
    then: () => panes.forEach((pane, n) => {
      const word = Number(words[n]) - 1, [row, column] = (places[n] ?? "").split(".").map((part) => Number(part) - 1), grid = pane.reading.queries?.grid;
      if (pane.options[word]) pane.pin(word);
      if (grid && row >= 0 && row < grid[0] && column >= 0 && column < grid[1] && Number.isInteger(row) && Number.isInteger(column)) pane.asked = row * grid[1] + column;
    }),
  });
}

let pending = null; // what is about to be written into the address, and its timer

function write(how, what) {
  try { history[how](null, "", what); } catch { /* a page without an address */ }
}

/** Keep what is shown in the address: as a step to go back from, or in place of the present one, once there is a rest. */
function remember(step = false) {
  const now = fragment();
  if (step) settle(); else forget();
  if (now === location.hash) return;
  if (step) write("pushState", now); else pending = { what: now, timer: setTimeout(settle, 250) };
}

/** Write what is about to be written. */
function settle() {
  const what = pending?.what;
  forget();
  if (what) write("replaceState", what);
}

/** Drop what is about to be written. */
function forget() {
  clearTimeout(pending?.timer);
  pending = null;
}

async function copyLink() {
  remember();
  const link = location.href.split("#")[0] + fragment();
  try {
    await navigator.clipboard.writeText(link);
    tell("Link copied");
  } catch {
    const field = make("textarea", { readonly: "" }, link);
    document.body.append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    byId("copy").focus();
    tell(copied ? "Link copied" : "This browser does not let a page copy; the link is in the address bar.");
  }
}

/** A short message at the edge of the page. */
function tell(text) {
  byId("notice").textContent = text;
  clearTimeout(tell.timer);
  tell.timer = setTimeout(() => { byId("notice").textContent = ""; }, 5000);
}

// -------------------------------------------------------------------------------------------------------- light or dark

const night = matchMedia("(prefers-color-scheme: dark)");
const KEPT = `visattn colours ${location.pathname}`;

/** The browser's storage, where the page may use it. */
function kept(act) {
  try { return act(localStorage); } catch { return null; }
}

const isDark = () => { const chosen = document.documentElement.style.colorScheme; return chosen ? chosen === "dark" : night.matches; };

/** Take "light" or "dark"; anything else follows the system. */
function colours(chosen) {
  document.documentElement.style.colorScheme = ["light", "dark"].includes(chosen) ? chosen : "";
  byId("dark").setAttribute("aria-pressed", String(isDark()));
}

function toggleDark() {
  const chosen = isDark() ? "light" : "dark", system = night.matches ? "dark" : "light";
  colours(chosen === system ? null : chosen);
  kept((storage) => (chosen === system ? storage.removeItem(KEPT) : storage.setItem(KEPT, chosen)));
}
