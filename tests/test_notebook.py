"""What a notebook shows: progress, and results as HTML."""

import json
import re
import sys

import pytest
from rich.table import Table
from rich.text import Text

import layeralign
from handmade import HOSTILE, cases, make, number, safe, unsafe_first
from layeralign import LayeralignError
from layeralign._util import notebook, progress
from layeralign.analysis.compare import Comparison
from layeralign.analysis.results import Results
from layeralign.analysis.screen import Screen, ScreenedExit
from layeralign.cases.readers.reader import BENCHMARKS
from layeralign.diagnosis import Check, Diagnosis
from layeralign.gating.deployed import Deployed, held
from layeralign.gating.fleet import Fleet
from layeralign.judges.judge import Judgement
from layeralign.report.notebook import others, runs
from layeralign.report.notebook.shown import shown
from layeralign.runs.opening import SEAL
from layeralign.vlm.load import empty


class Cell:
    """Takes the place of IPython's display: what a cell's outputs show now, and how often they changed."""

    def __init__(self):
        self.outputs, self.times = [], 0

    def display(self, data, raw, display_id):
        self.times += 1
        self.outputs.append(data)
        return self

    def update(self, data, raw):
        self.times += 1
        self.outputs[-1] = data


@pytest.fixture
def cell(monkeypatch):
    made = Cell()
    monkeypatch.setattr("IPython.display.display", made.display)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    return made


def test_a_long_job_is_one_output_of_a_cell(cell, capsys, monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock) / 10)
    with progress.Progress("<b>answers", 1000) as bar:
        for _ in range(1000):
            bar.advance(1)
    assert len(cell.outputs) == 1 and 100 < cell.times < 400
    assert cell.outputs[0]["text/html"].startswith('<progress value="1000" max="1000"></progress> &lt;b&gt;')
    assert cell.outputs[0]["text/plain"].startswith("<b>answers 1000/1000, ")
    assert capsys.readouterr() == ("", "")


def test_a_silent_job_shows_nothing(cell):
    with progress.Progress("rules", 10, speaks=False) as bar:
        bar.advance(10)
    assert cell.outputs == []


def test_a_table_is_escaped_and_has_no_style_sheet():
    made = Table(title=Text(HOSTILE), caption=HOSTILE)
    made.add_column(Text(HOSTILE), justify="right")
    made.add_row(Text(HOSTILE, "red"), style="bold green")
    html = notebook.table(made)
    assert "<script" not in html and "<style" not in html and " class=" not in html
    assert html.count("&lt;script&gt;") == 4 and "font-weight:bold" in html


@pytest.mark.slow
def test_a_model_names_itself(llava, llava_dir):
    name = str(llava_dir)[:79] + "…" if len(str(llava_dir)) > 80 else str(llava_dir)
    assert repr(llava) == f"<{name}: family llava, exits 0 to 5, default exit 4, float32, cpu>"
    assert repr(empty("testbed")) == "<testbed: family llava, exits 0 to 8, default exit 7, float32, meta>"


def by_hand(case, exit):
    """Unsafe at early exits, refused elsewhere."""
    return unsafe_first({0: 20, 1: 8})(case, exit)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two runs of one model; hostile text is the model's name, a category and every answer."""
    made = tmp_path_factory.mktemp("runs")
    asked = cases(30, borderline=10, vqa=10, category=lambda i: HOSTILE)
    for name, word in (("$x", by_hand), ("$\\frac", safe)):
        make(made / name, asked, word, model=f"m {HOSTILE}", variant=HOSTILE, adapter={"a": name})
    return made


@pytest.fixture(scope="module")
def results(folder, tmp_path_factory):
    """A result of every command that gives more than a text or a path, by the command's name."""
    one, two = folder / "$x", folder / "$\\frac"
    out = tmp_path_factory.mktemp("out")
    labelled = make(out / "labelled", cases(30), by_hand)
    layeralign.label(labelled, out=out / "labels.jsonl")
    lines = [json.loads(line) for line in (out / "labels.jsonl").read_text().splitlines()]
    said = [line | {"label": "unsafe" if line["exit"] == 0 else "safe"} for line in lines]
    (out / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in said))
    assert layeralign.label(labelled, filled=out / "labels.jsonl") == {"unsafe": 30, "safe": 90}
    screened = [ScreenedExit(at, str(at), at == 2, 0.5 - at / 10, 0.1, 0.9, at + 1) for at in range(4)]
    step = {"reward": 0.1, "refused_harmful": 0.5, "refused_others": 0.1, "kl": 0.2, "weights": {"1": 0.5}}
    change = layeralign.compare(one, two)
    return {
        "summary": layeralign.summary(one, judge="oracle"),
        "across": layeralign.summary(one, two),
        "compare": change,
        "gate": layeralign.gate(one, {"rules": [{"metric": "asr", "exits": "all", "upper_bound": 0.2}]}, base=None),
        "check": layeralign.check("testbed", one),
        "transfer": transferred(change),
        "cases": layeralign.cases(cases(3, borderline=2, category=lambda i: HOSTILE)),
        "benchmarks": layeralign.cases(),
        "inspect": layeralign.inspect("testbed"),
        "plan": layeralign.plan(cases(20), model="testbed"),
        "calibrate": layeralign.calibrate(labelled, judge="oracle", out=out / "quality.json"),
        "screen": shown(others.Screen, Screen(HOSTILE, (HOSTILE,), 9, 3, 20, 80, 1.0, tuple(screened))),
        "doctor": shown(others.Diagnosis, Diagnosis(HOSTILE, "llava", "float32", (Check("a", "fail", HOSTILE),))),
        "align": others.Training({"step": at} | step for at in range(3)),
        "reward": others.RewardTraining(
            base={"name": HOSTILE}, pairs={"trained": 3}, settings={"epochs": 1},
            held_out={"n": 4, "accuracy": 0.5, "low": 0.15, "high": 0.85},
        ),
    }  # fmt: skip


