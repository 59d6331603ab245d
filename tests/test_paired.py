"""The same cases twice: intervals and tests against hand-computed numbers and simulations (`-s` prints them)."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import binomtest

from handmade import observations
from layeralign.analysis.rows import pair
from layeralign.stats import paired
from layeralign.stats.clusters import cluster
from layeralign.stats.paired import Pairs, change, p_value
from simulated import QUICK, covers, grid


def pairs(both, gained, lost, neither):
    """Cases of their own, with these counts of what they had after and before."""
    after = [True] * both + [True] * gained + [False] * lost + [False] * neither
    before = [True] * both + [False] * gained + [True] * lost + [False] * neither
    return made(before, after, range(len(after)), range(len(after)))


def made(before, after, prompts, pictures, samples=1):
    columns = (np.asarray(side, dtype=float) for side in (before, after))
    return Pairs(*columns, cluster(prompts, pictures), samples * len(prompts))


def drawn(
    rng, prompts, pictures, runs, *, base=-1, both=1, of_prompts=0, of_pictures=0, samples=1, shift=0, keys
):
    """Means over samples [runs, n] before and after, for `keys`, and the true difference.

    Their change has normal effects on the logit scale, as likely one way as the other where `shift` is 0.
    """
    shown = len(set(keys[1])) == pictures > 1  # else the second number is how many cases a prompt has

    def shares(some, rng):
        def effect(of_prompts, of_pictures):
            made = rng.normal(0, of_prompts, (some, prompts, 1))
            return made + rng.normal(0, of_pictures, (some, 1, pictures)) * shown

        common, half = base + effect(both, both), effect(of_prompts, of_pictures) + shift
        return [expit(common + way * half / 2) + np.zeros((some, prompts, pictures)) for way in (-1, 1)]

    before, after = (
        (rng.random((*p.shape, samples)) < p[..., None]).mean(-1).reshape(runs, -1) for p in shares(runs, rng)
    )
    low, high = shares(4000, np.random.default_rng(99)) if shift else (0, 0)
    return before, after, float(np.mean(high - low))


def keys_of(prompts, pictures):
    """Of crossed prompts and pictures; of 25 prompts' cases without picture; of cases of their own."""
    keys = grid(prompts, pictures)
    return keys if pictures > 1 and prompts != 25 else (keys[0], range(prompts * pictures))


