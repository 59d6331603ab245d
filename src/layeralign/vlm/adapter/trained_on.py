"""The record of the cases that an adapter was trained on."""

from __future__ import annotations

from pydantic import Field

from layeralign._util.validation import Record, validated

__all__ = ["TrainedOn", "validated"]


class TrainedOn(Record):
    """The content of `trained_on.json`."""

    asked: list[str] = Field(description="a list of hashes; train again, or remove the file")
