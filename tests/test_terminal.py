"""Output at every width: tables that fit, sentences that wrap, and what a command says first and last."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich import box
from rich.console import Console
from rich.table import Table

from handmade import cases, make, unsafe_first
from layeralign._util import terminal
from layeralign.analysis.compare import compare
from layeralign.analysis.judging.calibrate import calibrate
from layeralign.analysis.plan import plan
from layeralign.analysis.results import Results
from layeralign.analysis.screen import Screen, ScreenedExit
from layeralign.analysis.seeds import across
from layeralign.analysis.summary import summarise
from layeralign.diagnosis import Check, Diagnosis
from layeralign.gating import render
from layeralign.gating.evaluate import gate
from layeralign.gating.policy import read
from layeralign.report.terminal import cases as case_tables
from layeralign.report.terminal import (
    comparison,
    doctor,
    encoder,
    judges,
    paper_table2,
    screen,
    seeds,
    summary,
    transfer,
)
from layeralign.report.terminal import plan as plans
from layeralign.runs.opening import open_run
from layeralign.testbed.cases import cases as drawn
from layeralign.training.state.log import Log
from layeralign.vlm import cost
from layeralign.vlm.load import empty

SHOTS = Path(__file__).parent / "shots"
WIDTHS = (60, 80, 120, 200)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs, at the exits of an encoder of eight blocks."""
    folder = tmp_path_factory.mktemp("runs")
    asked = cases(40, 20, 20)
    before, after = {0: 25, 1: 17, 2: 20, 3: 9, 4: 6}, {0: 2, 1: 1, 3: 11}
    made = [
        make(
            folder / name,
            asked,
            unsafe_first(unsafe),
            exits=range(9),
            layers=8,
            model=f"models/{name}",
            adapter={"adapter_config.json": name},
        )
        for name, unsafe in (("before", before), ("after", after))
    ]
    return [replace(Results.load(one), path=Path("runs") / one.name) for one in made]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A run that people and a guard have judged."""
    asked, word = cases(40), unsafe_first({0: 25, 1: 17})
    made = make(tmp_path_factory.mktemp("runs") / "labelled", asked, word, exits=range(9), layers=8)
    with open_run(made, write=True) as run:
        words = [((case.id, exit, 0), word(case, exit)) for case in asked for exit in range(9)]
        run.replace("human", {}, words[:200])
        run.add_verdicts("llama-guard-3:meta-llama/Llama-Guard-3-8B", [*words[9:], *words[:9]])
    return replace(Results.load(made), path=Path("runs/labelled"))


POLICY = {
    "rules": [
        {"metric": "asr", "exits": "all", "upper_bound": 0.2},
        {
            "metric": "over_refusal",
            "exits": "default",
            "upper_bound": 0.5,
            "name": "refuses what is harmless",
        },
        {"metric": "utility", "exits": "all", "lower_bound": 0.5},
    ]
}
CHECKS = (
    Check("chat template", "pass", "the prompt ends with the assistant's turn"),
    Check(
        "range of the dtype, at every exit", "fail", "not finite at exits 3 and 4; use --dtype bfloat16, " * 2
    ),
    Check("end of an answer", "not checked", "the tokenizer names no end token"),
)
STEPS = [
    {"step": at, "reward": -0.5 + at / 7, "refused_harmful": at / 20, "refused_others": 0.12, "kl": at / 30,
     "retention_kl": at / 9000, "entropy": 0.13, "clip_fraction": 0.011, "explained_variance": -0.02, "length": 11.4,
     "tokens_per_second": 1269.3}
    for at in range(20)
]  # fmt: skip


def tables(runs, labelled, width):
    """Name -> table and number of key columns."""
    before, after = runs
    compared, summed = compare(before, after), summarise(before)
    found = cost.encoder(empty("testbed"))
    log = Log(Path("nowhere"), STEPS, 60, writes=False)
    log._start, log._first = 0.0, 0
    asked = drawn("dev", 20, 0)
    screened = Screen("testbed", ("no", "i"), 9, 8, 9, 99, 4.0, tuple(
        ScreenedExit(exit, str(exit), exit == 7, 0.9 - exit / 10, 0.8 - exit / 10, 0.99 - exit / 10, exit + 1)
        for exit in range(9)
    ))  # fmt: skip
    return {
        "summary": (summary.table(summed, width), 1),
        "seeds": (seeds.table(across([before, after])), 1),
        "compare": (comparison.table(compared), 1),
        "paper_table2": (paper_table2.table(compared), 2),
        "gate": (render.table(gate(before, read(POLICY))), 2),
        "inspect_heading": (encoder.heading(found), 1),
        "inspect": (encoder.table(found), 1),
        "plan": (plans.table(plan(asked, 9, with_default=True)), 1),
        "cases": (case_tables.table(asked), 1),
        "cases_preview": (case_tables.preview(asked, 3), 1),
        "benchmarks": (case_tables.known(Path("cache")), 1),
        "calibrate": (judges.table(calibrate([labelled], "llama-guard-3")), 1),
        "doctor": (doctor.table(Diagnosis("testbed", "llava", "float32", CHECKS)), 1),
        "screen": (screen.table(screened), 1),
        "transfer": (transfer.table({"0": compared, "early": compared}), 1),
        "align": (log._table(20.0, width), 1),
    }


def words(table):
    """The words of a table's cells and heads."""
    to = Console(width=10_000, file=io.StringIO(), highlight=False, color_system=None)
    for column in table.columns:
        to.print(column.header, *column.cells)
    return set(to.file.getvalue().split())


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_every_table_reads_well_at_every_width(runs, labelled, width):
    """The texts are in tests/shots; a deleted one is written again. Only a preview shortens what cases say."""
    for name, (table, keys) in tables(runs, labelled, width).items():
        to = Console(width=width, file=io.StringIO(), highlight=False, color_system=None)
        terminal.put(table, keys, to)
        text = "\n".join(line.rstrip() for line in to.file.getvalue().splitlines()).strip("\n") + "\n"
        assert "…" not in text or name == "cases_preview", f"{name} is cut:\n{text}"
        assert max(map(len, text.splitlines())) <= width, f"{name} is too wide:\n{text}"
        cut = {word for word in words(table) if len(word) <= 24} - set(text.split())
        assert not cut or name == "cases_preview", f"{name} has lost {cut}:\n{text}"
        shot = SHOTS / f"{name}_{width}.txt"
        if not shot.exists():
            shot.parent.mkdir(exist_ok=True)
            shot.write_text(text, encoding="utf-8")
        assert text == shot.read_text(encoding="utf-8"), f"{shot}: delete it if the new text is meant"


@pytest.mark.parametrize("width", range(60, 100))
def test_no_number_is_cut_at_any_width(width):
    table = Table(box=box.SIMPLE_HEAD)
    for head, no_wrap in (("", True), ("rule", False), ("worst exit", False), ("value", True), ("n", True)):
        table.add_column(head, no_wrap=no_wrap)
    table.add_row("inconclusive", "discrimination", "0", "-6.7 % [-37.4, 26.0]", "30")
    to = Console(width=width, file=io.StringIO(), highlight=False, color_system=None)
    terminal.put(table, 2, to)
    assert words(table) <= set(to.file.getvalue().split())


@pytest.mark.slow
def test_colour_changes_no_letter(runs, labelled):
    texts = {}
    for colours in (None, "truecolor"):
        for name, (table, keys) in tables(runs, labelled, 80).items():
            to = Console(
                width=80, file=io.StringIO(), highlight=False, color_system=colours, force_terminal=True
            )
            terminal.put(table, keys, to)
            texts.setdefault(name, []).append(re.sub(r"\x1b\[[0-9;]*m", "", to.file.getvalue()))
    assert texts
    for name, (plain, coloured) in texts.items():
        assert plain == coloured, name
