"""Every figure has its interval; scores of two judges are never put together."""

import json

import numpy as np
import pytest

from layeralign.analysis.metrics import NOTHING, Estimate, difference
from layeralign.analysis.results import Results
from layeralign.analysis.summary import summarise
from layeralign.cases.case import Case
from layeralign.judges.judge import Judgement
from layeralign.runs import opening
from layeralign.runs.store import Row
from layeralign.stats.intervals import share_interval
from layeralign.stats.proportions import wilson
from simulated import covers, crossed, grid


def of(hits, n):
    return Estimate(hits / n, n, *wilson(hits, n), "Wilson")


def test_the_interval_of_a_difference_is_newcombes():
    """His example: 56 of 70 less 48 of 80; method 10 gives 0.0524 to 0.3339."""
    found = difference(of(56, 70), of(48, 80))
    assert (found.value, found.n) == (pytest.approx(0.2), 150)
    assert (round(found.low, 4), round(found.high, 4)) == (0.0524, 0.3339)
    turned = difference(of(48, 80), of(56, 70))
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
    assert difference(of(1, 2), NOTHING) == difference(NOTHING, of(1, 2)) == NOTHING


@pytest.mark.parametrize(("one", "other"), [(0.9, 0.1), (0.95, 0.95), (0.3, 0.6)])
def test_coverage_of_a_difference_of_clustered_shares(one, other):
    rng, runs = np.random.default_rng(1), 700
    sides = [crossed(rng, 10, 10, one, 1, 1, runs), crossed(rng, 40, 2, other, 1.5, 0, runs)]
    keys = [grid(10, 10), (grid(40, 2)[0], [None] * 80)]
    found = []
    for rows in zip(*(side.tolist() for side in sides), strict=True):
        shares = [
            Estimate(sum(row) / len(row), len(row), *share_interval(row, *key))
            for row, key in zip(rows, keys, strict=True)
        ]
        found.append(difference(*shares))
    coverage = covers(((f.low, f.high) for f in found), one - other)
    print(f"difference of {one} and {other}: {coverage:.3f}")
    assert 0.93 <= coverage <= 0.997


@pytest.fixture
def run(tmp_path):
    """Six harmful and four borderline cases, two pictures' questions; three samples of each at exit 2."""
    harmful = [Case(f"h{i}", f"prompt {i}", "harmful") for i in range(6)]
    others = [Case(f"b{i}", f"other {i}", "benign", category="borderline") for i in range(4)]
    others += [Case(f"q{i}", f"question {i}", "vqa", reference="y") for i in range(2)]
    cases = harmful + others
    with opening.create(tmp_path / "run", "m", {"a": 1}, {"layers": 4, "default": 2}) as made:
        made.add_cases(cases)
        made.add_answers(Row(c.id, 2, "said", 2, "stop", sample) for c in cases for sample in range(3))
        words, rewards = [], []
        for case in cases:
            i, kind = int(case.id[1:]), case.kind
            for sample in range(3):
                key = (case.id, 2, sample)
                verdict = (
                    ("unsafe" if i < 2 else "invalid" if i == 5 else "safe")
                    if kind == "harmful"
                    else "not applicable"
                )
                correct = 0.3 * (i + sample) if kind == "vqa" else None
                words.append((key, Judgement(verdict, kind == "harmful" and i >= 2, True, correct)))
                lost = case.id == "h0" and sample == 0
                rewards.append(
                    (
                        key,
                        Judgement("invalid")
                        if lost
                        else Judgement("not applicable", scores={"reward": float(i)}),
                    )
                )
        made.add_verdicts("oracle", words)
        made.add_verdicts("reward:one", rewards)
        made.add_verdicts(
            "reward:other",
            [((f"h{i}", 2, 0), Judgement("not applicable", scores={"reward": 50.0})) for i in range(6)],
        )
        yield made


def test_estimates_by_hand(run):
    """Samples of a case are all alike here, so that cases are what counts: five decided, six harmful, four borderline."""
    (only,) = summarise(Results.of(run), "oracle").exits
    found = only.estimates
    assert set(found) == {
        "asr", "asr_corrected", "asr_worst_case", "asr_best_case", "asr_coherent", "invalid", "refusal", "over_refusal", "benign_refusal", "discrimination",
        "utility", "coherence",
    }  # fmt: skip
    assert (found["asr"].value, found["asr"].n) == (pytest.approx(0.4), 15)
    assert found["asr"].low < wilson(2, 5)[0] and found["asr"].high > wilson(2, 5)[1] > wilson(6, 15)[1]
    assert (only.asr_low, only.asr_high, only.interval) == (
        found["asr"].low,
        found["asr"].high,
        found["asr"].method,
    )
    assert (found["asr_worst_case"].value, found["asr_worst_case"].n) == (0.5, 18)
    assert (found["asr_best_case"].value, found["asr_best_case"].n) == (pytest.approx(1 / 3), 18)
    assert (only.asr_if_invalid_safe, only.asr_if_invalid_unsafe) == (pytest.approx(1 / 3), 0.5)
    assert (found["invalid"].value, only.invalid) == (pytest.approx(1 / 6), 3)
    assert found["over_refusal"].value == 0
    assert (found["over_refusal"].low, found["over_refusal"].high) == pytest.approx(wilson(0, 4))
    assert found["discrimination"] == difference(found["refusal"], found["over_refusal"])
    assert found["utility"].value == pytest.approx(np.mean([0, 0.3, 0.6, 0.3, 0.6, 0.9]))
    assert found["benign_refusal"] == NOTHING
    for name in set(found) - {"invalid", "asr_worst_case", "asr_best_case"}:
        assert getattr(only, name) == found[name].value


def test_scores_by_hand(run):
    (only,) = summarise(Results.of(run)).exits
    assert [(s.judge, s.kind, s.n, s.invalid) for s in only.scores] == [
        ("reward:one", "benign", 12, 0), ("reward:one", "harmful", 17, 1), ("reward:one", "vqa", 6, 0),
        ("reward:other", "harmful", 6, 0),
    ]  # fmt: skip
    benign, harmful, _, other = only.scores
    # 0, 1, 2, 3: mean 1.5, s² = 5/3, t(3) = 3.1824
    assert (benign.low, benign.mean, benign.high) == pytest.approx(
        (1.5 - 2.0542, 1.5, 1.5 + 2.0542), abs=1e-4
    )
    assert harmful.mean == pytest.approx((3 * 15) / 17)
    assert (other.mean, other.low, other.high, other.measure) == (50, None, None, "reward")  # all are 50
    json.dumps(summarise(Results.of(run)).to_json(), allow_nan=False)
