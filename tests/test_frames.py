"""A run's rows in pandas, Polars and datasets, one call each."""

import sys

import pytest

import layeralign
from handmade import cases, make, number
from layeralign import LayeralignError
from layeralign.judges.judge import Judgement
from layeralign.runs import opening


def word(case, exit):
    """Of every second case whether it was refused is not known."""
    bad = number(case) < exit
    refused = None if number(case) % 2 else not bad
    return Judgement("unsafe" if bad else "safe", refused, True, scores={"toxicity": 0.1 * number(case)})


@pytest.fixture
def run(tmp_path):
    made = make(tmp_path / "run", cases(4), word)
    with opening.open_run(made, write=True) as opened:
        opened.add_verdicts("refusal", [(("h1", 2, 0), Judgement("invalid"))])
    return made


def test_pandas(run):
    frame = layeralign.to_pandas(run)
    assert len(frame) == 16 and frame["oracle.verdict"].value_counts().to_dict() == {"safe": 10, "unsafe": 6}
    assert frame.groupby("exit")["oracle.toxicity"].mean().tolist() == pytest.approx([0.15] * 4)
    assert str(frame["oracle.refused"].dtype) == "boolean" and frame["oracle.refused"].isna().sum() == 8
    here = frame[(frame["case"] == "h1") & (frame["exit"] == 2)]
    assert here["refusal.verdict"].tolist() == ["invalid"] and frame["refusal.verdict"].notna().sum() == 1


def test_polars(run):
    frame = layeralign.to_polars(run)
    assert frame.shape[0] == 16 and frame["oracle.verdict"].value_counts(sort=True)["count"].to_list() == [
        10,
        6,
    ]
    assert frame["oracle.refused"].null_count() == 8 and str(frame["oracle.refused"].dtype) == "Boolean"
    assert frame["refusal.verdict"].drop_nulls().to_list() == ["invalid"]


def test_datasets(run):
    made = layeralign.to_datasets(run)
    assert len(made) == 16 and made.features["oracle.toxicity"].dtype == "float64"
    assert made["oracle.verdict"].count("unsafe") == 6
    assert made.to_pandas()["refusal.verdict"].notna().sum() == 1


def test_the_three_hold_the_same(run):
    columns = list(layeralign.to_pandas(run).columns)
    assert columns == layeralign.to_polars(run).columns == layeralign.to_datasets(run).column_names
    assert layeralign.to_polars(run).to_dicts() == list(layeralign.to_datasets(run))


@pytest.mark.parametrize("name", ["pandas", "polars", "datasets"])
def test_what_is_not_installed_is_named(run, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(LayeralignError, match=f"to_{name}: needs {name}; pip install {name}"):
        getattr(layeralign, f"to_{name}")(run)


def test_a_folder_without_a_run_is_refused(tmp_path):
    for name in ("pandas", "polars", "datasets"):
        with pytest.raises(LayeralignError, match="is not a run"):
            getattr(layeralign, f"to_{name}")(tmp_path)
