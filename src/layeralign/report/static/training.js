/* How the adapters of the runs were trained: small curves over the steps. */

function training(place) {
  const trained = DATA.runs.map((run, at) => ({ ...run, at })).filter((run) => run.training);
  const names = [...new Set(trained.flatMap((run) => Object.keys(run.training.curves)))];
  const draw = (width) => {
    const across = width < 560 ? 1 : width < 860 ? 2 : 3;
    const wide = (width - 24 * (across - 1)) / across;
    return el("div", { class: `grid across-${across}` }, names.map((name) => {
      const found = trained.filter((run) => run.training.curves[name]).map((run) => ({ run, line:
        run.training.steps.map((step, at) => ({ step, value: run.training.curves[name][at] }))
          .filter((one) => one.value != null) }));
      return el("figure", { class: "panel" }, el("figcaption", {}, name), plot(`${name} over the training's steps`, {
        width: wide, height: 150, marginLeft: 48, marginRight: 10, marginTop: 10, marginBottom: 26,
        x: { label: null, ticks: 5, tickSize: 3 }, y: { label: null, ticks: 4, grid: true, tickSize: 0, nice: true },
        style: { fontSize: "12px" },
        marks: found.flatMap(({ run, line }) => [
          Plot.line(line, { x: "step", y: "value", stroke: colour(run.at), strokeWidth: 1, strokeOpacity: 0.35 }),
          Plot.line(line, Plot.windowY({ k: 7, anchor: "middle" }, { x: "step", y: "value", stroke: colour(run.at),
            strokeWidth: 2, strokeDasharray: DASHES[run.at % 7] })),
          Plot.tip(line, Plot.pointerX({ x: "step", y: "value", fontSize: 12, textPadding: 10, title: (one) =>
            `${MANY ? `${run.label}, ` : ""}step ${one.step}\n${one.value}` })),
        ]),
      }));
    }));
  };
  const charts = el("div");
  place.append(legend(DATA.runs.map((run) => run.label), "Runs", trained.map((run) => run.label)) ?? "", charts, el("p", { class: "note" }, "Over the steps; thick: mean of seven. Rollouts "
    + "have other cases and exits at every step, and the reward is what was trained for: only the judged runs tell."));
  responsive(charts, draw);
}
