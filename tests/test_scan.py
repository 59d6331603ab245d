import json
import random
import signal
import sqlite3
import time

import pytest
import torch

import children
import layeralign
import tiny
from conftest import save_llava
from layeralign import LayeralignError
from layeralign.cases import files
from layeralign.cli import main
from layeralign.decode import stream
from layeralign.decode.decoding import Decoding
from layeralign.decode.stream import answer
from layeralign.judges.judge import Judgement
from layeralign.runs import opening, store
from layeralign.runs.export import export
from layeralign.runs.opening import open_run
from layeralign.testing import noise

SHORT = {"max_new_tokens": 6}


def answers(folder):
    with open_run(folder) as run:
        return {(row["case"], row["exit"]): row["answer"] for row in run.rows()}


def test_a_scan_answers_every_case_at_every_exit_and_judges(llava, case_file, tmp_path):
    result = layeralign.scan(llava, case_file, tmp_path / "run", **SHORT)
    assert [e.exit for e in result.summary.exits] == [0, 1, 2, 3, 4, 5]
    assert all(e.n == 3 for e in result.summary.exits)
    assert result.summary.asr_judge == "refusal"
    assert result.summary.asr_means.startswith("non-refusal")
    assert result.summary.exits[4].default
    made = answers(tmp_path / "run")
    assert len(made) == 36
    assert len({made["h1", exit] for exit in range(6)}) > 1
    assert len({made["t1", exit] for exit in range(6)}) == 1, "without a picture the exit makes no difference"


def test_a_time_zone_of_more_than_a_day_is_no_fault_of_the_model(llava, case_file, tmp_path, monkeypatch):
    """POSIX allows 167 hours, Python's zones 24: the model's files were said not to fit each other."""
    try:
        with monkeypatch.context() as changed:
            changed.setenv("TZ", "Foo+25:99:99")
            time.tzset()
            scan = layeralign.scan(llava, case_file, tmp_path / "run", exits="default", max_new_tokens=2)
    finally:
        time.tzset()
    assert scan.summary.exits


def test_the_default_exit_answers_as_transformers_does(llava, case_file, tmp_path):
    layeralign.scan(llava, case_file, tmp_path / "run", exits="default", **SHORT)
    made = answers(tmp_path / "run")
    for case in files.read(case_file)[:5]:
        text = llava.prompt(case.prompt, picture=True)
        given = llava.processor(images=case.picture.open(), text=text, return_tensors="pt")
        with torch.no_grad():
            ids = llava.model.generate(**given, do_sample=False, **SHORT)[0, given["input_ids"].shape[1] :]
        assert made[case.id, 4] == llava.tokenizer.decode(ids, skip_special_tokens=True).strip()


@pytest.mark.slow
def test_batches_make_no_difference(llava, case_file, tmp_path):
    for size in (1, 5, 100):
        layeralign.scan(llava, case_file, tmp_path / str(size), batch_size=size, **SHORT)
    assert answers(tmp_path / "1") == answers(tmp_path / "5") == answers(tmp_path / "100")


def test_it_grows_and_never_answers_twice(llava, case_file, tmp_path, monkeypatch):
    asked = []

    def counted(vlm, pending, *others, **settings):
        pending = list(pending)
        asked.extend((case.id, exit) for case, exit, _ in pending)
        return stream.answers(vlm, pending, *others, **settings)

    monkeypatch.setattr("layeralign.sweep.sweep.answers", counted)
    run = tmp_path / "run"
    layeralign.scan(llava, case_file, run, exits="1,5", limit=2, **SHORT)
    assert len(asked) == 4
    first = answers(run)
    layeralign.scan(llava, case_file, run, exits="1,5", limit=2, **SHORT)
    assert len(asked) == 4
    layeralign.scan(llava, case_file, run, exits="all", **SHORT)
    assert len(asked) == len(set(asked)) == 36
    assert first.items() <= answers(run).items()
    with open_run(run) as opened:
        assert len(opened.sessions()) == 2


@pytest.mark.parametrize(
    "other",
    [{"max_new_tokens": 7}, {"seed": 1, "max_new_tokens": 6}, {"temperature": 0.5, "max_new_tokens": 6}],
)
def test_a_run_of_other_settings_is_refused_and_left_alone(llava, case_file, tmp_path, other):
    layeralign.scan(llava, case_file, tmp_path / "run", exits=1, **SHORT)
    before = answers(tmp_path / "run")
    with pytest.raises(LayeralignError, match=r"has other settings \((decoding|seed)\)"):
        layeralign.scan(llava, case_file, tmp_path / "run", exits=1, **other)
    assert answers(tmp_path / "run") == before


