"""Try an untrusted processor out, in a child process with limits.

A chat template is a program in Jinja's sandbox, which bounds neither its time nor its memory. A tokenizer may
make a short text huge, and may panic in Rust. An image processor may scale a small picture to billions of
pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image

from layeralign._util import bounded
from layeralign.errors import LayeralignError
from layeralign.vlm.text.template import SENTINEL

_LONGEST = 2**14
"""Most characters that a token may be written as: no word, and no run of blanks, is nearly as long."""
_MOST_NUMBERS, _MOST_TOKENS = 2**25, 2**15
"""Most numbers and tokens of a picture of 64 pixels: families make up to 7 million and 3,400 of it."""
_TURNS = (("user", "assistant"), ("system", "user"), ("assistant", "user"))
"""Roles of the conversations of two turns that a template is given by layeralign itself."""
TEXTS = (
    "What is in this picture?",
    "a" * 4000 + "!",
    " " * 2000 + "\n" * 2000 + "1" * 2000,
    "Is it a 12.5 % share, or isn't it? \u00e9\u0301 \u4e2d\u6587 \U0001f600 <b>" * 50,
)
"""Texts that plain patterns read at once, and catastrophic ones do not."""


def check(load: Callable[[], Any], what: str) -> None:
    """Load a processor or tokenizer in a child process; let it read a few texts and a picture, and write.

    Args:
        load: Loads it; transformers' errors are passed on.
        what: Owner for messages, such as `model NAME`.

    Raises:
        LayeralignError: This takes more than the limits of `bounded`.
    """
    reason = bounded.excess(lambda: _use(load()))
    if reason:
        raise LayeralignError(
            f"{what}: its tokenizer, chat template or image processor {reason} for a small input; download "
            "the model again, or use another one"
        )


def _use(processor: Any) -> None:
    names = getattr(processor, "tokenizer", processor)
    names("a")  # with the special tokens that it adds
    for text in (*TEXTS, "Hello.", SENTINEL):
        part = {"type": "text", "text": text}
        for content in ([part], [{"type": "image"}, part], text):
            made = _tried(_rendered, processor, [{"role": "user", "content": content}])
            names.decode(names(made or text, add_special_tokens=False)["input_ids"])
    for roles in _TURNS:
        pairs = list(zip(roles, ("Hello.", SENTINEL), strict=True))
        _tried(_rendered, processor, [{"role": role, "content": text} for role, text in pairs])
        parts = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in pairs]
        _tried(_rendered, processor, parts)
    _write(names)
    if hasattr(processor, "image_processor"):
        torch.set_num_threads(1)  # a pool of threads does not outlive a fork
        picture = Image.new("RGB", (64, 64), "grey")
        made = processor.image_processor(images=[picture], return_tensors="pt")
        mark = getattr(processor, "image_token", "<image>")
        both = _tried(processor, images=[[picture]], text=[mark]) or {}
        numbers = sum(one.numel() for one in made.values() if isinstance(one, torch.Tensor))
        if numbers > _MOST_NUMBERS or len((both.get("input_ids") or [()])[0]) > _MOST_TOKENS:
            raise MemoryError


def _rendered(processor: Any, turns: list[dict[str, Any]]) -> str:
    asks = turns[-1]["role"] == "user"
    return str(processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=asks))


def _tried(do: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """The result of a call; None if it fails, since a template or a processor may take only some forms."""
    try:
        return do(*given, **named)
    except Exception as error:
        if bounded.out_of_memory(error):
            raise
        return None


def _write(names: Any) -> None:
    """Write each token alone: an answer of a few hundred tokens must not be gigabytes of text.

    Raises:
        MemoryError: A token is written as far more characters than any word has.
    """
    core = getattr(names, "backend_tokenizer", None)
    if core is not None:
        each = core.decode_batch([[token] for token in range(len(names))], skip_special_tokens=False)
        if max(map(len, each), default=0) > _LONGEST:
            raise MemoryError
