import json
import os
import subprocess
import sys

import pytest

from handmade import cases, make, unsafe_first
from layeralign.cli import main


@pytest.fixture
def run(llava_dir, case_file, tmp_path, capfd):
    assert main(["scan", "--model", str(llava_dir), "--cases", str(case_file), "--out", str(tmp_path / "run"),
                 "--max-new-tokens", "4"]) == 0  # fmt: skip
    out = capfd.readouterr().out
    assert "ASR: non-refusal" in out
    return tmp_path / "run"


def test_summary_export_report_judge(run, tmp_path, capfd):
    assert main(["summary", str(run), "--format", "json"]) == 0
    made = json.loads(capfd.readouterr().out)
    assert [e["exit"] for e in made["exits"]] == [0, 1, 2, 3, 4, 5]
    assert main(["summary", str(run)]) == 0
    assert "crim." in capfd.readouterr().out
    assert main(["judge", str(run), "--judge", "refusal"]) == 0
    assert main(["export", str(run)]) == 0
    assert len((run / "rows.jsonl").read_text().splitlines()) == 36
    assert main(["export", str(run), "--format", "parquet", "--out", str(tmp_path / "r.parquet")]) == 0
    assert main(["report", str(run), "--out", str(tmp_path / "page" / "r.html")]) == 0
    assert {f.suffix for f in (tmp_path / "page").iterdir()} == {".html"}


def test_a_config_file_gives_what_the_command_line_does_not(llava_dir, case_file, tmp_path):
    config = tmp_path / "scan.yaml"
    config.write_text(f"model: {llava_dir}\ncases: {case_file}\nexits: 1,5\nmax_new_tokens: 3\nlimit: 2\n")
    assert main(["scan", "--config", str(config), "--out", str(tmp_path / "run"), "--limit", "3"]) == 0
    assert main(["scan", f"--config={config}", "--out", str(tmp_path / "run"), "--exits", "-1"]) == 0
    from layeralign.runs.store import open_run

    with open_run(tmp_path / "run") as opened:
        assert opened.identity["decoding"]["max_new_tokens"] == 3
        assert len(opened.answered()) == 6


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["scan"], "--model"),
        (["scna"], "scna"),
        (["scan", "--model", "testbed", "--cases", "x", "--out", "y", "--bogus", "1"], "--bogus"),
        (["scan", "--model", "testbed", "--cases", "x", "--out", "y", "--limit", "many"], "many"),
        (["scan", "--model", "testbed", "--cases", "nope.jsonl", "--out", "OUT"], "nope.jsonl: no such file"),
        (["scan", "--model", "testbed", "--cases", "testbed:prod", "--out", "OUT"], "train, dev, test"),
        (["scan", "--model", "/nope", "--cases", "testbed", "--out", "OUT"], "/nope: no such folder"),
        (["scan", "--config", "nope.yaml"], "nope.yaml: no such file"),
        (["summary", "/nope"], "is not a run"),
        (["export", "/nope"], "is not a run"),
        (["judge", "/nope"], "is not a run"),
        (["summary", "/nope", "--format", "xml"], "xml"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_1(tmp_path, capfd, arguments, says):
    arguments = [str(tmp_path / "out") if a == "OUT" else a for a in arguments]
    assert main(arguments) == 1
    out, err = capfd.readouterr()
    assert err.startswith("layeralign: ") and says in err
    assert "Traceback" not in out + err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("summary", "summary: RUNS is missing; see layeralign summary --help"),
        ("compare x", "compare: AFTER is missing; see layeralign compare --help"),
        ("scan", "scan: --model is missing; see layeralign scan --help"),
        ("reward train", "reward train: --pairs is missing; see layeralign reward train --help"),
        ("summary x --judge", "summary: --judge needs a value; see layeralign summary --help"),
    ],
)
def test_what_is_missing_is_named_as_it_is_written(capfd, given, says):
    assert main(given.split()) == 1
    assert capfd.readouterr().err == f"layeralign: {says}\n"


