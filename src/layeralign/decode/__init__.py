"""Cases and exits in, answers out: the one place where prompts meet features. Scan and training use it."""

from layeralign.decode.checks import check, dated
from layeralign.decode.decoding import Answer, Decoding
from layeralign.decode.prompts import encode, ended, prompt_tokens, spoken, text
from layeralign.decode.sampling import seed_of
from layeralign.decode.stream import Asked, answer, answers, respond

__all__ = [
    "Answer",
    "Asked",
    "Decoding",
    "answer",
    "answers",
    "check",
    "dated",
    "encode",
    "ended",
    "prompt_tokens",
    "respond",
    "seed_of",
    "spoken",
    "text",
]
