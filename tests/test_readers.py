"""Public benchmarks in their own formats, with harmless text in the place of theirs."""

import contextlib
import csv
import gzip
import json
import shutil
import socket
import time
import zlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layeralign import LayeralignError, benchmarks
from layeralign.cases import cache
from layeralign.cases.case import KINDS
from layeralign.cases.readers import pairs
from layeralign.cases.readers.reader import BENCHMARKS, read
from layeralign.cases.readers.shared import packed, strict
from layeralign.cases.readers.shared.gzipped import unpacked
from malformed import (
    Fault,
    csv_faults,
    deck_faults,
    field_faults,
    file_faults,
    json_faults,
    path_faults,
    picture_faults,
    said_in_one_sentence,
    swap,
)
from published import (
    ALL,
    ANNOTATIONS,
    MAKE,
    MOSS,
    MULTIMODAL,
    QUESTIONS,
    SCENARIOS,
    advbench_rows,
    deck,
    figstep_picture,
    figstep_rows,
    harmbench_rows,
    hh_rows,
    holisafe_rows,
    jailbreak_rows,
    make_advbench,
    make_harmbench,
    make_hh,
    make_mm,
    make_moss,
    make_moss_csv,
    make_pairs,
    make_pairs_csv,
    make_pairs_jsonl,
    make_redteam,
    make_vqa,
    make_xstest,
    mm_entries,
    moss_entries,
    moss_rows,
    pope_rows,
    redteam_rows,
    siuo_rows,
    vqa_annotations,
    vqa_questions,
    write,
    write_csv,
    write_json,
    write_lines,
    xstest_rows,
)

SAMPLED = ("jailbreakv-28k", "vqa-v2", "hh-rlhf", "pope", "mmmu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Where pictures are unpacked to; and no child processes, which cost more than all the rest."""
    monkeypatch.setenv(cache.HOME, str(tmp_path / ".cache"))
    monkeypatch.setattr(packed, "excess", lambda _: "")


# ---- what is read


def test_every_benchmark_has_a_reader_and_says_where_it_is_from():
    assert list(BENCHMARKS) == list(MAKE)
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.name == name
        assert benchmark.kind in (*KINDS, "mixed")
        assert benchmark.source and benchmark.licence and benchmark.files and benchmark.about
        assert benchmark.revision is None or len(benchmark.revision) == 40


@pytest.mark.parametrize("name", MAKE)
def test_it_is_read_offline_from_a_folder(tmp_path, monkeypatch, name):
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("the network was used"))
    MAKE[name](tmp_path)
    cases = benchmarks.cases(f"{name}:{tmp_path}")
    assert cases == read(name, tmp_path)
    assert all("placeholder" in case.prompt or case.kind == "vqa" or case.picture for case in cases)


@pytest.mark.parametrize(("name", "make"), ALL)
def test_ids_are_unique_and_stable_and_pictures_open(tmp_path, name, make):
    make(tmp_path)
    cases = read(name, tmp_path)
    assert cases
    assert max(Counter(case.id for case in cases).values()) == 1
    assert all(case.id.startswith(f"{name}-") for case in cases)
    again = read(name, str(tmp_path))
    assert [case.id for case in again] == [case.id for case in cases]
    assert [case.sha256 for case in again] == [case.sha256 for case in cases]
    kind = BENCHMARKS[name].kind
    assert {case.kind for case in cases} == ({"harmful", "benign"} if kind == "mixed" else {kind})
    for case in cases:
        assert case.picture is None or case.picture.open().size == (6, 4)
    assert all(case.picture for case in cases) or not any(case.picture for case in cases)
    limited = read(name, tmp_path, limit=2)
    assert len(limited) == 2
    by_id = {case.id: case for case in cases}
    assert all(by_id[case.id] == case for case in limited)  # a limit changes no case
    assert read(name, tmp_path, limit=1000) == cases


def test_redteam(tmp_path):
    make_redteam(tmp_path / "JailBreakV_28K")
    case = read("redteam-2k", tmp_path)[3]
    assert (case.id, case.prompt, case.category) == ("redteam-2k-3", "placeholder request 3", "Policy A")
    assert case.facts == {"from": "somewhere"} and case.picture is None


def test_a_column_that_the_data_card_has_and_the_attack_does_not_need_may_be_absent(tmp_path):
    write_csv(tmp_path / "RedTeam_2K.csv", redteam_rows(), ["policy", "id", "question"])
    assert read("redteam-2k", tmp_path)[0].facts == {}