@pytest.mark.parametrize(
    "line", ["max_new_tokens: yes", "limit: 1.5", "scan: {exits: 4}", "exits: [1, 2]", "1: 2", "- x"]
)
def test_a_config_is_not_guessed_at(tmp_path, capfd, line):
    config = tmp_path / "c.yaml"
    config.write_text(f"{line}\n")
    assert main(["scan", "--config", str(config), "--model", "x", "--cases", "y", "--out", "z"]) == 1
    err = capfd.readouterr().err
    assert "c.yaml" in err and "expected" in err and err.count("\n") == 1


@pytest.mark.slow
def test_escape_sequences_do_not_reach_the_terminal(tmp_path, capfd, run):
    assert main(["scan", "--model", "./\x1b[31mgone", "--cases", "testbed", "--out", "z"]) == 1
    import sqlite3

    with sqlite3.connect(run / "run.sqlite") as db:
        db.execute(
            "UPDATE meta SET value = ? WHERE key = 'model'", (json.dumps("m\x1b]0;owned\x07[red]$\\foo$"),)
        )
    assert main(["summary", str(run)]) == 0
    assert main(["report", str(run), "--out", str(tmp_path / "r.html")]) == 0
    out, err = capfd.readouterr()
    assert "\x1b" not in out + err and "\x07" not in out + err
    assert "[red]" in out


@pytest.mark.parametrize("out", ["r.svg", "r.png", ".", "folder.html"])
def test_a_report_only_writes_a_page(tmp_path, run, out, capfd):
    (tmp_path / "folder.html").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert main(["report", str(run), "--out", str(tmp_path / out)]) == 1
    assert "expected a file that ends in .html" in capfd.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_an_export_into_a_folder_is_refused(tmp_path, run):
    assert main(["export", str(run), "--out", str(tmp_path)]) == 1


def test_a_config_that_is_no_yaml_is_named(tmp_path, capfd):
    config = tmp_path / "c.yaml"
    config.write_text("model: [")
    assert main(["scan", "--config", str(config)]) == 1
    err = capfd.readouterr().err
    assert "c.yaml, line 1: is not valid YAML" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed: 1\nlimit: 3\nseed: 2\n", "c.yaml, line 3: has 'seed' twice"),
        ("seed: 010\n", "c.yaml, line 1: 010 is 8 in YAML"),
        ("max_new_tokens: 3\nmax-new-tokens: 4\n", "line 2: max-new-tokens is unknown; expected model, "),
        ("limit: 3\nexitz: 1\n", "c.yaml, line 2: exitz is unknown; expected model, revision"),
        ("seed: 1\nlimit:\n", "c.yaml, line 2: limit is nothing; expected a whole number"),
        ("temperature: hot\n", "c.yaml, line 1: temperature is 'hot'; expected a number"),
        ("screen: 1\n", "c.yaml, line 1: screen is 1; expected true or false"),
        ("exits: [1, 2]\n", "c.yaml, line 1: exits is [1, 2]; expected a text"),
        ("dtype: float8\n", "c.yaml, line 1: dtype is 'float8'; expected float32, bfloat16, float16"),
        ("<<: {limit: 3}\n", "c.yaml, line 1: "),
        ('system: "\\ud800"\n', "c.yaml, line 1: holds half a character"),
    ],
)
def test_what_a_config_has_wrong_is_one_sentence(tmp_path, capfd, text, says):
    config = tmp_path / "c.yaml"
    config.write_text(text)
    command = ["scan", "--config", str(config), "--model", "x", "--cases", "y", "--out", str(tmp_path / "z")]
    assert main(command) == 1
    err = capfd.readouterr().err
    assert says in err and err.count("\n") == 1


def test_every_switch_can_be_in_a_config(tmp_path, capfd):
    runs = [str(make(tmp_path / name, cases(4), unsafe_first({0: 1}))) for name in ("a", "b")]
    (tmp_path / "c.yaml").write_text(f"before: {runs[0]}\nafter: {runs[1]}\njson: true\n")
    assert main(["compare", "--config", str(tmp_path / "c.yaml")]) == 0
    assert json.loads(capfd.readouterr().out)["exits"]
    assert main(["compare", "--help", "--config", str(tmp_path / "c.yaml")]) == 0


LATIN = os.fsdecode(b"caf\xe9")
"""A name in the encoding of another time."""


