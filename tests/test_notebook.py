"""What a notebook shows: progress, and results as HTML."""

import pytest
from rich.table import Table
from rich.text import Text

from handmade import HOSTILE
from layeralign._util import notebook, progress
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


def test_a_model_names_itself(llava, llava_dir):
    name = str(llava_dir)[:79] + "…" if len(str(llava_dir)) > 80 else str(llava_dir)
    assert repr(llava) == f"<{name}: family llava, exits 0 to 5, default exit 4, float32, cpu>"
    assert repr(empty("testbed")) == "<testbed: family llava, exits 0 to 8, default exit 7, float32, meta>"
