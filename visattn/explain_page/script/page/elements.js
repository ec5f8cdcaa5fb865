// Small things that all parts of the page use.

const data = JSON.parse(document.getElementById("data").textContent);
const { model } = data;
const [ROWS, COLUMNS] = model.grid, PATCHES = ROWS * COLUMNS;
const painter = new Painter(data.palette);
const byId = (id) => document.getElementById(id);
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
const percent = (p) => (p > 0.995 && p < 1 ? "> 99%" : p > 0 && p < 0.005 ? "< 1%" : `${Math.round(100 * p)}%`);
const three = (x) => (x === 0 ? "0" : Math.abs(x) < 1e-4 ? x.toExponential(1) : String(Number(x.toPrecision(3)))).replace("-", "−");
const plural = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : noun.endsWith("patch") ? "es" : "s"}`;
const list = (items) => (items.length < 2 ? items.join("") : `${items.slice(0, -1).join(", ")} and ${items.at(-1)}`);

/** An element with attributes and children; text stays text, whatever it says. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== false) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** A text of its own direction. */
const own = (text) => make("bdi", {}, text);

/** "row 2, column 3" of the patch with this number. */
const placeOf = (patch) => `row ${Math.floor(patch / COLUMNS) + 1}, column ${(patch % COLUMNS) + 1}`;

/** Set an element's text only if it has changed, so that screen readers say it once. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Let the arrow keys move between the buttons of a group, of which the tab key reaches one. */
function roving(buttons, columns, start = 0) {
  buttons.forEach((button, n) => {
    button.tabIndex = n === start ? 0 : -1;
    button.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -n, End: buttons.length - 1 - n }[event.key];
      if (by === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      event.stopPropagation();
      const next = buttons[n + by];
      if (!next || (Math.abs(by) === 1 && columns > 1 && Math.floor(n / columns) !== Math.floor((n + by) / columns))) return;
      button.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  });
}
