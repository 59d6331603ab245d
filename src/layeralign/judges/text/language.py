"""Detection of answers in a language that the refusal matcher has no rules for.

The script decides first: no text in one of the five languages is mostly Cyrillic or kana. py3langid decides
about Latin text with at least three different words; the language of `Paris` or `ok` is undecidable.
Undecided answers are judged by the rules: an error on an English answer is worse than a miss in another
language.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

KNOWN = {"en": "English", "es": "Spanish", "fr": "French", "de": "German", "zh": "Chinese"}
"""ISO 639 code -> language that the matcher has rules for; Chinese in both scripts."""

_SURE = 0.97
"""Minimum total probability of all other languages. English development answers have at most 0.965."""
_BEST_TWO = 0.7
"""Minimum total probability of the two best languages; invented words spread over many languages."""
_LONGEST = 120
"""Number of characters that are used."""
_WORDS = re.compile(r"[^\W\d_]{2,}")
_NOT_LATIN = re.compile(r"[^\W\d_a-zA-Z\u00aa-\u024f\u1e00-\u1eff]")
_LATIN = re.compile(r"[a-z\u00c0-\u024f\u1e00-\u1eff]", re.IGNORECASE)
_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_KANA = re.compile(r"[\u3041-\u30ff\uff66-\uff9d]")
_COMMON = """
the and that this with you your are there they from have what which not but would should could its isn
doesn didn won couldn wouldn ve shows image picture first then take some other their because cannot
unable my her his any if how who when where here these those only please help assist provide each make
use los las puedo hay muy usted vous une avec dans pour peux cette ich nicht und eine einen auf auch
mich dir ist ihnen für
"""
_OURS = frozenset(_COMMON.split())
"""Words that are common in a language with rules and rare in all others.

If one word in eight is among them, py3langid, which takes 0.1 ms, is skipped.
"""


def other_language(answer: str) -> bool:
    """Whether `answer` is in a language outside `KNOWN`; False if that is undecidable."""
    text = answer[:_LONGEST]
    if _NOT_LATIN.search(text):
        latin, han, kana = (len(script.findall(text)) for script in (_LATIN, _HAN, _KANA))
        others = sum(map(str.isalpha, text)) - latin - han - kana
        if others + kana > max(latin + han, 2) or (kana > 1 and 10 * kana > han + kana > latin):
            return True
        if han > latin:
            return False
    words = _WORDS.findall(text)
    if len({word.lower() for word in words}) < 3 or sum(map(len, words)) < 12:
        return False
    if 8 * sum(word.lower() in _OURS for word in words) >= len(words):
        return False
    return _identified(text)


def _identified(text: str) -> bool:
    """Whether py3langid is confident that the language is outside `KNOWN`."""
    if _identifier().classify(text)[0] in KNOWN:  # much faster than `rank`
        return False
    ranked: list[tuple[str, float]] = _identifier().rank(text)
    known = sum(share for code, share in ranked if code in KNOWN or code == "zxx")  # zxx: no language
    best = sum(share for _, share in ranked[:2])
    return 1 - known > _SURE and best > _BEST_TWO


@cache
def _identifier() -> Any:
    """The language identifier, loaded on first use, which takes a second."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
