"""Which tokens end an answer, and who says so."""

from __future__ import annotations

from typing import Any

from layeralign.errors import LayeralignError

Ends = dict[int, tuple[str, ...]]
"""Token id -> the places that name it: `generation_config`, `config`, `tokenizer`, `template`."""


def ends(vlm: Any) -> Ends:
    """Every token that some part of a checkpoint calls an end.

    A model that ends its turn with a token that generation_config.json does not name would write the
    user's next turn, too. What only a config says counts where it is a special token of the tokenizer, since
    transformers' configs have defaults that are another token in many tokenizers.

    Args:
        vlm: a `Vlm` with a tokenizer.

    Raises:
        ValueError: a config names something else than tokens.
    """
    names, config = vlm.tokenizer, vlm.model.config
    own = _ids(vlm.model.generation_config.eos_token_id)
    others = {names.bos_token_id, names.unk_token_id, vlm.picture_token_id}
    special = {id for id, token in names.added_tokens_decoder.items() if token.special} - others
    by_config = {*_ids(getattr(config, "eos_token_id", None)), *_ids(config.get_text_config().eos_token_id)}
    told = {
        "generation_config": own,
        "config": by_config & special,
        "tokenizer": _ids(names.eos_token_id),
        "template": _of_template(vlm) & special,
    }
    return {
        id: tuple(who for who, ids in told.items() if id in ids) for id in sorted(set().union(*told.values()))
    }


def disagreement(vlm: Any, found: Ends) -> str:
    """In words, where generation_config.json names other ends than the rest does, or nothing names any."""
    if not found:
        return (
            "nothing names a token that ends an answer, so each goes on to the longest length "
            "(max_new_tokens); name it as eos_token_id in generation_config.json"
        )
    more = {id: who for id, who in found.items() if "generation_config" not in who}
    named = [id for id in found if id not in more]
    if not more or not named:
        return ""
    told = ", ".join(f"{_token(vlm, id)} ({' and '.join(who)})" for id, who in more.items())
    return (
        f"generation_config.json ends answers only at {', '.join(_token(vlm, id) for id in named)}, but "
        f"{told} also end answers; layeralign stops at any of them"
    )


def _token(vlm: Any, id: int) -> str:
    return str(vlm.tokenizer.convert_ids_to_tokens(id))


def _ids(found: Any) -> set[int]:
    listed: list[Any] = list(found) if isinstance(found, list | tuple | set) else [found]
    if any(not isinstance(one, int | None) for one in listed):
        raise ValueError(f"{found!r} is not a token id")
    return {one for one in listed if one is not None}


def _of_template(vlm: Any) -> set[int]:
    """What the chat template writes straight behind an assistant's turn, if that is one token."""
    try:
        behind = vlm.behind_an_answer()
    except LayeralignError:  # a template without assistant's turns, or none at all
        return set()
    ids = vlm.tokenizer(behind.lstrip(), add_special_tokens=False)["input_ids"]
    return set(ids[:1])
