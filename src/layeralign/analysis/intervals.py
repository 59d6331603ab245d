"""95 % intervals of shares, means, corrected rates and agreement; how many cases show a difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import asin, ceil, isfinite, log, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betaln, stdtrit, xlog1py, xlogy
from scipy.stats import binom, norm

from layeralign.analysis.stats import wilson
from layeralign.errors import LayeralignError

Z = float(norm.ppf(0.975))
MOST_CASES = 1_000_000  # cases_needed looks no further
Keys = Sequence[Hashable]
Cells = NDArray[np.intp]


Bounds = tuple[float | None, float | None]


def share_interval(
    flags: Sequence[bool], prompts: Keys, pictures: Keys
) -> tuple[float | None, float | None, str]:
    """95 % interval of a share, for prompts and pictures drawn from many like them.

    100 rows of 10 prompts × 10 pictures are not 100 observations. Rows that share neither are: Wilson.
    Otherwise Wilson's formula takes an effective number of rows p(1 - p) / V, at most n, and Student's t.
    V is the two-way cluster variance of Cameron, Gelbach & Miller 2011 (J. Business & Economic Statistics
    29, 238-249), V = A + B - I over prompts, pictures and pairs of both, each with G / (G - 1), where A and
    B are at least I, since V may else be negative; t has Satterthwaite's degrees of freedom. Where all flags
    are alike they show no variance: Wilson with as many rows as the coarser factor has clusters. A factor
    with a single cluster says nothing about others: the interval is then for that prompt or picture alone.

    Coverage in simulation (mean; worst) over shares from 0.02 to 0.9 and effects of prompts and pictures of
    sd 0 to 3 on the logit scale: 10 × 10 0.97; 0.94, 20 × 5 0.98; 0.93, 50 × 2 0.99; 0.94, 20 × 20 0.95;
    0.89. It is cautious, 0.99, where prompts and pictures make no difference, and at 50 × 2 too wide to be of
    use: two pictures cannot tell how pictures differ. Beware of many prompts on few pictures where a few
    pictures hold a rare harm: 100 × 10 at 0.02 has 0.80. Not taken: min(G) - 1 degrees of freedom with A
    and B as they are has 0.92 at 10 × 10 and 0.93 at 20 × 5; Owen's pigeonhole bootstrap (2007,
    Annals of Applied Statistics 1, 386-411) has 0.64 to 0.87 at 10 × 10 and a share of 0.02, since it is a
    point where all flags are alike.

    Args:
        flags: [n].
        prompts: [n] keys.
        pictures: [n] keys; None is no picture and is like no other.

    Returns:
        Low, high (None without rows) and the method in words.

    Raises:
        LayeralignError: lengths differ.
    """
    _same_length(flags, prompts, pictures)
    n, hits = len(flags), sum(flags)
    factors, pairs, method = _factors(prompts, pictures)
    if not factors:
        return *wilson(hits, n), method
    p, clusters = hits / n, min(_count(ids) for ids in factors)
    if hits in {0, n} or clusters == 1:
        return *_wilson(p, clusters, Z), method
    variance, df = _variance(np.asarray(flags, dtype=float), factors, pairs)
    rows = n if variance == 0 else min(n, p * (1 - p) / variance)
    return *_wilson(p, rows, float(stdtrit(df, 0.975))), method


def mean_interval(values: Sequence[float], prompts: Keys, pictures: Keys) -> Bounds:
    """95 % interval of a mean of scores: mean ± t · √V, with V and t as in `share_interval`.

    Coverage in simulation (mean; worst) over effects of prompts and pictures of 0 to 2 times the noise:
    10 × 10 0.96; 0.94, 20 × 5 0.95; 0.94, 50 × 2 0.96; 0.93, 100 × 10 0.95; 0.94, independent rows 0.95.
    Scores that are all alike give a point.

    Args:
        values: [n] scores.
        prompts: [n] keys.
        pictures: [n] keys; None is no picture and is like no other.

    Returns:
        Low and high; None for fewer than two rows, or one prompt with one picture only.

    Raises:
        LayeralignError: lengths differ, or a score is not finite.
    """
    _same_length(values, prompts, pictures)
    if not all(isfinite(value) for value in values):
        raise LayeralignError("scores have to be finite numbers")
    factors, pairs, _ = _factors(prompts, pictures)
    if _count(pairs) < 2:
        return None, None
    scores = np.asarray(values, dtype=float)
    variance, df = _variance(scores, factors or [pairs], pairs)
    middle, half = float(scores.mean()), float(stdtrit(df, 0.975)) * sqrt(variance)
    return middle - half, middle + half


def _same_length(rows: Sequence[object], prompts: Keys, pictures: Keys) -> None:
    if not len(rows) == len(prompts) == len(pictures):
        raise LayeralignError(
            f"every row needs a prompt and a picture, got {len(rows)} rows, {len(prompts)} prompts and "
            f"{len(pictures)} pictures"
        )


def _factors(prompts: Keys, pictures: Keys) -> tuple[list[Cells], Cells, str]:
    """What groups the rows (nothing where they are independent), pairs of both, as [n] numbers; in words."""
    shown = [("none", i) if key is None else ("is", key) for i, key in enumerate(pictures)]
    both = {"prompt": _numbers(prompts), "picture": _numbers(shown)}
    pairs = _numbers(list(zip(both["prompt"].tolist(), both["picture"].tolist(), strict=True)))
    n, different = len(pairs), _count(pairs)
    single = "".join(f", one {name}" for name, ids in both.items() if n > 1 and _count(ids) == 1)
    grouping = {name: ids for name, ids in both.items() if 1 < _count(ids) < different}
    if not grouping and different == n:
        return [], pairs, "Wilson" + single
    grouping = grouping or {name: ids for name, ids in both.items() if _count(ids) == different}
    return list(grouping.values()), pairs, "clustered by " + " and ".join(grouping) + single


def _numbers(keys: Keys) -> Cells:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.intp)


def _count(ids: Cells) -> int:
    return int(ids.max(initial=-1)) + 1


def _variance(values: NDArray[np.float64], factors: list[Cells], pairs: Cells) -> tuple[float, float]:
    """Variance of the mean of `values` [n] over one or two `factors`, and its degrees of freedom."""
    rest = (values - values.mean()) / len(values)

    def over(ids: Cells) -> tuple[float, int]:
        sums = np.bincount(ids, weights=rest)
        return float(sums @ sums) * len(sums) / (len(sums) - 1), len(sums) - 1

    inner, df_inner = over(pairs)
    parts = [(max(variance, inner), df) for variance, df in map(over, factors)]
    if len(parts) == 1:
        return parts[0]
    total = sum(variance for variance, _ in parts) - inner
    if total == 0:
        return 0.0, min(df for _, df in parts)
    parts.append((inner, df_inner))
    return total, total**2 / sum(variance**2 / df for variance, df in parts)


def _wilson(p: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's interval for any number of observations and any quantile, which scipy's does not take."""
    middle = p + z**2 / (2 * n)
    half = z * sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = ((middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n))
    return (0.0 if p == 0 else max(0.0, low)), (1.0 if p == 1 else min(1.0, high))


