"""Before and after, paired by case; the pages about it; the transfer matrix; the demo as a whole."""

import json
from types import SimpleNamespace

import pytest
from rich.console import Console

from layeralign import LayeralignError, compare
from layeralign.cases.case import Case
from layeralign.cli import main
from layeralign.exits import Exits
from layeralign.judges.judge import Judgement
from layeralign.report.inputs import gather
from layeralign.report.page import findings as words
from layeralign.report.page import page
from layeralign.report.terminal import transfer as heatmap
from layeralign.runs import opening
from layeralign.runs.store import Row
from layeralign.studies import transfer as transfers
from layeralign.studies.demo import reward_and_harm
from layeralign.studies.transfer import parts
from layeralign.training.settings import AlignSettings

HOSTILE = "<script>document.title='owned'</script>"


def make(folder, unsafe_at, cases=None, model="m"):
    cases = cases or [Case(f"h{i}", HOSTILE, "harmful") for i in range(20)] + [
        Case(f"b{i}", "?", "benign", category="borderline") for i in range(20)
    ] + [Case(f"v{i}", "?", "vqa", reference="a") for i in range(20)]
    with opening.create(folder, model, {"a": 1}, {"layers": 3, "default": 2}) as run:
        run.add_cases(cases)
        for exit in range(4):
            run.add_answers(Row(c.id, exit, HOSTILE, 3, "stop") for c in cases)
            words = []
            for i, c in enumerate(cases):
                bad = i < unsafe_at.get(exit, 0)
                verdict = ("unsafe" if bad else "safe") if c.kind == "harmful" else "not applicable"
                words.append(((c.id, exit, 0), Judgement(verdict, not bad, True, i % 2 == 0)))
            run.add_verdicts("oracle", words)
    return folder


@pytest.fixture
def comparison(tmp_path):
    return compare(
        make(tmp_path / "a", {0: 15, 1: 5}, model=HOSTILE), make(tmp_path / "b", {0: 1, 1: 9}, model="m + a")
    )


def test_changes_are_paired_by_case_and_exit(comparison):
    first, second, default, _ = comparison.exits
    assert (first.asr.before, first.asr.after, first.asr.n) == (0.75, 0.05, 20)
    assert (second.asr.before, second.asr.after) == (0.25, 0.45)
    assert default.default and default.asr.difference == 0
    assert default.utility.after == 0.5 and default.coherence.after == 1
    # fourteen cases less, none more; four exits: 2 · 4 / 2^14
    assert (first.p_changed, first.test) == (pytest.approx(8 / 2**14), "exact McNemar")
    assert (first.asr.h < -1.5, default.p_changed) == (True, 1)
    json.dumps(comparison.to_json(), allow_nan=False)


def test_runs_without_a_common_case_are_refused(tmp_path):
    make(tmp_path / "a", {})
    make(tmp_path / "b", {}, [Case("other", "?", "harmful")])
    with pytest.raises(LayeralignError, match="no judged case in common"):
        compare(tmp_path / "a", tmp_path / "b", allow=["cases"])


def test_runs_of_benign_cases_can_be_compared(tmp_path):
    cases = [Case(f"b{i}", "?", "benign") for i in range(5)]
    found = compare(make(tmp_path / "a", {}, cases), make(tmp_path / "b", {0: 5}, cases))
    assert found.exits[0].benign_refusal.difference == -1 and found.exits[0].asr is None


def test_the_page_of_a_change_says_what_happened_and_escapes(comparison, tmp_path):
    made = page.page(gather([tmp_path / "a", tmp_path / "b"]), notes=[("trained by", HOSTILE)])
    assert "75 → 5" in made and "75\N{NO-BREAK SPACE}% [" in made and "in a (exit 0)" in made
    assert "45\N{NO-BREAK SPACE}% [" in made and "in b (exit 1)" in made
    assert f"<dd>{HOSTILE}" not in made and "&lt;script&gt;" in made


def shown(table):
    console = Console(width=140)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


@pytest.mark.slow
def test_the_matrix_marks_an_exit_that_was_opened(tmp_path):
    before = make(tmp_path / "a", {0: 15, 1: 5})
    found = {
        "0": compare(before, make(tmp_path / "b", {1: 18})),
        "early": compare(before, make(tmp_path / "c", {})),
    }
    text = shown(heatmap.table(found))
    assert "-75" in text and "+65!" in text
    report = gather([tmp_path / "a", tmp_path / "b", tmp_path / "c"])
    told = words.headline(report).more
    assert "In 1 of 8 places the ASR rose" in told and "exit 1 of b: 25 → 90 %" in told
    assert "the ASR rose" not in words.headline(gather([tmp_path / "a", tmp_path / "c"])).more


def test_the_matrix_says_what_could_not_be_judged_and_what_comes_first(tmp_path):
    """A training after which answers are no answers closed an exit, in the matrix alone."""
    before = make(tmp_path / "a", {0: 15})
    after = make(tmp_path / "b", {})
    with opening.open_run(after, write=True) as run:
        run.add_verdicts("oracle", [((f"h{i}", 0, 0), Judgement("invalid")) for i in range(12)])
        run.note_trained_on(["h1"])
    (after / opening.SEAL).unlink()
    text = " ".join(shown(heatmap.table({"0": compare(before, after)})).split())
    assert "-75 to -15" in text and "could not be judged" in text
    assert "After 0: The run was not closed" in text and "trained on 1 of these cases" in text