class TestChange:
    def test_the_paired_interval_is_newcombes(self):
        """His example: 36 both, 12 gained, 2 lost, 0 neither; method 10 gives 0.0569 to 0.3404."""
        found = change(pairs(36, 12, 2, 0))
        assert (found.difference, found.n, found.method) == (pytest.approx(0.2), 50, "Newcombe")
        assert (round(found.low, 4), round(found.high, 4)) == (0.0569, 0.3404)
        # 2 asin √0.96 - 2 asin √0.76
        assert found.h == pytest.approx(2 * (np.arcsin(0.96**0.5) - np.arcsin(0.76**0.5)))

    def test_no_change_is_not_certainty(self):
        found = change(pairs(0, 0, 0, 1000))
        assert found.difference == 0 and found.low == pytest.approx(-found.high)
        assert found.high == pytest.approx(0.00383, abs=1e-5)  # Wilson's bound of 0 in 1000
        clustered = change(made([0] * 100, [0] * 100, *grid(10, 10)))
        assert clustered.high == pytest.approx(change(pairs(0, 0, 0, 10)).high)

    def test_a_swap_turns_the_interval_around(self):
        one, other = change(pairs(10, 7, 3, 30)), change(pairs(10, 3, 7, 30))
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low))

    def test_alike_rows_of_a_prompt_count_once(self):
        """Three of ten prompts gain, all five rows of each: V = 10/9 · 0.021, so (0.3 - 0.09) / V = 9 pairs."""
        after = [p < 3 for p, _ in product(range(10), range(5))]
        found = change(made([0] * 50, after, [p for p, _ in product(range(10), range(5))], range(50)))
        assert found.method == "Newcombe, clustered by prompt"
        # of nine degrees of freedom: t = 2.262157, 9 · (1.959964 / t)² = 6.756; before: 0, Wilson's bound of 0
        n, z2 = 9 * (1.959964 / 2.262157) ** 2, 1.959964**2
        of_none = (z2 / n) / (1 + z2 / n)
        middle, half = 0.3 + z2 / (2 * n), 1.959964 * (0.21 / n + z2 / (4 * n**2)) ** 0.5
        low, high = (middle - half) / (1 + z2 / n), (middle + half) / (1 + z2 / n)
        assert found.low == pytest.approx(0.3 - np.hypot(0.3 - low, of_none), abs=1e-5)
        assert found.high == pytest.approx(0.3 + (high - 0.3), abs=1e-5)

    def test_what_all_have_in_common_is_said(self):
        assert change(made([0, 1], [1, 1], "ab", "xx")).method == "Newcombe, one picture"

    @pytest.mark.slow
    @QUICK
    @given(
        st.lists(
            st.tuples(*[st.sampled_from([0, 0.5, 1])] * 2, st.integers(0, 3), st.integers(0, 3)),
            min_size=1,
            max_size=30,
        )
    )
    def test_properties(self, rows):
        before, after, prompts, pictures = (list(column) for column in zip(*rows, strict=True))
        found, turned = (
            change(made(*sides, prompts, pictures, 2)) for sides in ((before, after), (after, before))
        )
        assert -1 - 1e-9 <= found.low <= found.difference + 1e-9
        assert found.difference - 1e-9 <= found.high <= 1 + 1e-9
        assert found.low < found.high
        assert (turned.low, turned.high, turned.h) == pytest.approx(
            (-found.high, -found.low, -found.h), abs=1e-9
        )

    @pytest.mark.parametrize(
        ("prompts", "pictures", "given", "most"),
        [
            (60, 1, {}, 0.985),
            (100, 1, {"base": -3, "shift": 0.5}, 0.985),
            (60, 1, {"samples": 3, "both": 2, "of_prompts": 1, "shift": 1}, 0.985),
            (60, 1, {"samples": 5, "both": 0}, 0.985),
            (25, 4, {"of_prompts": 1, "shift": 1}, 0.99),
            (10, 10, {}, 1),  # cautious, as `share_interval` is
            (10, 10, {"of_prompts": 1, "of_pictures": 1, "shift": 1}, 0.995),
            (10, 10, {"of_prompts": 2, "of_pictures": 2, "samples": 3, "shift": 2}, 0.99),
            (20, 5, {"of_prompts": 1, "of_pictures": 1, "shift": 1}, 0.995),
        ],
    )
    def test_coverage(self, prompts, pictures, given, most):
        runs = 500
        keys = keys_of(prompts, pictures)
        before, after, truth = drawn(np.random.default_rng(1), prompts, pictures, runs, keys=keys, **given)
        found = [
            change(made(*sides, *keys, given.get("samples", 1))) for sides in zip(before, after, strict=True)
        ]
        coverage = covers(((f.low, f.high) for f in found), truth)
        print(f"change of {truth:.3f}, {prompts} × {pictures}, {given}, {found[0].method}: {coverage:.3f}")
        assert 0.93 <= coverage <= most