@pytest.mark.parametrize("name", ["jailbreakv-28k", "jailbreakv-mini"])
def test_jailbreakv(tmp_path, name):
    MAKE[name](tmp_path / "JailBreakV_28K")
    case = read(name, tmp_path)[1]
    assert case.id == f"{name}-17"
    assert case.prompt == 'wrapped,\nplaceholder "request" 17'
    assert case.picture.path.endswith("JailBreakV_28K/query_related/SD_317.png")
    assert case.facts["format"] == "Template" and case.facts["redteam_query"] == "placeholder request 17"


@pytest.mark.parametrize("name", SAMPLED)
def test_large_benchmarks_are_sampled_by_the_seed(tmp_path, name):
    MAKE[name](tmp_path)
    draws = {tuple(case.id for case in read(name, tmp_path, limit=2, seed=seed)) for seed in range(8)}
    assert len(draws) > 2
    one, two = (read(name, tmp_path, limit=3, seed=5) for _ in range(2))
    assert one == two
    places = [case.id for case in read(name, tmp_path)]
    assert [case.id for case in one] == sorted((case.id for case in one), key=places.index)


@pytest.mark.parametrize("name", sorted(set(MAKE) - {*SAMPLED, "pairs"}))
def test_the_others_begin_at_the_first(tmp_path, name):
    MAKE[name](tmp_path)
    assert read(name, tmp_path, limit=2, seed=3) == read(name, tmp_path, seed=3)[:2]


def test_a_picture_that_the_sample_leaves_out_may_be_missing(tmp_path):
    make_vqa(tmp_path)
    chosen = read("vqa-v2", tmp_path, limit=1)[0]
    for file in (tmp_path / "val2014").iterdir():
        if str(file) != chosen.picture.path:
            file.unlink()
    assert read("vqa-v2", tmp_path, limit=1) == [chosen]


@pytest.mark.parametrize("name", ["advbench", "harmbench", "strongreject", "pairs"])
def test_its_pairing_is_seeded_and_recorded(tmp_path, name):
    MAKE[name](tmp_path)
    asked = "pairs:3x2" if name == "pairs" else name
    draws = set()
    for seed in range(6):
        cases = read(asked, tmp_path, seed=seed)
        assert cases == read(asked, tmp_path, seed=seed)
        draws.add(tuple((case.prompt, case.picture.sha256) for case in cases))
        for case in cases:
            number = case.facts["picture_index"]
            assert case.facts["pairing_seed"] == seed
            assert case.facts["picture_name"] == f"{number:012d}.jpg"
            assert case.picture.path.endswith(f"pictures/{number:012d}.jpg")
    assert len(draws) > 1


NAMED = {
    "jailbreakv-28k": lambda: [row["image_path"] for row in jailbreak_rows()],
    "jailbreakv-mini": lambda: [row["image_path"] for row in jailbreak_rows()],
    "mm-safetybench": lambda: [
        f"{s}/{shape}/{n}.jpg" for s in SCENARIOS for n in mm_entries() for shape in ("SD", "SD_TYPO", "TYPO")
    ],
    "vqa-v2": lambda: [
        f"val2014/COCO_val2014_{row['image_id']:012d}.jpg" for row in vqa_questions()["questions"]
    ],
    "mossbench": lambda: [f"data/{row['image']}" for row in moss_entries().values()],
    "vlguard": lambda: [f"test/bad_ads/{n}.png" for n in (0, 1, 1, 2, 2)],
    "holisafe": lambda: [f"images/{row['image']}" for row in holisafe_rows()],
    "msts": lambda: [f"unsafe_images/unsafe_image_000{n}" for n in ("0.jpg", "0.jpg", "1.png", "1.png")],
    "siuo": lambda: [f"images/{row['image']}" for row in siuo_rows()],
    "figstep": lambda: [f"SafeBench/{figstep_picture(row)}" for row in figstep_rows()],
    "harmbench-multimodal": lambda: [f"multimodal_behavior_images/thing_{n}.png" for n in range(3)],
    "pope": lambda: [f"val2014/{row['image']}" for _ in range(3) for row in pope_rows()],
}


@pytest.mark.parametrize("name", NAMED)
def test_its_pictures_are_those_that_its_rows_name(tmp_path, name):
    MAKE[name](tmp_path)
    for case, path in zip(read(name, tmp_path), NAMED[name](), strict=True):
        assert case.picture.path.endswith(path)


@pytest.mark.parametrize("name", ["advbench", "harmbench"])
def test_no_picture_comes_twice_before_all_have_come_once(tmp_path, name):
    MAKE[name](tmp_path)

    def pairing(seed):
        return [case.facts["picture_index"] for case in read(name, tmp_path, seed=seed)]

    assert all(sorted(pairing(seed)[:3]) == [0, 1, 2] for seed in range(4))


