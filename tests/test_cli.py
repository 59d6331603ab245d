import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

import children
from handmade import ROOT, cases, make, unsafe_first
from layeralign import LayeralignError
from layeralign._util.text import without_keys
from layeralign.cli import main
from layeralign.runs.opening import SEAL, open_run
from layeralign.runs.seal import UNSEALED
from layeralign.vlm.checkpoint import find_model


@pytest.fixture
def run(llava_dir, case_file, tmp_path, capfd):
    assert main(["scan", "--model", str(llava_dir), "--cases", str(case_file), "--out", str(tmp_path / "run"),
                 "--max-new-tokens", "4"]) == 0  # fmt: skip
    out = capfd.readouterr().out
    assert "ASR: non-refusal" in " ".join(out.split())  # the title wraps, as the path is long
    return tmp_path / "run"


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_config_file_gives_what_the_command_line_does_not(llava_dir, case_file, tmp_path):
    config = tmp_path / "scan.yaml"
    config.write_text(f"model: {llava_dir}\ncases: {case_file}\nexits: 1,5\nmax_new_tokens: 3\nlimit: 2\n")
    assert main(["scan", "--config", str(config), "--out", str(tmp_path / "run"), "--limit", "3"]) == 0
    assert main(["scan", f"--config={config}", "--out", str(tmp_path / "run"), "--exits", "-1"]) == 0
    from layeralign.runs.opening import open_run

    with open_run(tmp_path / "run") as opened:
        assert opened.identity["decoding"]["max_new_tokens"] == 3
        assert sum(map(len, opened.answered().values())) == 6


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
    (run / SEAL).unlink()
    assert main(["summary", str(run)]) == 0
    assert main(["report", str(run), "--out", str(tmp_path / "r.html")]) == 0
    out, err = capfd.readouterr()
    assert "\x1b" not in out + err and "\x07" not in out + err
    assert "[red]" in out


@pytest.mark.slow
@pytest.mark.parametrize("out", ["r.svg", "r.png", ".", "folder.html"])
def test_a_report_only_writes_a_page(tmp_path, run, out, capfd):
    (tmp_path / "folder.html").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert main(["report", str(run), "--out", str(tmp_path / out)]) == 1
    assert "expected a file that ends in .html" in capfd.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
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
        ("dtype: float8\n", "c.yaml, line 1: dtype is 'float8'; expected auto, float32, bfloat16, float16"),
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


@pytest.mark.slow
@pytest.mark.parametrize("verb", [["summary"], ["export"], ["judge", "--judge", "refusal"]])
def test_a_damaged_run_is_no_bug(run, capfd, verb):
    file = run / "run.sqlite"
    content = bytearray(file.read_bytes())
    content[3 * 4096 :] = bytes(len(content) - 3 * 4096)
    file.write_bytes(content)
    (run / SEAL).unlink()
    note = f"note: run {run}: was not closed: {UNSEALED}; repeat that command\n"
    assert main([verb[0], str(run), *verb[1:]]) == 1
    err = capfd.readouterr().err
    assert "a bug in" not in err
    notes, _, sentence = err.rpartition("layeralign: ")
    assert "cannot be read" in sentence or "is damaged" in sentence
    assert sentence.count("\n") == 1 and notes in ("", note)


@pytest.mark.parametrize("name", ["[]", '["a"]', "{}"])
def test_a_folder_whose_name_looks_like_json_is_a_folder(capsys, name):
    """The parser of arguments took it for a list, and failed at an empty one."""
    assert main(["summary", "a", name]) == 1 and main(["summary", name, "a"]) == 1
    assert f"run {name}: is not a run" in capsys.readouterr().err


def gpu_is_full():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


@pytest.mark.parametrize("fill", [lambda: bytearray(2**62), lambda: torch.empty(2**50), gpu_is_full])
def test_too_little_memory_is_one_sentence(tmp_path, monkeypatch, capsys, fill):
    """It was called a bug in layeralign."""
    monkeypatch.setattr("layeralign.analysis.results.Results.load", lambda path: fill())
    assert main(["summary", str(tmp_path)]) == 1
    assert "layeralign: there is not enough memory (" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["align", "reward"])