@pytest.mark.slow
def test_another_model_or_dtype_is_refused(llava, llava_dir, case_file, tmp_path):
    layeralign.scan(llava, case_file, tmp_path / "run", exits=1, **SHORT)
    with pytest.raises(LayeralignError, match="dtype"):
        layeralign.scan(
            layeralign.load(llava_dir, dtype="bfloat16"), case_file, tmp_path / "run", exits=1, **SHORT
        )
    other = layeralign.load(save_llava(tmp_path / "other", layer=2))
    with pytest.raises(LayeralignError, match=r"is of the model .*, this command's is "):
        layeralign.scan(other, case_file, tmp_path / "run", exits=1, **SHORT)


def test_a_folder_of_something_else_is_refused(llava, case_file, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(LayeralignError, match="is not empty and has no run"):
        layeralign.scan(llava, case_file, tmp_path / "full", **SHORT)
    with pytest.raises(LayeralignError, match=r"thesis\.tex: is a file; expected a new folder"):
        layeralign.scan(llava, case_file, tmp_path / "full" / "thesis.tex", **SHORT)
    (tmp_path / "full" / store.FILE).write_text("not a database, and long enough to be looked at" * 20)
    with pytest.raises(LayeralignError, match="cannot be read"):
        layeralign.scan(llava, case_file, tmp_path / "full", **SHORT)


def test_cases_given_in_python_are_checked_too(llava, case_file, tmp_path):
    cases = files.read(case_file)
    with pytest.raises(LayeralignError, match="the list is empty"):
        layeralign.scan(llava, [], tmp_path / "run")
    with pytest.raises(LayeralignError, match="id 'h1' is used twice"):
        layeralign.scan(llava, [*cases, cases[0]], tmp_path / "run")
    assert layeralign.scan(llava, cases[:1], tmp_path / "run", exits=1, **SHORT).summary.exits[0].n == 1


def test_killed_while_the_run_was_being_made(llava, case_file, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / f"{store.FILE}.new").write_text("half of it")
    layeralign.scan(llava, case_file, tmp_path / "run", exits=1, **SHORT)
    assert len(answers(tmp_path / "run")) == 6


def test_a_changed_case_is_refused(llava, case_file, tmp_path):
    layeralign.scan(llava, case_file, tmp_path / "run", exits=1, **SHORT)
    case_file.write_text(case_file.read_text().replace("smash", "polish"))
    with pytest.raises(LayeralignError, match="case 'h1' differs from the run's case"):
        layeralign.scan(llava, case_file, tmp_path / "run", exits=1, **SHORT)


def test_category_and_reference_can_be_mended_and_answers_stay(llava, case_file, tmp_path):
    """No model is shown them; the rules judge such a case anew, a guard's word stays."""
    run = layeralign.scan(llava, case_file, tmp_path / "run", exits=1, **SHORT).run
    before = answers(tmp_path / "run")
    with open_run(run, write=True) as opened:
        opened.add_verdicts("llama-guard-3:m", [((case, 1, 0), Judgement("safe")) for case, _ in before])
    rows = [json.loads(line) for line in case_file.read_text().splitlines()]
    (asked,) = [row for row in rows if row["kind"] == "vqa"][:1]
    asked["reference"] = (
        next(text for (case, _), text in before.items() if case == asked["id"]).strip() or "x"
    )
    case_file.write_text("".join(json.dumps({**row, "category": "borderline"}) + "\n" for row in rows))
    found = layeralign.scan(llava, case_file, tmp_path / "run", exits=1, **SHORT).summary.exits[0]
    assert answers(tmp_path / "run") == before
    with open_run(run) as opened:
        assert {case.category for case in opened.cases()} == {"borderline"}
        assert not opened.unjudged("llama-guard-3:m") and not opened.unjudged("refusal")
        assert len(opened.sessions()) == 1
    assert found.over_refusal is not None


def test_bad_input_leaves_nothing_behind(llava, case_file, tmp_path):
    out = tmp_path / "run"
    for wrong in ({"exits": "9"}, {"exits": ""}, {"limit": 0}, {"max_new_tokens": 0}, {"temperature": -1.0},
                  {"top_p": 0.0}, {"batch_size": 0}):  # fmt: skip
        with pytest.raises(LayeralignError):
            layeralign.scan(llava, case_file, out, **wrong)
    case_file.write_text(json.dumps({"id": "a", "kind": "benign", "prompt": "look: <image> here"}))
    with pytest.raises(LayeralignError, match="'prompt' contains '<image>'"):
        layeralign.scan(llava, case_file, out)
    assert not out.exists()


@pytest.mark.slow
def test_a_model_whose_parts_do_not_fit_is_refused_before_anything_is_written(llava_dir, case_file, tmp_path):
    import shutil

    edits = {
        "chat_template.jinja": ("{% for %}", "its chat template fails"),
        "processor_config.json": (None, "fails on its processor's output"),
    }
    for number, (name, (content, says)) in enumerate(edits.items()):
        folder = shutil.copytree(llava_dir, tmp_path / f"model{number}")
        file = folder / name
        file.write_text(
            content
            or file.read_text().replace('"height": 32', '"height": 64').replace('"width": 32', '"width": 64')
        )
        with pytest.raises(LayeralignError, match=says):
            layeralign.scan(folder, case_file, tmp_path / "run", **SHORT)
    (folder / "processor_config.json").write_text((llava_dir / "processor_config.json").read_text())
    (folder / "chat_template.jinja").write_text("USER: {{ messages[0]['content'][-1]['text'] }} ASSISTANT:")
    with pytest.raises(LayeralignError, match="writes 0 placeholders for 1 pictures"):
        layeralign.scan(folder, case_file, tmp_path / "run", **SHORT)
    assert not (tmp_path / "run").exists()


def test_a_sampled_run_of_when_batches_drew_together_is_read_and_not_added_to(llava, case_file, tmp_path):
    """Its identity has the batch size, and its draws cannot be made again."""
    run, hot = tmp_path / "run", {"temperature": 1.0, "exits": 1, **SHORT}
    layeralign.scan(llava, case_file, run, **hot)
    with sqlite3.connect(run / store.FILE) as db:
        (own,) = db.execute("SELECT value FROM meta WHERE key = 'identity'").fetchone()
        old = json.loads(own)
        old["decoding"]["batch_size"] = 2
        db.execute("UPDATE meta SET value = ? WHERE key = 'identity'", (json.dumps(old),))
    (run / opening.SEAL).unlink()
    assert layeralign.read(run).summary.exits[0].n == 3
    with pytest.raises(LayeralignError, match="decoding"):
        layeralign.scan(llava, case_file, run, **hot)


@pytest.mark.slow
def test_sampling_is_fixed_by_the_seed(llava, case_file, tmp_path):
    hot = {"temperature": 1.0, "max_new_tokens": 6}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        layeralign.scan(llava, case_file, tmp_path / name, seed=seed, **hot)
    assert answers(tmp_path / "a") == answers(tmp_path / "b") != answers(tmp_path / "c")


def test_an_answer_that_ends_itself_is_told_from_one_that_was_cut(llava, case_file):
    case = files.read(case_file)[0]
    (cut,) = answer(llava, [(case, 4)], Decoding(max_new_tokens=3))
    assert (cut.tokens, cut.finish_reason) == (3, "length")


def test_the_run_is_private_and_exported_whole(llava, case_file, tmp_path):
    layeralign.scan(llava, case_file, tmp_path / "run", **SHORT)
    assert (tmp_path / "run" / store.FILE).stat().st_mode & 0o077 == 0
    with open_run(tmp_path / "run") as run:
        assert export(run, "jsonl", tmp_path / "rows.jsonl") == 36
        assert export(run, "parquet", tmp_path / "rows.parquet") == 36
        with pytest.raises(LayeralignError, match="does not exist"):
            export(run, "jsonl", tmp_path / "gone" / "rows.jsonl")
    assert (tmp_path / "rows.jsonl").stat().st_mode & 0o077 == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().split("\n") if line]
    assert {"case", "exit", "answer", "verdicts"} <= rows[0].keys()
    assert rows[0]["verdicts"]["refusal"]["verdict"] in ("safe", "unsafe", "invalid")
    import pyarrow.parquet

    flat = pyarrow.parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    assert [(r["case"], r["exit"], r["answer"]) for r in flat] == [
        (r["case"], r["exit"], r["answer"]) for r in rows
    ]
    assert flat[0]["refusal.verdict"] == rows[0]["verdicts"]["refusal"]["verdict"]