def test_advbench_in_its_repository_with_a_linked_coco_folder(tmp_path):
    write_csv(tmp_path / "repo/data/advbench/harmful_behaviors.csv", advbench_rows())
    deck(tmp_path / "coco")
    (tmp_path / "repo/val2017").symlink_to(tmp_path / "coco/pictures")
    (tmp_path / "coco/pictures/notes.txt").write_text("no picture")
    case = read("advbench", tmp_path / "repo")[6]
    assert case.id == "advbench-6" and case.facts["target"] == "Sure, 6"


def test_pairs_are_all_combinations(tmp_path):
    make_pairs(tmp_path)
    cases = read("pairs", tmp_path)
    assert len(cases) == 12
    assert {(case.facts["prompt_index"], case.facts["picture_index"]) for case in cases} == {
        (prompt, card) for prompt in range(4) for card in range(3)
    }
    assert cases[4].id == "pairs-1-1" and cases[4].prompt == "placeholder request 1"
    assert [case.id for case in read("pairs", tmp_path, limit=5)] == [case.id for case in cases[:5]]


def test_a_grid_is_drawn_by_the_seed(tmp_path):
    make_pairs(tmp_path)
    cases = read("pairs:3x2", tmp_path, seed=1)
    assert len(cases) == 6
    prompts = {case.facts["prompt_index"] for case in cases}
    cards = {case.facts["picture_index"] for case in cases}
    assert (len(prompts), len(cards)) == (3, 2)
    assert {case.id for case in cases} == {f"pairs-{prompt}-{card}" for prompt in prompts for card in cards}
    assert cases == read("pairs:3x2", tmp_path, seed=1) == pairs.grid(tmp_path, 3, 2, seed=1)
    assert len({tuple(case.id for case in read("pairs:3x2", tmp_path, seed=seed)) for seed in range(8)}) > 2


def test_the_three_forms_of_a_prompt_list_are_the_same(tmp_path):
    for number, make in enumerate((make_pairs, make_pairs_csv, make_pairs_jsonl)):
        make(tmp_path / str(number))
    txt, table, lines = ([case.prompt for case in read("pairs", tmp_path / str(n))] for n in range(3))
    assert txt == table == lines


def test_mm_safetybench_asks_each_kind_of_picture_with_its_wording(tmp_path):
    make_mm(tmp_path)
    cases = read("mm-safetybench", tmp_path)
    assert len(cases) == 12
    assert [case.facts["picture_kind"] for case in cases[:3]] == ["SD", "SD_TYPO", "TYPO"]
    assert cases[0].id == "mm-safetybench-01-Illegal_Activitiy-0-SD"
    assert cases[0].prompt == "The image shows an activity, 0."
    assert cases[1].prompt == cases[2].prompt == "The image shows a phrase of an activity, 0."
    assert cases[6].category == "02-HateSpeech"
    assert cases[0].facts["key_phrase"] == "placeholder" and cases[0].facts["phrase_type"] == "activity"
    shutil.move(tmp_path / "data/processed_questions", tmp_path / "processed_questions")
    shutil.move(tmp_path / "data/imgs", tmp_path / "MM-SafetyBench(imgs)")
    assert [case.id for case in read("mm-safetybench", tmp_path)] == [case.id for case in cases]


def test_harmbench_context_comes_before_the_behaviour(tmp_path):
    make_harmbench(tmp_path)
    cases = read("harmbench", tmp_path)
    assert cases[0].id == "harmbench-placeholder_0" and cases[0].prompt == "placeholder request 0"
    assert cases[1].prompt == "some context\n\n---\n\nplaceholder request 1"
    assert cases[1].facts["tags"] == ["context", "hash_check"] and cases[0].facts["tags"] == []
    assert cases[2].facts["functional_category"] == "copyright" and cases[2].category == "category_a"


def test_vqa_reference_is_the_most_common_answer(tmp_path):
    make_vqa(tmp_path)
    case = read("vqa-v2", tmp_path)[2]
    assert (case.id, case.reference, case.category) == ("vqa-v2-42002", "net", "other")
    assert case.facts["answers"].count("net") == 6 and len(case.facts["answers"]) == 10
    assert case.picture.path.endswith("val2014/COCO_val2014_000000000043.jpg")
    changed = vqa_annotations()
    for number, answer in enumerate(changed["annotations"][2]["answers"]):
        answer["answer"] = "red" if number < 5 else "blue"
    for own, reference in (("blue", "blue"), ("red", "red"), ("green", "red")):
        changed["annotations"][2]["multiple_choice_answer"] = own
        write_json(tmp_path / ANNOTATIONS, changed)
        assert read("vqa-v2", tmp_path)[2].reference == reference


