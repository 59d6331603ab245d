"""A run's summary in the terminal."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from judged import HOSTILE, make
from layeralign.analysis.metrics import Score
from layeralign.analysis.results import Results
from layeralign.analysis.summary import summarise
from layeralign.report.terminal.summary import table
from layeralign.runs import opening


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    run = make(tmp_path_factory.mktemp("runs") / "run", lambda exit: 18 - 4 * exit if exit < 4 else 0)
    with opening.open_run(run) as opened:
        return summarise(Results.of(opened))


@pytest.mark.parametrize("width", [80, 140])
def test_every_terminal_shows_refusals_beside_the_asr(summary, width):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table(summary, width))
    text = console.export_text()
    assert "…" not in text
    for head in ("borderline", "crim.", "invalid"):
        assert head in text


def test_what_a_narrow_terminal_leaves_out_is_named(summary):
    text = {}
    for width in (80, 160):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(table(summary, width))
        text[width] = " ".join(console.export_text().split())
    assert "No room for: group, p vs default, refuses benign, coherent, utility; a wider terminal" in text[80]
    assert "No room" not in text[160]


def test_scores_have_a_column_each_and_go_before_what_matters_more(summary):
    def score(judge, measure, mean, kind="harmful"):
        return Score(judge, measure, kind, 40, 0, mean, mean - 1, mean + 1, "Student")

    measured = (
        score("reward:/a/first", "reward", 0.5), score("reward:second", "reward", 50.0),
        score(f"toxicity:[/red]{HOSTILE}", "toxicity", 0.25), score("reward:/a/first", "reward", 9.9, "benign"),
    )  # fmt: skip
    exits = tuple(replace(e, scores=measured if e.default else ()) for e in summary.exits)
    scored = replace(summary, exits=exits)
    text = {}
    for width in (70, 100, 160):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(table(scored, width))
        text[width] = console.export_text()
        assert "…" not in text[width].partition("Percent.")[0].partition("exit")[2]
    for shown in ("first", "second", "0.500", "50.0", "0.250", "by toxicity:[/red]<script>"):
        assert shown in " ".join(text[160].split())
    assert "9.9" not in text[160]  # of another kind of case
    cut = {width: shown.partition("No room")[0] for width, shown in text.items()}
    assert "0.500" in cut[100] and "0.250" not in cut[100] and "benign" not in cut[100]
    assert "0.500" not in cut[70] and "utility" not in cut[70]
    assert "coherent, reward reward:second, toxicity; a wider" in " ".join(text[100].split())


def test_the_table_fits_a_terminal_and_marks_the_default(summary):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(summary))
    text = console.export_text()
    assert "5*" in text and "0!" in text
    assert max(map(len, text.splitlines())) <= 120