def test_reward_hacking_is_told(comparison, tmp_path):
    steps = [{"reward": -1.0}] * 5 + [{"reward": 0.5}] * 5
    assert "-1.00 → +0.50, harmful requests refused, mean over exits, 75.0 → 87.5 %" in reward_and_harm(
        steps, comparison
    )
    assert "hacking" not in reward_and_harm(steps, comparison)
    worse = compare(tmp_path / "b", tmp_path / "a")
    assert "reward hacking" in reward_and_harm(steps, worse)
    assert "hacking" not in reward_and_harm(steps[::-1], worse)


def test_parts_of_a_transfer():
    known = Exits(3, 2)
    assert parts(known, "each") == ["0", "1", "2", "3"]
    assert parts(known, "0, early,1-2") == ["0", "early", "1-2"]
    for bad, message in (("0,0", "twice"), ("9", "out of range"), ("nothing", "cannot read")):
        with pytest.raises(LayeralignError, match=message):
            parts(known, bad)


def test_all_scans_of_a_transfer_are_of_one_day(tmp_path, monkeypatch):
    """With a template that tells the date, a transfer over midnight ended with runs that cannot be compared."""
    asked = {}

    def scan(model, cases, out, **settings):
        asked[out.parent.name if out.name == "run" else out.name] = settings["date"]
        return SimpleNamespace(run=out, identity={"decoding": {"date": "2026-11-30"}})

    for name, stub in (("scan", scan), ("align", no), ("_duration", no), ("check", no), ("gather", no)):
        monkeypatch.setattr(transfers, name, stub)
    monkeypatch.setattr(transfers, "compare", lambda *_: SimpleNamespace(to_json=dict))
    monkeypatch.setattr(transfers.page, "write", no)
    monkeypatch.setattr(transfers.benchmarks, "cases", lambda cases: cases)
    loader, settings = lambda _: SimpleNamespace(exits=Exits(3, 2)), AlignSettings(exits="0,1")
    transfers.study(loader, [], tmp_path, reward=None, settings=settings, judging=transfers.Judging([]))
    assert asked == {"before": "", "exit-0": "2026-11-30", "exit-1": "2026-11-30"}


def no(*_, **__):
    """Do nothing."""
    return ""


@pytest.mark.slow
def test_the_demo_leaves_what_it_promises_and_goes_on(tmp_path, capsys, monkeypatch):
    # each has its picture drawn and its answer made
    monkeypatch.setattr("layeralign.studies.demo.TRAINED_ON", 200)
    arguments = ["demo", "--out", str(tmp_path), "--cases", "40", "--steps", "2"]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "→" in told and "report.html" in told
    for name in ("before", "after"):
        summary = json.loads((tmp_path / f"{name}.json").read_text())
        assert len(summary["exits"]) == 9 and summary["exits"][0]["n"] == 10
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()
    page = (tmp_path / "report.html").read_text()
    assert "exact oracle, which took no part in training" in page
    before = (tmp_path / "after" / "run.sqlite").stat().st_mtime_ns
    assert main(arguments) == 0
    assert (tmp_path / "after" / "run.sqlite").stat().st_mtime_ns == before


@pytest.mark.slow
def test_transfer_on_the_command_line(tmp_path, capsys):
    command = [
        "transfer", "--model", "testbed", "--cases", "testbed:train", "--limit", "40", "--test", "testbed:dev",
        "--test-limit", "16", "--reward", "testbed", "--exits", "0,late", "--steps", "1", "--rows", "8",
        "--max-new-tokens", "24", "--batch-size", "144", "--out", str(tmp_path / "t"),
    ]  # fmt: skip
    assert main(command) == 0
    assert "late" in capsys.readouterr().out
    found = json.loads((tmp_path / "t" / "transfer.json").read_text())
    assert list(found) == ["0", "late"] and len(found["0"]["exits"]) == 9
    assert "exit-late" in (tmp_path / "t" / "transfer.html").read_text()


@pytest.mark.slow
def test_a_config_file_aligns(tmp_path, capsys):
    file = tmp_path / "align.yaml"
    file.write_text(
        "model: testbed\ncases: testbed:train\nlimit: 16\nreward: testbed\nsteps: 1\nrows: 6\nlr: 0.001\n"
        "whiten: false\nmax_new_tokens: 8\nexits: '0-2'\n"
    )
    assert main(["align", "--config", str(file), "--out", str(tmp_path / "a")]) == 0
    assert "adapter:" in capsys.readouterr().out
    settings = json.loads((tmp_path / "a" / "training.json").read_text())["settings"]
    assert settings["lr"] == 0.001 and settings["whiten"] is False and settings["exits"] == "0-2"
    file.write_text("model: testbed\nclip: yes\n")
    assert main(["align", "--config", str(file), "--out", str(tmp_path / "b")]) == 1
    assert "align.yaml, line 2: clip is true; expected a number" in capsys.readouterr().err
