/* Category × exit as a heat map, one for each run. */

/** Colour of a share: none at 0, at 1 as much of it as the page's ink can still be read on. */
function heat(share, bad) {
  const amount = Math.max(0, Math.min(1, share)).toFixed(3);
  return `color-mix(in oklab, var(${bad ? "--harm" : "--good"}) calc(${amount} * var(--most)), var(--card))`;
}

const shorten = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

/** A heat map of cells {row, exit, share, text, title}: rows are names. */
function heatMap(label, rows, cells, width, fill) {
  const most = width < 500 ? 12 : 26;
  const margin = Math.min(16 + 7 * Math.max(...rows.map((row) => Math.min(row.length, most))), width * 0.4);
  const room = (width - margin - 8) / DATA.exits.length;
  const exits = DATA.exits.map((exit) => exit.exit);
  return plot(label, {
    width, height: 34 + 30 * rows.length, marginLeft: margin, marginRight: 8, marginTop: 4, marginBottom: 28,
    x: { type: "band", domain: exits, ticks: exitTicks(width - margin), tickFormat: exitName, label: null,
         tickSize: 0, padding: 0.06 },
    y: { type: "band", domain: rows, tickFormat: (row) => shorten(row, most), label: null, tickSize: 0,
         padding: 0.06 },
    style: { fontSize: "12px" },
    marks: [
      Plot.cell(cells, { x: "exit", y: "row", fill: { value: fill, scale: null }, rx: 2,
        stroke: (cell) => (defaults.includes(cell.exit) ? "var(--ink)" : "var(--line)"), strokeWidth: 0.6 }),
      ...(room < 25 ? [] : [false, true].map((sure) => Plot.text(cells.filter((cell) => Boolean(cell.sure) === sure), {
        x: "exit", y: "row", text: "text", fill: "var(--ink)", fontWeight: sure ? 800 : 400 }))),
      Plot.tip(cells, Plot.pointer({ x: "exit", y: "row", title: "title", fontSize: 12, lineWidth: 40,
        textPadding: 10 })),
    ],
  });
}

function categories(place) {
  let metric = DATA.metrics[0];
  const cellsOf = (run) => DATA.categories.flatMap((row) => points(run, metric.key, row).map(({ exit, point }) => ({
    row, exit, share: point[0], text: (100 * point[0]).toFixed(0), point,
    title: `${row}, exit ${exitName(exit)}\n${told(point, metric)}`,
  })));
  // the first run's highest first
  const order = () => d3.groupSort(cellsOf(0), (ones) => -d3.mean(ones, (one) => one.share), (one) => one.row)
    .concat(DATA.categories).filter((row, at, all) => all.indexOf(row) === at);
  const draw = (width) => DATA.runs.flatMap((run, at) => {
    const cells = cellsOf(at);
    const rows = order().filter((row) => cells.some((cell) => cell.row === row));
    if (!rows.length) return [el("p", { class: "note" }, `${run.label}: not measured.`)];
    const head = `${metric.label}, %${MANY ? `: ${run.label}` : ""}`;
    return [el("figure", {}, el("figcaption", {}, head, better(metric)),
      heatMap(`${head}, category by exit`, rows, cells, width, (cell) => heat(cell.share, metric.better !== "high")),
      numbers("The numbers, with intervals", () => table(head, ["category", ...DATA.exits.map((e) => `exit ${e.name}`)],
        rows.map((row) => [row, ...DATA.exits.map((e) =>
          told(cells.find((cell) => cell.row === row && cell.exit === e.exit)?.point, metric))]))))];
  });
  const shares = DATA.metrics.filter((one) => one.share && one.key !== "discrimination");
  const { field } = choice("Show", shares.map((one) => [one.key, one.label]), (key) => {
    metric = shares.find((one) => one.key === key);
    again();
  });
  const charts = el("div", { class: "panels" });
  place.append(el("div", { class: "controls" }, field), charts);
  const again = responsive(charts, draw);
}
