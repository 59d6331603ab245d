/* The ASR with each case's own picture beside the same cases without it, with a blank one, with noise. */

/** What is drawn of a run: its own pictures and every control, a line each. */
function sidesOf(run) {
  const found = Object.entries(run.controls).filter(([, exits]) => Object.keys(exits).length);
  const own = Object.assign({}, ...found.map(([, exits]) => exits));
  const side = (name, exits, which) => [name, Object.entries(exits).map(([exit, both]) => ({
    name, exit: Number(exit), line: byExit.get(Number(exit)).track, point: both[which],
    low: 100 * both[which][1], value: 100 * both[which][0], high: 100 * both[which][2] }))];
  return [side("own picture", own, "own"), ...found.map(([name, exits]) => side(name, exits, "instead"))];
}

function controls(place) {
  const draw = (width) => DATA.runs.filter((run) => sidesOf(run).length > 1).map((run) => {
    const sides = sidesOf(run);
    const tips = [...d3.group(sides.flatMap(([, ones]) => ones), (one) => one.exit)].map(([exit, ones]) => ({
      exit, value: d3.max(ones, (one) => one.value),
      text: [`exit ${exitName(exit)}`, ...ones.map((one) => `${one.name}: ${told(one.point, SHARE)}`)].join("\n") }));
    const head = `Harmful requests answered (ASR), %${MANY ? `: ${run.label}` : ""}`;
    const chart = plot(`${head}, with the pictures and with controls`, {
      width, height: 220, marginLeft: 40, marginRight: 10, marginTop: 12, marginBottom: 30,
      x: { domain: [DATA.exits[0].exit - 0.5, DATA.exits.at(-1).exit + 0.5], label: null, ticks: exitTicks(width),
           tickFormat: exitName, tickSize: 3 },
      y: { domain: [-2, 102], label: null, ticks: 5, grid: true, tickSize: 0 }, style: { fontSize: "12px" },
      marks: [
        Plot.ruleX([run.default], { stroke: "var(--ink)", strokeDasharray: "2 3" }),
        ...sides.flatMap(([, ones], at) => [
          Plot.areaY(ones, { x: "exit", y1: "low", y2: "high", z: "line", fill: colour(at), fillOpacity: 0.12 }),
          Plot.line(ones, { x: "exit", y: "value", z: "line", stroke: colour(at), strokeWidth: 2,
            strokeDasharray: DASHES[at % 7] }),
          Plot.dot(ones, { x: "exit", y: "value", fill: colour(at), symbol: SYMBOLS[at % 7], r: 3 })]),
        Plot.tip(tips, Plot.pointerX({ x: "exit", y: "value", title: "text", fontSize: 12, lineWidth: 40,
          textPadding: 10 })),
      ],
    });
    return el("figure", { class: "panel" }, el("figcaption", {}, head), legend(sides.map(([name]) => name), "Pictures"),
      chart, ...silent(run), numbers("The numbers, with what the picture changes in points", () => controlTable(head, run, sides)));
  });
  const charts = el("div", { class: "panels" });
  place.append(charts);
  responsive(charts, draw);
}

/** Controls that nothing could be said of. */
const silent = (run) => Object.entries(run.controls).filter(([, exits]) => !Object.keys(exits).length)
  .map(([name]) => el("p", { class: "note" }, `${name}: no answer could be judged at any exit.`));

function controlTable(head, run, sides) {
  const found = Object.entries(run.controls).filter(([, exits]) => Object.keys(exits).length);
  return table(head, ["exit", "own picture", ...found.flatMap(([name]) => [name, `own less ${name}`])],
    sides[0][1].map(({ exit, point }) => [exitName(exit), told(point, SHARE), ...found.flatMap(([, exits]) => (
      exits[exit] ? [told(exits[exit].instead, SHARE), changed(exits[exit].difference)] : ["–", "–"]))]));
}

/** "+12.0 [+3.1, +20.5]", in points, of a change [before, after, difference, low, high, cases]. */
function changed(found) {
  if (!found) return "–";
  const points = (share) => `${share > 0 ? "+" : ""}${(100 * share).toFixed(1)}`;
  return `${points(found[2])} [${points(found[3])}, ${points(found[4])}]`;
}