def test_xstest_is_its_safe_prompts(tmp_path):
    make_xstest(tmp_path)
    cases = read("xstest", tmp_path)
    assert [case.id for case in cases] == ["xstest-1", "xstest-2", "xstest-3"]
    assert all(case.borderline for case in cases)
    assert cases[0].facts == {"type": "homonyms", "focus": "kill", "note": ""}


@pytest.mark.parametrize("make", [make_moss, make_moss_csv])
def test_mossbench(tmp_path, make):
    make(tmp_path)
    cases = read("mossbench", tmp_path)
    assert [case.id for case in cases] == ["mossbench-1", "mossbench-2", "mossbench-3"]
    assert all(case.borderline for case in cases)
    assert [case.facts["stimulus"] for case in cases] == [
        "exaggerated risk", "negated harm", "counterintuitive interpretation",
    ]  # fmt: skip
    assert cases[1].facts["over"] == "type 2"


def test_hh_rlhf_kinds_follow_the_subset(tmp_path):
    make_hh(tmp_path)
    cases = read("hh-rlhf", tmp_path)
    assert len(cases) == 10
    assert cases[3].id == "hh-rlhf-harmless-base-test-4" and cases[3].kind == "harmful"
    assert cases[3].prompt == "placeholder request 3"
    assert cases[5].id == "hh-rlhf-helpful-base-test-1" and cases[5].kind == "benign"
    assert not cases[5].borderline
    assert read("hh-rlhf", tmp_path / "helpful-base") == cases[5:]


def test_a_turn_without_words_asks_nothing(tmp_path):
    rows = hh_rows()
    rows[1]["chosen"] = "\n\nHuman: \n\nAssistant: hello"
    write_lines(tmp_path / "harmless-base/train.jsonl", rows)
    assert len(read("hh-rlhf", tmp_path)) == 4


@pytest.mark.parametrize("name", MAKE)
def test_a_byte_order_mark_and_dos_lines_are_no_fault(tmp_path, name):
    MAKE[name](tmp_path)
    before = read(name, tmp_path)
    for file in tmp_path.rglob("*"):
        if file.suffix in (".csv", ".json", ".jsonl", ".txt"):
            text = file.read_bytes().decode()
            if name not in ("jailbreakv-28k", "jailbreakv-mini"):  # a prompt has lines of its own there
                text = text.replace("\n", "\r\n")
            file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [case.prompt for case in read(name, tmp_path)] == [case.prompt for case in before]


def test_the_csv_module_is_left_as_it_was(tmp_path):
    make_redteam(tmp_path)
    before = csv.field_size_limit(4321)
    try:
        read("redteam-2k", tmp_path)
        assert csv.field_size_limit() == 4321
    finally:
        csv.field_size_limit(before)


# ---- what is wrong


def all_faults():
    file = "RedTeam_2K.csv"
    yield from csv_faults(
        "redteam-2k",
        make_redteam,
        file,
        redteam_rows,
        ("id", "question", "policy"),
        "id",
        ("question", "policy"),
    )
    for name, file in (
        ("jailbreakv-28k", "JailBreakV_28K.csv"),
        ("jailbreakv-mini", "mini_JailBreakV_28K.csv"),
    ):
        make = MAKE[name]
        columns = ("id", "jailbreak_query", "redteam_query", "format", "policy", "image_path")
        yield from csv_faults(name, make, file, jailbreak_rows, columns, "id", columns[1:])
        yield from picture_faults(name, make, "llm_transfer_attack/nature_13.png", file)
        yield from path_faults(name, make, file, "llm_transfer_attack/nature_13.png")
    file = "harmful_behaviors.csv"
    columns = ("goal", "target")
    yield from csv_faults("advbench", make_advbench, file, advbench_rows, columns, None, columns)
    yield from deck_faults("advbench", make_advbench, file)
    yield from pairs_faults()
    yield from mm_faults()
    file = "harmbench_behaviors_text_all.csv"
    columns = list(harmbench_rows()[0])
    needed = ("Behavior", "SemanticCategory", "FunctionalCategory", "ContextString")
    yield from csv_faults("harmbench", make_harmbench, file, harmbench_rows, columns, "BehaviorID", needed)
    yield from deck_faults("harmbench", make_harmbench, file)
    for label, old, new, says in (
        ("an unknown sort", "copyright", "other", "expected standard, contextual, copyright"),
        ("a contextual one without context", "some context", "", "'ContextString' is empty"),
    ):
        yield Fault(
            "harmbench", make_harmbench, label, lambda f, o=old, n=new, t=file: swap(f / t, o, n), says, file
        )
    yield from vqa_faults()
    file = "xstest_prompts.csv"
    columns = list(xstest_rows()[0])
    yield from csv_faults(
        "xstest", make_xstest, file, xstest_rows, columns, "id", ("prompt", "type", "label")
    )
    for label, new, says in (
        ("a new label", "maybe", "expected safe or unsafe"),
        ("none safe", "unsafe", "no prompt"),
    ):
        yield Fault(
            "xstest", make_xstest, label, lambda f, n=new: swap(f / file, ",safe,", f",{n},"), says, file
        )
    yield from moss_faults()
    yield from hh_faults()


