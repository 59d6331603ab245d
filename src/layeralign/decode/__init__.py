"""Cases and exits in, answers out: the one place where prompts meet features. Scan and training use it."""

from layeralign.decode.answers import Asked, answer, answers, respond
from layeralign.decode.decoding import Answer, Decoding
from layeralign.decode.prompts import encode, ended, prompt_tokens, rehearse, text
from layeralign.decode.sampling import seed_of

__all__ = [
    "Answer",
    "Asked",
    "Decoding",
    "answer",
    "answers",
    "encode",
    "ended",
    "prompt_tokens",
    "rehearse",
    "respond",
    "seed_of",
    "text",
]
