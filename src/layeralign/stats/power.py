"""Number of cases that a test needs to detect a difference."""

from __future__ import annotations

from math import ceil, sqrt

import numpy as np
from scipy.stats import binom, norm

from layeralign.errors import LayeralignError
from layeralign.stats.proportions import check_shares

MOST_CASES = 1_000_000
"""Upper limit of the search in `cases_needed`."""


def cases_needed(
    difference: float,
    share: float = 0.1,
    paired: bool = True,
    discordant: float | None = None,
    power: float = 0.8,
    alpha: float = 0.05,
) -> int:
    """Return the number of cases that detect a difference between `share` and `share + difference`.

    The test is two-sided; for a one-sided test such as `p_worse`, pass twice its level. Paired (two runs on
    the same cases): exact McNemar test, with exact power over the number of discordant pairs. Unpaired: test
    of two proportions with pooled variance (Fleiss, Levin & Paik 2003, Statistical Methods for Rates and
    Proportions, equation 4.14); the result is the number of cases in each group.

    Args:
        difference: the difference, above 0.
        share: the smaller share.
        paired: whether both shares are of the same cases.
        discordant: assumed share of discordant pairs. The default, `difference`, is the minimum (no case
            changes in the other direction) and needs the fewest cases. A cautious value is that of
            independent runs, share · (1 - share - difference) + (share + difference) · (1 - share).
        power: the probability of detecting the difference.
        alpha: the level of the test.

    Returns:
        The smallest number with that power for which the next eight numbers have it too, since exact power is
        not monotone.

    Raises:
        LayeralignError: shares are impossible, not 0 < alpha < power < 1, or it takes more than a million
            cases.
    """
    larger = share + difference
    check_shares(share=share, larger_share=larger)
    if not 0 < difference <= 1:
        raise LayeralignError(f"difference has to lie above 0 and be at most 1, got {difference}")
    if not 0 < alpha < power < 1:
        raise LayeralignError(f"alpha and power have to be 0 < alpha < power < 1, got {alpha} and {power}")
    if not paired:
        return _unpaired(share, larger, power, alpha)
    changed = difference if discordant is None else discordant
    most = min(share + larger, 2 - share - larger)
    if not difference <= changed <= most + 1e-12:
        raise LayeralignError(
            f"with shares {share} and {larger}, between {difference} and {most} of the pairs differ, "
            f"got discordant {changed}"
        )
    return _paired(changed, min(1.0, (changed + difference) / (2 * changed)), power, alpha)


def _unpaired(small: float, large: float, power: float, alpha: float) -> int:
    mean = (small + large) / 2
    under_none = norm.isf(alpha / 2) * sqrt(2 * mean * (1 - mean))
    under_some = norm.ppf(power) * sqrt(small * (1 - small) + large * (1 - large))
    needed = float((under_none + under_some) / (large - small)) ** 2
    if needed > MOST_CASES:
        raise LayeralignError(f"a difference of {large - small} needs more than {MOST_CASES} cases")
    return max(2, ceil(needed))


def _paired(changed: float, towards: float, power: float, alpha: float) -> int:
    """Search the number of cases, given the discordant share and the part in the expected direction.

    Args:
        changed: share of discordant pairs.
        towards: share of these in the direction of the larger share.
        power: as in `cases_needed`.
        alpha: as in `cases_needed`.
    """

    def enough(n: int) -> bool:
        reach = 8 * sqrt(n * changed * (1 - changed)) + 8
        d = np.arange(max(0, ceil(n * changed - reach)), min(n, int(n * changed + reach)) + 1)
        few = binom.ppf(alpha / 2, d, 0.5)  # the least count that does not reject, up to ties
        few = few - (binom.cdf(few, d, 0.5) > alpha / 2)  # the largest count that rejects, -1 for none
        seen = binom.cdf(few, d, towards) + binom.sf(d - few - 1, d, towards)
        return float(binom.pmf(d, n, changed) @ seen) >= power

    low, high = 0, 8
    while not enough(high):
        low, high = high, 2 * high
        if high > 2 * MOST_CASES:
            raise LayeralignError(f"that difference needs more than {MOST_CASES} cases")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    n = max(1, high - 8)
    while not all(enough(n + more) for more in range(9)):
        n += 1
    return n