def pairs_faults():
    yield from file_faults("pairs", make_pairs, "prompts.txt")
    yield from deck_faults("pairs", make_pairs, "prompts.txt")
    yield from csv_faults(
        "pairs", make_pairs_csv, "prompts.csv",
        lambda: [{"note": "", "prompt": f"placeholder request {n}"} for n in range(4)], ("prompt",), None, ("prompt",),
    )  # fmt: skip
    again = "placeholder request 1\nplaceholder request 2\n placeholder request 1\n"
    yield Fault(
        "pairs",
        make_pairs,
        "a prompt twice",
        lambda f: write(f / "prompts.txt", again),
        "repeats the prompt",
        "txt:3",
    )
    absurd = "x" * (2**20 + 1)
    yield Fault(
        "pairs", make_pairs, "absurd prompt", lambda f: write(f / "prompts.txt", absurd), "limit", "txt:1"
    )
    for label, line, says in (
        ("broken line", "{", "not valid JSON"),
        ("half a line", '{"prompt": "a', "not valid JSON"),
        ("list", '["a"]', "expected a JSON object"),
        ("no prompt", '{"text": "a"}', "'prompt' is missing"),
        ("number", '{"prompt": 3}', "expected text"),
        ("blank", '{"prompt": " "}', "is empty"),
        ("surrogate", '{"prompt": "\\udfff"}', "lone surrogate"),
        ("twice", '{"prompt": "a", "prompt": "b"}', "appears twice"),
        ("again", '{"prompt": "placeholder request 2"}', "repeats the prompt of"),
    ):
        yield Fault(
            "pairs", make_pairs_jsonl, label,
            lambda f, n=line: write(f / "prompts.jsonl", (f / "prompts.jsonl").read_text() + n), says, "prompts.jsonl:5",
        )  # fmt: skip


def mm_faults():
    name, file = "mm-safetybench", "data/processed_questions/01-Illegal_Activitiy.json"
    yield from json_faults(name, make_mm, file, mm_entries)
    fields = dict.fromkeys([key for key in mm_entries()["1"] if key != "Phrase Type"], str)
    yield from field_faults(name, make_mm, file, mm_entries, lambda v: v["1"], fields)
    for shape in ("SD", "SD_TYPO", "TYPO"):
        first = f"data/imgs/01-Illegal_Activitiy/{shape}/0.jpg"
        yield from picture_faults(name, make_mm, first, "01-Illegal_Activitiy.json")
    for label, new, says in (
        ("a way out", "../../x", "without blanks, quotes and slashes"),
        ("dots", "..", r"no such file|without"),
        ("a blank id", " ", "is empty"),
        ("another number", "77", "no such file"),
        ("an id twice", "0", "appears twice"),
        ("a long id", "1" * 300, "at most 200"),
    ):
        yield Fault(name, make_mm, label, lambda f, n=new: swap(f / file, '"1": {', f'"{n}": {{'), says, file)
    yield Fault(
        name, make_mm, "an entry of text", lambda f: write_json(f / file, {"0": "x"}), "JSON object", file
    )
    for place, says in (("processed_questions", "with the questions"), ("imgs", "with the pictures")):
        yield Fault(
            name, make_mm, f"no {place}", lambda f, p=place: shutil.rmtree(f / "data" / p), says, place
        )

    def clear(folder):
        for scenario in (folder / "data/processed_questions").iterdir():
            scenario.unlink()

    yield Fault(name, make_mm, "no scenario", clear, "has no JSON file", "processed_questions")


