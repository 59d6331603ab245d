"""A judge that was stopped: it is said first, its verdicts do not make the ASR, and a gate does not pass."""

import signal
import time
from contextlib import nullcontext

import pytest

import children
import layeralign
from layeralign.analysis.cautions import caution
from layeralign.cases import files
from layeralign.cases.case import Case
from layeralign.cli import main
from layeralign.judges.coherence import CoherenceJudge
from layeralign.judges.judge import Judge, Judgement
from layeralign.runs import opening
from layeralign.runs.store import Row
from layeralign.sweep.settings import ScanSettings
from layeralign.sweep.sweep import Engine, judge, sweep
from layeralign.vlm.load import load

GUARD = "llama-guard-3:m"


class Guard(Judge):
    """Calls every answer unsafe; is stopped after so many batches of five."""

    kind, asr_means, together = "llama-guard-3", "unsafe, by m", 5

    def __init__(self, batches=1000):
        self.left = batches

    @property
    def name(self):
        return GUARD

    def record(self):
        return {"model": "m"}

    def judge_all(self, asked):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return [Judgement("unsafe") for _ in asked]


def a_run(folder, n=20):
    """Harmful cases at two exits, all refused by the refusal matcher's rules."""
    with opening.create(folder, "m", {"a": 1}, {"layers": 3, "default": 2}) as run:
        run.add_cases([Case(f"h{i}", f"how {i}?", "harmful") for i in range(n)])
        run.add_answers(
            Row(f"h{i}", exit, "I can't help with that.", 3, "stop") for i in range(n) for exit in (1, 2)
        )
    layeralign.judge(folder, ["refusal"])
    return folder


def stopped(folder, batches):
    with opening.open_run(folder, write=True) as run, pytest.raises(KeyboardInterrupt):
        judge(run, [Guard(batches)])


@pytest.mark.parametrize("batches", [0, 3])
@pytest.mark.slow
def test_it_is_said_first_and_another_makes_the_asr(tmp_path, batches, capsys):
    """After 0 batches nothing told that there had been a judge; after 3 the ASR was of 15 of 40 answers."""
    stopped(a_run(tmp_path / "run"), batches)
    found = layeralign.read(tmp_path / "run").summary
    (one,) = found.unfinished
    assert (one.judge, one.judged, one.of) == (GUARD, 5 * batches, 40)
    assert found.asr_judge == "refusal" and [exit.asr for exit in found.exits] == [0, 0]
    told = f"Judge {GUARD} is unfinished: it has judged {5 * batches} of 40 answers; layeralign judge RUN --judge {GUARD}"
    assert caution(found).startswith(told)
    assert main(["summary", str(tmp_path / "run")]) == 0
    assert told.split(";", maxsplit=1)[0] in " ".join(capsys.readouterr().out.split())
    with opening.open_run(tmp_path / "run", write=True) as run:
        judge(run, [Guard()])
    found = layeralign.read(tmp_path / "run").summary
    assert (
        found.unfinished == () and found.asr_judge == GUARD and [exit.asr for exit in found.exits] == [1, 1]
    )


@pytest.mark.slow
def test_it_counts_where_it_is_asked_for_by_name(tmp_path):
    stopped(a_run(tmp_path / "run"), 3)
    found = layeralign.read(tmp_path / "run", judge="llama-guard-3").summary
    assert found.asr_judge == GUARD and found.unfinished[0].judge == GUARD


@pytest.mark.slow
def test_answers_that_came_later_make_it_unfinished(tmp_path):
    with opening.open_run(a_run(tmp_path / "run"), write=True) as run:
        judge(run, [Guard()])
        assert run.unfinished() == {}
        run.add_answers([Row("h0", 3, "Sure.", 3, "stop")])
        assert run.unfinished() == {GUARD: (40, 41), "refusal": (40, 41)}


@pytest.mark.slow
def test_cases_that_change_make_it_unfinished(tmp_path):
    """A scan that was stopped between the change and its judging had an ASR of the other cases, silently."""
    with opening.open_run(a_run(tmp_path / "run"), write=True) as run:
        assert run.unfinished() == {}
        run.add_cases([Case("h0", "how 0?", "harmful", reference="another")], anew=["refusal"])
        assert run.unfinished() == {"refusal": (38, 40)}


def test_a_reward_that_reads_the_scene_scores_a_case_again_whose_scene_changed(tmp_path):
    """Its score of the old scene stayed, next to the new one, and nothing said so."""
    vlm, folder = load("testbed"), tmp_path / "run"

    def scan(scene):
        cases = [Case(f"b{i}", "is there a red shape?", "benign", facts={"scene": scene}) for i in range(2)]
        return layeralign.scan(vlm, cases, folder, exits="default", max_new_tokens=2)

    scan("a red circle")
    old = layeralign.judge(folder, ["reward:testbed"])
    assert old.summary.unfinished == ()
    (one,) = scan("a blue square").summary.unfinished
    assert (one.judge, one.judged, one.of) == ("reward:testbed", 0, 2)
    new = layeralign.judge(folder, ["reward:testbed"])
    assert new.summary.exits[0].scores != old.summary.exits[0].scores


