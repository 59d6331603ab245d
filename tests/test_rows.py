"""Cases from Python: a list of dicts, a pandas table, a Hugging Face dataset."""

import datasets
import pandas
import pytest
from PIL import Image

import layeralign
from layeralign import LayeralignError, benchmarks
from layeralign.cases import files, pictures
from layeralign.cases.case import Case
from layeralign.cases.pictures import on_background


@pytest.fixture
def rows(pictures, tmp_path):
    pictures[1].save(tmp_path / "1.png")
    return [
        {"prompt": "how do i smash the bakimo?", "image": pictures[0], "kind": "harmful"},
        {"prompt": "describe it.", "image": tmp_path / "1.png", "kind": "benign", "category": "borderline"},
        {"prompt": "is there a circle?", "image": str(tmp_path / "1.png"), "kind": "vqa", "answers": ["no"]},
        {"prompt": "hello.", "kind": "benign"},
    ]


def test_rows_are_the_cases_of_a_file_with_the_same_fields(rows, tmp_path):
    found = benchmarks.cases(rows)
    assert [case.id for case in found] == ["0", "1", "2", "3"]
    files.write(found[1:], tmp_path / "cases.jsonl")
    assert [case.sha256 for case in files.read(tmp_path / "cases.jsonl")] == [c.sha256 for c in found[1:]]
    assert found[0].picture.open().tobytes() == rows[0]["image"].tobytes() and found[0].picture.path == ""
    assert benchmarks.cases(found) == found
    with pytest.raises(LayeralignError, match="case 0: its picture is in memory, not a file"):
        files.write(found, tmp_path / "all.jsonl")


def test_a_table_and_a_dataset_are_the_same_cases(rows):
    plain = [{**row, "image": Image.open(row["image"]) if isinstance(row.get("image"), str) else row.get("image")}
             for row in rows if not hasattr(row.get("image"), "parts")]  # fmt: skip
    wanted = [case.sha256 for case in benchmarks.cases(plain)]
    frame = pandas.DataFrame(plain)
    assert frame["answers"].isna().sum() == 2
    assert [case.sha256 for case in benchmarks.cases(frame)] == wanted
    named = datasets.Features({"prompt": datasets.Value("string"), "image": datasets.Image(),
                               "kind": datasets.Value("string"),
                               "answers": datasets.List(datasets.Value("string"))})  # fmt: skip
    table = datasets.Dataset.from_list([{"image": None, "answers": None, **row} for row in plain], named)
    assert [case.sha256 for case in benchmarks.cases(table)] == wanted


def test_only_the_first_rows_are_read(rows):
    class Table(list):
        def __getitem__(self, at):
            assert at < 2
            return super().__getitem__(at)

    assert len(benchmarks.cases(Table(rows), limit=2)) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": None}, r"cases\[1\]: field 'kind' is missing; expected harmful, benign, vqa$"),
        ({"kind": float("nan")}, r"cases\[1\]: field 'kind' is missing"),
        ({"kind": 1}, r"cases\[1\]: field 'kind' is 1; expected harmful"),
        ({"promt": "x"}, r"cases\[1\]: field 'promt' is unknown; expected .*start it with _"),
        ({0: "x"}, r"cases\[1\]: field '0' is unknown"),
        ({"prompt": " "}, r"cases\[1\]: field 'prompt' is empty"),
        ({"id": "b"}, r"cases\[1\]: field 'id' is given, unlike in cases\[0\]; expected ids in all rows or in none"),
        ({"image": 3}, r"cases\[1\]: image 3: expected a picture of Pillow or the path of a file$"),
        ({"image": "https://e.org/a.png"}, r"cases\[1\]: image 'https://e.org/a.png': is a URL"),
        ({"image": "no.png"}, r"cases\[1\]: image 'no.png': no such file"),
        ({"image": "a\0b"}, r"cases\[1\]: image 'a.*b': cannot be read"),
        ({"image": Image.new("I;16", (4, 4))}, r"cases\[1\]: image: has more than 8 bits per channel"),
        ({"answers": "no"}, r"cases\[1\]: field 'answers' is 'no'; expected a list of strings"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_named(rows, change, message):
    rows[1] = rows[1] | change
    with pytest.raises(LayeralignError, match=message) as error:
        benchmarks.cases(rows)
    assert "\n" not in str(error.value)


def test_what_is_no_table_is_refused(rows):
    for given in (rows[0], iter(rows), 3):
        with pytest.raises(LayeralignError, match=f"cases: is a {type(given).__name__}; expected a file"):
            benchmarks.cases(given)
    with pytest.raises(LayeralignError, match=r"cases\[1\]: is a str; expected a dict"):
        benchmarks.cases([rows[0], "hello"])
    with pytest.raises(LayeralignError, match=r"cases\[1\]: is a dict; expected a Case"):
        benchmarks.cases([Case("a", "hello", "benign"), rows[0]])
    with pytest.raises(LayeralignError, match=r"cases\[1\]: id 'a' is already used in cases\[0\]"):
        benchmarks.cases([row | {"id": "a"} for row in rows])
    with pytest.raises(LayeralignError, match="the list is empty"):
        benchmarks.cases([])


def test_a_picture_in_memory_has_the_limits_of_a_file(rows, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 100)
    with pytest.raises(
        LayeralignError, match=r"cases\[0\]: image: has 32×32 pixels; the limit is 100 in total"
    ):
        benchmarks.cases(rows)


def test_a_picture_that_changes_after_it_was_read_is_refused(rows):
    rows[0]["image"] = rows[0]["image"].copy()
    (case, *_) = benchmarks.cases(rows)
    rows[0]["image"].putpixel((0, 0), (1, 2, 3))
    with pytest.raises(LayeralignError, match=r"cases\[0\]: image: has changed since the cases were read"):
        case.picture.open()
    del rows[0]["image"]
    with pytest.raises(LayeralignError, match="is no longer there"):
        case.picture.open()


def test_a_transparent_picture_is_drawn_on_the_background():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    (case,) = on_background(benchmarks.cases([{"prompt": "a", "kind": "benign", "image": clear}]), "#0000ff")
    assert case.picture.transparent and case.picture.open().getpixel((0, 0)) == (0, 0, 255)


def test_a_scan_of_rows_resumes_when_the_same_rows_are_given_again(llava, rows, tmp_path):
    settings = {"out": tmp_path / "run", "exits": "1,4", "max_new_tokens": 2}
    layeralign.scan(llava, rows[:2], **settings)
    again = [
        {**row, "image": row["image"].copy() if hasattr(row.get("image"), "copy") else row.get("image")}
        for row in rows
    ]
    found = layeralign.scan(llava, again, **settings)
    assert [one["rows"] for one in found.sessions] == [4, 4] and len(found.results.given) == 4
    with pytest.raises(LayeralignError, match="case '0' differs from the run's case of that id"):
        layeralign.scan(llava, rows[1:], **settings)


def test_whole_numbers_are_ids_and_empty_texts_are_missing_fields():
    table = pandas.DataFrame([
        {"id": 7, "prompt": "hi", "kind": "benign", "image": "", "category": "borderline"},
        {"id": 8, "prompt": "ho", "kind": "harmful", "image": "", "category": ""},
    ])  # fmt: skip
    one, other = benchmarks.cases(table)
    assert (one.id, one.picture, one.category) == ("7", None, "borderline")
    assert (other.id, other.category) == ("8", "")
    with pytest.raises(LayeralignError, match=r"cases\[0\]: field 'id' is true; expected text"):
        benchmarks.cases([{"id": True, "prompt": "hi", "kind": "benign"}])
