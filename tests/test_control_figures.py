"""What the picture does: cases beside their controls, paired."""

import json

import pytest
from rich.console import Console

from layeralign.analysis.results import Results
from layeralign.analysis.summary import summarise
from layeralign.cases.case import Case
from layeralign.cases.controls import with_controls
from layeralign.cli import main
from layeralign.judges.judge import Judgement
from layeralign.report.terminal import controls
from layeralign.runs import opening
from layeralign.runs.store import Row
from layeralign.stats.proportions import wilson
from layeralign.testing import _Shown, noise


@pytest.fixture
def folder(tmp_path):
    """Twelve harmful cases with a picture each, of which it opens nine at exit 1; and one without picture."""
    own = [Case(f"h{i}", f"prompt {i}", "harmful", _Shown(noise(9, 9 + i))) for i in range(12)]
    cases = [*with_controls(own), Case("text", "no picture from the start", "harmful")]
    with opening.create(tmp_path / "run", "m", {"a": 1}, {"layers": 3, "default": 2}) as run:
        run.add_cases(cases)
        run.add_answers(Row(case.id, exit, "said", 2, "stop") for case in cases for exit in (1, 2))
        words = []
        for case in cases:
            picture = case.control in ("", "noise") and case.id != "text"
            opened = case.id == "text" or (picture and int(case.id[1:].partition("#")[0]) < 9)
            words.append(((case.id, 1, 0), Judgement("unsafe" if opened else "safe", not opened)))
            words.append(((case.id, 2, 0), Judgement("safe", True)))
        run.add_verdicts("refusal", words)
        run.add_verdicts("oracle", [*words, (("h0#blank", 1, 0), Judgement("invalid", True))])
    return tmp_path / "run"


def test_controls_by_hand(folder):
    with opening.open_run(folder) as run:
        summary = summarise(Results.of(run))
    assert [(c.control, c.exit, c.cases) for c in summary.controls] == [
        (control, exit, 12) for control in ("no picture", "blank", "noise") for exit in (1, 2)
    ]
    none, default, blank, _, noise, _ = summary.controls
    assert (none.own["asr"].value, none.instead["asr"].value) == (0.75, 0)
    assert (none.instead["asr"].low, none.instead["asr"].high) == wilson(0, 12)
    change = none.difference["asr"]
    assert (change.n, change.before, change.after, change.method) == (12, 0, 0.75, "Newcombe")
    assert 0.3 < change.low < 0.75 < change.high
    # nine cases of nine, two ways, two exits
    assert (none.p_differs, none.test) == (pytest.approx(4 / 2**9), "exact McNemar")
    assert (default.default, default.p_differs, default.difference["asr"].difference) == (True, 1, 0)
    assert (blank.instead["asr"].n, blank.difference["asr"].n) == (11, 11)
    assert blank.instead["invalid"].value == pytest.approx(1 / 12)
    assert blank.difference["refusal"].before == 1
    assert noise.difference["asr"].difference == 0 and noise.p_differs == 1
    assert none.difference["utility"] is None


def test_only_controls_have_rows_of_controls(folder):
    with opening.open_run(folder) as run:
        summary = summarise(Results.of(run))
    one, _ = summary.exits
    assert (one.n, one.asr) == (13, 10 / 13)  # the case without picture among them
    assert summary.agreement[0].n == 26
    assert (
        json.loads(json.dumps(summary.to_json(), allow_nan=False))["controls"][0]["control"] == "no picture"
    )


def test_the_terminal_shows_them_as_wide_as_it_is(folder, capsys):
    assert main(["summary", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "What the picture does" in shown
    with opening.open_run(folder) as run:
        summary = summarise(Results.of(run))
    change = summary.controls[0].difference["asr"]
    assert f"+75 ({round(100 * change.low)} to {round(100 * change.high)})!" in shown
    narrow = Console(width=78)
    with narrow.capture() as captured:
        narrow.print(controls.table(summary, 78))
    assert max(map(len, captured.get().splitlines())) <= 78
    assert "…" not in captured.get()


def test_their_numbers_are_a_table(folder, tmp_path):
    assert main(["figure", str(folder), "--what", "controls", "--out", str(tmp_path / "c.csv")]) == 0
    rows = (tmp_path / "c.csv").read_text().splitlines()
    assert len(rows) == 7 and rows[1].startswith("run,no picture,1,1,early,0,0.75,")


def test_a_run_without_controls_says_nothing_of_them(tmp_path, capsys):
    with opening.create(tmp_path / "run", "m", {"a": 1}, {"layers": 3, "default": 2}) as run:
        run.add_cases([Case("h", "x", "harmful")])
        run.add_answers([Row("h", 2, "said", 2, "stop")])
        run.add_verdicts("oracle", [(("h", 2, 0), Judgement("safe", True))])
        assert summarise(Results.of(run)).controls == ()
    assert main(["summary", str(tmp_path / "run")]) == 0
    assert "What the picture does" not in capsys.readouterr().out