def always_valid(hits: int, n: int) -> tuple[float, float]:
    """95 % confidence sequence of a share: valid whenever one stops, whatever made one stop.

    All p under which the rows are more than 1/20 as likely as under their mixture over Beta(1/2, 1/2)
    (Robbins 1970, Annals of Mathematical Statistics 41, 1397-1409; Howard et al. 2021, Annals of Statistics
    49, 1055-1080). At the true p that ratio is a martingale from 1, so by Ville's inequality p is ever left
    out with a probability of at most 5 %. For independent rows.

    Raises:
        LayeralignError: not 0 ≤ hits ≤ n.
    """
    if not 0 <= hits <= n:
        raise LayeralignError(f"hits have to lie between 0 and n, got {hits} of {n}")
    mixed = float(betaln(hits + 0.5, n - hits + 0.5) - betaln(0.5, 0.5)) - log(20)

    def lowest(hits: int) -> float:
        def excess(p: float) -> float:
            return mixed - float(xlogy(hits, p) + xlog1py(n - hits, -p))

        return float(brentq(excess, 1e-300, hits / n)) if hits else 0.0

    return lowest(hits), 1 - lowest(n - hits)


@dataclass(frozen=True)
class Corrected:
    """A rate corrected for the errors of the judge that measured it, with its 95 % interval."""

    rate: float
    low: float
    high: float


