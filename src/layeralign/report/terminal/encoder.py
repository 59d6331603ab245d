"""A model's encoder, for a terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from layeralign._util.text import large, printable
from layeralign.vlm.cost import Encoder, ExitCost


def heading(found: Encoder) -> Table:
    """Return the components of the model, a line each."""
    whole = found.encoder_parameters + found.projector_parameters + found.language_parameters
    beside = found.projector_parameters
    projector = f"projector {large(beside)}" if beside else "its projector among it"
    share = 100 * found.encoder_parameters / whole
    made = Table(
        box=None, show_header=False, padding=(0, 2, 0, 0), title_justify="left",
        title=Text(f"{printable(found.model)} (family {found.family})", "bold"),
    )  # fmt: skip
    made.add_row(
        "encoder",
        f"{found.encoder} at {found.at}: {found.layers} blocks of width {found.width}, "
        f"default exit {found.default}",
    )
    made.add_row(
        "parameters",
        f"encoder {large(found.encoder_parameters)} ({share:.1f} % of the model, "
        f"{found.bytes / 1e9:.2f} GB in {found.dtype}), {projector}, "
        f"language model {large(found.language_parameters)}",
    )
    made.add_row("exit at l", found.variant)
    return made


def table(found: Encoder) -> Table:
    """Return the cost of each exit, with the default exit in bold."""
    made = Table(box=box.SIMPLE_HEAD, caption=_caption(found), caption_justify="left")
    heads = ("exit", "blocks run", "parameters", "FLOP", "of default")
    for head in (*heads, *(("ms", "of default") if found.timed_on else ())):
        made.add_column(head, justify="right", no_wrap=True)
    base = next(cost for cost in found.exits if cost.default)
    for cost in found.exits:
        made.add_row(*_cells(cost, base), style="bold" if cost.default else "")
    return made


def _cells(cost: ExitCost, base: ExitCost) -> list[str]:
    mark = "*" if cost.default else " "
    plain = [f"{cost.name}{mark}", str(cost.blocks), large(cost.parameters)]
    plain.append("–" if cost.flops is None else large(cost.flops, "G"))
    plain.append("–" if cost.share is None else f"{100 * cost.share:.0f} %")
    if cost.seconds is not None and base.seconds:
        plain += [f"{1000 * cost.seconds:,.1f}", f"{100 * cost.seconds / base.seconds:.0f} %"]
    return plain


def _caption(found: Encoder) -> str:
    timed = f" Time: median on {found.timed_on}." if found.timed_on else ""
    return (
        f"* default exit. Parameters of the encoder that are still needed. FLOP of one {found.unit}: patch "
        f"embedding and blocks.{timed}"
    )