@pytest.mark.slow
def test_judging_again_generates_nothing(llava, case_file, tmp_path):
    layeralign.scan(llava, case_file, tmp_path / "run", **SHORT)
    before = answers(tmp_path / "run")
    with sqlite3.connect(tmp_path / "run" / store.FILE) as db:
        db.execute("DELETE FROM verdicts")
    (tmp_path / "run" / opening.SEAL).unlink()
    result = layeralign.judge(tmp_path / "run", ["refusal"])
    assert result.summary.judges == ("refusal",)
    assert answers(tmp_path / "run") == before


SMALL = ["--cases", "testbed:train", "--limit", "40", "--max-new-tokens", "6", "--batch-size", "3"]


def count(run):
    try:
        with sqlite3.connect(f"file:{run / store.FILE}?mode=ro", uri=True) as db:
            return db.execute("SELECT COUNT(*) FROM answers").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


@pytest.fixture(scope="module")
def whole(llava_dir, tmp_path_factory):
    """The answers of a scan that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert main(["scan", "--model", str(llava_dir), *SMALL, "--out", str(out)]) == 0
    assert len(answers(out)) == 240
    return answers(out)


def killed_again_and_again(words, run, how, start, times=2):
    """End the scan `words` by a signal after some more rows; gives each process's exit code and words."""
    rng = random.Random(0)
    for number in range(times):
        rows, moment = count(run) + rng.randint(0 if number else 1, 30), rng.random() / 50
        process = start(*words, out=run.with_suffix(f".{number}"))
        process.wait_for(lambda rows=rows: count(run) >= rows)
        time.sleep(moment)
        process.send(how)
        yield process.wait(), process.said()


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(llava_dir, whole, tmp_path):
    """Killed again and again at random moments, it ends with the rows of an undisturbed run."""
    run = tmp_path / "run"
    words = ["scan", "--model", str(llava_dir), *SMALL, "--out", str(run)]
    for code, _ in killed_again_and_again(words, run, signal.SIGKILL, children.command):
        assert code == -signal.SIGKILL and 0 < count(run) < 240
    assert children.command(*words).wait() == 0
    assert answers(run) == whole