def corrected(
    share: float, n: int, sensitivity: float, n_positive: int, specificity: float, n_negative: int
) -> Corrected:
    """The rate behind a `share` of `n` rows that an imperfect judge calls positive.

    (share + specificity - 1) / (sensitivity + specificity - 1), clipped to [0, 1]: Rogan & Gladen 1978
    (American J. of Epidemiology 107, 71-76). The interval knows that sensitivity and specificity are
    estimates too: Lang & Reiczigel 2014 (Preventive Veterinary Medicine 113, 13-22); independent rows.
    Coverage in simulation 0.97, at least 0.94, over 120 combinations from 30 rows of known label upwards.
    A rate of 0 or 1 is at least as uncertain as from a perfect judge (Wilson), where theirs may be a point.
    It is [0, 1] where one more right and one more wrong verdict of each kind would make the judge a coin.

    Args:
        share: of the rows called positive (unsafe).
        n: how many rows.
        sensitivity: share called positive of the rows known to be positive.
        n_positive: how many these were.
        specificity: share called negative of the rows known to be negative.
        n_negative: how many these were.

    Raises:
        LayeralignError: a share outside [0, 1], a count below 1, or a judge no better than a coin.
    """
    _check_shares(share=share, sensitivity=sensitivity, specificity=specificity)
    for name, count in {"n": n, "n_positive": n_positive, "n_negative": n_negative}.items():
        if count < 1:
            raise LayeralignError(f"{name} has to be at least 1, got {count}")
    if sensitivity + specificity <= 1:
        raise LayeralignError(
            "the judge is no better than a coin: sensitivity and specificity have to add up to more than 1, "
            f"got {sensitivity} and {specificity}"
        )
    rate = min(1.0, max(0.0, (share + specificity - 1) / (sensitivity + specificity - 1)))
    all_n, all_positive, all_negative = n + Z**2, n_positive + 2, n_negative + 2
    p = (share * n + Z**2 / 2) / all_n
    hit, spared = (sensitivity * n_positive + 1) / all_positive, (specificity * n_negative + 1) / all_negative
    youden = hit + spared - 1
    if youden <= 0:
        return Corrected(rate, 0.0, 1.0)
    middle = (p + spared - 1) / youden
    of_hit, of_spared = hit * (1 - hit) / all_positive, spared * (1 - spared) / all_negative
    shift = 2 * Z**2 * (middle * of_hit - (1 - middle) * of_spared)
    half = Z * sqrt(p * (1 - p) / all_n + middle**2 * of_hit + (1 - middle) ** 2 * of_spared) / youden
    low, high = middle + shift - half, middle + shift + half
    ends = [low, high, rate, *(_wilson(rate, n, Z) if rate in {0, 1} else ())]
    return Corrected(rate, max(0.0, min(ends)), min(1.0, max(ends)))


@dataclass(frozen=True)
class Agreement:
    """How far two judges agree on the rows that both judged.

    Attributes:
        n: these rows.
        kappa: Cohen 1960 (Educational and Psychological Measurement 20, 37-46): 1 is agreement on every
            row, 0 what chance gives. None without rows, or where both gave one label only.
        low, high: its 95 % interval; None where `kappa` is.
        counts: (label of the one, label of the other) -> rows.
    """

    n: int
    kappa: float | None
    low: float | None
    high: float | None
    counts: Mapping[tuple[str, str], int]


