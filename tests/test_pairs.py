"""Pairs of a harmful and a harmless case: which of them a case file may have, and their metrics by hand."""

import json
from dataclasses import replace

import pytest
from rich.console import Console

from handmade import make
from layeralign import LayeralignError
from layeralign.analysis.results import Results
from layeralign.analysis.summary import summarise
from layeralign.cases import files
from layeralign.cases.case import Case
from layeralign.cases.controls import with_controls
from layeralign.cli import main
from layeralign.judges.judge import Judgement
from layeralign.report.terminal.summary import pairs
from layeralign.stats.proportions import wilson
from layeralign.testing import _Shown, noise


def asked(n=6, picture=lambda i: None):
    """`n` pairs, a harmful case without a partner, and a pair of which one member was left out."""
    made = []
    for i in range(n):
        shown, facts = picture(i), {"pair": f"p{i}"}
        made.append(Case(f"h{i}", f"forbidden request {i}", "harmful", shown, facts=facts))
        made.append(Case(f"s{i}", f"harmless request {i}", "benign", shown, facts=facts))
    return [*made, Case("h8", "forbidden request 8", "harmful"),
            Case("h9", "forbidden request 9", "harmful", facts={"pair": "p9"})]  # fmt: skip


def word(case, exit):
    """What the judge says.

    At the default exit 2 all harmful requests are refused, and the harmless one of pair 0. At exit 1 those
    of the pairs 0 to 2 are, and the answer to the harmless request of pair 0 is incoherent.
    """
    i = int(case.id[1])
    if case.kind == "benign":
        return Judgement("not applicable", exit == 2 and i == 0, not (exit == 1 and i == 0))
    refused = exit == 2 or i < 3
    return Judgement("safe" if refused else "unsafe", refused, True)


@pytest.fixture
def run(tmp_path):
    return make(tmp_path / "run", asked(), word, exits=(1, 2))


def test_pairs_by_hand(run):
    """Newcombe's intervals were computed from the four counts of his method 10."""
    early, default = summarise(Results.load(run)).pairs
    assert (early.exit, early.name, early.default, early.n) == (1, "1", False, 6)
    assert early.discriminated.value == pytest.approx(2 / 6)  # pairs 1 and 2
    assert default.discriminated.value == pytest.approx(5 / 6)  # all but pair 0
    for found, share in ((early, 2), (default, 5)):
        assert (found.discriminated.low, found.discriminated.high) == pytest.approx(wilson(share, 6))
        assert found.discriminated.method == "Wilson"
    # both right at both exits: 2; at the default alone: 3; at neither: 1
    change = early.vs_default
    assert (change.n, change.before, change.after) == (6, pytest.approx(5 / 6), pytest.approx(2 / 6))
    assert (change.difference, change.low, change.high) == pytest.approx((-0.5, -0.7731753, 0.0403039))
    assert default.vs_default is None
    # one harmless request of six refused, all six harmful ones
    gap = default.gap
    assert (gap.before, gap.after) == (pytest.approx(1 / 6), 1.0)
    assert (gap.difference, gap.low, gap.high) == pytest.approx((0.8333333, 0.2767008, 0.9699466))
    gap = early.gap  # no harmless request refused, three of six harmful ones
    assert (gap.difference, gap.low, gap.high) == pytest.approx((0.5, 0.0000556, 0.8123837), abs=1e-6)


def test_pairs_on_two_pictures_are_not_six_observations(tmp_path):
    pictures = [_Shown(noise(9, 9 + n)) for n in range(2)]
    run = make(tmp_path / "run", asked(picture=lambda i: pictures[i % 2]), word, exits=(1, 2))
    _, default = summarise(Results.load(run)).pairs
    assert default.discriminated.method == "clustered by picture"
    assert default.gap.method == "Newcombe, clustered by picture"


def test_controls_are_no_members_and_an_answer_that_nobody_judged_is_not_right(tmp_path):
    cases = with_controls(asked(2, lambda i: _Shown(noise(9, 9 + i))))

    def silent(case, exit):
        return Judgement("not applicable", None, True) if case.id == "s1" else word(case, exit)

    found = summarise(Results.load(make(tmp_path / "run", cases, silent, exits=(1, 2)))).pairs
    assert [one.n for one in found] == [2, 2]
    assert [one.discriminated.value for one in found] == [0, 0]  # of pair 0 the harmless one is wrong
    assert found[0].gap.n == 1  # the pair whose refusals are both known


def test_a_run_without_pairs_or_without_judged_refusals_has_none(tmp_path, capsys):
    plain = [replace(case, facts={}) for case in asked()]
    run = make(tmp_path / "plain", plain, word, exits=(1, 2))
    assert summarise(Results.load(run)).pairs == ()
    assert main(["summary", str(run)]) == 0
    assert "Pairs of" not in capsys.readouterr().out
    nothing = make(tmp_path / "none", asked(), lambda *_: Judgement("unsafe", None), exits=(1, 2))
    assert summarise(Results.load(nothing)).pairs == ()


def test_the_terminal_shows_them_in_80_columns_and_json_has_them(run, capsys):
    assert main(["summary", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "Pairs of a harmful and a harmless request" in shown
    assert "-77 to 4" in shown and "+83" in shown
    narrow = Console(width=79)
    with narrow.capture() as captured:
        narrow.print(pairs(summarise(Results.load(run))))
    assert "…" not in captured.get() and "-77 to 4" in captured.get()
    assert main(["summary", str(run), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)["pairs"]
    assert [one["exit"] for one in found] == [1, 2] and found[0]["n"] == 6


# ---- the field of a case file


ROW = {"id": "h", "prompt": "forbidden request", "kind": "harmful", "pair": "1"}
OTHER = {**ROW, "id": "s", "kind": "benign"}


def put(folder, *rows):
    file = folder / "cases.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_a_pair_is_a_fact_and_is_written_again(tmp_path):
    cases = files.read(put(tmp_path, ROW, OTHER, {**ROW, "id": "x", "pair": "2"}))
    assert [case.facts for case in cases] == [{"pair": "1"}, {"pair": "1"}, {"pair": "2"}]
    files.write(cases, tmp_path / "again.jsonl")
    assert files.read(tmp_path / "again.jsonl") == cases
    table = tmp_path / "cases.csv"
    table.write_text("id,prompt,kind,pair\nh,a,harmful,1\ns,b,benign,1\nv,c,benign,\n")
    assert [case.facts for case in files.read(table)] == [{"pair": "1"}, {"pair": "1"}, {}]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([ROW, {**ROW, "id": "b"}], r":2: field 'pair' is '1', whose harmful case is in .*:1; expected one"),
        (
            [OTHER, {**OTHER, "id": "b"}],
            r":2: field 'pair' is '1', whose benign case is in .*:1; expected one",
        ),
        ([{**ROW, "kind": "vqa"}], r":1: field 'pair' is '1' in a case of kind vqa; expected kind harmful"),
        ([{**ROW, "pair": 1}], "field 'pair' is 1; expected text"),
        ([{**ROW, "pair": ""}], "field 'pair' is"),
        ([{**ROW, "pair": ["1"]}], "field 'pair' is"),
    ],
)
def test_what_is_wrong_with_a_pair(tmp_path, rows, says):
    with pytest.raises(LayeralignError, match=says) as error:
        files.read(put(tmp_path, *rows))
    assert str(error.value).isprintable()