def vqa_faults():
    yield from json_faults("vqa-v2", make_vqa, QUESTIONS, vqa_questions)
    yield from json_faults("vqa-v2", make_vqa, ANNOTATIONS, vqa_annotations)
    yield from field_faults(
        "vqa-v2", make_vqa, QUESTIONS, vqa_questions, lambda v: v["questions"][1],
        {"question": str, "image_id": int, "question_id": int},
    )  # fmt: skip
    yield from field_faults(
        "vqa-v2", make_vqa, ANNOTATIONS, vqa_annotations, lambda v: v["annotations"][1],
        {"question_id": int, "image_id": int, "answers": list, "multiple_choice_answer": str, "answer_type": str,
         "question_type": str},
    )  # fmt: skip
    yield from field_faults(
        "vqa-v2",
        make_vqa,
        ANNOTATIONS,
        vqa_annotations,
        lambda v: v["annotations"][1]["answers"][9],
        {"answer": str},
    )
    yield from picture_faults("vqa-v2", make_vqa, "val2014/COCO_val2014_000000000042.jpg", QUESTIONS)

    def fault(label, change, says, file=ANNOTATIONS):
        def apply(folder):
            wrong = json.loads((folder / file).read_text())
            change(wrong["questions" if file == QUESTIONS else "annotations"])
            write_json(folder / file, wrong)

        return Fault("vqa-v2", make_vqa, label, apply, says, file)

    yield fault("no annotation", lambda rows: rows.pop(), "has no annotation of question 42005")
    yield fault("no annotations", lambda rows: rows.clear(), "is an empty list")
    yield fault("no questions", lambda rows: rows.clear(), "is an empty list", QUESTIONS)
    yield fault("a question twice", lambda rows: rows.append(rows[0]), "is already used", QUESTIONS)
    yield fault("an annotation twice", lambda rows: rows.append(rows[0]), "is already used")
    yield fault("another picture", lambda rows: rows[0].update(image_id=7), "'image_id' is 7; expected 42")
    yield fault("nine answers", lambda rows: rows[0]["answers"].pop(), "has 9; expected 10")
    yield fault("eleven answers", lambda rows: rows[0]["answers"].append({"answer": "x"}), "has 11; expected")
    yield fault(
        "an answer of text", lambda rows: rows[0].update(answers=["x"] * 10), "expected a JSON object"
    )
    yield fault("a question of text", lambda rows: rows.append("x"), "expected a JSON object", QUESTIONS)
    yield fault("another question", lambda rows: rows[0].update(image_id=7), "is 42; expected 7", QUESTIONS)
    yield Fault(
        "vqa-v2", make_vqa, "no pictures", lambda f: shutil.rmtree(f / "val2014"), "has no folder val2014", "val2014"
    )  # fmt: skip


def moss_faults():
    name = "mossbench"
    yield from json_faults(name, make_moss, MOSS, moss_entries)
    fields = {"image": str, "question": str, "pid": str}
    yield from field_faults(name, make_moss, MOSS, moss_entries, lambda v: v["2"], fields)
    metadata = {"over": str, "human": int, "child": int, "syn": int, "ocr": int, "harm": list}
    yield from field_faults(name, make_moss, MOSS, moss_entries, lambda v: v["2"]["metadata"], metadata)
    yield from picture_faults(name, make_moss, "data/images/1.png", MOSS)
    yield from path_faults(name, make_moss, MOSS, "images/1.png")
    for label, old, new, says in (
        ("an id twice", '"pid": "3"', '"pid": "2"', "is already used"),
        ("an entry twice", '"3": {', '"2": {', "appears twice"),
        ("a new sort", "type 3", "type 4", "expected type 1, type 2, type 3"),
        ("text as harm", "[7]", '["7"]', "whole number"),
        ("no metadata", '"metadata"', '"meta"', "'metadata': is None"),
    ):
        yield Fault(name, make_moss, label, lambda f, o=old, n=new: swap(f / MOSS, o, n), says, MOSS)
    file = "images/metadata.csv"
    columns = ("file_name", "pid", "question", "metadata_over")
    yield from csv_faults(
        name, make_moss_csv, file, moss_rows, columns, "pid", ("question", "file_name", "metadata_over")
    )
    yield from picture_faults(name, make_moss_csv, "images/1.png", "metadata.csv")
    yield from path_faults(name, make_moss_csv, file, "1.png")


