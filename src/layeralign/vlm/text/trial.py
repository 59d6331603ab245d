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

TEXTS = (
    "What is in this picture?",
    "a" * 4000 + "!",
    " " * 2000 + "\n" * 2000 + "1" * 2000,
    "Is it a 12.5 % share, or isn't it? \u00e9\u0301 \u4e2d\u6587 \U0001f600 <b>" * 50,
)
"""Texts that plain patterns read at once, and catastrophic ones do not."""


def check(load: Callable[[], Any], what: str) -> None:
    """Load a processor or tokenizer in a child process; let it read a few texts, and a picture.

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
    for text in TEXTS:
        part = {"type": "text", "text": text}
        for content in ([part], [{"type": "image"}, part], text):
            turns = [{"role": "user", "content": content}]
            try:
                made = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            except Exception as error:  # a template may take only some forms
                if bounded.out_of_memory(error):
                    raise
                made = text
            names(made, add_special_tokens=False)
    if hasattr(processor, "image_processor"):
        torch.set_num_threads(1)  # a pool of threads does not outlive a fork
        processor.image_processor(images=[Image.new("RGB", (64, 64), "grey")], return_tensors="pt")
