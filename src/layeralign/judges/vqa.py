"""VQA accuracy by the official VQA-v2 rule.

After the challenge's own evaluation code, as it is since its last change in March 2021
(https://github.com/GT-Vision-Lab/VQA, PythonEvaluationTools/vqaEvaluation/vqaEval.py), with all that it does
although nobody would do it again:

- Answers are normalised only where the ten people did not all say the same.
- Whether a punctuation mark is taken out or becomes a blank is decided once for each kind of mark, from the
  whole text as it was given.
- A period goes unless a digit follows it, at most 32 of them.
- `none` and number words up to ten become digits, `a`, `an` and `the` go, missing apostrophes come back.

Models answer in sentences, people in VQA-v2 in one to three words: the rule gives "it is red." nothing where
people said "red", and that is not softened here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from layeralign.cases.case import Case
from layeralign.judges.judge import SILENT, Judgement, RowJudge
from layeralign.judges.kinds import ACCURACY, VQA

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
"""The apostrophe, the colon and the period are not among them."""
_COMMA_IN_A_NUMBER = re.compile(r"\d,\d", re.ASCII)
_PERIOD = re.compile(r"\.(?!\d)", re.ASCII)
_PERIODS = 32
"""How many periods go: the official code hands a flag (re.UNICODE) over where the count belongs."""
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
_MENDED |= {"somebody'd": "somebodyd"}  # the wrong way round, there as here
"""Word without one of its apostrophes -> with it."""


def plain(text: str) -> str:
    """`text` on one line."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def normal(text: str) -> str:
    """An answer as the official rule compares it, after `plain`."""
    joined = _COMMA_IN_A_NUMBER.search(text) is not None
    made = text
    for mark in _MARKS:
        touches = f"{mark} " in text or f" {mark}" in text
        made = made.replace(mark, "" if touches or joined else " ")
    made = _PERIOD.sub("", made, count=_PERIODS)
    words = (_NUMBERS.get(word, word) for word in made.lower().split())
    return " ".join(_MENDED.get(word, word) for word in words if word not in _ARTICLES)


def accuracy(answer: str, people: Sequence[str]) -> float:
    """How well an answer agrees with people's: the mean of min(1, n / 3) over leaving each of them out.

    Args:
        answer: what the model said.
        people: what they said, ten of them in VQA-v2.

    Returns:
        0 to 1; of ten people, 0.3 where one said the same, 0.6 two, 0.9 three, 1 from four on.
    """
    said, theirs = plain(answer), [plain(one) for one in people]
    if len(set(theirs)) > 1:
        said, theirs = normal(said), [normal(one) for one in theirs]
    agree = [one == said for one in theirs]
    return sum(min(1.0, (sum(agree) - own) / 3) for own in agree) / len(agree)


class VqaJudge(RowJudge):
    """Scores answers to picture questions; has no word on other cases.

    Against the ten answers of VQA-v2 (`facts["answers"]`) where the case has them, else against its reference
    after the same normalisation, 1 or 0.
    """

    kind = VQA

    def judge(self, case: Case, answer: str) -> Judgement:
        """See `RowJudge.judge`; an empty answer is a wrong one."""
        if case.kind != "vqa":
            return SILENT
        if people := case.facts.get("answers"):
            found = accuracy(answer, people)
        elif case.reference is not None:
            found = float(normal(plain(answer)) == normal(plain(case.reference)))
        else:
            return Judgement("invalid", why="the case has no right answer to compare with")
        return Judgement("not applicable", correct=found, scores={ACCURACY.name: found})
