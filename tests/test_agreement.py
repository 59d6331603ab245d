"""Agreement of judges against published numbers; `-s` prints what the intervals cover."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layeralign.stats.kappa import agreement
from simulated import QUICK, covers


def judged(counts):
    """Two judges' labels with these counts."""
    pairs = [pair for pair, rows in counts.items() for _ in range(rows)]
    return tuple([pair[side] for pair in pairs] for side in (0, 1))


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
        assert agreement([], []).kappa is None
        same = agreement(*judged({("safe", "safe"): 9}))
        assert (same.n, same.kappa, same.low, same.high) == (9, None, None, None)
        apart = agreement(*judged({("safe", "unsafe"): 9}))
        assert apart.kappa == 0  # chance gives no more
        full = agreement(*judged({("safe", "safe"): 9, ("unsafe", "unsafe"): 9}))
        assert (full.kappa, full.high) == (1, 1)
        assert full.low < 0.8
        assert agreement(["safe"], ["invalid"]).counts == {("safe", "invalid"): 1}

    @pytest.mark.slow
    @QUICK
    @given(st.lists(st.tuples(*[st.sampled_from(["safe", "unsafe", "invalid"])] * 2), max_size=40))
    def test_properties(self, pairs):
        one, other = ([pair[side] for pair in pairs] for side in (0, 1))
        found, turned = agreement(one, other), agreement(other, one)
        assert sum(found.counts.values()) == found.n == len(pairs)
        if found.kappa is None:
            assert turned.kappa is None
            return
        assert -1 <= found.low <= found.kappa <= found.high <= 1
        assert found.low < found.high
        assert (turned.kappa, turned.low, turned.high) == pytest.approx((found.kappa, found.low, found.high))
        back = agreement(one[::-1], other[::-1])
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

    def test_rows_of_a_case_that_are_alike_count_once(self):
        """Five exits each: the interval is that of the cases, but for Student's t."""
        one, other = judged({("s", "s"): 20, ("s", "u"): 5, ("u", "s"): 10, ("u", "u"): 15})
        once = agreement(one, other)
        keys = [i for i in range(50) for _ in range(5)]
        five = [[label for label in side for _ in range(5)] for side in (one, other)]
        found, naive = agreement(*five, keys, keys), agreement(*five)
        assert (found.kappa, found.n) == (pytest.approx(once.kappa), 250)
        assert found.low == pytest.approx(once.low, abs=0.02)
        assert found.high == pytest.approx(once.high, abs=0.02)
        assert naive.high - naive.low < 0.5 * (found.high - found.low)

    def test_two_by_two_by_hand(self):
        """Two prompts, one agreed on, one not: two clusters, of which t has one degree of freedom."""
        labels = ["s", "s", "u", "u"], ["s", "s", "s", "u"]
        found = agreement(*labels, [0, 0, 1, 1], range(4))
        assert found.kappa == pytest.approx(0.5)  # (3/4 - 1/2) / (1 - 1/2)
        assert (found.low, found.high) == (-1, 1)

    @pytest.mark.parametrize("samples", [2, 5])
    @pytest.mark.parametrize("kappa", [0.4, 0.8])
    def test_coverage_of_samples_of_cases(self, kappa, samples):
        """Each judge sees the truth of a case with probability √kappa, else it draws once for all its samples."""
        rng, runs, cases = np.random.default_rng(6), 500, 60
        truth = rng.random((runs, cases, samples)) < rng.beta(0.5, 0.5, (runs, cases, 1))
        said = []
        for _ in range(2):
            sees, draw = rng.random((runs, cases, 1)) < kappa**0.5, rng.random((runs, cases, 1)) < 0.5
            said.append(np.where(sees, truth, draw).reshape(runs, -1).tolist())
        keys = [i for i in range(cases) for _ in range(samples)]
        found = [agreement(*rows, keys, keys) for rows in zip(*said, strict=True)]
        coverage = covers(((f.low, f.high) for f in found), kappa)
        naive = covers(
            ((f.low, f.high) for f in (agreement(*rows) for rows in zip(*said, strict=True))), kappa
        )
        print(f"kappa {kappa}, 60 cases × {samples}: {coverage:.3f}, rows as independent {naive:.3f}")
        assert 0.92 <= coverage <= 0.985
        assert samples < 5 or naive < 0.85
