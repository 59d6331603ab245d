"""Rows drawn from a known truth, and how often intervals hold it."""

from itertools import product

import numpy as np
from hypothesis import settings
from scipy.special import expit

QUICK = settings(max_examples=60, deadline=None)


def grid(prompts, pictures, samples=1):
    """Keys of prompts × pictures, `samples` rows each."""
    rows = list(product(range(prompts), range(pictures), range(samples)))
    return [p for p, *_ in rows], [q for _, q, _ in rows]


def crossed(rng, prompts, pictures, share, of_prompts, of_pictures, runs, samples=1):
    """Flags [runs, rows of `grid`] with normal effects on the logit scale and this mean share."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(61)
    sd, low, high = np.hypot(of_prompts, of_pictures), -50.0, 50.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        mean = expit(middle + sd * nodes) @ weights / weights.sum()
        low, high = (low, middle) if mean > share else (middle, high)
    effects = rng.normal(0, of_prompts, (runs, prompts, 1)) + rng.normal(0, of_pictures, (runs, 1, pictures))
    drawn = rng.random((runs, prompts, pictures, samples))
    return (drawn < expit(low + effects)[..., None]).reshape(runs, -1)


def covers(intervals, truth):
    """Share of intervals that hold the truth."""
    return float(np.mean([low <= truth <= high for low, high, *_ in intervals]))