def test_a_seed_beyond_all_generators_is_one_sentence(tmp_path, capfd, verb):
    words = {
        "align": ["align", "--model", "testbed", "--cases", "testbed:train", "--method", "sft", "--out", "x"],
        "reward": ["reward", "train", "--pairs", "x", "--base", "x", "--out", "x"],
    }
    assert main([*words[verb], "--seed", "9" * 25]) == 1
    err = capfd.readouterr().err
    assert "seed 9999999999999999999999999: expected" in err and err.count("\n") == 1


@pytest.mark.slow
def test_a_variable_that_a_library_cannot_read_is_no_bug():
    said = subprocess.run(
        [sys.executable, "-m", "layeralign", "inspect", "--model", "testbed"],
        env={**os.environ, "HF_HUB_DOWNLOAD_TIMEOUT": "x"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 1 and said.stderr.startswith("layeralign: huggingface_hub cannot be imported (")
    assert "correct the variables of the environment" in said.stderr


@pytest.mark.parametrize("name", ["WORLD_SIZE", "LOCAL_RANK"])
def test_a_launchers_variable_that_is_none_is_one_sentence(name, monkeypatch):
    from accelerate import PartialState

    from layeralign.training.parallel import Workers

    monkeypatch.setattr(PartialState, "_shared_state", {})
    monkeypatch.setenv(name, "x")
    with pytest.raises(LayeralignError, match="launcher's variables are not usable"):
        Workers()


def test_a_sentence_has_a_normal_length(capfd, tmp_path):
    for name in ("x" * 5000, "y" * 3_000_000):
        (tmp_path / "cases.jsonl").write_text(
            json.dumps({"id": name, "prompt": "p", "kind": "benign"}) + "\n"
        )
        with (tmp_path / "cases.jsonl").open("a") as file:
            file.write(json.dumps({"id": name, "prompt": "p", "kind": "benign"}))
        assert main(["cases", str(tmp_path / "cases.jsonl")]) == 1
        said = capfd.readouterr().err
        assert len(said) < 1100 and "is already used in" in said and said.count("\n") == 1


def test_an_input_that_is_nested_too_deeply_is_no_bug(capfd, monkeypatch):
    def deep(*_):
        return deep()

    monkeypatch.setattr("layeralign.cli.config_file.take", deep)
    assert main(["cases", "x"]) == 1
    assert "layeralign: an input is nested too deeply" in capfd.readouterr().err


def test_debug_shows_the_traceback(capfd):
    assert main(["summary", "/nope", "--debug"]) == 1
    assert "Traceback" in capfd.readouterr().err


def test_help_is_quick_to_load():
    """Help must not wait for torch."""
    code = "import sys, layeralign.cli; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ctrl_c_is_a_sentence_soon_after_python_starts():
    """Until `run` begins, Ctrl-C shows a traceback; what is imported before it is small."""
    code = "import sys, layeralign.__main__; sys.exit('inspect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_commands_that_read_a_run_do_without_torch(tmp_path):
    """It takes seconds to import."""
    runs = [
        str(make(tmp_path / name, cases(20, 4, 4), unsafe_first({0: n}))) for name, n in (("a", 12), ("b", 2))
    ]
    (tmp_path / "p.yaml").write_text("rules: [{metric: asr, exits: all, upper_bound: 0.9}]\n")
    labels = tmp_path / "labels.jsonl"
    assert main(["label", runs[0], "--out", str(labels), "--n", "40"]) == 0
    asked = [
        json.loads(line) | {"label": ("safe", "unsafe")[at % 2]}
        for at, line in enumerate(labels.read_text().splitlines())
    ]
    labels.write_text("\n".join(json.dumps(row) for row in asked))
    commands = [
        ["--help"], ["scan", "--help"], ["align", "--help"],
        ["summary", runs[0]], ["card", runs[0]], ["gate", runs[0], "--policy", str(tmp_path / "p.yaml")],
        ["report", runs[0], "--out", str(tmp_path / "r.html")], ["export", runs[0]], ["verify", runs[0]],
        ["compare", *runs, "--out", str(tmp_path / "c.html")], ["figure", *runs, "--out", str(tmp_path / "f.csv")],
        ["label", runs[0], "--out", str(tmp_path / "l.jsonl")], ["label", runs[0], "--import", str(labels)],
        ["calibrate", runs[0], "--judge", "oracle", "--out", str(tmp_path / "q.json")],
    ]  # fmt: skip
    wrong = [
        ["scna"], ["scan"], ["scan", "--modle", "testbed"], ["judge", runs[0], "--judge", "nope"], ["cases", "xtest"],
        ["scan", "--model", "testbed", "--cases", "nope", "--out", "x"],
        ["scan", "--model", "/nope", "--cases", "testbed", "--limit", "4", "--out", "x"],
        ["align", "--model", "testbed", "--cases", "testbed:train", "--limit", "4", "--out", "x"],
    ]  # fmt: skip
    code = (
        "import json, sys; from layeralign.cli import main\n"
        "for code, command in json.loads(sys.argv[1]):\n"
        "    assert main(command) == code, command\n"
        "    assert 'torch' not in sys.modules and 'transformers' not in sys.modules, command\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps([(0, one) for one in commands] + [(1, one) for one in wrong])],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_check_does_without_torch_unless_the_encoder_was_cut(tmp_path, capfd):
    found = find_model("testbed")
    run = make(tmp_path / "run", cases(40), exits=range(9), layers=8, files=found.hashes, family="llava",
               variant="blocks: x", adapter=None)  # fmt: skip
    with open_run(run, write=True) as opened:
        opened.add_config(found.config())
    config = tmp_path / "config.json"
    config.write_text(json.dumps(found.config() | {"vision_feature_layer": 3}))
    code = (
        "import sys; from layeralign.cli import main\n"
        "code = main(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(code)"
    )
    for given, exit in (("testbed", 7), (str(config), 3)):
        done = subprocess.run([sys.executable, "-c", code, "check", given, "--against", str(run), "--limit", "0.2"],
                              capture_output=True, text=True, check=False)  # fmt: skip
        assert done.returncode == 0 and f"it runs at exit {exit}" in done.stdout, done.stdout + done.stderr


def test_the_process_ends_with_the_exit_code():
    done = subprocess.run(
        [sys.executable, "-m", "layeralign", "scan"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("layeralign: ")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("--limit many", "--limit many: expected a whole number"),
        ("--limit 2.5", "--limit 2.5: expected a whole number"),  # cyclopts would round it
        ("--max-new-tokens 1.5", "--max-new-tokens 1.5: expected a whole number"),
        ("--temperature warm", "--temperature warm: expected a number"),
        ("--dtype float17", "--dtype float17: expected one of auto, float32,"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_what_is_expected(tmp_path, capfd, given, says):
    assert main(f"scan --model testbed --cases testbed --out {tmp_path / 'run'} {given}".split()) == 1
    said = capfd.readouterr().err
    assert said.startswith(f"layeralign: scan: {says}") and "see layeralign scan --help" in said.replace(
        "\n", " "
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "command", ["summary {}", "summary --runs {}", "cases testbed --out {}", "compare x {}"]
)
def test_an_empty_path_is_not_the_working_folder(command, tmp_path, capfd, monkeypatch):
    """As from a shell's variable that is not set."""
    monkeypatch.chdir(tmp_path)
    assert main([word.replace("{}", "") for word in command.split()]) == 1
    said = capfd.readouterr().err
    assert "expected a path, but it is empty; see layeralign " in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("scan --bogus 1", "scan: --bogus is unknown; see layeralign scan --help"),
        (
            "export r --out a -o b",
            "export: -o is given a second value; keep one of them; see layeralign export",
        ),
        (
            "scan --modle testbed",
            "scan: --modle is unknown; did you mean --model? see layeralign scan --help",
        ),
        ("scan --limit many --cses x", "scan: --cses is unknown; did you mean --cases?"),
        ("judge x --jugde=y", "judge: --jugde is unknown; did you mean --judge?"),
        ("reward train --par x", "reward train: --par is unknown; did you mean --pairs?"),
        ("summary -x", "summary: -x is unknown"),
        ("summary x --json", "summary: --json is unknown; did you mean --format?"),
        ("gate x --json", "gate: --json is unknown; did you mean --format?"),
        ("verify x --json", "verify: --json is unknown; see"),
        ("scan --dataset x", "scan: --dataset is unknown; did you mean --cases?"),
        ("scan --model_name_or_path=x", "scan: --model_name_or_path is unknown; did you mean --model?"),
        ("scan --max-samples 3", "scan: --max-samples is unknown; did you mean --limit?"),
        ("scan --lora x", "scan: --lora is unknown; did you mean --adapter?"),
        ("align --learning-rate 1", "align: --learning-rate is unknown; did you mean --lr?"),
        ("align --num-train-epochs 1", "align: --num-train-epochs is unknown; did you mean --epochs?"),
        (
            "align --gradient-accumulation-steps 2",
            "align: --gradient-accumulation-steps is unknown; did you mean --accu",
        ),
        ("align --max_newtokens 3", "align: --max_newtokens is unknown; did you mean --max-new-tokens?"),
    ],
)
def test_an_unknown_flag_is_named_before_all_else_with_the_nearest_one(capfd, given, says):
    assert main(given.split()) == 1
    err = capfd.readouterr().err
    assert err.startswith(f"layeralign: {says}") and err.count("\n") == 1


def test_an_unknown_benchmark_comes_with_the_nearest_one(capfd):
    assert main(["cases", "xtest"]) == 1
    assert "(did you mean xstest?)" in capfd.readouterr().err


@pytest.mark.slow
def test_habits_of_transformers_work(tmp_path, capfd):
    for out in (["--output", str(tmp_path / "a")], ["-o", str(tmp_path / "b")]):
        command = ["scan", "--model", "testbed", "--cases", "testbed", "--limit", "4", "--exits", "7", "--dtype", "fp32",
                   "--device", "cpu", "--seed", "1", "--max_new_tokens", "4", *out]  # fmt: skip
        assert main(command) == 0
        assert capfd.readouterr().err.startswith("loading testbed: 2.52 M parameters, float32 on cpu\n")
    assert main(["scan", "--model", "testbed", "--cases", "testbed", "--dtype", "float8", "--out", "x"]) == 1
    assert "float8" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["compare A B", "inspect --model testbed", "plan --cases testbed --limit 20 --like A"]
)
def test_format_is_the_same_flag_everywhere(tmp_path, capfd, command):
    runs = {n: str(make(tmp_path / n, cases(9), unsafe_first({0: 4}), model=n)) for n in ("A", "B")}
    words = [runs.get(word, word) for word in command.split()]
    if words[0] == "plan":
        words[-2:] = ["--model", "testbed"]
    shown = []
    for flag in (["--format", "json"], ["--json"]):
        assert main([*words, *flag]) == 0
        shown.append(json.loads(capfd.readouterr().out))
    assert shown[0] == shown[1]


def test_help_shows_no_opposites_and_the_groups_of_the_readme(capfd):
    helps = {}
    for command in ("", "scan", "align", "judge", "figure"):
        assert main([*command.split(), "--help"]) == 0
        helps[command] = capfd.readouterr().out
    every = " ".join(helps.values())
    assert "--empty-" not in every and re.findall(r"--no-[\w-]+", every) == ["--no-whiten"]
    assert '[default: ""]' not in every and "[default: False]" not in every
    groups = ["Find the hole", "Judge the answers", "Close the hole", "Ship the model"]
    readme = (ROOT / "README.md").read_text()
    assert [re.search(rf"─ {group} ─", helps[""]) is not None for group in groups] == [True] * 4
    assert all(f"| {group.lower()} |" in readme for group in groups)


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_made_without_torch(tmp_path, shell):
    code = (
        "import sys; from layeralign.cli import main\n"
        "code = main(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(code)"
    )
    file = tmp_path / "completion"
    done = subprocess.run(
        [sys.executable, "-c", code, "--install-completion", "--shell", shell, "--output", str(file)],
        capture_output=True, text=True, check=False, env=os.environ | {"HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = file.read_text()
    for word in ("scan", "calibrate", "max-new-tokens", "bfloat16"):
        assert word in made
    if shell == "bash":
        assert subprocess.run(["bash", "-n", str(file)], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.05, 0.1, 0.2, 0.3, 0.5])
def test_ctrl_c_is_one_sentence_from_the_start(tmp_path, after):
    """Before Python itself runs the first line of ours, only the interpreter can answer the signal."""
    command = ["scan", "--model", "testbed", "--cases", "testbed", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "layeralign", *command], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, preexec_fn=children.heed_signals,
    )  # fmt: skip
    for line in process.stderr:  # until the first import of the command line
        if line.rstrip().endswith("sqlite3.dbapi2"):
            break
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    said = [line for line in err.splitlines() if line and not line.startswith("import time:")]
    assert process.returncode == 130 and "Traceback" not in out + err
    assert said[-1] == "stopped; finished work is saved, and the same command resumes it"


def in_python(code):
    """The end of an interpreter of its own that runs some code, and heeds signals."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=20,
        preexec_fn=children.heed_signals,
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_inside_a_callback_that_drops_exceptions_stops(number):
    """A weak reference's callback, as the import system has one for each module."""
    code = f"""
import os, time, weakref
from layeralign._util import stopping
class Thing: pass
stopping.listen()
thing = Thing()
reference = weakref.ref(thing, lambda _: (os.kill(os.getpid(), {int(number)}), [None for _ in range(100)]))
try:
    del thing
    time.sleep(30)
except KeyboardInterrupt as stop:
    raise SystemExit(stopping.told(stop))
"""
    done = in_python(code)
    assert done.returncode == 128 + number and "Traceback" not in done.stderr
    assert done.stderr.strip() == "stopped; finished work is saved, and the same command resumes it"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_library_that_raises_an_interrupt_of_its_own_keeps_the_exit_code(number):
    """As Ray does while it waits, and a scan on it that SIGTERM ended had the exit code of Ctrl-C."""
    code = f"""
import os, time
from layeralign._util import stopping
stopping.listen()
try:
    try:
        os.kill(os.getpid(), {int(number)})
        time.sleep(30)
    except KeyboardInterrupt:
        raise KeyboardInterrupt from None
except KeyboardInterrupt as stop:
    raise SystemExit(stopping.told(stop))
"""
    done = in_python(code)
    assert done.returncode == 128 + number


@pytest.mark.slow
@pytest.mark.parametrize(("level", "code"), [("1", 0), ("2", 1)])
def test_python_without_docstrings_is_one_sentence(level, code):
    done = subprocess.run(
        [sys.executable, "-m", "layeralign", "--help"], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONOPTIMIZE": level},
    )  # fmt: skip
    assert done.returncode == code
    if code:
        assert done.stderr.count("\n") == 1 and "set PYTHONOPTIMIZE to 0 or 1" in done.stderr


def test_a_run_of_another_model_is_refused_by_name(tmp_path):
    from layeralign.runs import opening

    make(tmp_path / "run", cases(3), model="one/model", files={"config.json": "0" * 64})
    with pytest.raises(
        LayeralignError, match="is of the model one/model, this command's is another/model; use another"
    ):
        opening.create(tmp_path / "run", "another/model", {"a": 1, "files": {"config.json": "1" * 64}}, {})
    with pytest.raises(LayeralignError, match=r"\(a, files\): its a is 1"):
        opening.create(tmp_path / "run", "one/model", {"a": 2, "files": {}}, {})


def test_a_reward_function_is_found_in_the_working_folder(tmp_path, monkeypatch):
    from layeralign.rewards.reward import load_reward

    (tmp_path / "my_reward.py").write_text("def score(cases, answers):\n    return [1.0 for _ in answers]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])
    assert load_reward("my_reward:score").score(cases(2), ["a", "b"]).tolist() == [1.0, 1.0]
    with pytest.raises(LayeralignError, match="expected a module in this folder, on PYTHONPATH or installed"):
        load_reward("no_such_reward:score")


@pytest.mark.parametrize(
    "address", ["http://u:KEY@h/v1", "https://h/v1?key=KEY", "HTTP://h/v1#KEY", "//KEY@h"]
)
@pytest.mark.parametrize("flags", [[], ["--debug"]])
def test_a_key_in_an_address_at_the_wrong_place_is_not_shown(address, flags, tmp_path, capsys):
    given = tmp_path / "given.yaml"
    given.write_text(f'judge: ["llm:m@{address}"]\n')
    for arguments in (
        ["scan", "--model", "testbed", "--cases", address, "--out", str(tmp_path / "run")],
        ["summary", address],
        ["judge", str(tmp_path), "--config", str(given)],
    ):
        assert main([*arguments, *flags]) == 1
        said = capsys.readouterr()
        assert "KEY" not in said.out + said.err and "…" in said.err


def test_a_message_of_many_addresses_is_read_at_once():
    for text in ("http:/" * 200_000, "//" * 200_000, "http:/x?" * 100_000):
        start = time.process_time()
        without_keys(text)
        assert time.process_time() - start < 2
    assert without_keys("see http://h:8000/v1, http://h/x? and 'https://h/?k=a'") == (
        "see http://h:8000/v1, http://h/x? and 'https://h/?…'"
    )
