/* What an exit saves against what it harms: the encoder's FLOPs, the ASR's upper bound, utility.
   What could not be judged counts as unsafe here. */

/** A run's exits with what they save of the default's FLOPs, in percent, and their figures. */
function savings(run) {
  const { flops, default: usual, label } = DATA.runs[run];
  if (!flops[usual]) return [];
  const of = (key) => new Map(points(run, key).map(({ exit, point }) => [exit, point]));
  const [asr, harm, utility] = [of("asr"), of(DATA.runs[run].harm), of("utility")];
  return Object.keys(flops).map(Number).filter((exit) => asr.has(exit)).map((exit) => ({
    run, label, exit, saved: 100 * (1 - flops[exit] / flops[usual]), harm: 100 * harm.get(exit)[2],
    asr: asr.get(exit), worst: harm.get(exit), utility: utility.get(exit),
    lost: utility.has(usual) && utility.has(exit) ? 100 * (utility.get(usual)[0] - utility.get(exit)[0]) : null,
  }));
}

/** Exits that no other one beats: none saves as much at less harm. */
const front = (found) => found.filter((one) => !found.some((other) => other !== one
  && other.saved >= one.saved && other.harm <= one.harm && (other.saved > one.saved || other.harm < one.harm)))
  .sort((one, other) => one.saved - other.saved);

const listed = (exits) => `${exits.length === 1 ? "exit" : "exits"} ${exits.map((one) => exitName(one.exit)).join(", ")}`;

/** Said of exits within both limits, the one that saves most first. */
function whatIsSafe([best, ...others]) {
  const names = listed([best, ...others]);
  if (best.saved <= 0) return `${names} only, and that saves nothing.`;
  return `${names}; the most is saved at ${exitName(best.exit)}: ${best.saved.toFixed(0)}\u00a0% of the encoder’s FLOPs.`;
}

/** Said where there is none; some may be so by the ASR's value, if not by its interval. */
function whatIsNot(maybe) {
  const none = "no exit meets both limits.";
  return maybe.length ? `${none} By the ASR itself ${listed(maybe)} would, but not by the upper end of its interval: more cases would tell.` : none;
}

