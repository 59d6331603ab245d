"""A run is read once: what `compare A B --out page` opens, sums up and compares."""

import sqlite3
from collections import Counter

import pytest

from handmade import cases, make, unsafe_first
from layeralign.analysis import compare, summary
from layeralign.cli import main
from layeralign.runs import opening


@pytest.fixture
def counted(monkeypatch):
    """How often each function ran, and each table was read, in each file."""
    found = Counter()

    def count(module, name):
        real = getattr(module, name)

        def counting(*args, **kwargs):
            found[name] += 1
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, counting)

    for module, name in ((opening, "_reader"), (summary, "_summarised"), (compare, "_group_changes")):
        count(module, name)
    connect = sqlite3.connect

    def connecting(file, *args, **kwargs):
        made = connect(file, *args, **kwargs)
        made.set_trace_callback(lambda sql: found.update(["judged"] if sql.endswith("FROM verdicts") else []))
        return made

    monkeypatch.setattr(sqlite3, "connect", connecting)
    return found


@pytest.mark.parametrize("command", ["compare", "report"])
def test_two_runs_are_read_summed_up_and_compared_once(tmp_path, capsys, counted, command):
    runs = [
        str(make(tmp_path / name, cases(40, 8, 8), unsafe_first({1: n}))) for name, n in (("a", 20), ("b", 2))
    ]
    counted.clear()
    assert main([command, *runs, "--out", str(tmp_path / "page.html")]) == 0
    assert (counted["_reader"], counted["_summarised"], counted["_group_changes"]) == (2, 2, 1)
    assert counted["judged"] == 2