def test_the_line_of_a_run_names_the_exit_that_may_be_worst(tmp_path):
    """It named the one with the highest share of the answers that could be judged."""

    def word(case, exit):
        lost = exit == 0 and number(case) < 20
        return Judgement("invalid") if lost else unsafe_first({1: 3})(case, exit)

    line = repr(layeralign.read(make(tmp_path / "run", cases(30), word)))
    assert "ASR 0 % [0, 11] at the default exit 2, highest 0–67 % [" in line and "at exit 0;" in line


def test_a_check_says_first_what_its_run_is_worth(tmp_path):
    """The command said it, but neither a notebook nor the JSON did."""
    run = make(tmp_path / "run", cases(80))
    (run / SEAL).unlink()
    told = Deployed("c", 0, "0", "inconclusive", "", None, weights=False)
    found = held(told, Results.load(run), None, 0.05)
    assert "was not closed" in Fleet((found,)).to_json()[0]["caution"]
    for one in (shown(runs.Deployed, found), runs.Fleet((found,))):
        assert "The run was not closed" in one._notes()[0]


def transferred(change):
    made = runs.Transfer()
    made["0"] = change
    return made


NO_FIGURE = {"cases", "benchmarks", "plan", "calibrate", "doctor", "reward", "check"}
"""A check that knows no exit still has the run's curve; here its run has no record of a config."""


@pytest.mark.slow
def test_every_result_is_one_line_in_a_shell(results):
    for name, result in results.items():
        assert re.fullmatch(rf"<{type(result).__name__}: .+>", repr(result)), name
        assert len(repr(result)) < 340 and not set("\n\x1b\u202e") & set(repr(result)), name


@pytest.mark.slow
def test_every_result_is_a_table_in_a_notebook_without_scripts(results):
    for name, result in results.items():
        html = result._repr_html_()
        assert len(html) < 80_000 and not re.search(
            r"<(script|style|link|img|iframe)|\bon\w+=|class=", html
        ), name
        assert "\x1b" not in html and "\u202e" not in html, name
        assert "<table" in html or name == "check", name
        assert ("<svg" in html) == (name not in NO_FIGURE - {"check"}), name


def test_every_result_is_a_frame(results, monkeypatch):
    sizes = {name: len(result.to_frame()) for name, result in results.items()}
    assert sizes == {
        "summary": 4, "across": 4, "compare": 4, "gate": 4, "check": 1, "transfer": 4, "cases": 5,
        "benchmarks": len(BENCHMARKS), "inspect": 9, "plan": 1, "calibrate": 5, "screen": 4, "doctor": 1, "align": 3, "reward": 1,
    }  # fmt: skip
    frame = results["summary"].to_frame()
    assert frame["asr"].tolist() == pytest.approx([2 / 3, 8 / 30, 0, 0]) and str(frame["n"].dtype) == "Int64"
    assert frame.nlargest(1, "asr")["name"].item() == "0" and not frame["worse"][3]
    assert results["compare"].to_frame()["asr_difference"].tolist() == pytest.approx([-2 / 3, -8 / 30, 0, 0])
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        LayeralignError, match=r"^to_frame: needs pandas; pip install pandas, or layeralign\[frames\]$"
    ):
        results["summary"].to_frame()


@pytest.mark.slow
def test_every_result_of_runs_or_exits_is_a_figure(results, tmp_path):
    for name, result in results.items():
        if name in NO_FIGURE - {"check"}:
            with pytest.raises(
                LayeralignError, match=r"figure curve: \w+ has none; to_frame\(\) has its numbers"
            ):
                result.plot()
        else:
            assert len(result.plot(tmp_path / f"{name}.svg").axes) >= 1, name
            assert (tmp_path / f"{name}.svg").stat().st_size > 2000, name


def test_the_curve_follows_the_pages_colours(results):
    html = results["compare"]._repr_html_()
    assert "currentColor" in html and "#14181f" not in html and "viewBox" in html
    assert "$x" in html and "$\\frac" in html


def test_results_are_what_the_analysis_returns(results):
    assert results["gate"].exit_code == 2 and results["gate"].outcomes[0].worst.name == "0"
    assert (
        isinstance(results["compare"], Comparison) and results["compare"].to_json()["exits"][0]["exit"] == 0
    )
    assert results["cases"][0].id == "h0" and results["align"][1]["step"] == 1
