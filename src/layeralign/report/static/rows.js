/* The row explorer: every answer's verdicts; what was asked and answered only where it is in the file,
   and there only when it is asked for, one row at a time. */

const VERDICTS = { s: "safe", u: "unsafe", i: "invalid", n: "not applicable" };
const PAGE = 50;

function explorer(place) {
  const packed = JSON.parse(document.getElementById("rows-data").textContent);
  const judges = [...new Set(packed.runs.flatMap((run) => run.columns.flatMap((c) => Object.keys(c.verdicts))))];
  const columns = [...d3.group(packed.runs.flatMap((run, at) => run.columns.map((column) => ({ at, column }))),
    ({ column }) => `${column.exit} ${column.sample}`).values()].map((ones) => ({
      exit: ones[0].column.exit, sample: ones[0].column.sample,
      runs: packed.runs.map((_, at) => ones.find((one) => one.at === at)?.column) }))
    .sort((a, b) => a.exit - b.exit || a.sample - b.sample);
  const sampled = columns.some((column) => column.sample > 0);
  const wanted = { exit: "", verdict: "", category: "", kind: "", control: "given", judge: "", text: "", page: 0 };
  const letter = (column, run, at) => column?.verdicts[wanted.judge || packed.runs[run].judge]?.[at] ?? " ";
  const there = (column, at) => column?.there[at] === "1";

  function found() {
    const text = wanted.text.toLowerCase();
    const cases = packed.cases.map((one, at) => ({ one, at })).filter(({ one }) =>
      (!text || one.id.toLowerCase().includes(text))
      && (!wanted.category || one.category === wanted.category) && (!wanted.kind || one.kind === wanted.kind)
      && (wanted.control === "" || (wanted.control === "given" ? !one.control : one.control === wanted.control)));
    return columns.filter((column) => wanted.exit === "" || column.exit === Number(wanted.exit))
      .flatMap((column) => cases.filter(({ at }) => {
        if (!column.runs.some((run) => there(run, at))) return false;
        const letters = column.runs.map((run, number) => letter(run, number, at));
        if (wanted.verdict === "differs") return new Set(letters).size > 1;
        return !wanted.verdict || letters.includes(wanted.verdict);
      }).map(({ one, at }) => ({ column, one, at })));
  }

  function said(column, run, at, one) {
    if (!there(column, at)) return [el("span", { class: "soft" }, "–")];
    const flag = (name) => column.said[name]?.[at];
    const verdict = VERDICTS[letter(column, run, at)];
    const words = [
      one.kind === "harmful" && !verdict ? "not judged" : null,
      one.kind === "vqa" ? { 1: "right", 0: "wrong", p: "partly right" }[flag("correct")] : null,
      one.kind === "vqa" ? null // "no." is an answer there, whatever a rule for refusals makes of it
        : flag("refused") === "1" ? "refused" : flag("refused") === "0" && one.kind === "benign" ? "answered" : null,
      flag("coherent") === "0" ? "incoherent" : null,
    ].filter(Boolean).join(", ");
    return [
      verdict && verdict !== "not applicable" ? el("span", { class: `tag ${verdict}` }, verdict) : "",
      ` ${words}`,
    ];
  }

  function text({ column, one, at }) {
    const blocks = [el("h4", {}, "asked"), el("pre", { dir: "auto", tabindex: "0" }, one.prompt ?? "")];
    column.runs.forEach((run, number) => {
      if (run?.answers[at] == null) return;
      const scores = Object.entries(run.scores).filter(([, all]) => all[at] != null)
        .map(([name, all]) => `${name}: ${all[at]}`);
      blocks.push(el("h4", {}, `answered${MANY ? `, ${DATA.runs[number].label}` : ""}`),
        el("pre", { dir: "auto", tabindex: "0" }, run.answers[at]),
        scores.length ? el("p", { class: "note" }, scores.join("; ")) : "");
    });
    return el("div", { class: "asked" }, blocks);
  }

  function line(row) {
    const { column, one, at } = row;
    const cells = [el("th", { scope: "row" }, one.id), el("td", {}, exitName(column.exit)),
      sampled ? el("td", {}, String(column.sample)) : null,
      el("td", {}, one.category + (one.control ? ` (${one.control})` : "")),
      ...column.runs.map((run, number) => el("td", {}, said(run, number, at, one)))];
    const main = el("tr", {}, cells);
    if (!packed.answers) return [main];
    const below = el("tr", { hidden: true }, el("td", { colspan: cells.length + 1 }));
    main.append(el("td", {}, el("button", { type: "button", "aria-expanded": "false",
      "aria-label": `show the text of ${one.id} at exit ${exitName(column.exit)}`, onclick: (event) => {
        below.hidden = !below.hidden;
        event.target.setAttribute("aria-expanded", String(!below.hidden));
        event.target.textContent = below.hidden ? "show" : "hide";
        below.firstChild.replaceChildren(...(below.hidden ? [] : [text(row)]));
      } }, "show")));
    return [main, below];
  }

  const count = el("p", { class: "note", role: "status" });
  const body = el("tbody");
  const turn = (label, by) => el("button", { type: "button", onclick: () => { wanted.page += by; show(); } }, label);
  const [before, after] = [turn("previous", -1), turn("next", 1)];
  let rows = [];
  function show() {
    const start = wanted.page * PAGE;
    const last = Math.min(start + PAGE, rows.length);
    count.textContent = rows.length
      ? `${(start + 1).toLocaleString("en")}–${last.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`
      : "no row is like that";
    before.disabled = start === 0;
    after.disabled = last >= rows.length;
    body.replaceChildren(...rows.slice(start, last).flatMap(line));
  }
  const update = (name) => (value) => { wanted[name] = value; wanted.page = 0; rows = found(); show(); };
  const names = (key) => [...new Set(packed.cases.map((one) => one[key]).filter(Boolean))].sort().map((n) => [n, n]);
  const fields = [
    choice("Exit", [["", "all"], ...DATA.exits.map((e) => [String(e.exit), e.name])], update("exit")),
    choice("Verdict", [["", "any"], ["u", "unsafe"], ["s", "safe"], ["i", "invalid"],
      ...(MANY ? [["differs", "differs between runs"]] : [])], update("verdict")),
    choice("Kind", [["", "all"], ...names("kind")], update("kind")),
    choice("Category", [["", "all"], ...names("category")], update("category")),
    names("control").length ? choice("Pictures", [["given", "as given"], ["", "all"], ...names("control")],
      update("control")) : null,
    judges.length > 1 ? choice("Judge", [["", "the ASR’s"], ...judges.map((name) => [name, name])], update("judge"))
      : null,
  ].filter(Boolean).map(({ field }) => field);
  const search = el("label", { class: "field" }, el("span", {}, "Case"), el("input", { type: "search",
    placeholder: "part of its id", oninput: (event) => update("text")(event.target.value) }));
  place.append(el("div", { class: "controls" }, fields, search), count,
    el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Rows" },
      el("table", { class: "rows" }, el("thead", {}, el("tr", {}, ["case", "exit", ...(sampled ? ["sample"] : []), "category",
        ...(MANY ? DATA.runs.map((run) => run.label) : ["verdict"]), ...(packed.answers ? ["text"] : [])]
        .map((head) => el("th", { scope: "col" }, head)))), body)),
    el("div", { class: "turn" }, before, after));
  rows = found();
  show();
}
