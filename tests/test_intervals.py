"""Intervals against published numbers, their properties, and what they cover; `-s` prints the coverages."""

from itertools import product
from math import pi

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import binom, binomtest, norm
from scipy.stats import t as student

from layeralign.analysis.intervals import (
    agreement,
    always_valid,
    cases_needed,
    cohens_h,
    corrected,
    mean_interval,
    share_interval,
)
from layeralign.analysis.stats import wilson
from layeralign.errors import LayeralignError

SHARES = st.floats(0, 1)
ROWS = st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.none() | st.integers(0, 3)), max_size=40)
QUICK = settings(max_examples=60, deadline=None)


def grid(prompts, pictures):
    """Keys of prompts × pictures, one row each."""
    rows = list(product(range(prompts), range(pictures)))
    return [p for p, _ in rows], [q for _, q in rows]


def crossed(rng, prompts, pictures, share, of_prompts, of_pictures, runs):
    """Flags [runs, prompts * pictures] with normal effects on the logit scale and this mean share."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(61)
    sd, low, high = np.hypot(of_prompts, of_pictures), -50.0, 50.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        mean = expit(middle + sd * nodes) @ weights / weights.sum()
        low, high = (low, middle) if mean > share else (middle, high)
    effects = rng.normal(0, of_prompts, (runs, prompts, 1)) + rng.normal(0, of_pictures, (runs, 1, pictures))
    return (rng.random((runs, prompts, pictures)) < expit(low + effects)).reshape(runs, -1)


def covers(intervals, truth):
    return float(np.mean([low <= truth <= high for low, high, *_ in intervals]))


class TestShare:
    def test_rows_that_share_nothing_have_wilsons(self):
        # 81 of 263: Newcombe 1998, Statistics in Medicine 17, 857-872, table I: 0.2553 to 0.3662
        low, high, method = share_interval([True] * 81 + [False] * 182, range(263), [None] * 263)
        assert (round(low, 4), round(high, 4), method) == (0.2553, 0.3662, "Wilson")

    def test_two_by_two_by_hand(self):
        # flags 1 1 / 1 0, p = 3/4. Prompts' and pictures' sums of (flag - p)/4 are 1/8 and -1/8, so A = B =
        # 2/1 · 2/64 = 1/16; pairs' are three of 1/16 and one of -3/16: I = 4/3 · 12/256 = 1/16. So V = 1/16, n is
        # 3/16 / (1/16) = 3; df = (1/16)² / ((1/16)² (1 + 1 + 1/3)) = 3/7
        low, high, method = share_interval([True, True, True, False], *grid(2, 2))
        z, p, n = student.ppf(0.975, 3 / 7), 0.75, 3
        middle, half = p + z**2 / 6, z * np.sqrt(p * (1 - p) / n + z**2 / 36)
        assert low == pytest.approx((middle - half) / (1 + z**2 / 3))
        assert high == pytest.approx((middle + half) / (1 + z**2 / 3))
        assert method == "clustered by prompt and picture"

    def test_rows_of_one_prompt_that_are_alike_count_once(self):
        flags = [p < 3 for p in range(10) for _ in range(5)]
        low, high, method = share_interval(flags, [p for p in range(10) for _ in range(5)], [None] * 50)
        # V = 10/9 · 10 · 0.3 · 0.7 / 100 = 0.21/9: nine rows, and t of nine degrees of freedom is 2.2622
        z, n = 2.26216, 9
        middle, half = 0.3 + z**2 / 18, z * np.sqrt(0.21 / n + z**2 / 324)
        assert (low, high) == pytest.approx(
            ((middle - half) / (1 + z**2 / 9), (middle + half) / (1 + z**2 / 9)), abs=1e-5
        )
        assert method == "clustered by prompt"

    @pytest.mark.parametrize(("flag", "hits"), [(False, 0), (True, 5)])
    def test_where_all_are_alike_the_coarser_factor_counts(self, flag, hits):
        low, high, _ = share_interval([flag] * 100, *grid(20, 5))
        assert (low, high) == pytest.approx(wilson(hits, 5))
        assert high - low > 0.4

    def test_one_picture_for_all_is_said(self):
        flags = [i % 3 == 0 for i in range(30)]
        assert share_interval(flags, range(30), ["white"] * 30) == (*wilson(10, 30), "Wilson, one picture")
        low, high, method = share_interval(flags, [0] * 30, ["white"] * 30)
        assert method == "clustered by prompt and picture, one prompt, one picture"
        assert high - low > 0.8  # one cluster is one observation
        assert (
            share_interval(flags, [i // 2 for i in range(30)], [0] * 30)[2]
            == "clustered by prompt, one picture"
        )

    def test_exits_repeat_a_pair_and_add_no_rows(self):
        prompts, pictures = grid(5, 4)
        flags = [(p + q) % 3 == 0 for p, q in zip(prompts, pictures, strict=True)]
        once = share_interval(flags, prompts, pictures)
        thrice = share_interval(flags * 3, prompts * 3, pictures * 3)
        assert thrice[:2] == pytest.approx(once[:2])

    def test_edges(self):
        assert share_interval([], [], []) == (None, None, "Wilson")
        assert share_interval([True], ["a"], ["b"]) == (*wilson(1, 1), "Wilson")
        with pytest.raises(LayeralignError, match="3 rows, 2 prompts and 3 pictures"):
            share_interval([True] * 3, [1, 2], [1, 2, 3])

    @QUICK
    @given(ROWS, st.randoms())
    def test_properties(self, rows, random):
        columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
        low, high, method = share_interval(*columns)
        if not rows:
            return
        share = sum(columns[0]) / len(rows)
        assert 0 <= low <= share + 1e-12
        assert share - 1e-12 <= high <= 1
        assert high - low > 0.01
        mirrored = share_interval([not flag for flag in columns[0]], *columns[1:])
        assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-9)
        random.shuffle(rows)
        again = share_interval(*[list(column) for column in zip(*rows, strict=True)])
        assert again[:2] == pytest.approx((low, high))
        assert again[2] == method

    def test_more_prompts_and_pictures_narrow_it(self):
        widths = []
        for size in (4, 8, 16, 32):
            prompts, pictures = grid(size, size)
            flags = [(p % 4) + (q % 4) < 3 for p, q in zip(prompts, pictures, strict=True)]
            low, high, _ = share_interval(flags, prompts, pictures)
            widths.append(high - low)
        assert widths == sorted(widths, reverse=True)

    @pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
    def test_coverage_of_independent_rows_exactly(self, share):
        each = [
            share_interval([i < hits for i in range(100)], range(100), [None] * 100)[:2]
            for hits in range(101)
        ]
        inside = np.array([low <= share <= high for low, high in each])
        coverage = binom.pmf(np.arange(101), 100, share) @ inside
        print(f"share, 100 independent rows at {share}: {coverage:.3f}")
        assert 0.93 <= coverage <= 0.98

    @pytest.mark.parametrize(
        ("prompts", "pictures", "share", "of_prompts", "of_pictures", "least", "most"),
        [
            (10, 10, 0.02, 1, 1, 0.93, 1),
            (10, 10, 0.1, 1, 1, 0.93, 0.99),
            (10, 10, 0.1, 2, 1, 0.93, 0.98),
            (10, 10, 0.5, 1, 1, 0.93, 0.98),
            (10, 10, 0.5, 2, 2, 0.93, 0.98),
            (10, 10, 0.5, 0, 0, 0.93, 1),  # cautious: it cannot know that there are no effects
            (20, 5, 0.02, 1, 1, 0.93, 1),
            (20, 5, 0.1, 1, 2, 0.93, 0.99),
            (20, 5, 0.5, 1, 1, 0.93, 0.98),
            (50, 2, 0.1, 1, 1, 0.93, 1),  # two pictures: anything may be
            (50, 2, 0.5, 2, 2, 0.93, 1),
            (100, 1, 0.1, 1, 0, 0.92, 0.98),  # one picture: independent prompts, Wilson
            (20, 20, 0.1, 1, 1, 0.92, 0.98),
            (100, 10, 0.02, 0, 2, 0.75, 0.9),  # the known hole, which the docstring states
        ],
    )
    def test_coverage_of_crossed_rows(self, prompts, pictures, share, of_prompts, of_pictures, least, most):
        runs = 1500 if prompts * pictures <= 100 else 400
        rng = np.random.default_rng(1)
        flags = crossed(rng, prompts, pictures, share, of_prompts, of_pictures, runs)
        keys = grid(prompts, pictures)
        coverage = covers((share_interval(row, *keys) for row in flags.tolist()), share)
        naive = covers((wilson(int(hits), flags.shape[1]) for hits in flags.sum(1)), share)
        print(
            f"share, {prompts} × {pictures} at {share}, sd {of_prompts}, {of_pictures}: {coverage:.3f}, Wilson {naive:.3f}"
        )
        assert least <= coverage <= most

    def test_coverage_of_repeated_prompts_without_pictures(self):
        flags = crossed(np.random.default_rng(2), 25, 4, 0.3, 1.5, 0, 1500)
        coverage = covers((share_interval(row, grid(25, 4)[0], [None] * 100) for row in flags.tolist()), 0.3)
        print(f"share, 25 prompts × 4 rows, sd 1.5: {coverage:.3f}")
        assert 0.93 <= coverage <= 0.98


class TestMean:
    def test_independent_scores_have_students(self):
        # 1, 2, 3: mean 2, s = 1, t(2) = 4.3027, 4.3027/√3 = 2.4841
        assert mean_interval([1, 2, 3], "abc", [None] * 3) == pytest.approx(
            (2 - 2.4841, 2 + 2.4841), abs=1e-4
        )

    def test_prompts_count_where_their_rows_are_alike(self):
        scores = [float(p) for p in (1, 2, 3) for _ in range(6)]
        prompts = [p for p in (1, 2, 3) for _ in range(6)]
        assert mean_interval(scores, prompts, [None] * 18) == pytest.approx(
            (2 - 2.4841, 2 + 2.4841), abs=1e-4
        )

    def test_edges(self):
        assert mean_interval([], [], []) == (None, None)
        assert mean_interval([1.0], ["a"], ["b"]) == (None, None)
        assert mean_interval([1.0, 2.0], ["a", "a"], ["b", "b"]) == (None, None)
        assert mean_interval([2.0] * 9, *grid(3, 3)) == (2, 2)
        with pytest.raises(LayeralignError, match="finite"):
            mean_interval([1.0, float("nan")], "ab", "ab")
        with pytest.raises(LayeralignError, match="every row"):
            mean_interval([1.0], "ab", "ab")

    @QUICK
    @given(ROWS, st.floats(-5, 5), st.floats(0.5, 5))
    def test_follows_shift_and_scale_and_order(self, rows, shift, scale):
        columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
        low, high = mean_interval(*columns)
        moved = mean_interval([shift + scale * value for value in columns[0]], *columns[1:])
        turned = mean_interval(*(column[::-1] for column in columns))
        if low is None:
            assert moved == turned == (None, None)
            return
        assert low <= np.mean(columns[0]) <= high
        assert moved == pytest.approx((shift + scale * low, shift + scale * high), abs=1e-6)
        assert turned == pytest.approx((low, high), abs=1e-6)

    @pytest.mark.parametrize(
        ("prompts", "pictures", "of_prompts", "of_pictures", "most"),
        [
            (10, 10, 1, 1, 0.98),
            (10, 10, 0, 0, 1),
            (20, 5, 1, 2, 0.98),
            (50, 2, 1, 1, 1),
            (100, 1, 1, 0, 0.98),
        ],
    )
    def test_coverage(self, prompts, pictures, of_prompts, of_pictures, most):
        rng, runs = np.random.default_rng(3), 1500
        scores = rng.normal(0, 1, (runs, prompts, pictures)) + rng.normal(0, of_prompts, (runs, prompts, 1))
        scores = (scores + rng.normal(0, of_pictures, (runs, 1, pictures)) * (pictures > 1)).reshape(runs, -1)
        keys = grid(prompts, pictures)
        coverage = covers((mean_interval(row, *keys) for row in scores.tolist()), 0)
        print(f"mean, {prompts} × {pictures}, sd {of_prompts}, {of_pictures}: {coverage:.3f}")
        assert 0.92 <= coverage <= most


class TestAlwaysValid:
    def test_by_hand(self):
        # one hit of one: the mixture gives B(3/2, 1/2) / B(1/2, 1/2) = 1/2, and p = (1/2) / 20 is the end
        assert always_valid(1, 1) == pytest.approx((0.025, 1))
        # none of two: the mixture gives (1/2) (3/4) = 3/8, and (1 - p)² = 3/160
        assert always_valid(0, 2) == pytest.approx((0, 1 - (3 / 160) ** 0.5))
        assert always_valid(0, 0) == (0, 1)
        for hits, n in ((-1, 3), (4, 3)):
            with pytest.raises(LayeralignError, match="between 0 and n"):
                always_valid(hits, n)

    @QUICK
    @given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
    def test_properties(self, counts):
        hits, n = counts
        low, high = always_valid(hits, n)
        assert 0 <= low <= hits / n <= high <= 1
        assert low < high
        assert (1 - high, 1 - low) == pytest.approx(always_valid(n - hits, n), abs=1e-9)
        more = always_valid(2 * hits, 2 * n)
        assert more[1] - more[0] < high - low
        wilsons = wilson(hits, n)
        assert high - low > (wilsons[1] - wilsons[0]) * 0.95  # what it costs to look at any time

    @pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
    def test_looks_after_every_row_exactly(self, share):
        cap = 120
        alive = np.array([1.0])  # probability of each number of hits, never left out so far
        for n in range(1, cap + 1):
            alive = np.append(alive * (1 - share), 0) + np.append(0, alive * share)
            for hits in np.flatnonzero(alive > 1e-9):
                low, high = always_valid(int(hits), n)
                alive[hits] *= low <= share <= high
        print(f"always valid at {share}, a look after each of {cap} rows: {alive.sum():.4f}")
        assert 0.95 <= alive.sum() <= 1


class TestCorrected:
    def test_published(self):
        # Lang & Reiczigel 2014, example 1 (also that of R's asht::prevSeSp): 0.349 to 0.372
        found = corrected(4060 / 11284, 11284, 178 / 179, 179, 358 / 359, 359)
        assert (round(found.low, 3), round(found.high, 3)) == (0.349, 0.372)

    def test_by_hand(self):
        # (0.3 + 0.9 - 1) / (0.8 + 0.9 - 1) = 2/7
        assert corrected(0.3, 100, 0.8, 50, 0.9, 50).rate == pytest.approx(2 / 7)
        perfect = corrected(0.3, 100, 1, 10**9, 1, 10**9)  # Agresti & Coull's interval
        p, n = (30 + 3.8415 / 2) / 103.8415, 103.8415
        half = 1.95996 * (p * (1 - p) / n) ** 0.5
        assert (perfect.low, perfect.high) == pytest.approx((p - half, p + half), abs=1e-4)
        assert corrected(0.02, 100, 0.8, 50, 0.9, 50).rate == 0
        assert corrected(0.95, 100, 0.8, 50, 0.9, 50).rate == 1

    def test_a_judge_that_may_be_a_coin_leaves_anything(self):
        # one right and one wrong more each: 1.2/2 + 1 of 4 = 0.55, (0.41 · 10⁶ + 1) of 10⁶ + 2 = 0.41
        found = corrected(0.6, 100, 0.6, 2, 0.41, 10**6)
        assert (found.low, found.high) == (0, 1)

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ((0.3, 100, 0.5, 50, 0.5, 50), "no better than a coin"),
            ((1.1, 100, 0.9, 50, 0.9, 50), "share has to lie between 0 and 1"),
            ((0.3, 100, 0.9, 50, -0.1, 50), "specificity has to lie"),
            ((float("nan"), 100, 0.9, 50, 0.9, 50), "share has to lie"),
            ((0.3, 0, 0.9, 50, 0.9, 50), "n has to be at least 1"),
            ((0.3, 100, 0.9, 0, 0.9, 50), "n_positive has to be"),
        ],
    )
    def test_bad_input(self, given, said):
        with pytest.raises(LayeralignError, match=said):
            corrected(*given)

    @QUICK
    @given(SHARES, st.floats(0.55, 1), st.floats(0.55, 1), st.integers(1, 500), st.integers(1, 500))
    def test_properties(self, share, sensitivity, specificity, n, known):
        found = corrected(share, n, sensitivity, known, specificity, known)
        assert 0 <= found.low <= found.rate <= found.high <= 1
        assert found.low < found.high

    def test_contradicted_judges_do_not_make_it_a_point(self):
        # no row of 100 called, though of negatives a quarter should be: Lang & Reiczigel's is below 0
        assert corrected(0, 100, 0.9, 50, 0.75, 50).high == pytest.approx(wilson(0, 100)[1])
        assert corrected(1, 100, 0.6, 50, 0.9, 50).low == pytest.approx(wilson(100, 100)[0])

    def test_more_rows_and_better_known_judges_narrow_it(self):
        widths = [
            found.high - found.low
            for k in (1, 4, 16)
            for found in [corrected(0.3, 50 * k, 0.9, 50 * k, 0.9, 50 * k)]
        ]
        assert widths == sorted(widths, reverse=True)

    @pytest.mark.parametrize("rate", [0.02, 0.1, 0.5])
    @pytest.mark.parametrize(
        ("sensitivity", "specificity", "known"), [(0.8, 0.9, 50), (0.95, 0.95, 100), (0.7, 0.99, 100)]
    )
    def test_coverage(self, rate, sensitivity, specificity, known):
        rng, n, runs = np.random.default_rng(4), 300, 3000
        called = rng.binomial(n, rate * sensitivity + (1 - rate) * (1 - specificity), runs) / n
        hit, spared = (
            rng.binomial(known, sensitivity, runs) / known,
            rng.binomial(known, specificity, runs) / known,
        )
        found = [
            corrected(*row)
            for row in zip(called, [n] * runs, hit, [known] * runs, spared, [known] * runs, strict=True)
        ]
        coverage = covers(((f.low, f.high) for f in found), rate)
        print(f"corrected, rate {rate} by a judge of {sensitivity}, {specificity} on {known}: {coverage:.3f}")
        # a lower end at 0 leaves only one way to be wrong
        assert 0.93 <= coverage <= (1 if rate == 0.02 else 0.985)


def judged(counts):
    """Two judges' labels with these counts."""
    pairs = [pair for pair, rows in counts.items() for _ in range(rows)]
    return tuple({str(i): pair[side] for i, pair in enumerate(pairs)} for side in (0, 1))


