"""95 % intervals of shares and means of rows that share prompts and pictures."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import isfinite, log, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betaln, stdtrit, xlog1py, xlogy

from layeralign.analysis.stats import Z, wilson_at
from layeralign.errors import LayeralignError

Keys = Sequence[Hashable]
Cells = NDArray[np.intp]
Interval = tuple[float | None, float | None, str]
"""Low, high (None where nothing can be said) and the method in words."""


def share_interval(values: Sequence[float], prompts: Keys, pictures: Keys) -> Interval:
    """95 % interval of a share, for prompts and pictures drawn from many like them.

    100 rows of 10 prompts × 10 pictures are not 100 observations, and 5 samples of a case are not 5. Rows
    that share nothing are: Wilson. Otherwise Wilson's formula takes an effective number of rows, see
    `effective_rows`. A factor with a single cluster says nothing about others: the interval is then for that
    prompt or picture alone.

    Coverage in simulation (mean; worst) over shares from 0.02 to 0.9 and effects of prompts and pictures of
    sd 0 to 3 on the logit scale: 10 × 10 0.97; 0.94, 20 × 5 0.98; 0.93, 50 × 2 0.99; 0.94, 20 × 20 0.95;
    0.89. It is cautious, 0.99, where prompts and pictures make no difference, and at 50 × 2 too wide to be of
    use: two pictures cannot tell how pictures differ. Beware of many prompts on few pictures where a few
    pictures hold a rare harm: 100 × 10 at 0.02 has 0.80. With 1 to 5 samples of each of 60 cases it has 0.92
    to 0.97, where Wilson's falls to 0.70, but 0.90 where 0.05 is nearly all of three cases.

    Not taken: min(G) - 1 degrees of freedom with A and B as they are has 0.92 at 10 × 10 and 0.93 at 20 × 5;
    Owen's pigeonhole bootstrap (2007, Annals of Applied Statistics 1, 386-411) has 0.64 to 0.87 at 10 × 10
    and a share of 0.02, since it is a point where all flags are alike.

    Args:
        values: [n] flags, or degrees from 0 to 1, whose mean is the share; cautious for degrees, which vary
            less.
        prompts: [n] keys.
        pictures: [n] keys; None is no picture and is like no other, so that several rows of one case without
            picture need a key of the case's.

    Raises:
        LayeralignError: lengths differ, or a value is outside [0, 1].
    """
    _same_length(values, prompts, pictures)
    if not len(values):
        return None, None, ""
    rows, words = _effective(values, prompts, pictures)
    return *wilson_at(_mean(values), rows), words


def effective_rows(values: Sequence[float], prompts: Keys, pictures: Keys) -> float:
    """How many independent rows would say as much of a share: those of which Wilson's interval is ours.

    p(1 - p) / V, at most n, times (1.96 / t)². V is the two-way cluster variance of Cameron, Gelbach & Miller
    2011 (J. Business & Economic Statistics 29, 238-249), V = A + B - I over prompts, pictures and pairs of
    both, each with G / (G - 1), where A and B are at least I, since V may else be negative; t is Student's
    97.5 % quantile with Satterthwaite's degrees of freedom. Where all values are 0 or all are 1 they show no
    variance: as many rows as the coarser factor has clusters. n for rows that share nothing.

    Args:
        values: [n] flags, or degrees from 0 to 1, whose mean is the share; n is at least 1.
        prompts: [n] keys.
        pictures: [n] keys; see `share_interval`.

    Raises:
        LayeralignError: lengths differ, there is no row, or a value is outside [0, 1].
    """
    return _effective(values, prompts, pictures)[0]


def mean_interval(values: Sequence[float], prompts: Keys, pictures: Keys) -> Interval:
    """95 % interval of a mean of scores: mean ± t · √V, with V and t as in `effective_rows`.

    Coverage in simulation (mean; worst) over effects of prompts and pictures of 0 to 2 times the noise:
    10 × 10 0.96; 0.94, 20 × 5 0.95; 0.94, 50 × 2 0.96; 0.93, 100 × 10 0.95; 0.94, independent rows 0.95.
    Scores that are all alike give a point; fewer than two rows, or one prompt with one picture only, nothing.

    Args:
        values: [n] scores.
        prompts: [n] keys.
        pictures: [n] keys; see `share_interval`.

    Raises:
        LayeralignError: lengths differ, or a score is not finite.
    """
    _same_length(values, prompts, pictures)
    if not all(isfinite(value) for value in values):
        raise LayeralignError("scores have to be finite numbers")
    factors, pairs, words = _factors(prompts, pictures)
    if _count(pairs) < 2:
        return None, None, ""
    scores = np.asarray(values, dtype=float)
    variance, df = _variance(scores, factors or [pairs], pairs)
    middle, half = float(scores.mean()), float(stdtrit(df, 0.975)) * sqrt(variance)
    return middle - half, middle + half, words if factors else "Student" + words


def _effective(values: Sequence[float], prompts: Keys, pictures: Keys) -> tuple[float, str]:
    _same_length(values, prompts, pictures)
    if not len(values) or not all(0 <= value <= 1 for value in values):
        raise LayeralignError("a share needs rows, and values between 0 and 1")
    factors, pairs, words = _factors(prompts, pictures)
    n, p = len(values), _mean(values)
    if not factors:
        return float(n), "Wilson" + words
    clusters = min(_count(ids) for ids in factors)
    if p in {0, 1} or clusters == 1:
        return float(clusters), words
    variance, df = _variance(np.asarray(values, dtype=float), factors, pairs)
    rows = n if variance == 0 else min(n, p * (1 - p) / variance)
    return rows * float(Z / stdtrit(df, 0.975)) ** 2, words


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _same_length(rows: Sequence[object], prompts: Keys, pictures: Keys) -> None:
    if not len(rows) == len(prompts) == len(pictures):
        raise LayeralignError(
            f"every row needs a prompt and a picture, got {len(rows)} rows, {len(prompts)} prompts and "
            f"{len(pictures)} pictures"
        )


def _factors(prompts: Keys, pictures: Keys) -> tuple[list[Cells], Cells, str]:
    """What groups the rows (nothing where they are independent), pairs of both, as [n] numbers; in words.

    Where only rows of one pair repeat - samples of a case, its exits - the pair is what groups them.
    """
    shown = [("none", i) if key is None else ("is", key) for i, key in enumerate(pictures)]
    both = {"prompt": _numbers(prompts), "picture": _numbers(shown)}
    pairs = _numbers(list(zip(both["prompt"].tolist(), both["picture"].tolist(), strict=True)))
    n, different = len(pairs), _count(pairs)
    single = "".join(f", one {name}" for name, ids in both.items() if n > 1 and _count(ids) == 1)
    grouping = {name: ids for name, ids in both.items() if 1 < _count(ids) < different}
    if not grouping and different == n:
        return [], pairs, single
    names = list(grouping) or [name for name, ids in both.items() if _count(ids) == different]
    return list(grouping.values()) or [pairs], pairs, "clustered by " + " and ".join(names) + single


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
