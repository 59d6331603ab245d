/* What every part of the page uses: its data, elements, numbers, and the frame of a chart.
   Texts go in as texts (append, textContent), never as markup: models and cases are untrusted. */
"use strict";

const DATA = JSON.parse(document.getElementById("series").textContent);
const MANY = DATA.runs.length > 1;

/** An element with attributes, listeners (`onclick`) and children; a text child stays a text. */
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child != null));
  return made;
}

const byExit = new Map(DATA.exits.map((exit) => [exit.exit, exit]));
const exitName = (exit) => byExit.get(exit)?.name ?? String(exit);
const colour = (run) => `var(--run-${run % 7})`;
const DASHES = ["none", "7 3", "2 3", "9 3 2 3", "4 2", "1 2", "12 4"];
const SYMBOLS = ["circle", "square", "triangle", "diamond", "star", "wye", "cross"];

const SHARE = { share: true };

/** A share in percent, or a score in its own unit. */
function number(value, metric) {
  if (value == null) return "–";
  if (!metric.share) return Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(2);
  const percent = 100 * value;
  return percent !== 0 && Math.abs(percent) < 9.95 ? percent.toFixed(1) : percent.toFixed(0);
}

/** "64 % [57, 71], n = 300" of a point [value, low, high, rows]. */
function told(point, metric) {
  if (!point) return "not measured";
  const [value, low, high, n] = point;
  const unit = metric.share ? "\u00a0%" : "";
  const ends = low == null ? "" : ` [${number(low, metric)}, ${number(high, metric)}]`;
  return `${number(value, metric)}${unit}${ends}, n = ${n.toLocaleString("en")}`;
}

/** The points of a run's metric, of all cases or of one category: exit -> [value, low, high, rows]. */
function points(run, key, category = "") {
  const from = category ? DATA.runs[run].categories[category] ?? {} : DATA.runs[run].all;
  return Object.entries(from[key] ?? {}).map(([exit, point]) => ({ exit: Number(exit), run, point }));
}

/** A select with a label before it. */
function choice(label, options, onchange) {
  const select = el("select", { onchange: () => onchange(select.value) });
  for (const [value, text] of options) select.append(el("option", { value }, text));
  return { select, field: el("label", { class: "field" }, el("span", {}, label), select) };
}

/** A table out of texts; the first column names its row. */
function table(caption, heads, rows) {
  return el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption },
    el("table", {},
      el("caption", { class: "unseen" }, caption),
      el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", {}, rows.map(([first, ...cells]) =>
        el("tr", {}, el("th", { scope: "row" }, first), cells.map((cell) => el("td", {}, cell)))))));
}

/** The same numbers as a chart, to read: filled when it is opened. */
function numbers(summary, make) {
  const details = el("details", { class: "numbers", "data-screen": true }, el("summary", {}, summary));
  details.addEventListener("toggle", () => {
    if (details.open) details.replaceChildren(details.firstChild, make());
  });
  return details;
}

/** Which line is which, of those that are shown; nothing where there is one only. */
function legend(names = DATA.runs.map((run) => run.label), label = "Runs", shown = names) {
  if (names.length < 2) return null;
  return el("ul", { class: "legend", "aria-label": label }, shown.map((name) => {
    const at = names.indexOf(name);
    const line = plot("", {
      width: 34, height: 12, margin: 0, axis: null, x: { domain: [0, 2] }, y: { domain: [0, 2] },
      marks: [
        Plot.line([[0, 1], [2, 1]], { stroke: colour(at), strokeWidth: 2, strokeDasharray: DASHES[at % 7] }),
        Plot.dot([[1, 1]], { fill: colour(at), symbol: SYMBOLS[at % 7], r: 4 }),
      ],
    });
    line.setAttribute("aria-hidden", "true");
    return el("li", {}, line, name);
  }));
}

/** Draws into `place` now, and again when its width changes. */
function responsive(place, draw) {
  let width = 0;
  const again = () => {
    const now = Math.floor(place.clientWidth);
    if (now > 0) { width = now; place.replaceChildren(...[draw(now)].flat()); }
  };
  new ResizeObserver(() => { if (Math.abs(place.clientWidth - width) > 4) again(); }).observe(place);
  again();
  return again;
}

/** A plot with the page's manners: its own class, a name for screen readers (none where it is an ornament). */
function plot(label, options) {
  const made = Plot.plot({ className: "plot", ...options });
  for (const inner of made.querySelectorAll("[aria-label]")) inner.removeAttribute("aria-label"); // Plot's: "dot"
  if (label) made.setAttribute("role", "img");
  if (label) made.setAttribute("aria-label", label);
  return made;
}

/** The x axis of exits: every second or so where there is no room, the default always. */
function exitTicks(width, exits = DATA.exits) {
  const longest = Math.max(...exits.map((exit) => exit.name.length));
  const every = Math.ceil(exits.length * (10 + 7 * longest) / width);
  const start = exits.findIndex((exit) => exit.exit === DATA.runs[0].default);
  return exits.filter((_, at) => (at - Math.max(start, 0)) % every === 0).map((exit) => exit.exit);
}
