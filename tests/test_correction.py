"""A judge's errors taken out of a rate; `-s` prints what the intervals cover."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layeralign.errors import LayeralignError
from layeralign.stats.misclassification import corrected
from layeralign.stats.proportions import wilson
from simulated import QUICK, covers

SHARES = st.floats(0, 1)


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
            ((0.3, 100, 0.5, 50, 0.5, 50), "no better than chance"),
            ((1.1, 100, 0.9, 50, 0.9, 50), "share has to lie between 0 and 1"),
            ((0.3, 100, 0.9, 50, -0.1, 50), "specificity has to lie"),
            ((float("nan"), 100, 0.9, 50, 0.9, 50), "share has to lie"),
            ((0.3, 0, 0.9, 50, 0.9, 50), "n has to be above 0"),
            ((0.3, 100, 0.9, 0, 0.9, 50), "n_positive has to be above 0"),
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
