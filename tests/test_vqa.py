"""VQA accuracy: the official rule, by hand, by another reading of it, and against what the official code gave."""

import hashlib
import random

import pytest

from layeralign.cases.case import Case
from layeralign.judges.judge import SILENT
from layeralign.judges.registry import judges
from layeralign.judges.vqa import _MENDED, VqaJudge, accuracy, choice, normal, yes_no

TEN = ["net"] * 6 + ["goal", "goal", "racket", "the net"]


@pytest.mark.parametrize(
    ("agree", "found"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (7, 1.0), (10, 1.0)]
)
def test_leaving_each_of_ten_people_out(agree, found):
    """Of ten, n said it: n times min(1, (n - 1) / 3) and 10 - n times min(1, n / 3), over ten."""
    people = ["yes"] * agree + [f"other {i}" for i in range(10 - agree)]
    assert accuracy("yes", people) == pytest.approx(found)


def test_ten_answers_by_hand():
    assert accuracy("net", TEN) == 1 and accuracy("The net.", TEN) == 1
    assert accuracy("goal", TEN) == pytest.approx(0.6)
    assert accuracy("racket", TEN) == pytest.approx(0.3)
    assert accuracy("", TEN) == accuracy("ball", TEN) == 0


def test_answers_are_normalised_only_where_people_disagree():
    assert accuracy("two", ["2"] * 10) == 0 and accuracy("two", ["2"] * 9 + ["3"]) == 1
    assert accuracy(" 2\n", ["2"] * 10) == 1, "line breaks and blanks around go in any case"


def test_a_sentence_gets_nothing():
    assert accuracy("it is red.", ["red"] * 9 + ["pink"]) == 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The Red Car", "red car"),
        ("an apple and a pear", "apple and pear"),
        ("none", "0"), ("Ten", "10"), ("eleven", "eleven"),
        ("dont", "don't"), ("Wheres it", "where's it"), ("hadnt've", "hadn't've"), ("hadn'tve", "hadn't've"),
        ("isnt", "isn't"), ("isn't", "isn't"), ("ive", "ive"), ("somebody'd", "somebodyd"),
        ("hello.", "hello"), ("3.5", "3.5"), ("u.s.", "us"), (".5", ".5"), ("v.2", "v.2"),
        ("1,000", "1000"), ("1,000-2", "10002"), ("x-ray", "x ray"), ("x- ray", "x ray"), ("x -ray-s", "x rays"),
        ("red,blue", "red blue"), ("red, blue", "red blue"), ("and/or", "and or"),
        ('"hi"', "hi"), ("5:30", "5:30"), ("it's", "it's"), ("don’t", "don’t"), ("why?!", "why"),
        (". " * 40, ". . . . . . . ."),
    ],
)  # fmt: skip
def test_what_an_answer_is_compared_as(text, found):
    assert normal(text) == found


def generated(n):
    """Questions of ten answers, and an answer, of what the rule has a word on."""
    rng = random.Random("vqa")

    def pick(things):
        return things[rng.randrange(len(things))]

    words = sorted(_MENDED) + sorted(_MENDED.values()) + [
        "none", "zero", "one", "two", "ten", "a", "an", "the", "The", "red", "Red", "no", "yes", "1,000", "1000",
        "3.5", "3.", ".5", "U.S.", "x-ray", "t-shirt", "5:30", "and/or", "(left)", "c,d", "it is", "50%", "don’t",
        "..", "." * 40, "\t", "\n", "!", "?", "-", "_", "Im", "I'dve", "e.g.", "ñandú",
    ]  # fmt: skip

    def answer():
        made = pick([" ", " ", "", ", ", " - ", "  "]).join(
            pick(words) for _ in range(pick([1, 1, 1, 2, 2, 3, 4]))
        )
        before, behind = ("" if rng.random() < 0.8 else pick(";/[]\"{}()=+\\_-><@`,?!.':") for _ in "ab")
        return before + made + behind

    for _ in range(n):
        pool = [answer() for _ in range(pick([1, 2, 3, 5]))]
        people = [pick(pool) for _ in range(10)]
        yield pick([*pool, answer(), pick(pool).upper(), f"the {pick(pool)}."]), people


def by_hand(answer, people):
    """The rule once more, letter by letter."""

    def line(text):
        return "".join(" " if c in "\n\t" else c for c in text).strip()

    def compared(text):
        number = any(
            text[i] == "," and text[i - 1] in "0123456789" and text[i + 1] in "0123456789"
            for i in range(1, len(text) - 1)
        )
        blank = {
            mark: not number and f" {mark}" not in text and f"{mark} " not in text
            for mark in ';/[]"{}()=+\\_-><@`,?!'
        }
        letters = ["" if blank.get(c) is False else " " if c in blank else c for c in text]
        letters, gone = [*"".join(letters), ""], 0
        for i, c in enumerate(letters):
            if c == "." and gone < 32 and letters[i + 1] not in tuple("0123456789"):
                letters[i], gone = "", gone + 1
        numbers = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
        words = []
        for word in "".join(letters).lower().split():
            if word == "none" or word in numbers:
                words.append(str(numbers.index("zero" if word == "none" else word)))
            elif word not in ("a", "an", "the"):
                words.append(_MENDED.get(word, word))
        return " ".join(words)

    answer, people = line(answer), [line(one) for one in people]
    if any(one != people[0] for one in people):
        answer, people = compared(answer), [compared(one) for one in people]
    total = 0
    for left_out in range(len(people)):
        others = people[:left_out] + people[left_out + 1 :]
        total += min(3, others.count(answer))
    return total / 3 / len(people)