@pytest.mark.parametrize(
    "words",
    [
        ["scan", "--model", "testbed", "--cases", "testbed", "--limit", "4", "--out", f"OUT/{LATIN}"],
        [
            "scan",
            "--model",
            "testbed",
            "--cases",
            "testbed",
            "--limit",
            "4",
            "--out",
            "OUT/run",
            "--system",
            LATIN,
        ],
        ["scan", "--model", "testbed", "--cases", f"OUT/{LATIN}", "--out", "OUT/run"],
        ["cases", "testbed", "--limit", "4", "--out", f"OUT/{LATIN}.jsonl"],
        [
            "align",
            "--model",
            "testbed",
            "--cases",
            "testbed:train",
            "--method",
            "sft",
            "--out",
            f"OUT/{LATIN}",
        ],
    ],
)
def test_an_argument_that_is_no_text_is_one_sentence(tmp_path, capfd, words):
    assert main([word.replace("OUT", str(tmp_path)) for word in words]) == 1
    err = capfd.readouterr().err
    assert (
        "caf\ufffd" in err and "is not valid UTF-8; rename the file or folder" in err and err.count("\n") == 1
    )
    assert not list(tmp_path.iterdir())


def test_pictures_in_a_folder_whose_name_is_no_text_are_one_sentence(tmp_path, monkeypatch, case_file, capfd):
    folder = tmp_path / LATIN
    folder.mkdir()
    for name in ("cases.jsonl", "images"):
        (tmp_path / name).rename(folder / name)
    monkeypatch.chdir(folder)
    command = ["scan", "--model", "testbed", "--cases", "cases.jsonl", "--out", str(tmp_path / "run")]
    assert main(command) == 1
    err = capfd.readouterr().err
    assert (
        "image 'images/0.png': is in a folder whose name is not valid UTF-8" in err and err.count("\n") == 1
    )


@pytest.mark.parametrize("verb", [["summary"], ["export"], ["judge", "--judge", "refusal"]])
def test_a_damaged_run_is_no_bug(run, capfd, verb):
    file = run / "run.sqlite"
    content = bytearray(file.read_bytes())
    content[3 * 4096 :] = bytes(len(content) - 3 * 4096)
    file.write_bytes(content)
    assert main([verb[0], str(run), *verb[1:]]) == 1
    err = capfd.readouterr().err
    assert "run.sqlite cannot be read or written" in err and "bug" not in err and err.count("\n") == 1


@pytest.mark.parametrize("verb", ["align", "reward"])
def test_a_seed_beyond_all_generators_is_one_sentence(tmp_path, capfd, verb):
    words = {
        "align": ["align", "--model", "testbed", "--cases", "testbed:train", "--method", "sft", "--out", "x"],
        "reward": ["reward", "train", "--pairs", "x", "--base", "x", "--out", "x"],
    }
    assert main([*words[verb], "--seed", "9" * 25]) == 1
    err = capfd.readouterr().err
    assert "seed 9999999999999999999999999: expected" in err and err.count("\n") == 1


def test_debug_shows_the_traceback(capfd):
    assert main(["summary", "/nope", "--debug"]) == 1
    assert "Traceback" in capfd.readouterr().err


def test_help_is_quick_to_load():
    """Help must not wait for torch."""
    code = "import sys, layeralign.cli; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_commands_that_read_a_run_do_without_torch(tmp_path):
    """It takes seconds to import."""
    runs = [
        str(make(tmp_path / name, cases(20, 4, 4), unsafe_first({0: n}))) for name, n in (("a", 9), ("b", 2))
    ]
    (tmp_path / "p.yaml").write_text("rules: [{metric: asr, exits: all, upper_bound: 0.9}]\n")
    commands = [
        ["summary", runs[0]], ["card", runs[0]], ["gate", runs[0], "--policy", str(tmp_path / "p.yaml")],
        ["report", runs[0], "--out", str(tmp_path / "r.html")], ["export", runs[0]],
        ["compare", *runs, "--out", str(tmp_path / "c.html")], ["figure", *runs, "--out", str(tmp_path / "f.csv")],
    ]  # fmt: skip
    code = (
        "import json, sys; from layeralign.cli import main\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    assert main(command) == 0, command\n"
        "    assert 'torch' not in sys.modules and 'transformers' not in sys.modules, command\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_process_ends_with_the_exit_code():
    done = subprocess.run(
        [sys.executable, "-m", "layeralign", "scan"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("layeralign: ")
