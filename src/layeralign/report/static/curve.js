/* Every exit: one panel per metric, all runs in each, groups shaded, the default exit marked. */

const groups = DATA.exits.reduce((found, exit) => {
  const last = found.at(-1);
  if (last && last.group === exit.group) last.to = exit.exit;
  else found.push({ group: exit.group, from: exit.exit, to: exit.exit, even: found.length % 2 === 0 });
  return found;
}, []);
const defaults = [...new Set(DATA.runs.map((run) => run.default))].filter((exit) => byExit.has(exit));

/** One metric over the exits. */
function panel(metric, category, width, first) {
  const scale = metric.share ? 100 : 1;
  const found = DATA.runs.flatMap((_, run) => points(run, metric.key, category)).map(({ exit, run, point }) => ({
    exit, run, line: `${run} ${byExit.get(exit).track}`, point, worse: metric.key === "asr" && !category
      && DATA.runs[run].worse.includes(exit),
    value: scale * point[0], low: point[1] == null ? NaN : scale * point[1],
    high: point[2] == null ? NaN : scale * point[2],
  }));
  if (!found.length) {
    return el("p", { class: "note" }, `${metric.label}: not measured${category ? ` in ${category}` : ""}.`);
  }
  const tips = [...d3.group(found, (one) => one.exit)].map(([exit, ones]) => ({
    exit, value: d3.max(ones, (one) => one.value),
    text: [`exit ${exitName(exit)} (${byExit.get(exit).group}${defaults.includes(exit) ? ", default" : ""})`,
      ...ones.map((one) => (MANY ? `${DATA.runs[one.run].label}: ` : "") + told(one.point, metric)
        + (one.worse ? " – significantly worse than the default" : ""))].join("\n"),
  }));
  const low = Math.min(0, d3.min(found, (one) => one.low || one.value));
  const domain = metric.share ? [low < -1 ? Math.max(-100, low - 3) : -2, 102] : undefined;
  const lines = DATA.runs.map((_, run) => Plot.line(found.filter((one) => one.run === run), {
    x: "exit", y: "value", z: "line", stroke: colour(run), strokeWidth: 2.2, strokeDasharray: DASHES[run % 7],
  }));
  const dots = DATA.runs.map((_, run) => Plot.dot(found.filter((one) => one.run === run), {
    x: "exit", y: "value", fill: colour(run), symbol: SYMBOLS[run % 7], r: width < 500 ? 2.5 : 3.5,
  }));
  const bands = DATA.runs.length > 4 ? [] : DATA.runs.map((_, run) => Plot.areaY(
    found.filter((one) => one.run === run),
    { x: "exit", y1: "low", y2: "high", z: "line", fill: colour(run), fillOpacity: 0.16 }));
  const chart = plot(`${metric.label} over the encoder's exits`, {
    width, height: first ? Math.max(230, Math.min(330, width * 0.4)) : 150,
    marginLeft: 40, marginRight: 10, marginTop: first ? 30 : 12, marginBottom: 30,
    x: { domain: [DATA.exits[0].exit - 0.5, DATA.exits.at(-1).exit + 0.5], label: null,
         ticks: exitTicks(width), tickFormat: exitName, tickSize: 3 },
    y: { domain, label: null, ticks: first ? 5 : 3, grid: true, tickSize: 0 },
    style: { fontSize: "12px" },
    marks: [
      Plot.rectX(groups.filter((group) => group.even), { x1: (g) => g.from - 0.5, x2: (g) => g.to + 0.5,
        fill: "var(--band)" }),
      Plot.ruleX(defaults, { stroke: "var(--ink)", strokeDasharray: "2 3" }),
      first ? Plot.text(groups, { x: (g) => (g.from + g.to) / 2, text: (g) => groupName(g, width),
        frameAnchor: "top", dy: -16, fill: "var(--soft)", fontSize: 12 }) : null,
      ...bands, ...lines, ...dots,
      Plot.dot(found.filter((one) => one.worse), { x: "exit", y: "value", r: 7, stroke: "var(--ink)",
        strokeWidth: 1.2 }),
      Plot.ruleX(tips, Plot.pointerX({ x: "exit", stroke: "var(--soft)" })),
      Plot.tip(tips, Plot.pointerX({ x: "exit", y: "value", title: "text", fontSize: 12, lineWidth: 40,
        textPadding: 10 })),
    ],
  });
  return el("figure", { class: "panel" },
    el("figcaption", {}, metric.label + (metric.share ? ", %" : ""), better(metric)), chart);
}

function groupName(group, width) {
  const room = width * (group.to - group.from + 1) / DATA.exits.length;
  return room < 7 * group.group.length ? "" : group.group;
}

const better = (metric) => metric.better && el("span", { class: "better" },
  metric.better === "low" ? "lower is better" : "higher is better");

function curve(place) {
  const shown = new Set(["asr", "over_refusal", "utility"].filter((key) => DATA.metrics.some((m) => m.key === key)));
  if (!shown.size && DATA.metrics.length) shown.add(DATA.metrics[0].key);
  let category = "";
  const charts = el("div", { class: "panels" });
  const chips = el("fieldset", { class: "chips" }, el("legend", {}, "Show"), DATA.metrics.map((metric) =>
    el("label", {}, el("input", { type: "checkbox", value: metric.key, checked: shown.has(metric.key),
      onchange: (event) => { shown[event.target.checked ? "add" : "delete"](metric.key); again(); } }),
    el("span", {}, metric.short))));
  const { field } = choice("Category", [["", "all cases"], ...DATA.categories.map((name) => [name, name])],
    (value) => { category = value; again(); });
  place.append(el("div", { class: "controls" }, chips, DATA.categories.length > 1 ? field : null), legend() ?? "",
    charts, el("p", { class: "note" },
      "Bands: 95 % intervals. Dotted line: the default exit. Ringed: significantly worse than it."));
  const again = responsive(charts, (width) => DATA.metrics.filter((metric) => shown.has(metric.key))
    .map((metric, at) => panel(metric, category, width, at === 0)));
}
