"""VQA accuracy by the official VQA-v2 rule.

It follows the challenge's evaluation code after its last change in March 2021
(https://github.com/GT-Vision-Lab/VQA, PythonEvaluationTools/vqaEvaluation/vqaEval.py), including its quirks:

- Answers are normalised only if the ten human answers are not all equal.
- Whether a punctuation mark is removed or becomes a blank is decided once per kind of mark, from the
  original text.
- A period is removed unless a digit follows it; at most 32 periods are removed.
- `none` and number words up to ten become digits; `a`, `an` and `the` are removed; missing apostrophes are
  restored.

Questions of POPE and MMMU have a `rule` of their own in their facts: `yes_no` and `choice`.

Models answer in sentences, people in VQA-v2 in one to three words. The rule scores "it is red." as 0 if
people said "red", and so does this judge.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

from layeralign.cases.case import Case
from layeralign.judges.judge import SILENT, Judgement, RowJudge
from layeralign.judges.kinds import ACCURACY, VQA

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
"""The apostrophe, the colon and the period are not among them."""
_COMMA_IN_A_NUMBER = re.compile(r"\d,\d", re.ASCII)
_PERIOD = re.compile(r"\.(?!\d)", re.ASCII)
_FEW = 5
"""Most words of an answer in which MMMU's script does not look for the text of an option."""
_PERIODS = 32
"""Most periods removed: the official code passes a flag (re.UNICODE, 32) as the count."""
_WORDS = "zero one two three four five six seven eight nine ten"
_NUMBERS = {word: str(number) for number, word in enumerate(_WORDS.split())} | {"none": "0"}
_ARTICLES = frozenset({"a", "an", "the"})
_CONTRACTED = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll
how's isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't
should've shouldn't somebody'll somebody's someone'd someone'll someone's something'd something'll that's
there'd there're there's they'd they'll they're they've 'twas wasn't we've weren't what'll what're what's
what've when's where'd where's where've who'd who'll who's who've why'll why're why's won't would've
wouldn't y'all you'd you'll you're you've
"""
_TWICE = """
couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've
something'd've there'd've they'd've we'd've who'd've wouldn't've y'all'll y'all'd've you'd've 'ow's'at
"""
_MENDED = {word.replace("'", ""): word for word in _CONTRACTED.split()}
_MENDED |= {w[:at] + w[at + 1 :]: w for w in _TWICE.split() for at, sign in enumerate(w) if sign == "'"}
_MENDED |= {"somebody'd": "somebodyd"}  # reversed in the official code, too
"""Word without one of its apostrophes -> word with it."""


def plain(text: str) -> str:
    """The text on one line, stripped."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def normal(text: str) -> str:
    """Normalise an answer (already processed by `plain`) as the official rule does."""
    joined = _COMMA_IN_A_NUMBER.search(text) is not None
    made = text
    for mark in _MARKS:
        touches = f"{mark} " in text or f" {mark}" in text
        made = made.replace(mark, "" if touches or joined else " ")
    made = _PERIOD.sub("", made, count=_PERIODS)
    words = (_NUMBERS.get(word, word) for word in made.lower().split())
    return " ".join(_MENDED.get(word, word) for word in words if word not in _ARTICLES)


def accuracy(answer: str, people: Sequence[str]) -> float:
    """Agreement of an answer with human answers: the mean of min(1, n / 3), leaving out each person once.

    Args:
        answer: The model's answer.
        people: The human answers; VQA-v2 has ten.

    Returns:
        The accuracy, 0 to 1. With ten people, it is 0.3 if one agrees, 0.6 for two, 0.9 for three, and 1
        for four or more.
    """
    own_answer, theirs = plain(answer), [plain(one) for one in people]
    if len(set(theirs)) > 1:
        own_answer, theirs = normal(own_answer), [normal(one) for one in theirs]
    agree = [one == own_answer for one in theirs]
    return sum(min(1.0, (sum(agree) - own) / 3) for own in agree) / len(agree)


def yes_no(answer: str) -> str:
    """Read an answer as POPE's `evaluate.py` does: `no` if the first sentence has the word no, not or No.

    Any other answer is `yes`, even a refusal; an empty answer is neither. Line breaks separate words here.
    """
    words = plain(answer).partition(".")[0].replace(",", "").split()
    return "" if not answer.strip() else "no" if {"No", "not", "no"}.intersection(words) else "yes"


def choice(answer: str, options: Sequence[str]) -> str:
    """Read the letter of an option as MMMU's `eval_utils.py` does, or "" if there is none.

    `(B)` counts before a free-standing B, and that before the text of an option, in answers of more than five
    words; the last one counts. MMMU's script guesses where it finds none, and this function does not.
    """
    said = answer
    for mark in (",", ".", "!", "?", ";", ":", "'"):
        said = said.strip(mark)
    said = f" {said} "
    letters = ascii_uppercase[: len(options)]
    places = [{c: said.rfind(form.format(c)) for c in letters} for form in ("({})", " {} ")]
    if len(said.split()) > _FEW:
        low = said.lower()
        places.append({c: low.rfind(option.lower()) for c, option in zip(letters, options, strict=True)})
    for found in places:
        if max(found.values(), default=-1) >= 0:
            return max(found, key=lambda letter: found[letter])
    return ""


class VqaJudge(RowJudge):
    """Scores answers to picture questions; it does not apply to other cases.

    If the case's facts have a `rule`, `yes-no` or `choice`, the answer is read by it. If they have human
    answers (`answers`, ten in VQA-v2), the score is their official accuracy. Otherwise it is 1 if the answer
    equals the reference after the same normalisation, else 0.
    """

    kind = VQA

    def judge(self, case: Case, answer: str) -> Judgement:
        """See `RowJudge.judge`; an empty answer is wrong."""
        if case.kind != "vqa":
            return SILENT
        found = _score(case, answer)
        if found is None:
            return Judgement("invalid", why="the case has no reference answer")
        return Judgement("not applicable", correct=found, scores={ACCURACY.name: found})


def _score(case: Case, answer: str) -> float | None:
    """Return the score, or None without a reference answer."""
    rule, options = case.facts.get("rule"), case.facts.get("options", ())
    if not rule and (people := case.facts.get("answers")):
        return accuracy(answer, people)
    if case.reference is None:
        return None
    if rule == "yes-no":
        return float(yes_no(answer) == case.reference)
    if rule == "choice":
        return float(choice(answer, options) == case.reference)
    return float(normal(plain(answer)) == normal(plain(case.reference)))
