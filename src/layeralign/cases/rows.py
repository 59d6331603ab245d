"""Cases from Python: a list of dicts, a pandas table or a Hugging Face dataset, validated as a case file."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from PIL import Image

from layeralign._util.validation import shown
from layeralign.cases import files, pictures
from layeralign.cases.case import Case, Picture
from layeralign.errors import LayeralignError

if TYPE_CHECKING:
    import datasets
    import pandas

    Rows: TypeAlias = Sequence[Case] | Sequence[Mapping[str, Any]] | pandas.DataFrame | datasets.Dataset


def read(given: Rows, limit: int | None = None) -> list[Case]:
    """Read the first `limit` rows as cases (all by default).

    A row has the fields of a line of a case file, with two differences. `image` is a picture of Pillow, or
    the path of a file. `id` may be left out of all rows; the ids are then the numbers of the rows, from 0.
    Missing values of a table (None, NaN) are missing fields, and so are empty texts of optional fields. An id
    may be a whole number. Pictures in memory are not copied: they are
    read again from `given` when they are needed, and refused if they have changed.

    Args:
        given: cases, which are returned; or a list of dicts, a pandas DataFrame or a `datasets.Dataset`.
        limit: largest number of rows; no other row is read.

    Raises:
        LayeralignError: a row is invalid; the message names the row and the field.
    """
    rows = _records(given)
    first = range(len(rows) if limit is None else min(limit, len(rows)))
    if any(isinstance(rows[at], Case) for at in first[:1]):
        return _cases([rows[at] for at in first])
    found: dict[str, Picture | None] = {}
    made = files.checked(_contents(rows, first, found))
    return [files.case(row, found[where]) for where, row in made]


def _records(given: Any) -> Sequence[Any]:
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(given, pandas.DataFrame):
        records: list[Any] = given.astype(object).where(given.notna(), None).to_dict("records")
        return records
    if isinstance(given, Mapping) or not (hasattr(given, "__len__") and hasattr(given, "__getitem__")):
        raise LayeralignError(
            f"cases: is a {type(given).__name__}; expected a file, a benchmark, a list of dicts, "
            "a pandas DataFrame or a datasets.Dataset"
        )
    rows: Sequence[Any] = given
    return rows


def _cases(given: list[Any]) -> list[Case]:
    for at, case in enumerate(given):
        if not isinstance(case, Case):
            raise LayeralignError(f"cases[{at}]: is a {type(case).__name__}; expected a Case as in cases[0]")
    return given


def _contents(
    rows: Sequence[Any], numbers: range, found: dict[str, Picture | None]
) -> Iterator[tuple[str, Any]]:
    """Yield place and content of each row without its picture, which goes into `found` by place."""
    opened: dict[str, pictures.FilePicture] = {}
    named = False
    for at in numbers:
        where, row = f"cases[{at}]", rows[at]
        if not isinstance(row, Mapping):
            raise LayeralignError(f"{where}: is a {type(row).__name__}; expected a dict with prompt and kind")
        content = {str(name): value for name, value in row.items() if not _missing(str(name), value)}
        if isinstance(content.get("id"), Integral) and not isinstance(content["id"], bool):
            content["id"] = str(content["id"])
        named = "id" in content if at == 0 else named
        if ("id" in content) != named:
            raise LayeralignError(
                f"{where}: field 'id' is {'given' if 'id' in content else 'missing'}, unlike in cases[0]; "
                "expected ids in all rows or in none"
            )
        found[where] = _picture(rows, at, content.pop("image", None), opened)
        yield where, content if named else content | {"id": str(at)}


def _missing(name: str, value: Any) -> bool:
    empty = isinstance(value, str) and not value and name in ("image", "category", "reference")
    return value is None or empty or (isinstance(value, float) and isnan(value))


def _picture(
    rows: Sequence[Any], at: int, image: Any, opened: dict[str, pictures.FilePicture]
) -> Picture | None:
    if image is None:
        return None
    if isinstance(image, Image.Image):
        return pictures.hold(rows, at, image)
    where = f"cases[{at}]: image {shown(image)}"
    if not isinstance(image, str | Path):
        raise LayeralignError(f"{where}: expected a picture of Pillow or the path of a file")
    if "://" in str(image) or str(image).startswith("data:"):
        raise LayeralignError(f"{where}: is a URL; expected a picture of Pillow or the path of a file")
    if str(image) not in opened:
        opened[str(image)] = pictures.read(Path(image), where)
    return opened[str(image)]
