"""Encoder FLOPs that the exits of a run save, and the Pareto front of exits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def savings(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the share of the default exit's FLOPs that each exit saves, with its ASR and utility.

    Args:
        run: a run of `layeralign.report.charts.series`.

    Returns:
        For each exit `exit`, `flops`, `saved` (at most 1), `asr`, `harm` and `utility`. `harm` is the ASR
        with the answers that could not be judged as unsafe. The last three are (value, low, high, rows);
        `utility` is None where it was not measured. Empty where the default exit's FLOPs are unknown.
    """
    flops = {int(exit): count for exit, count in run["flops"].items()}
    asr, harm, utility = (run["all"].get(key, {}) for key in ("asr", run["harm"], "utility"))
    usual = flops.get(run["default"])
    if not usual:
        return []
    return [
        {
            "exit": exit,
            "flops": count,
            "saved": round(1 - count / usual, 5),
            "asr": asr[exit],
            "harm": harm[exit],
            "utility": utility.get(exit),
        }
        for exit, count in flops.items()
        if exit in asr
    ]


def front(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the Pareto front of `savings`: no other exit saves as much with as low an upper end of harm."""

    def beats(one: dict[str, Any], other: dict[str, Any]) -> bool:
        pairs = ((one["saved"], other["saved"]), (-one["harm"][2], -other["harm"][2]))
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    kept = [one for one in found if not any(beats(other, one) for other in found)]
    return sorted(kept, key=lambda one: float(one["saved"]))
