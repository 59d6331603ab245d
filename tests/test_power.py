"""How many cases show a difference, and effect sizes; `-s` prints the power."""

from math import pi

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, norm

from layeralign.errors import LayeralignError
from layeralign.stats.power import cases_needed
from layeralign.stats.proportions import cohens_h
from simulated import QUICK

SHARES = st.floats(0, 1)


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
    @pytest.mark.slow
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
    @pytest.mark.slow
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
