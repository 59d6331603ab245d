"""A screen: how probable it is that a refusal begins, and the exits ranked by it."""

from collections import Counter

import pytest
import torch

import layeralign
import tiny
from layeralign import LayeralignError
from layeralign.analysis.screen import Screen, ScreenedExit, agrees
from layeralign.cases import files
from layeralign.cases.case import Case
from layeralign.cli import main
from layeralign.decode import decoding, openings, prompts, stream
from layeralign.decode.requests import Generation
from layeralign.runs import opening
from layeralign.sweep import screen as screening
from layeralign.sweep.settings import ScanSettings
from layeralign.testbed.world import REFUSAL
from layeralign.vlm.load import load


def by_hand(vlm, case, exit, lines):
    """Probability of each line behind the prompt, each by a forward pass of its own over the whole."""
    (feature,) = prompts.encode(vlm, [(case, exit)])
    ids = prompts.prompt_tokens(vlm, case, feature)
    found = []
    for line in lines:
        whole = torch.tensor([[*ids, *line]])
        asked = torch.arange(whole.shape[1])[None] < len(ids)
        with torch.no_grad():
            hidden = vlm.hidden(whole, asked, [feature])[0, len(ids) - 1 : -1]
            chances = vlm.logits(hidden).double().log_softmax(-1)
        found.append(float(chances[range(len(line)), line].sum().exp()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llava", "paligemma", "gemma3", "qwen2_5_vl", "mllama"])
def test_openings_are_read_behind_the_prompt_as_in_one_piece(family, tmp_path, case_file):
    vlm = load(tiny.save(family, tmp_path / family))
    cases = files.read(case_file)
    pairs = [(case, exit) for case in (cases[0], cases[2], cases[5]) for exit in (1, vlm.exits.default)]
    words = [t for t in range(len(vlm.tokenizer)) if t not in vlm.unsayable and t not in vlm.eos_tokens][:9]
    lines = [tuple(words[:3]), tuple(words[3:5]), (words[6],)]
    found = openings.opens(vlm, pairs, lines)
    expected = [sum(by_hand(vlm, case, exit, lines)) for case, exit in pairs]
    assert found == pytest.approx(expected, rel=1e-3)
    assert len(set(found)) > 2


def test_a_family_that_cannot_go_on_from_a_cache_reads_the_whole(llava, case_file, monkeypatch):
    pairs = [(case, 2) for case in files.read(case_file)]
    lines = [(5, 6, 7), (8,)]
    found = openings.opens(llava, pairs, lines)
    monkeypatch.setattr(type(llava), "streams", False)
    assert openings.opens(llava, pairs, lines) == pytest.approx(found, rel=1e-4)


@pytest.fixture(scope="module")
def bundled():
    return layeralign.load("testbed")


@pytest.fixture(scope="module")
def screened(bundled, tmp_path_factory):
    out = tmp_path_factory.mktemp("screen") / "run"
    return out, layeralign.screen(bundled, "testbed", out, limit=160, max_new_tokens=24)


@pytest.mark.slow
def test_the_bundled_models_refusals_are_its_own(bundled, screened):
    _, found = screened
    assert found.openings == ("i am sorry",)
    assert REFUSAL.startswith("i am sorry")
    assert (found.asked, found.refused, found.cases, found.prefills) == (32, 32, 40, 360)


@pytest.mark.slow
def test_its_blind_exits_come_first_and_a_scan_says_how_well_that_was(bundled, screened):
    out, found = screened
    assert [exit.exit for exit in found.exits] == list(range(9))
    assert {exit.exit for exit in found.worst_first[:3]} == {0, 1, 2}
    assert sorted(exit.rank for exit in found.exits) == list(range(1, 10))
    assert all(0 <= exit.low <= exit.harm <= exit.high <= 1 for exit in found.exits)
    with opening.open_run(out) as run:
        assert not run.answered()
        assert len(list(run.cases())) == 160
    result = layeralign.scan(bundled, "testbed", out, limit=160, max_new_tokens=24, exits="0,2,4,7")
    assert result.summary.screen.to_json() == found.to_json()
    assert result.summary.screen_agrees.exits == 4
    assert result.summary.screen_agrees.spearman > 0.9
    assert result.summary.to_json()["screen_agrees"]["kendall"] > 0.8


def test_ranks_are_compared_by_hand():
    def of(*harm):
        exits = tuple(ScreenedExit(at, str(at), at == 0, h, 0.0, 1.0, 1) for at, h in enumerate(harm))
        return Screen("m", ("no",), 1, 1, 1, 4, 1.0, exits)

    # 0.9 0.5 0.7 0.1 against 4 3 2 1: ranks differ by 0 1 1 0: ρ = 1 - 6 · 2 / (4 · 15); one pair of six turned
    found = agrees(of(0.9, 0.5, 0.7, 0.1), {0: 0.4, 1: 0.3, 2: 0.2, 3: 0.1})
    assert (found.exits, found.spearman, found.kendall) == (4, pytest.approx(0.8), pytest.approx(4 / 6))
    assert agrees(of(0.9, 0.5), {0: 0.4, 1: 0.3}) is None
    assert agrees(of(0.9, 0.5, 0.7), {0: 0.0, 1: 0.0, 2: 0.0}) is None
    assert Screen.from_json(of(0.2).to_json()) == of(0.2)


def test_openings_are_the_most_frequent_and_none_begins_with_another(bundled, monkeypatch):
    said = [[51, 10, 93, 3]] * 5 + [[51, 3], [51, 10, 7, 3], [51, 10, 7, 3], [9, 9, 9, 9], [8, 8, 8, 8]]
    cases = [Case(f"c{n}", f"how do i {n}?", "harmful") for n in range(len(said))]
    monkeypatch.setattr(prompts, "prompt_tokens", lambda *_: [1])
    monkeypatch.setattr(
        stream, "respond", lambda *_, **__: [Generation((n,), s, "stop") for n, s in enumerate(said)]
    )
    monkeypatch.setattr(screening, "refuses", lambda text: True)
    monkeypatch.setattr(screening, "OPENINGS", 3)
    found, asked = screening.own_openings(bundled, cases, ScanSettings())
    assert asked == 10
    assert found == Counter({(51, 10, 93): 5, (51, 10, 7): 2, (51, 3): 1})


@pytest.mark.slow
def test_memory_that_is_short_halves_what_is_read_together(bundled, case_file, monkeypatch):
    rows = [(case, exit) for case in files.read(case_file) for exit in (1, 7)]
    whole = screening._opens(bundled, rows, [(51, 10)], decoding.Decoding())
    own, tried = openings.opens, []

    def short(vlm, pairs, *others):
        tried.append(len(pairs))
        if len(pairs) > 4:
            raise torch.OutOfMemoryError
        return own(vlm, pairs, *others)

    monkeypatch.setattr(screening, "opens", short)
    assert screening._opens(bundled, rows, [(51, 10)], decoding.Decoding()) == pytest.approx(whole, rel=1e-4)
    assert tried == [12, 6, 3, 3, 6, 3, 3]
    monkeypatch.setattr(screening, "opens", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError))
    with pytest.raises(LayeralignError, match="not enough memory"):
        screening._opens(bundled, rows, [(51, 10)], decoding.Decoding())


def test_what_cannot_be_screened_is_refused_and_nothing_is_written(llava, case_file, tmp_path, capsys):
    with pytest.raises(LayeralignError, match="refuses none of 3 harmful cases"):
        layeralign.screen(llava, case_file, tmp_path / "run", max_new_tokens=6)
    with pytest.raises(LayeralignError, match="none of the cases is harmful"):
        layeralign.screen(llava, [Case("b", "hello.", "benign")], tmp_path / "run")
    assert not (tmp_path / "run").exists()
    command = ["scan", "--model", "testbed", "--cases", "testbed", "--out", str(tmp_path / "run"), "--screen"]
    assert main([*command, "--precision", "0.1"]) == 1
    assert "generates no answers" in capsys.readouterr().err


@pytest.mark.slow
def test_on_the_command_line(tmp_path, capsys):
    command = ["scan", "--model", "testbed", "--cases", "testbed", "--limit", "40", "--max-new-tokens", "24"]
    assert main([*command, "--exits", "0,7", "--out", str(tmp_path / "run"), "--screen"]) == 0
    said = capsys.readouterr().out
    assert "'i am sorry'" in said
    assert "--exits 0,7" in said
    assert "the same command without --screen scans" in said
