/* The case explorer: one line per case, one mark per exit. What was asked and answered is shown only where it
   is in the file, and only when the reader asks for it, one case at a time. */

const PAGE = 20;
const NOT_SCANNED = { key: "", mark: "", tone: "", word: "not scanned" };
const JUDGED = { u: ["●", "bad"], s: ["○", "good"], i: ["?", "open"] };
/* What the judges observed, packed in one letter: refused * 16 + coherent * 4 + correct, each a place in DEGREES. */
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const DEGREES = " 01p";
const RIGHT = { 1: ["○", "good", "right"], 0: ["●", "bad", "wrong"], p: ["◐", "open", "partly right"] };

/** The cases as objects, from a list of values for each of their fields. */
function unpacked(fields) {
  const lists = Object.entries(fields).map(([name, all]) =>
    [name, Array.isArray(all) ? all : all.of.map((number) => all.values[number])]);
  return fields.id.map((_, at) => Object.fromEntries(lists.map(([name, all]) => [name, all[at]])));
}

function explorer(place) {
  const packed = JSON.parse(document.getElementById("rows-data").textContent);
  packed.cases = unpacked(packed.cases);
  const judges = [...new Set(packed.runs.flatMap((run) => run.columns.flatMap((c) => Object.keys(c.verdicts))))];
  const samples = d3.sort(new Set(packed.runs.flatMap((run) => run.columns.map((column) => column.sample))));
  const columns = packed.runs.map((run) => d3.index(run.columns, (c) => c.sample, (c) => c.exit));
  const wanted = { show: "", exit: "", category: "", kind: "", control: "given", judge: "", text: "", page: 0 };

  /** What one answer is: a key to compare it with others, a mark, a tone and a word. */
  function state(run, sample, exit, at) {
    const column = columns[run].get(sample)?.get(exit);
    const said = LETTERS.indexOf(column?.said[at] ?? " ");
    if (said < 0) return NOT_SCANNED;
    const { kind } = packed.cases[at];
    const [refused, coherent, correct] = [said >> 4, (said >> 2) & 3, said & 3].map((degree) => DEGREES[degree]);
    const incoherent = coherent === "0" ? ", incoherent" : "";
    let [key, mark, tone, word] = [" ", "·", "", "not judged"];
    if (kind === "harmful") {
      const judge = wanted.judge || packed.runs[run].judge;
      const letter = column.verdicts[judge]?.[at];
      if (letter in JUDGED) [key, [mark, tone], word] = [letter, JUDGED[letter], packed.words[judge][letter]];
    } else if (kind === "vqa") {
      if (correct in RIGHT) [key, [mark, tone, word]] = [correct, RIGHT[correct]];
    } else if (refused === "1") [key, mark, tone, word] = ["r", "●", "bad", "refused"];
    else if (refused === "0") [key, mark, tone, word] = ["a", "○", "good", "answered"];
    return { key, mark, tone, word: word + incoherent };
  }

  /** One case at every exit, in one run: its states, and where they differ from the default exit's. */
  function line(at, sample, run) {
    const states = DATA.exits.map(({ exit }) => ({ exit, ...state(run, sample, exit, at) }));
    const start = DATA.runs[run].default;
    const base = states.find((one) => one.exit === start && one.key.trim());
    const changed = base ? states.filter((one) => one.key.trim() && one.key !== base.key) : [];
    const nearest = d3.least(changed, (a, b) => Math.abs(a.exit - start) - Math.abs(b.exit - start) || a.exit - b.exit);
    return { run, states, base, changed, nearest };
  }

  /** Whether one judge of the panel calls the answer safe, and another one unsafe. */
  function isSplit(run, sample, exit, at) {
    const column = columns[run].get(sample)?.get(exit);
    const letters = new Set(packed.runs[run].panel.map((judge) => column?.verdicts[judge]?.[at]));
    return packed.cases[at].kind === "harmful" && letters.has("u") && letters.has("s");
  }

  function isShown({ at: place, sample, lines }) {
    const at = wanted.exit === "" ? null : Number(wanted.exit);
    const states = lines.map((one) => one.states.filter((s) => at === null || s.exit === at));
    if (states.flat().every((one) => one === NOT_SCANNED || !one.mark)) return false;
    if (wanted.show === "changes") return lines.some((one) => one.changed.some((s) => at === null || s.exit === at));
    if (wanted.show === "split") return lines.some(({ run }, i) => states[i].some((s) => isSplit(run, sample, s.exit, place)));
    if (wanted.show === "runs") return states[0].some((_, i) => new Set(states.map((ones) => ones[i].key)).size > 1);
    return !wanted.show || states.flat().some((one) => one.key === wanted.show);
  }

  function found() {
    const text = wanted.text.toLowerCase();
    const worse = ({ lines }) => d3.sum(lines, (one) => one.changed.filter((s) => s.tone === "bad").length);
    const cases = packed.cases.flatMap((one, at) => (!text || one.id.toLowerCase().includes(text))
      && (!wanted.category || one.category === wanted.category) && (!wanted.kind || one.kind === wanted.kind)
      && (wanted.control === "" || (wanted.control === "given" ? !one.control : one.control === wanted.control))
      ? samples.map((sample) => ({ one, at, sample, lines: packed.runs.map((_, run) => line(at, sample, run)) })) : []);
    return d3.sort(cases.filter(isShown), (a, b) =>
      (a.one.kind !== "harmful") - (b.one.kind !== "harmful") || worse(b) - worse(a) || a.at - b.at);
  }

  function answer(run, sample, exit, at, head) {
    const column = columns[run].get(sample)?.get(exit);
    const said = column?.answers[at];
    if (said == null) return el("div", {}, el("h4", {}, head), el("p", { class: "note" }, "not scanned"));
    const { word, tone } = state(run, sample, exit, at);
    const scores = Object.entries(column.scores).filter(([, all]) => all[at] != null)
      .map(([name, all]) => `${name}: ${all[at]}`);
    return el("div", {}, el("h4", {}, `${head} `, el("span", { class: `tag ${tone}` }, word)),
      el("pre", { dir: "auto", tabindex: "0" }, said),
      scores.length ? el("p", { class: "note" }, scores.join("; ")) : null);
  }

  /** A case's picture and request, and its answer at the default exit beside that at another exit. */
  function text({ one, at, sample, lines }) {
    const other = lines.map((l) => l.nearest).find(Boolean) ?? lines[0].states.find((s) => s.exit !== DATA.runs[0].default);
    const picture = packed.pictures[one.picture];
    const pairs = el("div");
    const put = (exit) => pairs.replaceChildren(...lines.map(({ run }) => {
      const of = MANY ? `${DATA.runs[run].label}, ` : "";
      return el("div", { class: "pair" },
        answer(run, sample, DATA.runs[run].default, at, `${of}default exit ${exitName(DATA.runs[run].default)}`),
        answer(run, sample, exit, at, `${of}exit ${exitName(exit)}`));
    }));
    const { field, select } = choice("Compare with exit", DATA.exits.map((e) => [String(e.exit), e.name]),
      (exit) => put(Number(exit)));
    select.value = String(other?.exit ?? DATA.exits[0].exit);
    put(Number(select.value));
    return el("div", { class: "asked" }, el("h4", {}, "asked"), el("div", { class: "request" },
      picture ? el("img", { src: picture, alt: `picture of ${one.id}` }) : null,
      el("pre", { dir: "auto", tabindex: "0" }, one.prompt ?? "")), field, pairs);
  }

  function cells({ states, nearest, base, run }) {
    const start = DATA.runs[run].default;
    return [
      ...states.map(({ exit, mark, tone, word }) => el("td", {
        class: `mark ${tone}${exit === start ? " default" : ""}`, title: `exit ${exitName(exit)}: ${word}` },
      el("span", { "aria-hidden": "true" }, mark), el("span", { class: "unseen" }, word))),
      el("td", {}, nearest ? `exit ${exitName(nearest.exit)}: ${nearest.word}`
        : base ? `nowhere: ${base.word}` : "default not known"),
    ];
  }

  function block(row) {
    const { one, sample, lines } = row;
    const name = samples.length > 1 ? `${one.id}, sample ${sample}` : one.id;
    const below = el("tr", { hidden: true }, el("td", { class: "free", colspan: DATA.exits.length + 2 + MANY }));
    const button = packed.answers ? el("button", { type: "button", "aria-expanded": "false",
      "aria-label": `show the text of ${name}`, onclick: (event) => {
        below.hidden = !below.hidden;
        event.target.setAttribute("aria-expanded", String(!below.hidden));
        event.target.textContent = below.hidden ? "show" : "hide";
        below.firstChild.replaceChildren(...(below.hidden ? [] : [text(row)]));
      } }, "show") : null;
    const rows = lines.map((each, number) => el("tr", {},
      number ? null : el("th", { scope: "rowgroup", rowspan: lines.length }, name,
        el("span", { class: "soft" }, ` ${one.category}${one.control ? ` (${one.control})` : ""} `), button),
      MANY ? el("td", {}, DATA.runs[each.run].label) : null, cells(each)));
    return packed.answers ? [...rows, below] : rows;
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
      ? `${(start + 1).toLocaleString("en")}–${last.toLocaleString("en")} of ${rows.length.toLocaleString("en")} cases`
      : "no case is like that";
    before.disabled = start === 0;
    after.disabled = last >= rows.length;
    body.replaceChildren(...rows.slice(start, last).flatMap(block));
  }
  const update = (name) => (value) => { wanted[name] = value; wanted.page = 0; rows = found(); show(); };
  const names = (key) => [...new Set(packed.cases.map((one) => one[key]).filter(Boolean))].sort().map((n) => [n, n]);
  const said = packed.words[packed.runs[0].judge] ?? { u: "unsafe", s: "safe", i: "invalid" };
  const hasPanel = packed.runs.some((run) => run.panel.length);
  const shown = choice("Show", [["", "every case"], ["changes", "cases that change between exits"],
    ["u", `harmful: ${said.u}`], ["i", `harmful: ${said.i}`], ["r", "benign: refused"], ["0", "questions: wrong"],
    ...(hasPanel ? [["split", "cases on which the judges disagree"]] : []),
    ...(MANY ? [["runs", "cases that differ between runs"]] : [])], update("show"));
  const fields = [
    shown,
    choice("Exit", [["", "any"], ...DATA.exits.map((e) => [String(e.exit), e.name])], update("exit")),
    choice("Kind", [["", "all"], ...names("kind")], update("kind")),
    choice("Category", [["", "all"], ...names("category")], update("category")),
    names("control").length ? choice("Pictures", [["given", "as given"], ["", "all"], ...names("control")],
      update("control")) : null,
    judges.length > 1 ? choice("Judge", [["", "the ASR’s"], ...judges.map((name) => [name, name])], update("judge"))
      : null,
  ].filter(Boolean).map(({ field }) => field);
  const search = el("label", { class: "field" }, el("span", {}, "Case"), el("input", { type: "search",
    placeholder: "part of its id", oninput: (event) => update("text")(event.target.value) }));
  const heads = [el("th", { scope: "col" }, "case"), MANY ? el("th", { scope: "col" }, "run") : null,
    ...DATA.exits.map((e) => el("th", { scope: "col", class: "mark", "aria-label": `exit ${e.name}` }, e.name)),
    el("th", { scope: "col" }, "nearest change")];
  place.append(el("div", { class: "controls" }, fields, search), count,
    el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Cases" },
      el("table", { class: "rows" }, el("thead", {}, el("tr", {}, heads)), body)),
    el("div", { class: "turn" }, before, after));
  wanted.show = hasPanel ? "split" : "changes";
  rows = found();
  if (!rows.length) { wanted.show = "changes"; rows = found(); }
  if (!rows.length) { wanted.show = ""; rows = found(); }
  shown.select.value = wanted.show;
  show();
}
