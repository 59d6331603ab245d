"""Clusters of rows that share prompts and pictures."""

from __future__ import annotations

from collections.abc import Hashable, Sequence, Sized
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layeralign.errors import LayeralignError
from layeralign.stats.proportions import Z
from layeralign.stats.student import student

Keys = Sequence[Hashable] | NDArray[np.signedinteger[Any]]
"""One key per row: objects, or numbers from 0."""
Cells = NDArray[np.int32]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Clusters:
    """Groups of rows.

    Attributes:
        factors: one or two arrays of cluster numbers, int [n]; empty where rows share nothing. If only rows
            of one pair repeat, such as samples of a case or its exits, the pair is the cluster.
        pairs: int [n], the number of each row's pair of prompt and picture.
        words: the clustering in words; "" without clusters.
        note: what all rows have in common, such as `, one picture`.
    """

    factors: tuple[Cells, ...]
    pairs: Cells
    words: str
    note: str

    def fewest(self) -> int:
        """Return the number of clusters of the coarsest factor; without factors, the number of pairs."""
        return min(map(count, self.factors or (self.pairs,)))

    def variance(self, values: Values) -> tuple[float, float]:
        """Return the variance of the mean of `values` [n], and its degrees of freedom.

        V = A + B - I over the factors and their intersection (the pairs), each with G / (G - 1): Cameron,
        Gelbach & Miller 2011 (J. Business & Economic Statistics 29, 238-249). A and B are at least I, since V
        could otherwise be negative. The degrees of freedom are Satterthwaite's.
        """
        rest = (values - values.mean()) / len(values)
        inner, df_inner = spread(rest, self.pairs)
        parts = [(max(part, inner), df) for part, df in (spread(rest, ids) for ids in self.factors)]
        if not parts:
            return inner, df_inner
        if len(parts) == 1:
            return parts[0]
        total = sum(part for part, _ in parts) - inner
        if total == 0:
            return 0.0, min(df for _, df in parts)
        parts.append((inner, df_inner))
        return total, total**2 / sum(part**2 / df for part, df in parts)

    def effective(self, values: Values, spread: float, most: int, z: float = Z) -> float:
        """Return the effective number of rows for the mean of `values`, at most `most`.

        These are the independent rows of variance `spread` that carry as much information: `spread` / V · (z
        / t)². Here t is the quantile of Student's t, with V's degrees of freedom, at the probability of z. An
        interval made with z thus gets the width of t. Where the values do not vary, it is the number of
        clusters.
        """
        clusters = self.fewest()
        if spread <= 0 or clusters == 1:
            return float(clusters)
        variance, df = self.variance(values)
        rows = most if variance == 0 else min(most, spread / variance)
        return rows * (z / student(df, NormalDist().cdf(z))) ** 2


def cluster(prompts: Keys, pictures: Keys) -> Clusters:
    """Group rows by the prompts and pictures that they share.

    Args:
        prompts: [n] keys.
        pictures: [n] keys; None is no picture and equals no other key. Several rows of one case without a
            picture therefore need a key of the case.
    """
    if not isinstance(pictures, np.ndarray):
        pictures = [("none", i) if key is None else ("is", key) for i, key in enumerate(pictures)]
    return _cluster(numbers(prompts).tobytes(), numbers(pictures).tobytes())


@lru_cache(maxsize=2)  # the metrics of one exit are about two sets of rows; of 10^6 rows an entry has 12 MB
def _cluster(prompts: bytes, pictures: bytes) -> Clusters:
    both = {"prompt": np.frombuffer(prompts, np.int32), "picture": np.frombuffer(pictures, np.int32)}
    pairs = numbers(both["prompt"].astype(np.int64) * (count(both["picture"]) + 1) + both["picture"])
    n, different = len(pairs), count(pairs)
    note = "".join(f", one {name}" for name, ids in both.items() if n > 1 and count(ids) == 1)
    grouping = {name: ids for name, ids in both.items() if 1 < count(ids) < different}
    if not grouping and different < n:
        alike = [name for name, ids in both.items() if count(ids) == different]
        grouping = {alike[0] if len(alike) == 1 else "case": pairs}
    return Clusters(tuple(grouping.values()), pairs, " and ".join(grouping), note)


def same_length(rows: Sized, prompts: Keys, pictures: Keys) -> None:
    """Raise LayeralignError if the lengths differ."""
    if not len(rows) == len(prompts) == len(pictures):
        raise LayeralignError(
            f"every row needs a prompt and a picture, got {len(rows)} rows, {len(prompts)} prompts and "
            f"{len(pictures)} pictures"
        )


def numbers(keys: Keys) -> Cells:
    """Return the keys as numbers from 0; objects in order of first occurrence, numbers in their order."""
    if isinstance(keys, np.ndarray):
        most = int(keys.max(initial=0))
        if most > 8 * len(keys) + 1000:
            return np.unique(keys, return_inverse=True)[1].astype(np.int32)
        there = np.zeros(most + 1, dtype=bool)  # as np.unique would, without sorting
        there[keys] = True
        return (np.cumsum(there, dtype=np.int32) - 1)[keys]
    found: dict[Hashable, int] = {}
    return np.array([found.setdefault(key, len(found)) for key in keys], dtype=np.int32)


def count(ids: Cells) -> int:
    """Return the number of distinct ids."""
    return int(ids.max(initial=-1)) + 1


def spread(rest: Values, ids: Cells) -> tuple[float, int]:
    """Return the sum of squares of the clusters' sums, times G / (G - 1), and G - 1."""
    sums = np.bincount(ids, weights=rest)
    return float(sums @ sums) * len(sums) / max(1, len(sums) - 1), len(sums) - 1
