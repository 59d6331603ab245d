"""What every result has: a line, HTML for a notebook, a frame and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.table import Table

from layeralign._util import notebook
from layeralign._util.text import printable
from layeralign.analysis.summary import Summary, summarise
from layeralign.errors import LayeralignError
from layeralign.report import Drawing
from layeralign.report.inputs import together
from layeralign.runs.frames import library

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from layeralign.analysis.results import Results

S = TypeVar("S", bound="Shown")


class Shown:
    """A result that a notebook shows. Subclasses say what it is; every text may be untrusted."""

    def _line(self) -> str:
        """Return the result in one line."""
        raise NotImplementedError

    def _tables(self) -> list[Table]:
        """Return the tables that the command prints."""
        raise NotImplementedError

    def _records(self) -> list[dict[str, Any]]:
        """Return the rows of the frame: plain numbers and texts."""
        raise NotImplementedError

    def _notes(self) -> Sequence[str]:
        """Return what is printed below the tables, line by line."""
        return ()

    def _draw(self, what: Drawing) -> Figure:
        """Draw a figure.

        Raises:
            LayeralignError: the result has no figure of this kind.
        """
        raise LayeralignError(f"figure {what}: {type(self).__name__} has none; to_frame() has its numbers")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {printable(self._line(), 300)}>"

    def _repr_html_(self) -> str:
        """Return tables, notes and curve as HTML without scripts, for light and dark pages."""
        from layeralign.report.charts.figure import inline

        said = "".join(f"<div>{notebook.lines(printable(note))}</div>" for note in self._notes())
        try:
            drawn = inline(self._draw("curve"))
        except LayeralignError:  # nothing is measured, or there is nothing to draw
            drawn = ""
        tables = "".join(notebook.table(one) for one in self._tables())
        return f'{tables}<div style="margin:4px 0">{said}</div>{drawn}'

    def to_frame(self) -> pandas.DataFrame:
        """Return the result as a pandas table; shares are from 0 to 1.

        Raises:
            LayeralignError: pandas is not installed.
        """
        return library("pandas", "to_frame").DataFrame(self._records()).convert_dtypes()

    def plot(self, file: str | Path | None = None, what: Drawing = "curve") -> Figure:
        """Draw a figure, two columns of a paper wide; see docs/report.md.

        Args:
            file: a file to write the figure to (.svg, .pdf or .png).
            what: `curve`, or for results of runs also `tradeoff`.

        Raises:
            LayeralignError: the result has no such figure, or the file ends differently.
        """
        from layeralign.report.charts import figure

        made = self._draw(what)
        if file is not None:
            figure.save(made, Path(file))
        return made


class OfRuns(Shown):
    """A result of runs on disk, whose figures are those of the runs."""

    _runs: Sequence[tuple[Results, Summary | str | None]]
    """The runs that are drawn, each with its summary, or with the judge that makes one."""

    def _draw(self, what: Drawing) -> Figure:
        """Draw a figure of the runs, `curve` or `tradeoff`."""
        from layeralign.report.charts import figure

        summaries = [(run, by if isinstance(by, Summary) else summarise(run, by)) for run, by in self._runs]
        return figure.draw(together(summaries), what)


def shown(kind: type[S], found: object, **more: Any) -> S:
    """Return a result of `analysis` or `gating` as a subclass that a notebook shows."""
    made = object.__new__(kind)
    made.__dict__.update(vars(found), **more)
    return made
