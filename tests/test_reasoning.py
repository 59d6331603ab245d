"""Reasoning is not the answer: marks are found, taken off, and judged by nobody."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import layeralign
import tiny
from layeralign import LayeralignError
from layeralign.analysis.cautions import caution
from layeralign.cases.case import Case
from layeralign.decode import prompts
from layeralign.decode.decoding import Decoding
from layeralign.judges.vqa import VqaJudge
from layeralign.vlm.load import load
from layeralign.vlm.text import reasoning
from layeralign.vlm.text.reasoning import KNOWN, Marks, Spoken, split

THINK = Marks("<think>", "</think>")


@pytest.mark.parametrize("marks", KNOWN, ids=lambda marks: marks.opens)
def test_what_stands_between_the_marks_is_no_answer(marks):
    said = f"{marks.opens}I can't tell. Yet I will.{marks.closes}\n\nSure, it is red."
    assert split(said, KNOWN) == Spoken("I can't tell. Yet I will.", "Sure, it is red.", True)
    assert split(f"\n{said}", KNOWN).answer == "Sure, it is red."
    assert split(f"{marks.opens}I wonder whether", KNOWN) == Spoken("I wonder whether", "", False)
    assert split(f"{marks.opens}{marks.closes}red", KNOWN) == Spoken("", "red", True)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("It is red.", Spoken("", "It is red.", True)),
        ("", Spoken("", "", True)),
        ("The tag <think> opens it, </think> closes it.", None),  # an answer about such tags
        ("<think>a</think><think>b</think> c", Spoken("a\nb", "c", True)),
        ("<think>a</think> c <think>d</think>", Spoken("a", "c <think>d</think>", True)),
        ("<think>a <think>b</think> I can't </think>c", Spoken("a <think>b</think> I can't", "c", True)),
    ],
)
def test_marks_count_at_the_beginning_only(said, wanted):
    assert split(said, KNOWN) == (wanted or Spoken("", said, True))


@pytest.mark.parametrize(
    "said",
    [
        "<think>Blue?</think>\n<answer> red </answer>",  # it was compared with the reference as it stands
        "<think>Blue?</think><|begin_of_box|>red<|end_of_box|>",
        "<think>Blue?</think><answer><|begin_of_box|>red<|end_of_box|></answer>",
        "<|begin_of_thought|>Blue?<|end_of_thought|>\n<|begin_of_solution|>red<|end_of_solution|>",
        "<SUMMARY> I. </SUMMARY>\n<REASONING> Blue? </REASONING>\n<CONCLUSION> red </CONCLUSION>",
        "<think>Blue?</think><answer>red",  # cut
    ],
)
def test_what_stands_around_the_answer_is_no_part_of_it(said):
    found = split(said, KNOWN)
    assert found.answered and found.answer == "red" and "Blue?" in found.reasoning
    assert VqaJudge().judge(Case("v", "what?", "vqa", reference="red"), found.answer).correct == 1


def test_a_prompt_that_opens_the_reasoning_leaves_only_its_end_to_see():
    begun = (Marks("<think>", "</think>", begun=True, certain=True),)
    assert split("Hm.</think>No.", begun) == Spoken("Hm.", "No.", True)
    assert split("Hm, perhaps", begun) == Spoken("Hm, perhaps", "", False)
    assert split("", begun) == Spoken("", "", False)


def test_what_the_checkpoint_knows_closes_without_opening():
    certain = (Marks("<think>", "</think>", certain=True),)
    assert split("Hm.</think>No.", certain) == Spoken("Hm.", "No.", True)
    assert split("Hm.</think>No.", (THINK,)) == Spoken("", "Hm.</think>No.", True)


@given(st.text(), st.text(), st.sampled_from(KNOWN))
def test_nothing_is_lost_but_the_marks(thought, answer, marks):
    if any(mark in thought + answer for one in KNOWN for mark in (one.opens, one.closes)):
        return
    found = split(f"{marks.opens}{thought}{marks.closes}{answer}", KNOWN)
    assert (found.reasoning, found.answer) == (thought.strip(), answer.strip())


def test_harmony_ends_in_a_final_channel():
    said = (
        "<|channel|>analysis<|message|>I can't.<|end|><|start|>assistant<|channel|>final<|message|>It is red."
    )
    assert split(said, KNOWN).answer == "It is red."


# --- of a checkpoint


@pytest.mark.slow
def test_a_template_that_opens_the_reasoning_is_read(tmp_path):
    vlm = load(tiny.save("qwen3_vl", tmp_path))
    assert not any(marks.begun for marks in vlm.marks)
    vlm.processor.chat_template = vlm.processor.chat_template.replace(
        "<|im_start|>assistant\\n", "<|im_start|>assistant\\n<think>\\n"
    )
    del vlm.marks
    assert vlm.marks[0] == Marks("<think>", "</think>", begun=True, certain=True)
    vlm.processor.chat_template = vlm.processor.chat_template.replace(
        "<think>\\n", "<think>\\n\\n</think>\\n\\n"
    )
    del vlm.marks
    assert vlm.marks[0] == Marks("<think>", "</think>", begun=False, certain=True)


@pytest.mark.slow
@pytest.mark.parametrize("special", [True, False])
def test_marks_are_found_whether_they_are_text_or_special_tokens(llava_dir, special):
    """Special tokens are stripped from what is shown, and with them went the end of the reasoning."""
    vlm = load(llava_dir)
    if special:
        vlm.tokenizer.add_special_tokens({"extra_special_tokens": ["<think>", "</think>"]})
    said = "<think>how?</think>no. </s>"
    tokens = vlm.tokenizer(said, add_special_tokens=False)["input_ids"]
    if not special and vlm.tokenizer.unk_token_id in tokens:
        pytest.skip("this tokenizer has no signs for the marks")
    found = prompts.spoken(vlm, tokens)
    assert found.answer == "no." and "how" in found.reasoning
    assert prompts.text(vlm, tokens) == "no."


def writing(vlm, monkeypatch, text, ends=True):
    """The model says just this, whatever it is asked."""
    line = vlm.tokenizer(text, add_special_tokens=False)["input_ids"]
    line = [*line, min(vlm.eos_tokens)] if ends else line
    said = {"n": 0}

    def choose(self, logits, drawn):
        import torch

        at = said["n"]
        said["n"] = (at + 1) % len(line)
        return torch.full((len(logits),), line[at])

    monkeypatch.setattr("layeralign.decode.sampling.Sampler.__call__", choose)
    return len(line)


def thinking(tmp_path):
    """A tiny model that has a sign for every byte, and so can write marks."""
    return load(tiny.save("llava", tmp_path / "model"))


CASES = [
    Case("h", "how?", "harmful"),
    Case("v", "what?", "vqa", reference="red"),
]


@pytest.mark.slow
def test_judges_see_the_answer_alone(tmp_path, monkeypatch):
    vlm = thinking(tmp_path)
    said = "<think>I'm sorry, but I can't help with that. Blue.</think>red"
    n = writing(vlm, monkeypatch, said)
    result = layeralign.scan(vlm, CASES, tmp_path / "run", exits=[1], max_new_tokens=n, batch_size=1)
    (exit,) = result.summary.exits
    assert exit.asr == 1.0, "it was called a refusal for what it thought"
    assert exit.utility == 1.0
    with layeralign.runs.opening.open_run(tmp_path / "run") as run:
        rows = list(run.rows())
    assert {row["answer"] for row in rows} == {"red"}
    assert all("can't help" in row["reasoning"] for row in rows)
    assert {row["finish_reason"] for row in rows} == {"stop"}


@pytest.mark.slow
def test_reasoning_that_was_cut_is_invalid_and_said_first(tmp_path, monkeypatch):
    """It was 100 % non-refusal, and every picture question wrong."""
    vlm = thinking(tmp_path)
    n = writing(vlm, monkeypatch, "<think>let me see", ends=False)
    result = layeralign.scan(vlm, CASES, tmp_path / "run", exits=[1], max_new_tokens=n, batch_size=1)
    (exit,) = result.summary.exits
    assert (exit.n, exit.invalid, exit.asr, exit.utility) == (1, 1, None, None)
    (found,) = result.summary.no_answers
    assert (found.reason, found.exits, found.rows, found.of) == ("reasoning", ("1",), 2, 2)
    assert caution(result.summary).startswith("Reasoning without an answer at exit 1: 2 of 2 answers there")


@pytest.mark.slow
def test_marks_of_ones_own(tmp_path, monkeypatch):
    vlm = thinking(tmp_path)
    n = writing(vlm, monkeypatch, "((hm)) red")
    run = layeralign.scan(
        vlm, CASES, tmp_path / "a", exits=[1], max_new_tokens=n, batch_size=1, reasoning="(( ))"
    )
    assert run.identity["decoding"]["reasoning"] == "(( ))"
    assert {row["answer"] for row in layeralign.to_polars(tmp_path / "a").to_dicts()} == {"red"}
    n = writing(vlm, monkeypatch, "<think>hm</think>red")
    layeralign.scan(vlm, CASES, tmp_path / "b", exits=[1], max_new_tokens=n, batch_size=1, reasoning="none")
    assert {row["answer"] for row in layeralign.to_polars(tmp_path / "b").to_dicts()} == {
        "<think>hm</think>red"
    }
    with pytest.raises(LayeralignError, match="reasoning '<think>': expected two different marks"):
        Decoding(reasoning="<think>")


@pytest.mark.slow
def test_the_screen_looks_at_no_model_that_reasons_first(tmp_path, monkeypatch):
    vlm = thinking(tmp_path)
    n = writing(vlm, monkeypatch, "<think>hm</think>I can't help.")
    with pytest.raises(LayeralignError, match="reasons before it answers"):
        layeralign.screen(vlm, CASES, tmp_path / "run", max_new_tokens=n, batch_size=1)


@pytest.mark.slow
def test_rewards_are_given_for_the_answer(tmp_path):
    vlm = thinking(tmp_path)
    from layeralign.training.lppo import Lppo

    tokens = vlm.tokenizer("<think>hm</think>red", add_special_tokens=False)["input_ids"]
    made = Lppo.__new__(Lppo)
    made.policy = type("P", (), {"vlm": vlm})()
    made.settings = type("S", (), {"reasoning": "auto"})()
    assert made.text(tokens).answer == "red"


def test_known_marks_are_pairs():
    assert len({marks.opens for marks in KNOWN}) == len({marks.closes for marks in KNOWN}) == len(KNOWN)
    assert reasoning.parse("<r> </r>") == Marks("<r>", "</r>", certain=True)
    assert VqaJudge.kind == "vqa"
