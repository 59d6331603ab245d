"""Whether a guard and the scanned model are of one family of language models, and may share blind spots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layeralign.analysis.results import Results
from layeralign.judges.guards.registry import GUARDS
from layeralign.judges.kinds import kind_of

_FAMILIES = {
    "llama": "Llama", "mllama": "Llama", "qwen": "Qwen", "gemma": "Gemma", "paligemma": "Gemma",
    "mistral": "Mistral", "ministral": "Mistral", "mixtral": "Mistral", "granite": "Granite",
}  # fmt: skip
"""Beginning of a language model's `model_type` -> family."""
_OF_LLAMA = (range(32000, 32101), range(128256, 128401))
"""Sizes of the vocabularies of Llama 2 and Llama 3, with a few tokens added."""


def family(config: Mapping[str, Any]) -> str:
    """Return the family of the language model in a config.json; empty where it is unknown.

    Many other models have the class of Llama. Such a model counts as Llama only with Llama's vocabulary.
    """
    text = config.get("text_config")
    text = text if isinstance(text, Mapping) and text.get("model_type") else config
    kind = str(text.get("model_type", ""))
    if kind == "llama" and not any(text.get("vocab_size") in sizes for sizes in _OF_LLAMA):
        return ""
    return next((name for begins, name in _FAMILIES.items() if kind.startswith(begins)), "")


def related(run: Results) -> tuple[str, ...]:
    """Return the guards of a run that were made of a model of the scanned model's family, sorted.

    The base of an `llm:MODEL` is unknown, and so is the family of a model without a stored config.
    """
    own = family(run.noted.get("config") or {})
    return tuple(
        name for name in run.judges if own and (guard := GUARDS.get(kind_of(name))) and guard.family == own
    )
