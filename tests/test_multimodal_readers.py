"""Benchmarks whose requests come with their own pictures, and pairs of cases, with harmless text."""

import shutil
from collections import Counter
from functools import partial

import pytest

from layeralign.cases.readers.reader import benchmarks_of, read
from malformed import (
    Fault,
    csv_faults,
    deck_faults,
    field_faults,
    json_faults,
    path_faults,
    picture_faults,
    said_in_one_sentence,
    swap,
)
from published import (
    MULTIMODAL,
    figstep_rows,
    harmbench_pictured_rows,
    holisafe_rows,
    make_harmbench_pictured,
    make_siuo,
    make_vlguard,
    msts_rows,
    siuo_rows,
    strongreject_rows,
    vlguard_rows,
    write_json,
)

# ---- what is read


def test_vlguard_asks_the_same_safe_picture_twice(tmp_path):
    make_vlguard(tmp_path)
    first, safe, unsafe, *_ = cases = read("vlguard", tmp_path)
    assert (first.id, first.kind, first.category) == ("vlguard-Ads_0", "harmful", "privacy")
    assert first.facts == {"subcategory": "personal data"} and first.prompt == "placeholder request 0"
    assert (safe.id, safe.kind, safe.prompt) == ("vlguard-Ads_1-safe", "benign", "placeholder question 1")
    assert (unsafe.kind, unsafe.category) == ("harmful", "safe_unsafes")
    assert safe.facts["pair"] == unsafe.facts["pair"] == "vlguard-Ads_1"
    assert safe.picture.sha256 == unsafe.picture.sha256 and safe.picture.path.endswith("test/bad_ads/1.png")
    assert Counter(case.facts.get("pair") for case in cases) == {
        None: 1, "vlguard-Ads_1": 2, "vlguard-Ads_2": 2
    }  # fmt: skip


def test_vlguard_in_the_layout_of_its_repository(tmp_path):
    make_vlguard(tmp_path / "data")
    (tmp_path / "copy").mkdir()
    shutil.move(tmp_path / "data", tmp_path / "copy/data")
    assert len(read("vlguard", tmp_path / "copy")) == 5


def test_holisafe_kinds_follow_the_type_and_pairs_share_a_picture(tmp_path):
    MULTIMODAL["holisafe"](tmp_path)
    cases = read("holisafe", tmp_path)
    assert [case.kind for case in cases] == ["benign", *["harmful"] * 5]
    pairs = [case.facts.get("pair") for case in cases]
    assert pairs == ["holisafe-0", "holisafe-0", None, None, None, None]  # one harmless query, one pair
    assert cases[4].facts == {"type": "USU", "subcategory": "race"} and cases[4].category == "hate"


def test_msts_takes_either_suffix_of_a_picture(tmp_path):
    MULTIMODAL["msts"](tmp_path)
    cases = read("msts", tmp_path)
    assert [case.picture.path.rpartition("/")[2] for case in cases] == [
        "unsafe_image_0000.jpg", "unsafe_image_0000.jpg", "unsafe_image_0001.png", "unsafe_image_0001.png"
    ]  # fmt: skip
    assert cases[1].facts == {"case_id": "case_0000", "prompt_type": "intention"}
    assert cases[1].id == "msts-prompt_0001" and cases[1].category == "Other"


def test_siuo_in_both_layouts(tmp_path):
    make_siuo(tmp_path / "hub")
    make_siuo(tmp_path / "repository/data")
    hub, repository = (read("siuo", tmp_path / name) for name in ("hub", "repository"))
    assert [case.sha256 for case in hub] == [case.sha256 for case in repository]
    assert hub[0].id == "siuo-1001" and hub[0].facts == {"safety_warning": "placeholder"}


def test_figstep_has_the_request_in_its_facts_and_not_in_its_prompt(tmp_path):
    MULTIMODAL["figstep"](tmp_path)
    cases = read("figstep", tmp_path)
    assert len({case.prompt for case in cases}) == 1 and cases[0].prompt.startswith("The image shows a list")
    assert cases[2].id == "figstep-2_1" and cases[2].facts["question"] == "placeholder request 2"


def test_harmbenchs_pictures_may_have_the_suffix_of_the_row(tmp_path):
    make_harmbench_pictured(tmp_path)
    before = read("harmbench-multimodal", tmp_path)
    assert before[1].picture.path.endswith("multimodal_behavior_images/thing_1.png")
    place = tmp_path / "data/multimodal_behavior_images"
    (place / "thing_1.png").rename(place / "thing_1.jpg")
    assert read("harmbench-multimodal", tmp_path)[1].picture.path.endswith("thing_1.jpg")
    ids = [case.id for case in before] + ["harmbench-x", "mine"]
    assert benchmarks_of(ids) == ("", "harmbench", "harmbench-multimodal")


# ---- what is wrong


def text_fault(name, file, label, old, new, says):
    return Fault(name, MULTIMODAL[name], label, lambda f: swap(f / file, old, new), says, file)


def list_faults(name, file, rows, fields):
    """What can be wrong with a JSON list of objects."""
    make = MULTIMODAL[name]
    for fault in json_faults(name, make, file, rows):
        says = fault.says.replace("JSON object", "list of at least one|JSON object").replace(
            "has no", "a list"
        )
        if fault.label != "a list":  # here it is the right thing
            yield Fault(name, make, fault.label, fault.change, says, file)
    yield from field_faults(name, make, file, rows, lambda value: value[1], fields)
    for label, value, says in (
        ("an empty list", [], "at least one"),
        ("a list of texts", ["x"], "entry 0: is 'x'; expected a JSON object"),
        ("a row twice", [rows()[0]] * 2, "is already used in"),
    ):
        yield Fault(name, make, label, partial(lambda f, v: write_json(f / file, v), v=value), says, file)