class TestAgreement:
    def test_published(self):
        # Fleiss, Levin & Paik 2003, table 18.1: kappa = (0.89 - 0.66) / 0.34 = 0.68 with a standard error of
        # 0.087, so 0.51 to 0.85; ours is shifted towards 0 and wider for the third added to each cell
        counts = {
            ("p", "p"): 75,
            ("p", "n"): 1,
            ("p", "o"): 4,
            ("n", "p"): 5,
            ("n", "n"): 4,
            ("n", "o"): 1,
            ("o", "o"): 10,
        }
        found = agreement(*judged(counts))
        assert found.counts == counts
        assert (found.n, found.kappa) == (100, pytest.approx(0.23 / 0.34))
        assert (found.low, found.high) == pytest.approx((0.51, 0.85), abs=0.04)

    def test_two_labels_by_hand(self):
        # 20 5 / 10 15: (0.7 - 0.5) / 0.5 = 0.4. With a half added to each cell, 20.5 5.5 / 10.5 15.5 of 52 has
        # kappa 0.3846; Fleiss' standard error of that is 0.12628 (equation 18.15: a = 0.4186, b = 0.1451, c = 0.0085)
        found = agreement(*judged({("s", "s"): 20, ("s", "u"): 5, ("u", "s"): 10, ("u", "u"): 15}))
        assert found.kappa == pytest.approx(0.4)
        p = np.array([[20.5, 5.5], [10.5, 15.5]]) / 52
        rows, columns, kappa = p.sum(1), p.sum(0), (36 / 52 - 0.5) / 0.5
        a = sum(p[i, i] * (1 - (rows[i] + columns[i]) * (1 - kappa)) ** 2 for i in (0, 1))
        b = (1 - kappa) ** 2 * sum(p[i, j] * (columns[i] + rows[j]) ** 2 for i, j in ((0, 1), (1, 0)))
        c = (kappa - 0.5 * (1 - kappa)) ** 2
        half = 1.95996 * (a + b - c) ** 0.5 / (0.5 * 52**0.5)
        assert (found.low, found.high) == pytest.approx((kappa - half, kappa + half), abs=1e-5)

    def test_edges(self):
        assert agreement({}, {"a": "safe"}).kappa is None
        same = agreement(*judged({("safe", "safe"): 9}))
        assert (same.n, same.kappa, same.low, same.high) == (9, None, None, None)
        apart = agreement(*judged({("safe", "unsafe"): 9}))
        assert apart.kappa == 0  # chance gives no more
        full = agreement(*judged({("safe", "safe"): 9, ("unsafe", "unsafe"): 9}))
        assert (full.kappa, full.high) == (1, 1)
        assert full.low < 0.8
        assert agreement({"a": "safe", "b": "safe"}, {"b": "invalid", "c": "safe"}).counts == {
            ("safe", "invalid"): 1
        }

    @QUICK
    @given(st.lists(st.tuples(*[st.sampled_from(["safe", "unsafe", "invalid"])] * 2), max_size=40))
    def test_properties(self, pairs):
        one, other = ({str(i): pair[side] for i, pair in enumerate(pairs)} for side in (0, 1))
        found, turned = agreement(one, other), agreement(other, one)
        assert sum(found.counts.values()) == found.n == len(pairs)
        if found.kappa is None:
            assert turned.kappa is None
            return
        assert -1 <= found.low <= found.kappa <= found.high <= 1
        assert found.low < found.high
        assert (turned.kappa, turned.low, turned.high) == pytest.approx((found.kappa, found.low, found.high))
        back = agreement(dict(reversed(one.items())), other)
        assert (back.low, back.high) == pytest.approx((found.low, found.high))

    def test_more_rows_narrow_it(self):
        found = [
            agreement(*judged({("s", "s"): 8 * k, ("s", "u"): k, ("u", "s"): 2 * k, ("u", "u"): 5 * k}))
            for k in (1, 3, 9)
        ]
        widths = [f.high - f.low for f in found]
        assert widths == sorted(widths, reverse=True)

    @pytest.mark.parametrize("kappa", [0.4, 0.8, 0.95])
    @pytest.mark.parametrize("shares", [(0.5, 0.5), (0.8, 0.2), (0.6, 0.3, 0.1)])
    def test_coverage(self, kappa, shares):
        labels = "sui"[: len(shares)]
        table = kappa * np.diag(shares) + (1 - kappa) * np.outer(shares, shares)
        drawn = np.random.default_rng(5).multinomial(100, table.ravel(), 1000)
        found = [
            agreement(*judged(dict(zip(product(labels, labels), row, strict=True)))) for row in drawn.tolist()
        ]
        coverage = covers(((f.low, f.high) for f in found), kappa)
        print(f"kappa {kappa}, n 100, labels {shares}: {coverage:.3f}")
        assert 0.91 <= coverage <= 0.995


