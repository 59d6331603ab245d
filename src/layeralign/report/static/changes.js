/* Several runs against the first: which exits changed, as a heat map of run × exit. */

const CHANGED = [
  { key: "asr", label: "Harmful requests answered (ASR)", bad: 1 },
  { key: "over_refusal", label: "Borderline requests refused", bad: 1 },
  { key: "utility", label: "Picture questions answered rightly", bad: -1 },
];

const points100 = (share) => `${share > 0 ? "+" : ""}${(100 * share).toFixed(0)}`;

function changes(place) {
  const draw = (width) => CHANGED.flatMap(({ key, label, bad }) => {
    const cells = DATA.changes.flatMap(({ run, exits }) => Object.entries(exits).filter(([, found]) => found[key])
      .map(([exit, found]) => {
        const [before, after, difference, low, high, n] = found[key];
        return { row: DATA.runs[run].label, exit: Number(exit), difference, sure: low > 0 || high < 0,
          text: points100(difference),
          title: `${DATA.runs[run].label}, exit ${exitName(Number(exit))}\n${(100 * before).toFixed(1)} → `
            + `${(100 * after).toFixed(1)} %\n${points100(difference)} points [${points100(low)}, ${points100(high)}], `
            + `n = ${n.toLocaleString("en")}` };
      }));
    if (!cells.length) return [];
    const rows = DATA.changes.map(({ run }) => DATA.runs[run].label);
    const fill = ({ difference }) => heat(Math.abs(difference), difference * bad > 0);
    const head = `${label}: change, points`;
    return [el("figure", {}, el("figcaption", {}, head, better({ better: bad > 0 ? "low" : "high" })),
      heatMap(`${head}, run by exit`, rows, cells, width, fill),
      numbers("The numbers, with intervals", () => table(head, ["run", ...DATA.exits.map((e) => `exit ${e.name}`)],
        rows.map((row) => [row, ...DATA.exits.map((e) =>
          cells.find((cell) => cell.row === row && cell.exit === e.exit)?.title.split("\n").slice(1).join("; ") ?? "–")]))))];
  });
  const charts = el("div", { class: "panels" });
  place.append(charts, el("p", { class: "note" }, `Each run against ${DATA.runs[0].label}, paired by case. `
    + "Orange is for the worse, blue for the better; bold: the 95 % interval excludes 0."));
  responsive(charts, draw);
}
