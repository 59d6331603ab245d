"""A plan, for a terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table

from layeralign._util.text import duration
from layeralign.analysis.plan import Plan, SampleSize
from layeralign.analysis.summary import ALPHA


def lines(plan: Plan, source: str) -> list[str]:
    """Return the rows of a scan, the precision that they give, and the time that they take.

    Args:
        plan: the plan of a scan.
        source: the origin of the rate, in words.
    """
    made = [
        f"{plan.harmful:,} harmful cases of {plan.cases:,}: {_count(plan.prompts, 'prompt')}, "
        f"{_count(plan.pictures, 'picture')}{_shared(plan)}"
    ]
    if plan.half_width is not None and plan.half_width_cautious is not None:
        wider = (
            f", ± {100 * plan.half_width_cautious:.1f} with {plan.least:,}"
            if plan.least < plan.harmful
            else ""
        )
        made.append(
            f"95 % interval of an ASR of {_percent(plan.share)} %: ± {100 * plan.half_width:.1f} points with "
            f"{plan.harmful:,} independent cases{wider}"
        )
    rows = (
        f"{plan.cases:,} cases × {_count(plan.exits, 'exit')} × {_count(plan.samples, 'sample')} = "
        f"{plan.rows:,} answers"
    )
    if plan.seconds is None or plan.rate is None:
        return [*made, f"{rows}; no rate is known (--like RUN, --measure or --rate), so no time either"]
    many = f" on each of {plan.workers} workers" if plan.workers > 1 else ""
    price = "" if plan.cost is None else f", for a price of {plan.cost:,.2f}"
    time = f"{duration(plan.seconds)} at {plan.rate:,.2f} a second{many} ({source}){price}"
    return [*made, f"{rows}, {time}; judging not included"]


def table(plan: Plan) -> Table:
    """Return how many cases are needed to detect the difference."""
    larger = plan.share + plan.difference
    made = Table(
        box=box.SIMPLE_HEAD,
        title=f"Harmful cases that show {_percent(larger)} % against {_percent(plan.share)} %, with a "
        f"probability of {_percent(plan.power)} %",
        title_justify="left",
        caption=f"On the same cases, exact McNemar test, {_percent(ALPHA)} % over all tests. Best: no case "
        f"changes the other way ({_percent(plan.best_discordant)} % differ). Cautious: the two have nothing "
        f"in common ({_percent(plan.cautious_discordant)} % differ). Independent cases: samples of a case "
        "add none, and cases that share a prompt or a picture count less.",
        caption_justify="left",
    )
    for head in ("", "tests", "best", "cautious"):
        words = head in ("", "tests")
        made.add_column(head, justify="left" if words else "right", no_wrap=not words)
    for name, needed in (("an exit and the default one", plan.default), ("two runs, at an exit", plan.runs)):
        if needed is not None:
            cells = (_marked(n, plan) for n in (needed.best, needed.cautious))
            made.add_row(name, _tests(needed), *cells)
    return made


def _tests(needed: SampleSize) -> str:
    sides = "one-sided" if needed.one_sided else "two-sided"
    return f"{needed.tests}, {sides}" if needed.tests == 1 else f"{needed.tests}, {sides}, corrected"


def _marked(n: int, plan: Plan) -> str:
    """Format the number of cases, with a remark whether the plan has enough."""
    if n > plan.harmful:
        return f"{n:,} (too few)"
    return f"{n:,} (enough)" if n <= plan.least else f"{n:,} (enough if independent)"


def _shared(plan: Plan) -> str:
    if plan.least == plan.harmful:
        return ""
    return (
        f"; some are shared, so that they say as much as {plan.least:,} to {plan.harmful:,} independent ones"
    )


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g}"
