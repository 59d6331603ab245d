"""Validation of files that users write: one pydantic model per record, one sentence per mistake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from layeralign._util.text import has_lone_surrogate, printable
from layeralign.errors import LayeralignError


class Record(BaseModel):
    """A record whose fields have a `description`: the expected value, for messages."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


M = TypeVar("M", bound=Record)


def refused(why: str) -> PydanticCustomError:
    """Return the error with which a validator refuses a value; the message is "{place}: field 'x' {why}"."""
    return PydanticCustomError("refused", "{why}", {"why": why})


def _unicode(text: str) -> str:
    if has_lone_surrogate(text):
        raise refused("has a lone surrogate; expected valid Unicode")
    return text


def _filled(text: str) -> str:
    if not text.strip():
        raise refused("is empty")
    return text


Text = Annotated[str, AfterValidator(_unicode)]
"""Text that UTF-8 can encode."""
Filled = Annotated[Text, AfterValidator(_filled)]
"""Text that is not blank."""
Share = Annotated[float, Field(ge=0, le=1)]


def validated(
    model: type[M],
    content: Any,
    place: str | Callable[[str], str],
    *,
    name: Callable[[str], str] = lambda field: f"field {printable(repr(field[:80]), 40)}",
    extra: str = "",
) -> M:
    """Validate plain data and return it as a record.

    Args:
        model: the record's model.
        content: data from JSON or YAML.
        place: the record's place, such as `cases.jsonl:3`, or a function that maps a field's name to its
            place.
        name: maps a field's name to its description in a sentence.
        extra: how to fix an unknown field, as the end of the sentence.

    Raises:
        LayeralignError: the first mistake: its place, the field, the value and the expected value.
    """
    where = place if callable(place) else lambda _: place
    if not isinstance(content, dict):
        raise LayeralignError(f"{where('')}: expected a JSON object, found {type(content).__name__}")
    if any(has_lone_surrogate(str(key)) for key in content):  # pydantic does not say which
        raise LayeralignError(f"{where('')}: a field's name has a lone surrogate; expected valid Unicode")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        found = error.errors(include_url=False)
        # A misspelt name comes first: it explains the missing field.
        first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
    field = str(first["loc"][0])
    start = f"{where(field)}: {name(field)}"
    if first["type"] == "refused":
        raise LayeralignError(f"{start} {first['msg']}")
    if first["type"] == "extra_forbidden":
        known = ", ".join(model.model_fields)
        raise LayeralignError(f"{start} is unknown; expected {known}{extra}")
    expected = model.model_fields[field].description
    is_ = "is missing" if first["type"] == "missing" else f"is {shown(content[field])}"
    raise LayeralignError(f"{start} {is_}; expected {expected}")


def shown(value: object) -> str:
    """Return a value for a message: short, printable, in the notation of JSON and YAML."""
    if value is None:
        return "nothing"
    found = repr(value[:1000] if isinstance(value, str) else value)[:1000]
    return printable(found.lower() if isinstance(value, bool) else found, 60)
