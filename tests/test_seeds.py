"""Several runs that differ in their seed: the run is what counts."""

import json

import numpy as np
import pytest
from rich.console import Console

import handmade
from layeralign import LayeralignError, across
from layeralign.analysis.seeds import spread
from layeralign.cases.case import Case
from layeralign.cli import main
from layeralign.judges.judge import Judgement
from layeralign.report.terminal import seeds
from layeralign.runs import opening
from layeralign.runs.store import Row
from simulated import covers

ENCODER = {"layers": 3, "default": 2}
CASES = [Case(f"h{i}", f"prompt {i}", "harmful") for i in range(10)]


def make(folder, unsafe, *, cases=CASES, exits=(1, 2), judge="oracle", score=None, **identity):
    """A run whose first `unsafe` cases are unsafe at exit 1."""
    whole = {"seed": 0, "adapter": None, "decoding": {"temperature": 1.0}} | identity
    with opening.create(folder, f"m + {folder.name}", whole, ENCODER) as run:
        run.add_cases(cases)
        run.add_answers(Row(case.id, exit, "said", 2, "stop") for case in cases for exit in exits)
        words = [
            ((case.id, exit, 0), Judgement("unsafe" if exit == 1 and i < unsafe else "safe", False))
            for i, case in enumerate(cases) for exit in exits
        ]  # fmt: skip
        run.add_verdicts(judge, words)
        if score is not None:
            told = [
                ((case.id, 1, 0), Judgement("not applicable", scores={"reward": score})) for case in cases
            ]
            run.add_verdicts("reward:x", told)
    return folder


def test_runs_are_the_unit(tmp_path):
    """0.2, 0.3, 0.7: mean 0.4, sd √0.07, t(2) = 4.3027, so ± 0.6572, which a share cuts to 0 and 1."""
    runs = [make(tmp_path / f"s{i}", unsafe, seed=i, score=i) for i, unsafe in enumerate((2, 3, 7))]
    found = across(runs)
    one, two = found.exits
    asr = one.estimates["asr"]
    assert asr.values == (0.2, 0.3, 0.7)
    assert (asr.mean, asr.sd) == (pytest.approx(0.4), pytest.approx(0.07**0.5))
    assert (asr.low, asr.high) == (0, 1)
    assert (two.default, two.estimates["asr"].mean, one.estimates["utility"]) == (True, 0, None)
    assert two.estimates["asr"].low is two.estimates["asr"].high is None  # no run differs: nothing to tell by
    (score,) = one.scores
    assert (score.judge, score.spread.mean, two.scores) == ("reward:x", 1, ())
    assert score.spread.high == pytest.approx(1 + 4.30265 / 3**0.5, abs=1e-4)
    json.dumps(found.to_json(), allow_nan=False)


def test_people_need_not_label_every_run(tmp_path):
    runs = [make(tmp_path / f"s{i}", i, seed=i) for i in range(2)]
    with opening.open_run(runs[0], write=True) as run:
        run.replace("human", {}, [(("h0", 1, 0), Judgement("safe"))])
    assert across(runs).asr_judge == "oracle"


def test_another_judge_of_the_same_name_is_refused(tmp_path):
    """A mean over two rubrics or two guards of one name was said to be of one judge."""
    runs = [make(tmp_path / f"s{i}", i, seed=i, judge="llm:m#mine") for i in range(2)]
    for at, folder in enumerate(runs):
        with opening.open_run(folder, write=True) as run:
            run.add_judge("llm:m#mine", {"rubric_sha256": str(at)})
    with pytest.raises(LayeralignError, match="llm:m#mine was a different judge"):
        across(runs)


def test_adapters_of_several_trainings_are_such_runs(tmp_path):
    greedy = {"temperature": 0.0}
    runs = [make(tmp_path / f"a{i}", i, adapter={"sha": str(i)}, decoding=greedy) for i in range(4)]
    asr = across(runs).exits[0].estimates["asr"]
    # 0, 0.1, 0.2, 0.3: sd = √(1/60), t(3) = 3.1824
    assert (asr.mean, asr.high) == (
        pytest.approx(0.15),
        pytest.approx(0.15 + 3.18245 * (1 / 240) ** 0.5, abs=1e-5),
    )


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"seed": 0}, "have the same adapter and the same seed"),
        ({"seed": 1, "dtype": "float16"}, "another dtype: None and 'float16'"),
        ({"seed": 1, "cases": CASES[:9]}, "case 'h9' at exit 1 is only in"),
        ({"seed": 1, "cases": [*CASES[:9], Case("h9", "another", "harmful")]}, "case 'h9' differs"),
        ({"seed": 1, "exits": (1,)}, "case 'h0' at exit 2 is only in"),
        ({"seed": 1, "judge": "refusal"}, "ASR is by oracle and by refusal"),
        ({"seed": 1, "score": 1.0}, "reward:x has judged only one"),
    ],
)
def test_what_is_not_another_seed_of_the_same_is_refused(other, says, tmp_path):
    runs = [make(tmp_path / "a", 2), make(tmp_path / "b", 3, **other)]
    with pytest.raises(LayeralignError, match=says):
        across(runs)


def test_greedy_answers_have_no_seed(tmp_path):
    runs = [make(tmp_path / f"s{i}", 2, seed=i, decoding={"temperature": 0.0}) for i in range(2)]
    with pytest.raises(LayeralignError, match="which no seed changes"):
        across(runs)
    with pytest.raises(LayeralignError, match="two runs or more"):
        across(runs[:1])


def test_on_the_command_line(tmp_path, capsys):
    runs = [str(make(tmp_path / f"s{i}", unsafe, seed=i)) for i, unsafe in enumerate((2, 3, 7))]
    assert main(["summary", *runs, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["exits"][0]["estimates"]["asr"]["mean"] == pytest.approx(0.4)
    assert main(["summary", *runs]) == 0
    assert "40.0 ± 26.5" in capsys.readouterr().out
    console = Console(width=120)
    with console.capture() as captured:
        console.print(seeds.table(across(runs)))
    assert "20 30 70" in captured.get()
    assert main(["summary", runs[0]]) == 0
    assert "mean" not in capsys.readouterr().out.split("exit")[0]


def test_what_has_to_be_said_first_is_said_of_each_run(tmp_path, capsys):
    """Cut answers, unfinished judges and numerical failures were said of single runs only."""
    runs = [
        handmade.make(
            tmp_path / f"s{seed}",
            handmade.cases(10),
            seed=seed,
            model=f"m{seed}",
            finished=lambda case, exit, seed=seed: bool(seed) or handmade.number(case) > 4,
            decoding={"temperature": 1.0, "max_new_tokens": 32},
        )
        for seed in range(2)
    ]
    with opening.open_run(runs[1], write=True) as run:
        run.ask_judge("llama-guard-3:x")
    assert main(["summary", *map(str, runs)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"{runs[0]}: 50 % of the answers to harmful requests were cut at 32 tokens"[-60:] in told
    assert "Judge llama-guard-3:x is unfinished" in told
    assert main(["summary", *map(str, runs), "--format", "json"]) == 0
    assert "summaries" not in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("runs", [2, 3, 8])
def test_coverage(runs):
    """Runs' shares, normal around 0.4."""
    shares = np.random.default_rng(1).normal(0.4, 0.08, (2000, runs))
    coverage = covers(((f.low, f.high) for f in (spread(row, 0, 1) for row in shares.tolist())), 0.4)
    print(f"mean of {runs} runs: {coverage:.3f}")
    assert 0.935 <= coverage <= 0.965