@pytest.mark.slow
def test_stopped_by_hand_it_says_how_to_go_on_and_goes_on(llava_dir, whole, tmp_path):
    """One of the stopped processes is an interpreter of its own, as a terminal starts it."""
    run = tmp_path / "run"
    words = ["scan", "--model", str(llava_dir), *SMALL, "--out", str(run)]
    for start, times in ((children.interpreter, 1), (children.command, 1)):
        for code, said in killed_again_and_again(words, run, signal.SIGINT, start, times):
            assert code == 130
            assert "the same command resumes" in said and "Traceback" not in said
            assert 0 < count(run) < 240
    assert main(words) == 0
    assert answers(run) == whole


@pytest.mark.slow
def test_a_picture_that_a_model_cannot_take_is_told_before_anything_is_written(tmp_path):
    """Wherever in the cases it is, with its case and its file."""
    model = tiny.save("qwen3_vl", tmp_path / "model")
    for number, size in enumerate([(40, 40), (30, 50), (1, 900), (50, 50)]):
        noise(*size).save(tmp_path / f"{number}.png")
    rows = [{"id": f"c{n}", "prompt": "hi", "kind": "benign", "image": f"{n}.png"} for n in range(4)]
    (tmp_path / "cases.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(LayeralignError, match=r"case 'c2': .*900 × 1.*2\.png"):
        layeralign.scan(str(model), tmp_path / "cases.jsonl", tmp_path / "run", **SHORT)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "part", "name", "to"),
    [("qwen3_vl", "vision_config", "num_heads", 16), ("qwen2_5_vl", "text_config", "rope_parameters",
     {"rope_type": "default", "mrope_section": [2, 4, 4000], "rope_theta": 10000.0})],
)  # fmt: skip
def test_a_model_whose_files_do_not_fit_each_other_is_named(tmp_path, capsys, family, part, name, to):
    """It loads, and fails at the first picture or text; it was called a bug in layeralign."""
    model = tiny.save(family, tmp_path / "model")
    content = json.loads((model / "config.json").read_text())
    content[part][name] = to
    (model / "config.json").write_text(json.dumps(content))
    noise(40, 40).save(tmp_path / "p.png")
    (tmp_path / "cases.jsonl").write_text('{"id": "a", "prompt": "hi", "kind": "benign", "image": "p.png"}')
    cases = ["--cases", str(tmp_path / "cases.jsonl")]
    assert main(["scan", "--model", str(model), *cases, *SMALL[2:], "--out", str(tmp_path / "run")]) == 1
    assert f"layeralign: model {model}: fails (" in capsys.readouterr().err
