"""Tables of a fleet's servers, and of what is known of each runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from layeralign._util.text import printable
from layeralign.gating.checks import STYLES
from layeralign.gating.deployments.runtimes import TABLE

if TYPE_CHECKING:
    from layeralign.gating.endpoint import Located
    from layeralign.gating.fleet import ServerResult

HEADINGS = (
    "runtime", "families", "key", "index base", "off by", "versions", "proved how", "check",
)  # fmt: skip
"""Columns of the table of runtimes, in the order of the fields of `Reading`."""


def servers(rows: Sequence[ServerResult]) -> Table:
    """Return a table with a line per server."""
    made = Table(box=box.SIMPLE_HEAD)
    for head in ("", "server", "runtime", "key", "blocks", "exit", "why"):
        made.add_column(head, no_wrap=head in ("", "blocks", "exit"), overflow="fold")
    for row in rows:
        numbers = ("?" if one is None else str(one) for one in (row.blocks, row.exit))
        cells = (row.result, row.server, row.runtime, row.key, *numbers, row.why)
        made.add_row(*(Text(printable(cell, 400)) for cell in cells), style=STYLES[row.result])
    return made


def located(found: Located) -> Table:
    """Return a table of how well each exit explains an endpoint's answers, the best first."""
    made = Table(
        box=box.SIMPLE_HEAD,
        caption=f"{found.answered} of {found.asked} questions answered. Agreement: equal words at the start "
        f"of an answer, over its length. {_how(found)}",
        caption_justify="left",
    )
    far = found.fits[0].distance is not None
    for head in ("exit", "agreement %", *(("distance", "limit") if far else ()), "p", "fits"):
        made.add_column(head, justify="right", no_wrap=True)
    for fit in found.fits:
        p = "< 0.001" if fit.p < 0.001 else f"{fit.p:.3f}"
        more = [f"{one:.3f}" for one in (fit.distance, fit.limit) if one is not None]
        made.add_row(fit.name, f"{100 * fit.agreement:.0f}", *more, p, "yes" if fit in found.exits else "")
    return made


def _how(found: Located) -> str:
    """Return what decides whether an exit fits."""
    if found.fits[0].distance is None:
        return "p: against the best exit, corrected. Log-probabilities were not compared."
    return (
        f"Distance: median difference of the log-probabilities of {found.compared} answers, in nats. Limit: "
        "what another number format explains. p: that so many answers are above it."
    )


def runtimes() -> Table:
    """Return the table of the runtimes."""
    made = Table(box=box.SIMPLE_HEAD)
    for head in HEADINGS:
        made.add_column(head, no_wrap=head in ("runtime", "versions", "check"), overflow="fold")
    for reading in TABLE:
        made.add_row(*(Text(cell.replace("`", "") or "–") for cell in vars(reading).values()))
    return made