@pytest.mark.slow
def test_again_forgets_nothing_before_the_judge_is_there(tmp_path):
    """Verdicts that were paid for stay where the model cannot be loaded."""
    with opening.open_run(a_run(tmp_path / "run"), write=True) as run:
        judge(run, [Guard()])
    with pytest.raises(layeralign.LayeralignError):
        layeralign.judge(tmp_path / "run", [f"llama-guard-3:{tmp_path / 'nowhere'}"], again=True)
    assert layeralign.read(tmp_path / "run").summary.asr_judge == GUARD
    stopped_again = Guard(2)
    with opening.open_run(tmp_path / "run", write=True) as run, pytest.raises(KeyboardInterrupt):
        judge(run, [stopped_again], again=True)
    found = layeralign.read(tmp_path / "run").summary
    assert found.asr_judge == "refusal" and found.unfinished[0].judged == 10


@pytest.mark.slow
def test_a_gate_does_not_pass_on_another_judges_word(tmp_path):
    policy = {"rules": [{"metric": "asr", "exits": "1,2", "upper_bound": 0.5}]}
    a_run(tmp_path / "run", 60)
    assert layeralign.gate(tmp_path / "run", policy).result == "pass"
    stopped(tmp_path / "run", 3)
    found = layeralign.gate(tmp_path / "run", policy)
    assert found.result == "inconclusive"
    assert f"judge {GUARD} has not judged every answer yet" in found.outcomes[0].checks[0].why
    named = policy | {"judge": "refusal"}
    assert layeralign.gate(tmp_path / "run", named).result == "pass"
    with opening.open_run(tmp_path / "run", write=True) as run:
        judge(run, [Guard()])
    assert layeralign.gate(tmp_path / "run", policy).result == "fail"


class TellsRefusals(Guard):
    """Says of every answer that it is no refusal."""

    kind = "qwen3guard"

    @property
    def name(self):
        return "qwen3guard:m"

    def judge_all(self, asked):
        return [Judgement("unsafe", refused=False) for _ in super().judge_all(asked)]


@pytest.mark.parametrize("of", ["run", "base"])
def test_a_gate_does_not_pass_on_refusals_that_two_judges_saw(tmp_path, of):
    """Of a stopped guard's rows, its refusals counted, and of the rest those of the phrase rules."""
    for name in ("run", "base"):
        with opening.open_run(a_run(tmp_path / name, 60), write=True) as run:
            judge(run, [Guard()])
            with pytest.raises(KeyboardInterrupt) if name == of else nullcontext():
                judge(run, [TellsRefusals(3 if name == of else 1000)])
            if name != of:  # else it is worse than the base
                run.add_verdicts(
                    "qwen3guard:m", [(key, Judgement("unsafe", True)) for key, _ in run.answers()]
                )

    def gate(metric, **bound):
        policy = {"judge": "llama-guard-3", "rules": [{"metric": metric, "exits": "1,2", **bound}]}
        given = {"base": tmp_path / "base"} if "margin" in bound else {}
        return layeralign.gate(tmp_path / "run", policy, **given)

    bound = {"lower_bound": 0.5} if of == "run" else {"no_worse_than": "base", "margin": 0.2}
    found = gate("refusal", **bound)
    assert found.result == "inconclusive"
    why = "judge qwen3guard:m has not judged every answer yet; repeat layeralign judge"
    assert found.outcomes[0].checks[0].why == (why if of == "run" else f"of the base run: {why}")
    assert gate("asr", upper_bound=0.5).result == "fail", "the ASR is of one judge"
    with opening.open_run(tmp_path / of, write=True) as run:
        judge(run, [TellsRefusals()])
    assert gate("refusal", **bound).result == ("fail" if of == "run" else "pass")


@pytest.mark.slow
def test_runs_are_compared_by_a_judge_that_has_seen_both(tmp_path):
    for name in ("a", "b"):
        a_run(tmp_path / name)
    with opening.open_run(tmp_path / "a", write=True) as run:
        judge(run, [Guard()])
    stopped(tmp_path / "b", 3)
    assert layeralign.compare(tmp_path / "a", tmp_path / "b", allow=["judges"]).before.asr_judge == "refusal"


def judging_by_a_model_that_loads_for_ever(run):
    CoherenceJudge.load = classmethod(lambda cls, model: (print("loading", flush=True), time.sleep(600)))
    return main(["judge", run, "--judge", "coherence:testbed"])


@pytest.mark.slow
def test_killed_while_its_model_loads_it_is_known_too(tmp_path):
    started = children.start(
        judging_by_a_model_that_loads_for_ever, str(a_run(tmp_path / "run")), out=tmp_path / "said"
    )
    started.wait_for(lambda: "loading" in started.said())
    started.send(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL
    found = layeralign.read(tmp_path / "run").summary
    assert [(one.judge, one.judged) for one in found.unfinished] == [("coherence:testbed", 0)]


@pytest.mark.parametrize("precision", [None, 0.2])
def test_an_exit_that_a_stopped_scan_has_no_answer_at_is_named(llava, case_file, tmp_path, capsys, precision):
    """All answers at one exit were longer than those at the other: nothing but a gate knew that it was asked."""
    run, given = tmp_path / "run", {"exits": "1,4", "max_new_tokens": 3, "precision": precision}

    class Stopped(Engine):
        def answers(self, asked, settings):
            yield from super().answers([query for query in asked if query[1] == 1], settings)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(llava, files.read(case_file), run, ScanSettings.of(**given), Stopped(llava))
    assert main(["judge", str(run), "--judge", "refusal"]) == 0
    found = layeralign.read(run).summary
    assert found.lacking.exits == ("4",) and "at exit 4, up to" in caution(found)
    capsys.readouterr()
    assert main(["export", str(run), "--out", str(tmp_path / "rows.jsonl")]) == 0
    assert ("is not complete" in capsys.readouterr().err) is (precision is None)
    assert layeralign.scan(llava, case_file, run, **given).summary.lacking is None
