"""A checkpoint's processor without its video part.

Videos are not used, and transformers' video processors need torchvision, whose build for a CPU-only torch is
not on PyPI.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import transformers
from transformers import AutoProcessor, ProcessorMixin
from transformers.models.auto import processing_auto

from layeralign._util.quiet import offline

_FILES = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")


@offline()
def load(folder: Path, model_type: str) -> ProcessorMixin:
    """Load the processor in `folder` for a model of this type; transformers' errors are passed on."""
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    kind = getattr(transformers, _class(folder, model_type) or "", None)
    if kind is None or "video_processor" not in kind.get_attributes():
        made: ProcessorMixin = AutoProcessor.from_pretrained(folder, **options)
        return made
    found: ProcessorMixin = without_video(kind).from_pretrained(folder, **options)
    return found


class _NoVideo:
    """The video part's settings, which some chat templates and processors read: none of them is set."""

    model_input_names: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def without_video(kind: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """A subclass of the same name for pictures and text only."""
    names = kind.get_attributes()
    at = names.index("video_processor")

    class Pictures(ProcessorMixin):
        """The base class, but for the video processor that a subclass gives to it."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("video_processor", None)
            super().__init__(*args[:at], *args[at + 1 :], **kwargs)  # type: ignore[no-untyped-call]

    class Plain(kind, Pictures):  # type: ignore[misc, valid-type]
        video_processor = _NoVideo()

        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in names if name != "video_processor"]

        @classmethod
        def from_args_and_dict(cls, args: list[Any], *others: Any, **kwargs: Any) -> Any:
            return super().from_args_and_dict([*args[:at], None, *args[at:]], *others, **kwargs)

    Plain.__name__ = Plain.__qualname__ = kind.__name__
    return Plain


def _class(folder: Path, model_type: str) -> str | None:
    for name in _FILES:
        if (folder / name).is_file():
            found = json.loads((folder / name).read_text(encoding="utf-8")).get("processor_class")
            if found:
                return str(found)
    names: dict[str, str] = vars(processing_auto)["PROCESSOR_MAPPING_NAMES"]
    return names.get(model_type)