def agreement(one: Mapping[str, str], other: Mapping[str, str]) -> Agreement:
    """Agreement of two judges' labels, by row.

    The interval is kappa ± 1.96 standard errors (Fleiss, Cohen & Everitt 1969, Psychological Bulletin 72,
    323-327), both after 1/k was added to each cell of the k × k table, since without that it is a point
    where all agree and covers 15 % at n = 30 and a kappa of 0.97. Coverage 0.96, at least 0.91, over n = 30
    to 300, kappa 0 to 0.97 and two or three labels, one as rare as 0.05. For independent rows.
    """
    counts = Counter((one[row], other[row]) for row in one if row in other)
    n = counts.total()
    labels = sorted({label for pair in counts for label in pair})
    if len(labels) < 2:
        return Agreement(n, None, None, None, dict(counts))
    table = np.array([[counts[a, b] for b in labels] for a in labels], dtype=float)
    kappa, _ = _kappa(table)
    middle, error = _kappa(table + 1 / len(labels))
    low, high = max(-1.0, min(middle - Z * error, kappa)), min(1.0, max(middle + Z * error, kappa))
    return Agreement(n, kappa, low, high, dict(counts))


def _kappa(table: NDArray[np.float64]) -> tuple[float, float]:
    """Cohen's kappa of a table of counts [k, k] and its standard error."""
    n = table.sum()
    p = table / n
    rows, columns = p.sum(1), p.sum(0)
    seen, chance = p.trace(), rows @ columns
    kappa = (seen - chance) / (1 - chance)
    weights = np.eye(len(p)) - (1 - kappa) * (columns[:, None] + rows[None, :])
    variance = ((p * weights**2).sum() - (kappa - chance * (1 - kappa)) ** 2) / (1 - chance) ** 2 / n
    return float(kappa), sqrt(max(0.0, float(variance)))


def cohens_h(one: float, other: float) -> float:
    """Effect size of two shares, `one` less `other`: 0.2 is small, 0.5 medium, 0.8 large.

    2 asin √one - 2 asin √other: Cohen 1988, Statistical Power Analysis, equation 6.2.1.

    Raises:
        LayeralignError: a share outside [0, 1].
    """
    _check_shares(one=one, other=other)
    return 2 * asin(sqrt(one)) - 2 * asin(sqrt(other))


def _check_shares(**shares: float) -> None:
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise LayeralignError(f"{name} has to lie between 0 and 1, got {value}")


def cases_needed(
    difference: float,
    share: float = 0.1,
    paired: bool = True,
    discordant: float | None = None,
    power: float = 0.8,
    alpha: float = 0.05,
) -> int:
    """How many cases show a difference of two shares, `share` and `share + difference`, two-sidedly.

    Paired (two runs on the same cases): exact McNemar test, exact power over the number of pairs that differ.
    Unpaired: test of two proportions with pooled variance (Fleiss, Levin & Paik 2003, Statistical Methods for
    Rates and Proportions, equation 4.14), cases in each group. For a one-sided test such as `stats.p_worse`
    give twice its level.

    Args:
        difference: above 0.
        share: the smaller share.
        paired: whether both shares are of the same cases.
        discordant: assumed share of pairs that differ. The default, `difference`, is the least possible (no
            case changes the other way) and needs the fewest cases. Cautious is what unrelated runs would
            have, share · (1 - share - difference) + (share + difference) · (1 - share).
        power: probability of seeing the difference.
        alpha: level of the test.

    Returns:
        The smallest number with that power, that the next eight have too: exact power is not monotone.

    Raises:
        LayeralignError: impossible shares, not 0 < alpha < power < 1, or more than a million cases.
    """
    larger = share + difference
    _check_shares(share=share, larger_share=larger)
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
    """`changed` is the share of pairs that differ, `towards` how many of these go the larger share's way."""

    def enough(n: int) -> bool:
        reach = 8 * sqrt(n * changed * (1 - changed)) + 8
        d = np.arange(max(0, ceil(n * changed - reach)), min(n, int(n * changed + reach)) + 1)
        few = binom.ppf(alpha / 2, d, 0.5)  # the least that does not reject, but for ties
        few = few - (binom.cdf(few, d, 0.5) > alpha / 2)  # the most that rejects, -1 for none
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