class TestPValue:
    def test_mcnemar_by_hand(self):
        """Six pairs differ, all one way: p = 1/2^6. Pairs that agree tell nothing."""
        found = p_value(pairs(0, 6, 0, 14), "greater")
        assert (found.p, found.test) == (pytest.approx(1 / 64), "exact McNemar")
        assert p_value(pairs(0, 0, 6, 14), "greater").p == 1
        assert p_value(pairs(0, 6, 0, 14), "two-sided").p == pytest.approx(2 / 64)
        assert p_value(pairs(5, 0, 0, 5), "two-sided").p == 1

    def test_flips_of_prompts_by_hand(self):
        """Four prompts' differences sum to 3, 2, 1 and -1: 5 or more have 2^4 flips of ++++, +++- and ++-+: 3/16."""
        sums = [[1, 1, 1], [1, 1, 0], [1, 0, 0], [-1, 0, 0]]
        cells = np.array([value for row in sums for value in row])
        prompts = [p for p, _ in product(range(4), range(3))]
        found = p_value(made(cells < 0, cells > 0, prompts, range(12)), "greater")
        assert (found.p, found.test) == (pytest.approx(3 / 16), "sign flips by prompt")

    def test_flips_of_single_cases_are_mcnemars(self):
        """As if each case had two samples that are alike, so that the test cannot know."""
        for gained, lost in ((6, 1), (9, 3), (3, 5)):
            both = pairs(4, gained, lost, 4)
            sampled = Pairs(both.before, both.after, both.clusters, 2 * len(both.before))
            found = p_value(sampled, "greater")
            exact = binomtest(gained, gained + lost, 0.5, alternative="greater").pvalue
            assert (found.p, found.test) == (pytest.approx(exact), "sign flips by case")

    def test_ten_prompts_on_ten_pictures_that_all_change_are_ten(self):
        cells = made([0] * 100, [1] * 100, *grid(10, 10))
        assert p_value(cells, "greater").p == pytest.approx(1 / 1024)
        five = made([0] * 100, [1] * 100, *grid(20, 5))
        assert p_value(five, "greater").p == pytest.approx(1 / 32)
        assert p_value(made([0] * 100, [0] * 100, *grid(10, 10)), "greater").p == 1

    def test_what_cancels_within_prompts_is_no_change(self):
        found = p_value(made([0, 1] * 5, [1, 0] * 5, [i // 2 for i in range(10)], range(10)), "two-sided")
        assert found.p == 1

    @pytest.mark.parametrize(
        ("prompts", "pictures", "given"),
        [
            (60, 1, {"samples": 3, "both": 2, "of_prompts": 1}),
            (25, 4, {"of_prompts": 2}),
            (10, 10, {}),
            (10, 10, {"of_prompts": 2, "of_pictures": 2}),
            (10, 10, {"of_prompts": 6}),
            (10, 10, {"of_pictures": 6}),
            (20, 5, {"of_prompts": 2, "of_pictures": 2}),
        ],
    )
    @pytest.mark.slow
    def test_level(self, prompts, pictures, given, monkeypatch):
        """Nobody meant a change; at most 5 % may see one, within the simulation's error of 0.013."""
        monkeypatch.setattr(paired, "FLIPS", 499)  # for speed
        keys = keys_of(prompts, pictures)
        before, after, _ = drawn(np.random.default_rng(3), prompts, pictures, 300, keys=keys, **given)
        found = [
            p_value(made(*sides, *keys, given.get("samples", 1)), "greater")
            for sides in zip(before, after, strict=True)
        ]
        level = np.mean([one.p <= 0.05 for one in found])
        naive = np.mean(
            [binomtest(int(more), int(max(1, more + less)), 0.5, alternative="greater").pvalue <= 0.05
             for more, less in zip((after > before).sum(1), (after < before).sum(1), strict=True)]
        )  # fmt: skip
        print(f"{found[0].test}, {prompts} × {pictures}, {given}: {level:.3f}, McNemar {naive:.3f}")
        assert level <= 0.08


def test_rows_are_paired_by_case_and_samples_are_means():
    before = observations({"a": [1, 0], "b": [1], "only": [1]})
    after = observations({"b": [1, 1], "a": [0, 0]})
    found = pair(before, after)
    assert (found.before.tolist(), found.after.tolist()) == ([0.5, 1], [0, 1])
    assert found.rows == 3 and not found.plain
    assert pair(before, observations({})) is None
