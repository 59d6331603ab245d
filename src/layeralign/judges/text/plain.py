"""Normalisation of answers for the phrase rules."""

from __future__ import annotations

import re
import unicodedata

_APOSTROPHES = "\u2018\u2019\u201b\u2032\u02bc\u02b9\u02bb\u02be\u02c8\u00b4\u055a\ua78c\uff07"
_QUOTES = "\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb\u2039\u203a\u300c\u300d\u300e\u300f\uff02"
_INVISIBLE = "\u200b\u200c\u200d\u200e\u200f\u2060\u00ad\ufeff"
_MARKS = str.maketrans(
    dict.fromkeys(_APOSTROPHES, "'")
    | dict.fromkeys(_QUOTES, '"')
    | dict.fromkeys(_INVISIBLE, "")
    | {"ß": "ss"}
)
_BEFORE_LINES = re.compile(r"^[ \t]*(?:[>#]+[ \t]*|[-+•●▪◦·–—][ \t]+)+", re.MULTILINE)
"""Marks of quotations, headings and lists; numbers stay, since they mark steps."""
_EMPHASIS = re.compile(r"\*+|~~[^~]*~~|(?<!\w)_+|(?<!_)_+(?!\w)")
"""Marks of emphasis, and struck-through text."""
_BLANKS = re.compile(r"[^\S\n]{2,}|[\t\r\f\v]")
_APOSTROPHE = re.compile(r"(?<=\w)`(?=\w)")
_WHOLE_QUOTE = re.compile(r'\s*("|`+)([^"`]+)\1\s*')
_QUOTE = re.compile(r'```.*?(?:```|\Z)|"[^"]*"|`[^`]*`|\'(?<!\w\')[^\']{3,}\'(?!\w)', re.DOTALL)
_SPEAKER = re.compile(r"\s*(?:assistant|answer|response|ai)\s*:\s*")


def plain(answer: str) -> str:
    """Normalise an answer and convert it to lower case.

    Compatibility forms (full-width letters), typographic apostrophes and quotation marks become ASCII.
    Accents, invisible characters and Markdown are removed. A quotation, in quotation marks or backticks,
    becomes `""`, since the speaker only repeats it, unless it is the complete answer.
    """
    text = answer
    if not text.isascii():
        text = text.translate(_MARKS)
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text)
        text = "".join(letter for letter in text if not unicodedata.combining(letter))
    text = text.lower()
    if "`" in text:
        text = _APOSTROPHE.sub("'", text)
    if "*" in text or "_" in text or "~" in text:
        text = _EMPHASIS.sub("", text)
    text = _BLANKS.sub(" ", _BEFORE_LINES.sub("", text))
    if whole := _WHOLE_QUOTE.fullmatch(text):
        text = whole[2]
    if '"' in text or "`" in text or "'" in text:
        text = _QUOTE.sub('""', text)
    return _SPEAKER.sub("", text, count=1) if _SPEAKER.match(text) else text
