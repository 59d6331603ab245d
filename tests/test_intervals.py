"""Intervals against published numbers, their properties, and what they cover; `-s` prints the coverages."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from scipy.stats import t as student

from layeralign.errors import LayeralignError
from layeralign.stats.intervals import effective_rows, mean_interval, share_interval
from layeralign.stats.proportions import wilson, wilson_at
from layeralign.stats.student import student as quantile
from simulated import QUICK, covers, crossed, grid

ROWS = st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.none() | st.integers(0, 3)), max_size=40)


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
        assert method == "clustered by case, one prompt, one picture"
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
        assert share_interval([], [], []) == (None, None, "")
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

    @pytest.mark.parametrize("share", [0.05, 0.3])
    @pytest.mark.parametrize("samples", [1, 2, 3, 5])
    @pytest.mark.slow
    def test_coverage_of_samples_of_cases_without_pictures(self, samples, share):
        """Each case is a prompt of its own; its samples are alike, as far as the case decides."""
        for alike in (0, 1.5, 4):
            flags = crossed(np.random.default_rng(8), 60, 1, share, alike, 0, 700, samples)
            prompts, _ = grid(60, 1, samples)
            found = [share_interval(row, prompts, [f"case {p}" for p in prompts]) for row in flags.tolist()]
            coverage = covers(found, share)
            naive = covers((wilson(int(hits), flags.shape[1]) for hits in flags.sum(1)), share)
            print(f"share {share}, 60 cases × {samples}, sd {alike}: {coverage:.3f}, Wilson {naive:.3f}")
            # a rare share of which three cases hold nearly all: what the docstring states
            assert (0.89 if (share, alike) == (0.05, 4) else 0.915) <= coverage <= 0.985
            assert samples < 3 or alike < 4 or naive < 0.85

    @pytest.mark.parametrize("samples", [2, 5])
    def test_coverage_of_samples_of_crossed_cases(self, samples):
        flags = crossed(np.random.default_rng(9), 10, 10, 0.3, 1.5, 1, 700, samples)
        coverage = covers((share_interval(row, *grid(10, 10, samples)) for row in flags.tolist()), 0.3)
        print(f"share, 10 × 10 × {samples} samples: {coverage:.3f}")
        assert 0.925 <= coverage <= 0.985

    def test_samples_of_a_case_count_once_where_they_are_alike(self):
        flags = [p < 3 for p, _ in product(range(10), range(5))]
        prompts = [f"prompt {p}" for p, _ in product(range(10), range(5))]
        cases = [f"case {p}" for p, _ in product(range(10), range(5))]
        # V = 10/9 · 10 · 0.3 · 0.7 / 100: nine rows, and of nine degrees of freedom, not of three
        low, high, method = share_interval(flags, prompts, cases)
        assert (low, high) == pytest.approx(share_interval(flags, prompts, [None] * 50)[:2])
        assert method == "clustered by case"
        assert effective_rows(flags, prompts, cases) == pytest.approx(9 * (1.959964 / 2.262157) ** 2)
        assert wilson_at(0.3, effective_rows(flags, prompts, cases)) == pytest.approx((low, high))

    def test_degrees_are_between_flags(self):
        """VQA's accuracies: the same mean as flags, the same interval where nothing is shared."""
        low, high, _ = share_interval([0.3, 0.9, 0.6, 1, 0.2, 0], range(6), [None] * 6)
        assert (low, high) == wilson(3, 6)
        with pytest.raises(LayeralignError, match="values between 0 and 1"):
            share_interval([0.5, 1.2], "ab", "ab")
        with pytest.raises(LayeralignError, match="a share needs rows"):
            effective_rows([], [], [])

    @pytest.mark.parametrize(("prompts", "pictures"), [(60, 1), (10, 10)])
    def test_coverage_of_degrees(self, prompts, pictures):
        """Each answer's degree is the mean of three flags."""
        flags = crossed(np.random.default_rng(10), prompts, pictures, 0.7, 2, 1 * (pictures > 1), 1000, 3)
        degrees = flags.reshape(1000, -1, 3).mean(-1)
        coverage = covers((share_interval(row, *grid(prompts, pictures)) for row in degrees.tolist()), 0.7)
        print(f"share of degrees, {prompts} × {pictures}: {coverage:.3f}")
        assert 0.93 <= coverage <= 0.995


class TestMean:
    def test_independent_scores_have_students(self):
        # 1, 2, 3: mean 2, s = 1, t(2) = 4.3027, 4.3027/√3 = 2.4841
        *ends, method = mean_interval([1, 2, 3], "abc", [None] * 3)
        assert ends == pytest.approx([2 - 2.4841, 2 + 2.4841], abs=1e-4)
        assert method == "Student"

    def test_prompts_count_where_their_rows_are_alike(self):
        scores = [float(p) for p in (1, 2, 3) for _ in range(6)]
        prompts = [p for p in (1, 2, 3) for _ in range(6)]
        *ends, method = mean_interval(scores, prompts, [None] * 18)
        assert ends == pytest.approx([2 - 2.4841, 2 + 2.4841], abs=1e-4)
        assert method == "clustered by prompt"

    def test_edges(self):
        assert mean_interval([], [], []) == (None, None, "")
        assert mean_interval([1.0], ["a"], ["b"]) == (None, None, "")
        assert mean_interval([1.0, 2.0], ["a", "a"], ["b", "b"]) == (None, None, "")
        assert mean_interval([2.0] * 9, *grid(3, 3))[:2] == (2, 2)
        with pytest.raises(LayeralignError, match="finite"):
            mean_interval([1.0, float("nan")], "ab", "ab")
        with pytest.raises(LayeralignError, match="every row"):
            mean_interval([1.0], "ab", "ab")

    @QUICK
    @given(ROWS, st.floats(-5, 5), st.floats(0.5, 5))
    def test_follows_shift_and_scale_and_order(self, rows, shift, scale):
        columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
        low, high, _ = mean_interval(*columns)
        moved = mean_interval([shift + scale * value for value in columns[0]], *columns[1:])[:2]
        turned = mean_interval(*(column[::-1] for column in columns))[:2]
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


@pytest.mark.parametrize("p", [0.9, 0.95, 0.975, 0.999, 0.99999])
def test_the_quantiles_of_student_are_those_of_scipy(p):
    for df in (1, 1.5, 2, 3.7, 5, 10, 33.3, 99, 1e3, 1e5):
        assert quantile(df, p) == pytest.approx(student.ppf(p, df), rel=1e-9)