@pytest.mark.slow
def test_another_reading_of_the_rule_agrees():
    seen = set()
    for answer, people in generated(2_000):
        found = accuracy(answer, people)
        assert found == pytest.approx(by_hand(answer, people)), (answer, people)
        seen.add(round(found, 1))
    assert seen == {0.0, 0.3, 0.6, 0.9, 1.0}


@pytest.mark.slow
def test_the_official_code_gave_the_same():
    """Hashes of what vqaEval.py (GT-Vision-Lab/VQA at a013f00) gave, which is not kept here: its accuracies of the
    same cases, and its contractions, without those that its own lower case never lets through or that are no change.
    """
    tenths = "".join(f"{round(10 * accuracy(*case)):x}" for case in generated(8_000))
    assert hashlib.sha256(tenths.encode()).hexdigest() == (
        "f3b1753028b7df1e8311ce55b8dc022eeac9ac892ba7874a49185e7db294d833"
    )
    pairs = "\n".join(f"{word} {mended}" for word, mended in sorted(_MENDED.items()))
    assert hashlib.sha256(pairs.encode()).hexdigest() == (
        "f2c800b1132e79302dd72686ce8bba16120f1873f98a85561222e89317336e7a"
    )


def test_only_picture_questions_are_scored():
    judge = VqaJudge().judge
    question = Case("q", "what is it?", "vqa", reference="net", facts={"answers": TEN})
    found = judge(question, "a goal")
    assert found.verdict == "not applicable" and found.correct == pytest.approx(0.6)
    assert found.scores == {"vqa_accuracy": found.correct}
    assert judge(Case("h", "how?", "harmful", reference="net"), "net") == SILENT


def test_a_reference_alone_is_right_or_wrong():
    judge, case = VqaJudge().judge, Case("q", "is it?", "vqa", reference="No.")
    assert (judge(case, "no").correct, judge(case, "no, it is").correct, judge(case, "").correct) == (1, 0, 0)
    bare = judge(Case("q", "is it?", "vqa"), "no")
    assert (bare.verdict, bare.correct, bare.scores) == (
        "invalid",
        None,
        {},
    ) and "no reference answer" in bare.why


def test_it_is_a_rule():
    (waiting,) = judges(["vqa"])
    assert isinstance(waiting.load(), VqaJudge)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("Yes", "yes"), ("No", "no"), ("no.", "no"), ("Yes, there is no doubt.", "no"), ("Yes. No dog is there.", "yes"),
        ("There is not a dog in it", "no"), ("No\n", "no"), ("No, there is none", "no"), ("Nothing", "yes"),
        ("I cannot say", "yes"), ("NO", "yes"), ("", ""), (" \n", ""),
    ],
)  # fmt: skip
def test_an_answer_to_pope_is_read_as_its_script_reads_it(answer, found):
    assert yes_no(answer) == found


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("B", "B"), ("B.", "B"), ("(B)", "B"), ("The answer is (B).", "B"), ("(A) or rather (B)", "B"), ("b", ""),
        ("It is A , not B", "B"), ("A cat", "A"), ("(C) A thing", "C"), ("D", ""), ("", ""), ("I do not know", ""),
        ("that must be the long bridge there", "C"), ("the long bridge", ""), ("first a river then the long bridge", "C"),
    ],
)  # fmt: skip
def test_a_letter_is_read_as_mmmus_script_reads_it(answer, found):
    """Three options; their texts are searched in answers of more than five words, and guesses are not made."""
    assert choice(answer, ["a hill", "a river", "the long bridge"]) == found


@pytest.mark.parametrize(
    ("facts", "reference", "answer", "score"),
    [
        ({"rule": "yes-no"}, "no", "No, it is not.", 1), ({"rule": "yes-no"}, "yes", "", 0),
        ({"rule": "choice", "options": ["x", "y"]}, "A", "(A)", 1), ({"rule": "choice", "options": ["x", "y"]}, "A", "", 0),
        ({"rule": "choice"}, "A", "(A)", 0),
        ({"rule": "yes-no"}, None, "No", None),
    ],
)  # fmt: skip
def test_a_rule_of_the_case_decides(facts, reference, answer, score):
    found = VqaJudge().judge(Case("q", "is it?", "vqa", reference=reference, facts=facts), answer)
    assert found.correct == score and (found.verdict == "invalid") == (score is None)
