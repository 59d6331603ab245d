"""Planning of a run: what its cases can detect, and how many cases would detect more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from layeralign.analysis.summary import ALPHA
from layeralign.cases.case import Case
from layeralign.errors import LayeralignError
from layeralign.stats.power import cases_needed
from layeralign.stats.proportions import wilson_at

_MOST = 10**9
"""Largest number of samples, workers, rows per second, or of a price."""


@dataclass(frozen=True)
class SampleSize:
    """Number of independent harmful cases needed to show a paired difference (exact McNemar test).

    Attributes:
        alpha: level of one test: ALPHA divided by the number of tests.
        tests: the number of tests.
        one_sided: whether the test looks only for more harm.
        best: the number of cases needed if no case changes in the opposite direction.
        cautious: the number of cases needed if the two outcomes are independent, so that cases change in both
            directions.
    """

    alpha: float
    tests: int
    one_sided: bool
    best: int
    cautious: int


@dataclass(frozen=True)
class Plan:
    """What a scan of these cases can detect, and what it costs.

    Attributes:
        cases: the number of all cases.
        harmful: the number of harmful cases, which make the ASR.
        prompts, pictures: the number of distinct prompts and pictures of the harmful cases.
        least: the number of independent cases if all cases that share a prompt, or all that share a picture,
            get the same verdict. It equals `harmful` where nothing is shared.
        exits: the number of exits to scan.
        samples: answers to each case at each exit.
        rows: the number of all answers.
        difference, share, power: the effect to detect: the smaller share, its difference to the larger one,
            and the probability of detection.
        best_discordant, cautious_discordant: shares of discordant pairs that `SampleSize.best` and
            `SampleSize.cautious` assume.
        default: the sample size for one exit against the default exit; None where the default exit or another
            exit is not scanned.
        runs: the sample size for two runs, compared at every exit.
        half_width, half_width_cautious: half the width of the ASR's 95 % Wilson interval around `share`, for
            `harmful` and for `least` independent cases; None without harmful cases.
        rate: rows per second of one worker; None where it is unknown.
        seconds: the time to generate the answers at that rate, without judging; None where `rate` is None.
        workers: the number of workers that share the rows.
        cost: the price of the workers' time; None without a price or a rate.
    """

    cases: int
    harmful: int
    prompts: int
    pictures: int
    least: int
    exits: int
    samples: int
    rows: int
    difference: float
    share: float
    power: float
    best_discordant: float
    cautious_discordant: float
    default: SampleSize | None
    runs: SampleSize
    half_width: float | None
    half_width_cautious: float | None
    rate: float | None
    seconds: float | None
    workers: int = 1
    cost: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object; its keys are never renamed, only added."""
        return asdict(self)


def plan(
    cases: Sequence[Case],
    exits: int,
    *,
    with_default: bool = True,
    difference: float = 0.05,
    share: float = 0.1,
    power: float = 0.8,
    samples: int = 1,
    rate: float | None = None,
    workers: int = 1,
    price: float | None = None,
) -> Plan:
    """Plan a scan.

    Args:
        cases: the cases to scan.
        exits: the number of exits.
        with_default: whether the default exit is among them.
        difference: the difference to detect, above 0.
        share: the smaller of the two shares.
        power: the probability of detecting the difference.
        samples: answers to each case at each exit, at least 1.
        rate: rows per second of one worker, where known.
        workers: the number of workers, at least 1. They are taken to share the rows without loss;
            `benchmarks/ray_cluster.py` measures how far that holds.
        price: the price of an hour of one worker, in any currency.

    Raises:
        LayeralignError: shares or power are impossible, the difference needs more than a million cases, a
            number is too small, or a price is given without a rate.
    """
    for name, value in (("samples", samples), ("workers", workers)):
        if not 1 <= value <= _MOST:
            raise LayeralignError(f"{name} {value}: expected 1 to {_MOST:,}")
    if price is not None and (rate is None or not 0 <= price <= _MOST):
        raise LayeralignError(f"price {price}: expected 0 to {_MOST:,}, and a rate")
    if rate is not None and not 1 / _MOST <= rate <= _MOST:
        raise LayeralignError(f"rate {rate}: expected rows per second, {1 / _MOST:g} to {_MOST:,}")
    larger = share + difference
    cautious = max(difference, share * (1 - larger) + larger * (1 - share))

    def needed(tests: int, *, one_sided: bool) -> SampleSize:
        alpha = ALPHA / tests
        level = alpha * (2 if one_sided else 1)  # cases_needed makes a two-sided test
        best, most = (
            cases_needed(difference, share, discordant=d, power=power, alpha=level)
            for d in (difference, cautious)
        )
        return SampleSize(alpha, tests, one_sided, best, most)

    harmful = [case for case in cases if case.kind == "harmful"]
    prompts = len({case.prompt for case in harmful})
    pictures = [case.picture.sha256 for case in harmful if case.picture]
    least = _least(harmful)
    rows = len(cases) * exits * samples
    others = exits - 1
    seconds = None if rate is None else rows / rate / workers
    return Plan(
        cases=len(cases),
        harmful=len(harmful),
        prompts=prompts,
        pictures=len(set(pictures)),
        least=least,
        exits=exits,
        samples=samples,
        rows=rows,
        difference=difference,
        share=share,
        power=power,
        best_discordant=difference,
        cautious_discordant=cautious,
        default=needed(others, one_sided=True) if with_default and others else None,
        runs=needed(exits, one_sided=False),
        half_width=_half(share, len(harmful)),
        half_width_cautious=_half(share, least),
        rate=rate,
        seconds=seconds,
        workers=workers,
        cost=None if price is None or seconds is None else price * workers * seconds / 3600,
    )


def _least(harmful: Sequence[Case]) -> int:
    """Count the clusters of the coarser factor, as defined in `layeralign.stats.intervals`."""
    pairs = {(case.prompt, case.picture.sha256 if case.picture else case.id) for case in harmful}
    factors = (len({part[at] for part in pairs}) for at in (0, 1))
    return min((n for n in factors if 1 < n < len(pairs)), default=len(pairs))


def _half(share: float, n: int) -> float | None:
    if n == 0:
        return None
    low, high = wilson_at(share, n)
    return (high - low) / 2