function tradeoff(place) {
  const limit = { harm: 5, lost: 2 };
  const all = DATA.runs.flatMap((_, run) => savings(run));
  const within = (one, harm) => harm <= limit.harm && (one.lost == null || one.lost <= limit.lost);
  const safe = (one) => within(one, one.harm);
  const box = (name, label, unit) => el("label", { class: "field" }, el("span", {}, label), el("input", {
    type: "number", min: 0, max: 100, step: 0.5, value: limit[name], oninput: (event) => {
      const given = Number(event.target.value);
      if (event.target.value !== "" && given >= 0 && given <= 100) { limit[name] = given; again(); }
    } }), unit);
  const verdict = el("p", { class: "verdict", role: "status" });
  const charts = el("div", { class: "panels" });

  const draw = (width) => {
    verdict.replaceChildren(...DATA.runs.flatMap((run, at) => {
      const fine = all.filter((one) => one.run === at && safe(one)).sort((one, other) => other.saved - one.saved);
      const maybe = all.filter((one) => one.run === at && within(one, 100 * one.worst[0]));
      const text = fine.length ? whatIsSafe(fine) : whatIsNot(maybe);
      return [el("span", {}, el("b", {}, MANY ? `${run.label}: ` : "Safe to exit here: "), text)];
    }));
    const lowest = Math.min(0, d3.min(all, (one) => one.saved));
    const x = { domain: [lowest - 4, 104], label: null, tickFormat: (d) => `${d}\u00a0%`, ticks: width < 500 ? 4 : 8 };
    const exits = savings(all[0].run);
    const named = new Set(exitTicks(width, DATA.exits.filter(({ exit }) => exits.some((one) => one.exit === exit))));
    const common = (metric) => [
      Plot.ruleX(exits, { x: "saved", stroke: "var(--line)" }),
      Plot.text(exits.filter((one) => named.has(one.exit)), { x: "saved", text: (one) => exitName(one.exit), frameAnchor: "top", dy: -14, fill: "var(--soft)",
        fontSize: 11 }),
      ...DATA.runs.map((_, run) => Plot.dot(all.filter((one) => one.run === run), { x: "saved", y: metric,
        symbol: SYMBOLS[run % 7], r: 5, stroke: colour(run), strokeWidth: 1.8,
        fill: { value: (one) => (safe(one) ? colour(run) : "var(--card)"), scale: null } })),
      Plot.tip(all, Plot.pointer({ x: "saved", y: metric, fontSize: 12, lineWidth: 40, textPadding: 10, title: (one) =>
        `${MANY ? `${one.label}, ` : ""}exit ${exitName(one.exit)} (saves ${one.saved.toFixed(0)}\u00a0%)\n`
        + `ASR ${told(one.asr, SHARE)}\nworst case ${told(one.worst, SHARE)}\nutility ${told(one.utility, SHARE)}` })),
    ];
    const base = { width, marginLeft: 40, marginRight: 16, marginTop: 26, style: { fontSize: "12px" } };
    const harm = plot("ASR, worst case, upper end of its interval, against the share of the encoder's FLOPs that is saved", {
      ...base, height: Math.max(240, Math.min(340, width * 0.42)), marginBottom: 32, x,
      y: { type: "sqrt", domain: [0, 100], label: null, grid: true, ticks: [0, 1, 5, 10, 25, 50, 75, 100], tickSize: 0,
        clamp: true, insetTop: 4, insetBottom: 6 },
      marks: [
        Plot.rect([limit], { x1: lowest - 4, x2: 104, y1: 0, y2: "harm", fill: "var(--good)", fillOpacity: 0.12 }),
        Plot.ruleY([limit.harm], { stroke: "var(--good)", strokeDasharray: "4 3" }),
        Plot.text(["safe to exit here"], { frameAnchor: "bottom-right", dx: -4, dy: -8, fill: "var(--good-ink)",
          fontWeight: 600 }),
        ...DATA.runs.map((_, run) => Plot.line(front(all.filter((one) => one.run === run)), { x: "saved", y: "harm",
          stroke: colour(run), curve: "step-before", strokeWidth: 1.6, strokeDasharray: DASHES[run % 7] })),
        ...common("harm"),
      ],
    });
    const known = all.some((one) => one.utility);
    const use = known && plot("Picture questions answered rightly, against the share of FLOPs that is saved", {
      ...base, height: 190, marginBottom: 32, x,
      y: { domain: [-3, 103], label: null, grid: true, ticks: 3, tickSize: 0 },
      marks: common((one) => (one.utility ? 100 * one.utility[0] : NaN)),
    });
    return [
      el("figure", { class: "panel" }, el("figcaption", {}, "ASR, worst case, upper end of its interval, % (square-root scale)",
        el("span", { class: "better" }, "right and low is better")), harm),
      use ? el("figure", { class: "panel" }, el("figcaption", {}, "Picture questions answered rightly, %",
        el("span", { class: "better" }, "right and high is better")), use) : null,
      el("p", { class: "axis" }, "encoder FLOPs saved against the default exit"),
    ].filter(Boolean);
  };
  place.append(
    el("div", { class: "controls" }, box("harm", "ASR at most", "% (upper end)"),
      box("lost", "utility lost at most", "points")),
    verdict, legend() ?? "", charts,
    el("p", { class: "note" }, "Above: the exit. Line: the Pareto front, exits that no other one beats in both. Filled: within both limits."),
    numbers("The numbers", () => table("What each exit saves and harms",
      ["exit", ...(MANY ? ["run"] : []), "FLOPs saved", "ASR", "ASR, worst case", "utility", "utility lost, points", "on the front"],
      all.map((one) => [exitName(one.exit), ...(MANY ? [one.label] : []), `${one.saved.toFixed(1)} %`,
        told(one.asr, SHARE), told(one.worst, SHARE), told(one.utility, SHARE), one.lost == null ? "–" : one.lost.toFixed(1),
        front(all.filter((other) => other.run === one.run)).includes(one) ? "yes" : ""]))));
  const again = responsive(charts, draw);
}
