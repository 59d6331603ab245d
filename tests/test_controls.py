"""Controls of what a picture does, samples, and what a model is told first."""

import pytest

import tiny
from layeralign import LayeralignError, api
from layeralign.cases import files
from layeralign.cases.controls import with_controls
from layeralign.cli import main
from layeralign.runs import opening
from layeralign.runs.store import Row
from layeralign.vlm.load import load


def test_controls_take_the_picture_away_and_nothing_else(case_file):
    cases = files.read(case_file)
    made = {case.id: case for case in with_controls(cases)}
    assert len(made) == 6 + 3 * 5 and "t1#blank" not in made  # t1 has no picture
    own, none, blank, noise = (made[f"h1{tail}"] for tail in ("", "#no picture", "#blank", "#noise"))
    assert {case.prompt for case in (own, none, blank, noise)} == {own.prompt}
    assert none.picture is None and [case.control for case in (own, none, blank, noise)] == [
        "", "no picture", "blank", "noise",
    ]  # fmt: skip
    assert blank.picture.open().size == noise.picture.open().size == own.picture.open().size
    assert blank.picture.open().getcolors() == [(32 * 32, (127, 127, 127))]
    assert len(noise.picture.open().getcolors(2000)) > 1000
    assert made["h2#noise"].picture.sha256 == noise.picture.sha256 != made["b1#noise"].picture.sha256
    assert len({case.sha256 for case in made.values()}) == len(made)


@pytest.mark.slow
@pytest.mark.parametrize("control", ["blank", "noise", "no picture"])
def test_a_case_that_is_called_as_a_control_is_named(llava_dir, case_file, tmp_path, capfd, control):
    case_file.write_text(case_file.read_text().replace('"t1"', f'"h1#{control}"'))
    scan = ["scan", "--model", str(llava_dir), "--cases", str(case_file), "--exits", "1", "--max-new-tokens", "2",
            "--out", str(tmp_path / "run")]  # fmt: skip
    assert main([*scan, "--controls"]) == 1
    err = capfd.readouterr().err
    assert (
        f"case 'h1#{control}': --controls gives this id to a control of case 'h1'" in err
        and err.count("\n") == 1
    )
    assert main(scan) == 0


def test_a_case_without_control_keeps_its_hash():
    """Runs from before there were controls are resumed by it."""
    from layeralign.cases.case import Case

    assert (
        Case("a", "b", "benign").sha256 == "9aa43688a2d8126e19da1326fe109d41c44666b53a539cb1082c1c1ef405524e"
    )


def test_controls_are_scanned_beside_the_cases_and_do_not_count_as_them(llava, case_file, tmp_path):
    plain = api.scan(llava, case_file, tmp_path / "plain", exits="1,4", max_new_tokens=3)
    both = api.scan(llava, case_file, tmp_path / "both", exits="1,4", max_new_tokens=3, controls=True)
    assert both.summary.exits == plain.summary.exits
    with opening.open_run(tmp_path / "both") as run:
        assert sum(map(len, run.answered().values())) == 21 * 2
        answers = {(row["case"], row["exit"]): row["answer"] for row in run.rows()}
    assert answers["h1", 1] != answers["h1#noise", 1]
    assert answers["h1#no picture", 1] == answers["h1#no picture", 4]


@pytest.mark.slow
def test_controls_that_a_stopped_scan_lacks_are_said_to_be_lacking(llava, case_file, tmp_path):
    """A scan was repeated with controls and stopped: their figures were those of short answers, without a word."""
    whole = api.scan(llava, case_file, tmp_path / "run", exits="1,4", max_new_tokens=3)
    asked = with_controls(files.read(case_file))
    with opening.open_run(tmp_path / "run", write=True) as run:
        run.add_cases(asked)
        few = [case for case in asked if case.control and case.id != "h1#noise"]
        run.add_answers(Row(case.id, 4, "a", 1, "stop") for case in few)
    assert whole.summary.lacking is None
    found = api.read(tmp_path / "run").summary.lacking
    assert (found.exits, found.most, found.of) == (("4",), 1, 21)


@pytest.mark.slow
def test_samples_differ_and_a_scan_grows_by_them(llava, case_file, tmp_path):
    settings = {"exits": "2", "max_new_tokens": 8, "temperature": 1.5, "batch_size": 4}
    api.scan(llava, case_file, tmp_path / "run", samples=3, **settings)
    with opening.open_run(tmp_path / "run") as run:
        rows = list(run.rows())
    assert [row["sample"] for row in rows] == [0, 1, 2] * 6
    assert len({row["answer"] for row in rows}) > 10
    api.scan(llava, case_file, tmp_path / "run", samples=4, **settings)
    with opening.open_run(tmp_path / "run") as run:
        assert sum(map(len, run.answered().values())) == 24
        assert sum(session["rows"] for session in run.sessions()) == 24
        assert all(session["seconds"] > 0 for session in run.sessions())


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"samples": 2}, "greedy answers do not differ"),
        ({"samples": 0}, "samples 0: expected at least 1"),
        ({"samples": 10**20, "temperature": 1}, "are too many; expected at most 50,000,000"),
        ({"limit": 2**63}, "limit 9223372036854775808: is too large"),
        ({"system": "look: <image>"}, "system contains '<image>'"),
        ({"system": "be kind"}, "does not support a system prompt"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_written(given, says, llava, case_file, tmp_path):
    with pytest.raises(LayeralignError, match=says):
        api.scan(llava, case_file, tmp_path / "run", exits="2", max_new_tokens=2, **given)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mllama", "qwen2_5_vl", "gemma3", "internvl", "smolvlm", "qwen3_vl"])
def test_what_a_model_is_told_first_stands_before_the_request(name, tmp_path):
    vlm = load(tiny.save(name, tmp_path))
    said = vlm.prompt("Hello", picture=True, system="Be terse.")
    assert said.index("Be terse.") < said.index("Hello") and said != vlm.prompt("Hello", picture=True)
    assert "You are a helpful assistant" not in said


@pytest.mark.slow
def test_a_system_prompt_is_part_of_what_a_run_is(tmp_path, case_file):
    vlm = load(tiny.save("qwen2_5_vl", tmp_path / "model"))
    api.scan(vlm, case_file, tmp_path / "run", exits="1", max_new_tokens=2, system="Be terse.", limit=1)
    with opening.open_run(tmp_path / "run") as run:
        assert run.identity["decoding"]["system"] == "Be terse."
    with pytest.raises(LayeralignError, match="decoding"):
        api.scan(vlm, case_file, tmp_path / "run", exits="1", max_new_tokens=2, limit=1)