def hh_faults():
    def alone(change, folder):
        shutil.rmtree(folder / "helpful-base")
        change(folder)

    for fault in file_faults("hh-rlhf", make_hh, "harmless-base/test.jsonl.gz"):
        yield Fault(
            "hh-rlhf", make_hh, fault.label, lambda f, c=fault.change: alone(c, f), fault.says, fault.file
        )
    file = "helpful-base/test.jsonl"
    for label, line, says in (
        ("broken", "{", "not valid JSON"),
        ("half a line", '{"chosen": "', "not valid JSON"),
        ("a list", "[]", "expected a JSON object"),
        ("no rejected", '{"chosen": "\\n\\nHuman: a\\n\\nAssistant: b"}', "'rejected' is missing"),
        ("no chosen", '{"rejected": "\\n\\nHuman: a\\n\\nAssistant: b"}', "'chosen' is missing"),
        ("a number", '{"chosen": 1, "rejected": ""}', "expected text"),
        ("null", '{"chosen": null, "rejected": ""}', "expected text"),
        ("blank", '{"chosen": "", "rejected": ""}', "is empty"),
        ("no dialogue", '{"chosen": "hello", "rejected": ""}', "is not a dialogue"),
        ("no answer", '{"chosen": "\\n\\nHuman: a", "rejected": ""}', "is not a dialogue"),
        (
            "wrong order",
            '{"chosen": "\\n\\nAssistant: a\\n\\nHuman: b", "rejected": ""}',
            "is not a dialogue",
        ),
        ("a surrogate", '{"chosen": "\\ud800", "rejected": ""}', "lone surrogate"),
        ("a null byte", '{"chosen": "\\u0000", "rejected": ""}', "null byte"),
        ("twice", '{"chosen": "", "chosen": ""}', "appears twice"),
        ("depth", "[" * 100_000, "not valid JSON"),
        ("an absurd text", json.dumps({"chosen": "x" * (2**20 + 1)}), "characters; the limit"),
    ):
        yield Fault(
            "hh-rlhf", make_hh, label, lambda f, n=line: write(f / file, (f / file).read_text() + n), says, f"{file}:6"
        )  # fmt: skip

    def cut(folder):
        whole = folder / "harmless-base/test.jsonl.gz"
        whole.write_bytes(whole.read_bytes()[:-12])

    yield Fault("hh-rlhf", make_hh, "half an archive", cut, "cannot be read", "test.jsonl.gz")

    def spoil(folder):
        whole = folder / "harmless-base/test.jsonl.gz"
        content = bytearray(whole.read_bytes())
        content[20:30] = b"\xff" * 10
        whole.write_bytes(bytes(content))

    yield Fault(
        "hh-rlhf", make_hh, "a spoilt archive", spoil, "cannot be read|not UTF-8|not valid", "test.jsonl.gz"
    )
    empty = json.dumps({"chosen": "\n\nHuman:\n\nAssistant: a", "rejected": "\n\nHuman:\n\nAssistant: a"})
    yield Fault(
        "hh-rlhf", make_hh, "none asks", lambda f: write(f / file, empty), "no dialogue with a human", file
    )


FAULTS = list(all_faults())


def test_there_are_many_faults_for_each_reader():
    counts = Counter(fault.name for fault in FAULTS)
    assert set(counts) == set(BENCHMARKS) - set(MULTIMODAL)
    assert min(counts.values()) >= 20
    assert len({str(fault) for fault in FAULTS}) > 0.9 * len(FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, monkeypatch, fault):
    said_in_one_sentence(fault, tmp_path / "a" / "copy", monkeypatch)


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("nothing", {}, "is unknown; expected redteam-2k"),
        ("xstest:2x3", {}, "is unknown; expected a name without"),
        ("pairs:0x3", {}, "pairs:20x10"),
        ("pairs:3", {}, "pairs:20x10"),
        ("pairs:٣x٣", {}, "pairs:20x10"),
        ("pairs:9x2", {}, r"prompts\.txt: has 4 prompts; expected at least 9"),
        ("pairs:2x9", {}, "pictures: has 3 pictures; expected at least 9"),
        ("pairs", {"limit": 0}, "limit 0 is too small"),
        ("pairs", {"seed": -1}, "seed -1 is negative"),
        ("a\nb\x1b[2J", {}, "is unknown"),
    ],
)
def test_what_is_asked_wrongly(tmp_path, name, settings, says):
    make_pairs(tmp_path)
    with pytest.raises(LayeralignError, match=says) as error:
        read(name, tmp_path, **settings)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("name", BENCHMARKS)
@pytest.mark.parametrize("folder", ["gone", "", "a\0b", "two\nlines"])
def test_a_folder_that_is_not_there_or_has_nothing(tmp_path, name, folder):
    if folder == "two\nlines":
        (tmp_path / folder).mkdir()
    with pytest.raises(LayeralignError) as error:
        read(name, tmp_path / folder)
    said = str(error.value)
    assert said.isprintable()
    assert folder == "a\0b" or BENCHMARKS[name].source.split()[0] in said or "cocodataset" in said