def vlguard_faults():
    name, file = "vlguard", "test.json"
    yield from list_faults(
        name, file, vlguard_rows, {"id": str, "image": str, "safe": bool, "instr-resp": list}
    )
    yield from picture_faults(name, make_vlguard, "test/bad_ads/0.png", file)
    yield from path_faults(name, make_vlguard, file, "bad_ads/0.png")
    for label, old, says in (
        ("no safe instruction", '"safe_instruction"', "'instr-resp': field 'safe_instruction' is missing"),
        (
            "no unsafe instruction",
            '"unsafe_instruction"',
            "'instr-resp': field 'unsafe_instruction' is missing",
        ),
        ("no instruction", '"instruction"', "'instr-resp': field 'instruction' is missing"),
        ("no category", '"harmful_category"', "entry 0: field 'harmful_category' is missing"),
    ):
        yield text_fault(name, file, label, old, '"other"', says)


def other_faults():
    file = "holisafe_bench.json"
    fields = {"id": int, "image": str, "query": str, "category": str, "subcategory": str, "type": str}
    yield from list_faults("holisafe", file, holisafe_rows, fields)
    yield from picture_faults("holisafe", MULTIMODAL["holisafe"], "images/hate/race/0.jpg", file)
    yield from path_faults("holisafe", MULTIMODAL["holisafe"], file, "hate/race/0.jpg")
    yield text_fault("holisafe", file, "a new type", '"SSU"', '"SUS"', "expected SSS, SSU, SUU, USU, UUU")
    yield text_fault("holisafe", file, "a path as id", '"id": 1', '"id": "../1"', "without blanks, quotes")
    file = "siuo_gen.json"
    fields = {"question_id": int, **dict.fromkeys(("image", "question", "category", "safety_warning"), str)}
    yield from list_faults("siuo", file, siuo_rows, fields)
    yield from picture_faults("siuo", make_siuo, "images/S-00.png", file)
    yield from path_faults("siuo", make_siuo, file, "S-00.png")


TABLES = {
    "msts": ("data/prompts/english_multimodal.csv", msts_rows, "prompt_id", ("prompt_text", "hazard_category"),
             ("hazard_category", "case_id", "unsafe_image_id", "prompt_id", "prompt_text", "prompt_type"),
             "data/unsafe_images/unsafe_image_0001.png"),
    "strongreject": ("strongreject_dataset.csv", strongreject_rows, None,
                     ("category", "source", "forbidden_prompt"), ("category", "source", "forbidden_prompt"), None),
    "figstep": ("data/question/safebench.csv", figstep_rows, None, ("question", "instruction", "category_name"),
                ("dataset", "category_id", "task_id", "category_name", "question", "instruction"),
                "data/images/SafeBench/query_ForbidQI_1_1_6.png"),
    "harmbench-multimodal": ("data/behavior_datasets/harmbench_behaviors_multimodal_all.csv",
                             harmbench_pictured_rows, "BehaviorID", ("Behavior", "SemanticCategory", "ImageFileName"),
                             ("Behavior", "FunctionalCategory", "SemanticCategory", "BehaviorID", "ImageFileName"),
                             "data/multimodal_behavior_images/thing_0.png"),
}  # fmt: skip
"""Name -> file, rows, id, texts that may not be blank, columns that have to be there, a picture."""


def table_faults():
    for name, (file, rows, id, texts, columns, picture) in TABLES.items():
        yield from csv_faults(name, MULTIMODAL[name], file, rows, columns, id, texts)
        if picture is None:
            yield from deck_faults(name, MULTIMODAL[name], file)
        else:
            yield from picture_faults(name, MULTIMODAL[name], picture, file)
    yield text_fault("msts", TABLES["msts"][0], "a new sort", "intention", "other", "assistance or intention")
    yield text_fault("msts", TABLES["msts"][0], "a way out", "unsafe_image_0001", "../x", "without blanks")
    yield text_fault("figstep", TABLES["figstep"][0], "a task twice", ",2,2,", ",2,1,", "is already used in")
    yield text_fault(
        "figstep", TABLES["figstep"][0], "a way out", "ForbidQI,2,2", "../x,2,2", "without blanks"
    )
    file = TABLES["harmbench-multimodal"][0]
    yield text_fault(
        "harmbench-multimodal", file, "a text", ",multimodal,", ",standard,", "expected multimodal"
    )
    yield text_fault("harmbench-multimodal", file, "a way out", "thing_0.jpg", "../x.jpg", r"without '\.\.'")
    yield text_fault(
        "harmbench-multimodal", file, "an address", "thing_0.jpg", "https://x.org/x.jpg", "is a URL"
    )


FAULTS = [*vlguard_faults(), *other_faults(), *table_faults()]


def test_there_are_many_faults_for_each_of_these_readers():
    counts = Counter(fault.name for fault in FAULTS)
    assert set(counts) == set(MULTIMODAL) and min(counts.values()) >= 20
    assert len({str(fault) for fault in FAULTS}) > 0.9 * len(FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, monkeypatch, fault):
    said_in_one_sentence(fault, tmp_path / "a" / "copy", monkeypatch)
