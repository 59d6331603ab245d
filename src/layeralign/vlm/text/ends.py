"""Tokens that end an answer, and their sources in a checkpoint."""

from __future__ import annotations

from typing import Any

from layeralign.errors import LayeralignError

Ends = dict[int, tuple[str, ...]]
"""Token id -> its sources: `generation_config`, `config`, `tokenizer`, `template`."""


def ends(vlm: Any) -> Ends:
    """Every token that some part of a checkpoint defines as an end.

    A model that ends its turn with a token that is missing in generation_config.json would otherwise
    continue with the user's next turn. A token from config.json or the template counts only if it is a
    special token of the tokenizer, since transformers' configs have defaults that are ordinary tokens in many
    tokenizers.

    Args:
        vlm: A `Vlm` with a tokenizer.

    Raises:
        ValueError: A config has something other than token ids.
    """
    names, config = vlm.tokenizer, vlm.model.config
    own = token_ids(vlm.model.generation_config.eos_token_id)
    others = {names.bos_token_id, names.unk_token_id, vlm.picture_token_id}
    special = {id for id, token in names.added_tokens_decoder.items() if token.special} - others
    both = (config, config.get_text_config())
    by_config = {id for one in both for id in token_ids(getattr(one, "eos_token_id", None))}
    sources = {
        "generation_config": own,
        "config": by_config & special,
        "tokenizer": token_ids(names.eos_token_id),
        "template": _of_template(vlm) & special,
    }
    return {
        id: tuple(source for source, ids in sources.items() if id in ids)
        for id in sorted(set().union(*sources.values()))
    }


def disagreement(vlm: Any, found: Ends) -> str:
    """A note if generation_config.json lacks ends that other sources define, or nothing defines an end."""
    if not found:
        return (
            "nothing names a token that ends an answer, so each answer runs to the length limit "
            "(max_new_tokens); name it as eos_token_id in generation_config.json"
        )
    more = {id: who for id, who in found.items() if "generation_config" not in who}
    named = [id for id in found if id not in more]
    if not more or not named:
        return ""
    others = ", ".join(f"{_token(vlm, id)} ({' and '.join(who)})" for id, who in more.items())
    return (
        f"generation_config.json ends answers only at {', '.join(_token(vlm, id) for id in named)}, but "
        f"{others} also end answers; layeralign stops at any of them"
    )


def _token(vlm: Any, id: int) -> str:
    return str(vlm.tokenizer.convert_ids_to_tokens(id))


def token_ids(found: Any) -> set[int]:
    """Token ids in a field of a config: one, a list, or none.

    Raises:
        ValueError: It has something other than token ids.
    """
    listed: list[Any] = list(found) if isinstance(found, list | tuple | set) else [found]
    if any(one is not None and not (isinstance(one, int) and abs(one) < 2**31) for one in listed):
        raise ValueError(f"{found!r} is not a token id")
    return {one for one in listed if one is not None}


def _of_template(vlm: Any) -> set[int]:
    """The first token that the chat template writes after an assistant's turn."""
    try:
        behind = vlm.behind_an_answer()
    except LayeralignError:  # no template, or one without assistant turns
        return set()
    ids = vlm.tokenizer(behind.lstrip(), add_special_tokens=False)["input_ids"]
    return set(ids[:1])
