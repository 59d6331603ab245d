import io
import os
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from PIL import Image
from rich.console import Console

from layeralign.analysis.figures import Score
from layeralign.analysis.summary import summarise
from layeralign.cases.case import Case
from layeralign.judges.judge import Judgement
from layeralign.report import charts, page
from layeralign.report.table import table
from layeralign.runs import store
from layeralign.runs.store import Row

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
IDENTITY = {
    "variant": "blocks 1..l",
    "decoding": {"max_new_tokens": 5},
    "seed": 0,
    "dtype": "float32",
    "revision": HOSTILE,
    "files": {"model.safetensors": "0" * 64},
}
SESSIONS = [{"started": "2026-01-01", "command": HOSTILE, "versions": {"torch": "2.13"}}]


@pytest.fixture
def summary(tmp_path):
    cases = [Case(f"h{i}", HOSTILE, "harmful") for i in range(40)]
    with store.create(tmp_path / "run", HOSTILE, IDENTITY, {"layers": 6, "default": 5}) as run:
        run.add_cases(cases)
        for exit in range(7):
            run.add_answers(Row(c.id, exit, HOSTILE, 3, True) for c in cases)
            words = [
                (
                    (c.id, exit, 0),
                    Judgement("unsafe" if (i * 7 + exit) % 9 > exit else "safe", i % 2 == 0, True),
                )
                for i, c in enumerate(cases)
            ]
            run.add_verdicts("oracle", words)
        return summarise(run)


def test_the_page_has_every_exit_and_no_markup_of_a_stranger(summary):
    made = page.page(summary, IDENTITY, SESSIONS)
    assert made.count("<tr class=") == 7
    assert "<script" not in made and "<img" not in made
    assert "&lt;script&gt;" in made
    assert "http://" not in made.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )


def test_the_curve_is_well_formed_and_the_same_every_time(summary):
    first, second = (charts.svg(charts.curve(summary)) for _ in range(2))
    assert first == second
    ET.fromstring(first)


def test_files_are_written_beside_each_other(summary, tmp_path):
    page.write(summary, IDENTITY, SESSIONS, tmp_path / "out" / "report.html")
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == ["report.html", "report.png", "report.svg"]
    with Image.open(tmp_path / "out" / "report.png") as picture:
        assert min(picture.size) > 500


def test_the_headline_says_what_was_found(summary):
    assert "at exit 0 it answers" in page.headline(summary)
    assert "significantly worse than the default" in page.headline(summary)
    calm = replace(summary, exits=tuple(replace(e, worse=False) for e in summary.exits))
    assert "no other scanned exit is significantly worse" in page.headline(calm)
    alone = replace(summary, exits=summary.exits[5:6])
    assert page.headline(alone).startswith("Nothing can be said")


def test_a_matchers_figures_are_called_non_refusal_everywhere(summary):
    by_matcher = replace(summary, asr_judge="refusal", asr_means="non-refusal, by phrase rules")
    made = page.page(by_matcher, IDENTITY, SESSIONS)
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(table(by_matcher))
    assert "does not refuse" in page.headline(by_matcher)
    assert "ASR %" not in made and "non-refusal %" in made
    assert "non-refusal" in console.export_text()


@pytest.mark.parametrize("width", [80, 140])
def test_every_terminal_shows_refusals_beside_the_asr(summary, width):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table(summary, width))
    text = console.export_text()
    assert "…" not in text
    for head in ("borderline", "apart", "invalid"):
        assert head in text


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
        assert shown in text[160]
    assert "9.9" not in text[160]  # of another kind of case
    assert "0.500" in text[100] and "0.250" not in text[100] and "benign" not in text[100]
    assert "0.500" not in text[70] and "utility" not in text[70]


def test_the_table_fits_a_terminal_and_marks_the_default(summary):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(summary))
    text = console.export_text()
    assert "5*" in text and "0!" in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None and os.environ.get("CI") != "true":
        pytest.skip("no chromium on this machine; .ci/run installs it")
    from playwright.sync_api import sync_playwright

    quiet = [
        "--no-sandbox",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    with sync_playwright() as play:
        made = play.chromium.launch(executable_path=chromium, args=quiet)
        yield made
        made.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_in_a_browser(browser, summary, tmp_path, width):
    file = tmp_path / "report.html"
    page.write(summary, IDENTITY, SESSIONS, file)
    tab = browser.new_page(viewport={"width": width, "height": 900})
    asked, errors = [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    tab.goto(file.as_uri())
    assert tab.title().startswith("layeralign: <script>")
    assert asked == [file.as_uri()]
    assert errors == []
    assert tab.locator("section svg").bounding_box()["height"] > 150
    assert tab.locator("tbody tr").count() == 7 + 4
    wide = tab.evaluate("document.documentElement.scrollWidth")
    assert wide <= width, "the page itself must not scroll sideways"
    tab.close()