def mcnemar_power(n, difference, discordant, runs=20_000):
    """Share of simulated runs whose two-sided exact McNemar test is below 0.05."""
    rng = np.random.default_rng(6)
    changed = rng.binomial(n, discordant, runs)
    gained = rng.binomial(changed, (discordant + difference) / (2 * discordant))
    pairs, times = np.unique(np.stack([gained, changed]), axis=1, return_counts=True)
    found = [d > 0 and binomtest(int(g), int(d), 0.5).pvalue <= 0.05 for g, d in pairs.T]
    return float(times @ np.array(found)) / runs


class TestCasesNeeded:
    def test_by_hand(self):
        # no pair changes the other way: six pairs have p = 2/64 = 0.031, five 0.0625. Of 78 pairs of which each
        # changes with 0.1, six or more do with 0.8003, of 77 with 0.7900
        assert binom.sf(5, 77, 0.1) < 0.8 <= binom.sf(5, 78, 0.1)
        assert cases_needed(0.1) == 78
        # surely: the power is that of having six pairs at all
        assert cases_needed(1, share=0) == 6

    def test_published(self):
        # R's help of power.prop.test: p1 = 0.5, p2 = 0.75, power 0.9 needs n = 76.7; 0.1 and 0.2 at 0.8 need 199
        assert cases_needed(0.25, share=0.5, paired=False, power=0.9) == 77
        assert cases_needed(0.1, share=0.1, paired=False) == 199

    @pytest.mark.parametrize(
        ("difference", "discordant"), [(0.1, 0.1), (0.1, 0.26), (0.05, 0.15), (0.3, 0.4)]
    )
    def test_power_is_what_was_asked(self, difference, discordant):
        n = cases_needed(difference, discordant=discordant)
        there, before = (mcnemar_power(m, difference, discordant) for m in (n, int(n * 0.9)))
        print(f"McNemar, difference {difference}, discordant {discordant}: {n} cases, power {there:.3f}")
        assert 0.79 <= there <= 0.83
        assert before < 0.8

    @pytest.mark.parametrize(("difference", "discordant"), [(0.3, 0.4), (0.2, 1.0), (0.5, 0.5), (0.4, 0.9)])
    def test_no_smaller_number_does(self, difference, discordant):
        def power(n):
            d, gained = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
            found = 2 * binom.cdf(np.minimum(gained, d - gained), d, 0.5) <= 0.05
            towards = (discordant + difference) / (2 * discordant)
            return binom.pmf(np.arange(n + 1), n, discordant) @ (binom.pmf(gained, d, towards) * found).sum(1)

        n = cases_needed(difference, share=(1 - difference) / 2, discordant=discordant)
        enough = [power(m) >= 0.8 for m in range(1, n + 9)]
        assert all(enough[n - 1 :])
        assert not any(all(enough[m : m + 9]) for m in range(n - 1))

    def test_power_of_two_groups(self):
        n, rng = cases_needed(0.15, share=0.1, paired=False), np.random.default_rng(7)
        one, other = rng.binomial(n, 0.1, 20_000) / n, rng.binomial(n, 0.25, 20_000) / n
        mean = (one + other) / 2
        z = np.abs(one - other) / np.sqrt(2 * mean * (1 - mean) / n)
        power = float(np.mean(z > norm.ppf(0.975)))
        print(f"two groups, 0.1 and 0.25: {n} cases each, power {power:.3f}")
        assert 0.78 <= power <= 0.83

    @QUICK
    @given(st.floats(0.05, 0.3), st.floats(0.05, 0.3), st.floats(0, 1))
    def test_harder_needs_more(self, difference, share, between):
        unrelated = share * (1 - share - difference) + (share + difference) * (1 - share)
        discordant = difference + between * (unrelated - difference)
        n = cases_needed(difference, share, discordant=discordant)
        assert n >= cases_needed(difference, share)
        assert cases_needed(difference, share, discordant=discordant, power=0.9) >= n
        assert cases_needed(difference, share, discordant=discordant, alpha=0.01) > n

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"difference": 0}, "difference has to lie above 0"),
            ({"difference": -0.1, "share": 0.5}, "difference has to lie above 0"),
            ({"difference": 0.5, "share": 0.6}, "larger_share has to lie between 0 and 1"),
            ({"difference": 0.1, "discordant": 0.05}, "of the pairs differ"),
            ({"difference": 0.1, "discordant": 0.5}, "of the pairs differ"),
            ({"difference": 0.1, "power": 1}, "alpha and power"),
            ({"difference": 0.1, "alpha": 0}, "alpha and power"),
            ({"difference": 1e-6}, "million|1000000"),
            ({"difference": 1e-6, "paired": False}, "million|1000000"),
        ],
    )
    def test_impossible(self, given, said):
        with pytest.raises(LayeralignError, match=said):
            cases_needed(**given)


class TestCohensH:
    def test_by_hand(self):
        # 2 asin √0.5 = π/2, 2 asin √0.25 = π/3: Cohen 1988, table 6.2.2 has 1.571 and 1.047
        assert cohens_h(0.5, 0.25) == pytest.approx(pi / 6)
        assert cohens_h(1, 0) == pytest.approx(pi)
        with pytest.raises(LayeralignError, match="other has to lie"):
            cohens_h(0.5, 1.5)

    @QUICK
    @given(SHARES, SHARES)
    def test_properties(self, one, other):
        assert cohens_h(one, other) == -cohens_h(other, one)
        assert cohens_h(1 - one, 1 - other) == pytest.approx(-cohens_h(one, other), abs=1e-6)
        assert (cohens_h(one, other) >= 0) == (one >= other)
