"""Benchmarks whose requests come with their own pictures, and pairs of cases, with harmless text."""

import os
import shutil
import sys
from collections import Counter
from functools import partial

import pytest

from layeralign import LayeralignError
from layeralign._util import bounded
from layeralign.cases import cache, files
from layeralign.cases.readers.reader import benchmarks_of, read
from layeralign.cases.readers.shared import packed
from malformed import (
    Fault,
    bomb,
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
    ART,
    BEAVERTAILS,
    MULTIMODAL,
    POPE,
    beavertails_rows,
    figstep_rows,
    harmbench_pictured_rows,
    holisafe_rows,
    make_harmbench_pictured,
    make_siuo,
    make_vlguard,
    mmmu_rows,
    msts_rows,
    picture_bytes,
    siuo_rows,
    strongreject_rows,
    vlguard_rows,
    write_json,
    write_parquet,
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Where pictures are unpacked to; and no child processes, which cost more than all the rest."""
    monkeypatch.setenv(cache.HOME, str(tmp_path / ".cache"))
    monkeypatch.setattr(packed, "excess", lambda _: "")


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


def test_beavertails_asks_each_question_once_and_unpacks_its_picture_once(tmp_path):
    MULTIMODAL["beavertails-v"](tmp_path)
    cases = read("beavertails-v", tmp_path)
    assert [case.id for case in cases] == ["beavertails-v-animal_abuse-0", "beavertails-v-animal_abuse-2"]
    assert [case.category for case in cases] == ["animal_abuse"] * 2
    unpacked = sorted((tmp_path / ".cache/unpacked").iterdir())
    assert [file.name for file in unpacked] == sorted(f"{case.picture.sha256}.png" for case in cases)
    assert read("beavertails-v", tmp_path) == cases
    unpacked[0].write_bytes(unpacked[1].read_bytes())
    with pytest.raises(
        LayeralignError, match=r"row \d: its picture, unpacked to .* has changed; remove that"
    ):
        read("beavertails-v", tmp_path)


def test_a_file_that_crashes_its_decoder_ends_a_child_and_not_the_command(tmp_path, monkeypatch):
    MULTIMODAL["beavertails-v"](tmp_path)
    monkeypatch.setattr(packed, "excess", bounded.excess)
    assert len(read("beavertails-v", tmp_path)) == 2
    monkeypatch.setattr(packed, "_load", lambda *_: os.abort())
    with pytest.raises(
        LayeralignError, match=r"evaluation\.parquet: takes more than .*, or crashes; expected"
    ):
        read("beavertails-v", tmp_path)


def test_pyarrow_is_asked_for_by_name(tmp_path, monkeypatch):
    MULTIMODAL["beavertails-v"](tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(LayeralignError, match=r"needs pyarrow to be read; install layeralign\[parquet\]"):
        read("beavertails-v", tmp_path)


def test_mmmu_has_questions_with_options_and_one_picture(tmp_path):
    MULTIMODAL["mmmu"](tmp_path)
    cases = read("mmmu", tmp_path)
    assert [case.id for case in cases] == [
        f"mmmu-validation_{s}_{n}" for s in ("Art", "Music") for n in (1, 2, 3)
    ]
    asked = "\n(A) a thing\n(B) it's\n\nAnswer with the option's letter from the given choices directly."
    assert cases[0].prompt == f"<image 1> What is 1?{asked}"
    assert (cases[0].reference, cases[0].category) == ("B", "Art")
    assert cases[0].facts == {"rule": "choice", "options": ["a thing", "it's"]}


def test_pope_has_three_sorts_of_questions(tmp_path):
    MULTIMODAL["pope"](tmp_path)
    cases = read("pope", tmp_path)
    assert len(cases) == 12 and cases[4].id == "pope-popular-1" and cases[4].category == "popular"
    assert [case.reference for case in cases[:4]] == ["no", "yes", "no", "yes"]
    assert cases[0].facts == {"rule": "yes-no"}


@pytest.mark.parametrize("name", ["pope", "mmmu", "vlguard"])
def test_a_case_file_of_it_keeps_rules_and_pairs(tmp_path, name):
    MULTIMODAL[name](tmp_path)
    cases = read(name, tmp_path)
    files.write(cases, tmp_path / "again.jsonl")
    kept = [{k: v for k, v in case.facts.items() if k != "subcategory"} for case in cases]
    assert [case.facts for case in files.read(tmp_path / "again.jsonl")] == kept


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


def pope_faults():
    name, make, file = "pope", MULTIMODAL["pope"], POPE[1]
    yield from file_faults(name, make, file)
    yield from picture_faults(name, make, "val2014/COCO_val2014_000000000000.jpg", POPE[0])
    yield from path_faults(name, make, file, "COCO_val2014_000000000001.jpg")
    for label, old, new, says in (
        ("a new answer", '"label": "yes"', '"label": "maybe"', "expected yes or no"),
        ("no text", '"text"', '"other"', r"json:1: field 'text' is missing"),
        ("no answer", '"label"', '"other"', "field 'label' is missing"),
        ("a text as number", '"question_id": 2', '"question_id": "2"', r"json:2: .* whole number"),
        ("a question twice", '"question_id": 2', '"question_id": 1', r"is already used in .*json:1"),
        ("half a line", '"label": "no"}\n', '"label"', "not valid JSON"),
    ):
        yield text_fault(name, file, label, old, new, says)


def packed_faults(name, file, rows, texts, picture):
    """What can be wrong with a Parquet file."""
    make = MULTIMODAL[name]

    def put(content):
        return lambda f: ((f / file).unlink(), (f / file).write_bytes(content))

    def cells(**changed):
        return lambda f: write_parquet(f / file, [{**row, **changed} for row in rows()])

    def cut(f):
        whole = (f / file).read_bytes()
        (f / file).write_bytes(whole[: len(whole) // 2])

    def spoil(f):
        whole = bytearray((f / file).read_bytes())
        whole[20:400] = b"\xff" * 380
        (f / file).write_bytes(bytes(whole))

    def twice(f):
        import pyarrow
        from pyarrow import parquet

        table = pyarrow.Table.from_pylist(rows())
        parquet.write_table(table.append_column(texts[0], table[texts[1]]), f / file)

    good, broken = picture_bytes(1), picture_bytes(1)[:50]
    for label, change, says in (
        ("empty", put(b""), "not a readable Parquet file"),
        ("text", put(b"id,question\n"), "not a readable Parquet file"),
        ("magic alone", put(b"PAR1PAR1"), "not a readable Parquet file"),
        ("a length of its own", put(b"PAR1" + b"\xff" * 8 + b"PAR1"), "not a readable Parquet file"),
        ("a picture", put(good), "not a readable Parquet file"),
        ("half of it", cut, "not a readable Parquet file"),
        ("spoilt", spoil, "not a readable Parquet|more than|expected|invalid"),
        ("too large", put(b"PAR1" * 2**19 + b"x"), "larger than 2 MiB"),
        ("large when unpacked", cells(**{texts[0]: "x" * 2**20, texts[1]: "y" * 2**20}), "the limits are"),
        ("a column twice", twice, f"column '{texts[0]}' appears twice"),
        ("no rows", lambda f: write_parquet(f / file, rows()[:0] or [{}]), "is missing|has no rows"),
        ("no picture", cells(**{picture: None}), "has no picture; expected the bytes"),
        ("an empty picture", cells(**{picture: {"bytes": b"", "path": None}}), "has no picture"),
        ("a path", cells(**{picture: {"bytes": None, "path": "/etc/hostname"}}), "has no picture"),
        ("a text as picture", cells(**{picture: "a.png"}), "has no picture"),
        ("no such picture", cells(**{picture: {"bytes": b"text", "path": None}}), "is not a picture"),
        ("half a picture", cells(**{picture: {"bytes": broken, "path": None}}), "truncated or corrupt"),
        ("a bomb", cells(**{picture: {"bytes": bomb(), "path": None}}), "pixels"),
    ):
        yield Fault(name, make, label, change, says, file)
    for column in (*texts, picture):
        rest = [{key: value for key, value in row.items() if key != column} for row in rows()]
        says = f"column '{column}' is missing"
        yield Fault(
            name, make, f"no {column}", partial(lambda f, r: write_parquet(f / file, r), r=rest), says, file
        )
    for column in texts:
        yield Fault(name, make, f"blank {column}", cells(**{column: " "}), f"field '{column}' is empty", file)
        yield Fault(name, make, f"a number as {column}", cells(**{column: 3}), "expected text", file)


def all_packed_faults():
    yield from packed_faults(
        "beavertails-v", BEAVERTAILS, beavertails_rows, ("question", "category"), "image"
    )
    texts = ("question", "options", "answer", "id", "question_type")
    yield from packed_faults("mmmu", ART, mmmu_rows, texts, "image_1")
    for label, changed, says in (
        ("no list", {"options": "a, b"}, "row 0: field 'options' is not a list; expected 2 to 26 texts"),
        ("code", {"options": "__import__('os').abort()"}, "is not a list"),
        ("one option", {"options": "['a']"}, "is not a list"),
        ("depth", {"options": "[" * 9000}, "is not a list"),
        ("a number as option", {"options": "['a', 3]"}, "field 'options' is 3; expected text"),
        ("a third letter", {"answer": "C"}, "field 'answer' is 'C'; expected A or B"),
        ("an id twice", {"id": "x"}, r"row 1: id 'mmmu-x' is already used in .* row 0"),
    ):
        wrong = [{**row, **changed} for row in mmmu_rows()]
        change = partial(lambda f, r: write_parquet(f / ART, r), r=wrong)
        yield Fault("mmmu", MULTIMODAL["mmmu"], label, change, says, ART)


FAULTS = [*vlguard_faults(), *other_faults(), *table_faults(), *pope_faults(), *all_packed_faults()]


def test_there_are_many_faults_for_each_of_these_readers():
    counts = Counter(fault.name for fault in FAULTS)
    assert set(counts) == set(MULTIMODAL) and min(counts.values()) >= 20
    assert len({str(fault) for fault in FAULTS}) > 0.9 * len(FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, monkeypatch, fault):
    said_in_one_sentence(fault, tmp_path / "a" / "copy", monkeypatch)
