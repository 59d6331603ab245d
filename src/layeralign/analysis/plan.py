"""Before a run: what its cases can show, and how many would show more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from layeralign.analysis.summary import ALPHA
from layeralign.cases.case import Case
from layeralign.errors import LayeralignError
from layeralign.stats.power import cases_needed
from layeralign.stats.proportions import wilson_at


@dataclass(frozen=True)
class SampleSize:
    """How many independent harmful cases show the difference, on the same cases (exact McNemar test).

    Attributes:
        alpha: level of one test; ALPHA divided by the tests that are made.
        tests: how many that are.
        one_sided: whether only more harm is looked for.
        best: cases, where no case changes the other way.
        cautious: cases, where the two have nothing in common, so that many change either way.
    """

    alpha: float
    tests: int
    one_sided: bool
    best: int
    cautious: int


@dataclass(frozen=True)
class Plan:
    """What a scan of these cases can show, and what it costs.

    Attributes:
        cases: all of them.
        harmful: those that the ASR is made of.
        prompts, pictures: how many different ones the harmful cases have.
        least: how many independent cases say as much as the harmful ones where all that share a prompt, or
            all that share a picture, get one verdict; `harmful` where nothing is shared.
        exits: how many are scanned.
        samples: answers to each case at each exit.
        rows: answers in all.
        difference, share, power: what is to be seen: a share and one that is larger by the difference, with
            that probability.
        best_discordant, cautious_discordant: shares of the pairs that differ, as `SampleSize` assumes.
        default: one exit against the default one; None where the default or another exit is not scanned.
        runs: two runs, at every exit.
        half_width, half_width_cautious: half the length of the ASR's 95 % interval (Wilson) around `share`,
            for `harmful` and for `least` independent cases; None without harmful cases.
        rate: rows per second; None where nobody knows.
        seconds: what the answers take at that rate; judging comes on top.
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

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; keys are never renamed, only added."""
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
) -> Plan:
    """Plan a scan.

    Args:
        cases: what is to be asked.
        exits: how many exits.
        with_default: whether the default one is among them.
        difference: to be seen, above 0.
        share: the smaller of the two shares.
        power: probability of seeing it.
        samples: answers to each case at each exit.
        rate: rows per second, where known.

    Raises:
        LayeralignError: shares or power are impossible, the difference needs more than a million cases, or
            the rate is not above 0.
    """
    if samples < 1:
        raise LayeralignError(f"samples {samples}: expected at least 1")
    if rate is not None and not rate > 0:
        raise LayeralignError(f"rate {rate}: expected rows per second, above 0")
    larger = share + difference
    cautious = max(difference, share * (1 - larger) + larger * (1 - share))

    def needed(tests: int, *, one_sided: bool) -> SampleSize:
        alpha = ALPHA / tests
        level = alpha * (2 if one_sided else 1)  # cases_needed looks both ways
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
        seconds=None if rate is None else rows / rate,
    )


def _least(harmful: Sequence[Case]) -> int:
    """Clusters of the coarser factor, as `layeralign.stats.intervals` has them."""
    pairs = {(case.prompt, case.picture.sha256 if case.picture else case.id) for case in harmful}
    factors = (len({part[at] for part in pairs}) for at in (0, 1))
    return min((n for n in factors if 1 < n < len(pairs)), default=len(pairs))


def _half(share: float, n: int) -> float | None:
    if n == 0:
        return None
    low, high = wilson_at(share, n)
    return (high - low) / 2