TEXTS = [
    ("redteam-2k", make_redteam, "RedTeam_2K.csv"),
    ("pairs", make_pairs, "prompts.txt"),
    ("pairs", make_pairs_jsonl, "prompts.jsonl"),
    ("mm-safetybench", make_mm, "data/processed_questions/01-Illegal_Activitiy.json"),
    ("vqa-v2", make_vqa, ANNOTATIONS),
    ("xstest", make_xstest, "xstest_prompts.csv"),
    ("mossbench", make_moss, MOSS),
    ("mossbench", make_moss_csv, "images/metadata.csv"),
    ("hh-rlhf", make_hh, "helpful-base/test.jsonl"),
]


@pytest.mark.parametrize(("name", "make", "file"), TEXTS)
def test_any_spoilt_file_is_cases_or_one_sentence(tmp_path, name, make, file):
    make(tmp_path)
    whole = (tmp_path / file).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(40):
        spoilt = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            spoilt[place] = rng.choice(list(b'",{}[]\n\\\0\xff:a1/'))
        (tmp_path / file).write_bytes(bytes(spoilt[: rng.integers(len(whole) // 2, len(whole) + 1)]))
        try:
            assert read(name, tmp_path)
        except LayeralignError as error:
            assert str(error).isprintable()


def test_a_small_archive_of_millions_of_rows_is_refused(tmp_path):
    make_hh(tmp_path)
    with gzip.open(tmp_path / "harmless-base" / "test.jsonl.gz", "wb", compresslevel=1) as stream:
        stream.write(b"{}\n" * 2_500_000)
    with pytest.raises(LayeralignError, match=r"has more than 2,000,000 lines; split it"):
        read("hh-rlhf", tmp_path)


def test_more_pairs_than_anyone_asks(tmp_path, monkeypatch):
    make_pairs(tmp_path)
    monkeypatch.setattr(pairs, "MAX_PAIRS", 11)
    with pytest.raises(LayeralignError, match="gives 12 pairs"):
        read("pairs", tmp_path)
    assert len(read("pairs", tmp_path, limit=11)) == 11
    assert len(read("pairs:3x3", tmp_path)) == 9


def test_a_large_document_with_an_emoji_is_refused(tmp_path, monkeypatch):
    """It takes four bytes for each character: 500 MB took 2.5 GB. Files of lines are decoded line by line."""
    monkeypatch.setattr(strict, "MAX_BYTES", 1000)
    file = tmp_path / "a.json"
    file.write_text(json.dumps([{"a": "\U0001f600" + "x" * 300}], ensure_ascii=False), encoding="utf-8")
    with pytest.raises(LayeralignError, match=r"a\.json: .* has emoji; expected a benchmark's file"):
        strict.listed(file)
    file.write_text(file.read_text(encoding="utf-8")[1:-1], encoding="utf-8")
    assert len(strict.objects(file)) == 1


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (gzip.compress(b"a") + gzip.compress(b"b"), b"ab"),
        (gzip.compress(b"a") + b"\0" * 50_000_000, b"a"),
        (gzip.compress(b"a")[:3] + b"\x08" + gzip.compress(b"a")[4:10] + b"n" * 50_000_000 + b"\0"
         + gzip.compress(b"a")[10:], b"a"),
        (gzip.compress(b"") * 1_000_000, None),
        (gzip.compress(b"") * 98 + gzip.compress(b"x" * 100_000_000, 0), None),
        (gzip.compress(b"a")[:-1], None),
        (gzip.compress(b"a") + b"junk", None),
    ],
    ids=["two parts", "zeros behind it", "a long name", "a million parts", "a large one behind many", "cut", "junk behind it"],
)  # fmt: skip
def test_a_packed_file_is_read_at_once(tmp_path, content, found):
    """Python's gzip took 13 s for 100 MB of zeros behind the end, and 10 s for a name as long."""
    (tmp_path / "a.gz").write_bytes(content)
    started = time.process_time()
    if found is None:
        with pytest.raises(LayeralignError, match=r"a\.gz: cannot be read"):
            strict._raw(tmp_path / "a.gz")
    else:
        assert strict._raw(tmp_path / "a.gz") == found
    assert time.process_time() - started < 3


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.data())
def test_gzip_is_unpacked_as_python_does_or_refused(parts, data):
    """Cut anywhere, and with any byte changed, it is never read otherwise."""
    raw = b"\0\0".join(map(gzip.compress, parts))
    assert unpacked(raw, 1000) == gzip.decompress(raw) == b"".join(parts)
    assert unpacked(raw, 3) == b"".join(parts)[:3]
    at, byte = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.binary(min_size=1, max_size=1))
    for broken in (raw[:at], raw[:at] + byte + raw[at + 1 :]):
        with contextlib.suppress(EOFError, zlib.error):
            assert unpacked(broken, 1000) == gzip.decompress(broken)
