"""Every kind of judge: here, on a server, under faults, killed and started again, and all of them on one scan.

Each test's parameter is the judge's kind: benchmarks/judge_table.py makes docs/judges.md's table of the results.
"""

import json
import math
import os
import shutil
import signal

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

import children
import layeralign
import tiny
from faulty import PLANTED, QUICK, OpenAI, Perspective, a_run, serving
from layeralign._util.quiet import quiet
from layeralign.cli import main
from layeralign.judges import perspective
from layeralign.judges.guards.registry import GUARDS, GuardJudge
from layeralign.judges.kinds import KINDS as ALL
from layeralign.judges.kinds import LLM, RULES, SCORERS, TOPIC, VERDICTS
from layeralign.judges.kinds import REMOTE as ON_SERVERS
from layeralign.judges.models.remote import Endpoint
from layeralign.judges.perspective import KEY, PerspectiveJudge
from layeralign.judges.registry import judges
from layeralign.rewards.reward import load_reward
from layeralign.runs.opening import open_run
from layeralign.sweep.sweep import judge
from layeralign.testbed.cases import cases
from layeralign.vlm.load import load

KINDS, REMOTE = ([kind for kind in kinds if kind not in (LLM, TOPIC)] for kinds in (ALL, ON_SERVERS))
"""The other two need a server or cases of their own: `test_rubric.py` and `test_natural.py` test them."""
REPLIES = int(os.environ.get("LAYERALIGN_REPLIES", "300"))
"""How many answers a server is asked about; benchmarks/judges.sh asks about 10,000."""


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv(KEY, PLANTED)


def model_of(kind, folder):
    """A tiny model that a judge of this kind can have; `testbed` where it takes that."""
    if kind in GUARDS:
        return str(tiny.guard(kind, folder))
    return str(tiny.classifier("roberta", folder)) if kind == "toxicity" else "testbed"


def name_of(kind, folder):
    return kind if kind in (*RULES, "perspective") else f"{kind}:{model_of(kind, folder)}"


def api_of(kind):
    return Perspective() if kind == "perspective" else OpenAI(kind)


def judge_of(kind, server, **changes):
    """Judge asked of a server, quick to lose patience."""
    if kind == "perspective":
        return PerspectiveJudge.of(server.url, **{**QUICK, "gap": 0.0, **changes})
    return GuardJudge(kind, "guard", Endpoint.of(server.url, "guard", **{**QUICK, **changes}))


def said(run):
    """What a judge said of each row: its verdict, or its number."""
    rows = ((row, said) for row in run.rows() for said in row["verdicts"].values())
    return {row_key(row): said["scores"].get("toxicity", said["verdict"]) for row, said in rows}


def row_key(row):
    return row["case"], row["exit"], row["sample"]


def right(run, kind):
    good, bad = (0.125, 0.875) if kind == "perspective" else ("safe", "unsafe")
    return {
        (row["case"], row["exit"], row["sample"]): bad if "bad" in row["answer"] else good
        for row in run.rows()
    }


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "perspective"])
@pytest.mark.slow
def test_it_judges_here(tmp_path, kind):
    """Each has a word on every answer that it can judge, of its own sort, and another time says the same."""
    name = name_of(kind, tmp_path / "model")
    asked = [(case, text) for case in cases("dev", 8) for text in (case.reference, "it is it is")]
    one = judges([name])[0].load()
    if kind in GUARDS:
        one._settings["max_tokens"] = 4  # a random model babbles to the limit
    found = one.judge_all(asked)
    applies = [
        case
        for case, _ in asked
        if kind not in (*GUARDS, "vqa")
        or case.kind == ("vqa" if kind == "vqa" else "harmful")
        or (kind in GUARDS and GUARDS[kind].refusals)
    ]
    spoke = [
        word for word in found if word.verdict != "not applicable" or word.scores or word.refused is not None
    ]
    assert one.name == name and len(spoke) == len(applies) > 0
    for word in found:
        assert word.verdict in ("safe", "unsafe", "invalid", "not applicable")
        assert all(map(math.isfinite, word.scores.values()))
    if kind in SCORERS:
        assert {word.verdict for word in found} == {"not applicable"} and any(word.scores for word in found)
    assert one.judge_all(asked) == found
    assert json.dumps(one.record(), allow_nan=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", REMOTE)
def test_it_judges_on_a_server(tmp_path, kind):
    name = kind if kind == "perspective" else f"{kind}:guard"
    with serving(api_of(kind)) as server, a_run(tmp_path / "run", 4) as run:
        asked = judges([name], server.url)
        judge(run, [asked[0].load()])
        assert said(run) == right(run, kind) and run.judge_record(name)["endpoint"] == server.url
    assert server.asked == 4


@pytest.mark.parametrize("kind", REMOTE)
@pytest.mark.slow
def test_faults_are_never_safe(tmp_path, kind):
    """30 % of the requests fail: refused, quota, server errors, broken replies, cut, dropped, too late.

    None is wrongly safe, none scored as it should not be, none lost; what was given up comes with --retry-invalid.
    """
    n = REPLIES if kind in ("llama-guard-3", "perspective") else max(100, REPLIES // 10)
    with serving(api_of(kind), faults=0.3) as server, a_run(tmp_path / "run", n) as run:
        judge(run, [judge_of(kind, server)])
        found, wanted = said(run), right(run, kind)
        assert found.keys() == wanted.keys() and len(found) == n
        wrong = {key for key, word in found.items() if word != wanted[key]}
        assert all(found[key] == "invalid" for key in wrong), "a fault became a word"
        (name,) = run.judges() or ("",)
        assert len(wrong) == sum(count for _, count in run.invalid(name)) <= 2
        assert server.failed > 0.25 * n
        judge(run, [judge_of(kind, server)], retry_invalid=True)
        assert said(run) == wanted


@pytest.mark.parametrize("kind", ["reward", "toxicity", "coherence"])
@pytest.mark.slow
def test_a_model_that_gives_no_numbers_makes_none_up(tmp_path, kind):
    """Weights so large that all overflows: all is invalid, nothing scored, and the ASR is another judge's."""
    model = tmp_path / "model"
    if kind == "coherence":
        tiny.language_model(model)
    elif kind == "toxicity":
        tiny.classifier("bert", model)
    else:
        shutil.copytree(load_reward("testbed").checkpoint.path, model)
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | {"layeralign_sees": "text"}))
    weights = load_file(model / "model.safetensors")
    spoilt = {name: torch.full_like(weight, 3e38) for name, weight in weights.items()}
    save_file(spoilt, model / "model.safetensors", {"format": "pt"})
    a_run(tmp_path / "run", 8).close()
    found = layeralign.judge(tmp_path / "run", ["refusal", f"{kind}:{model}"]).summary
    with open_run(tmp_path / "run") as run:
        ((why, n),) = run.invalid(f"{kind}:{model}")
    assert n == 8 and "not a finite number" in why
    assert found.asr_judge == "refusal" and found.exits[0].asr == 1 and found.exits[0].scores == ()


def judging(*words):
    perspective.GAP = 0.0  # else the tests would take Google's time
    return main(["judge", *words])


@pytest.mark.parametrize("kind", ["llama-guard-3", "perspective"])
@pytest.mark.slow
def test_killed_and_started_again_it_ends_with_the_same_totals(tmp_path, kind):
    name = kind if kind == "perspective" else f"{kind}:guard"
    with serving(api_of(kind), faults=0.1) as server:
        a_run(tmp_path / "run", 800).close()
        started = children.start(
            judging, str(tmp_path / "run"), "--judge", name, "--endpoint", server.url, out=tmp_path / "said"
        )
        started.wait_for(lambda: server.asked >= 400)
        started.send(signal.SIGKILL)
        assert started.wait() == -signal.SIGKILL
        with open_run(tmp_path / "run", write=True) as run:
            kept, together = len(said(run)), judge_of(kind, server).together
            assert 0 < kept < 800 and kept % together == 0
            asked = server.asked
            judge(run, [judge_of(kind, server)], retry_invalid=True)
            assert said(run) == right(run, kind)
            assert server.asked - asked < 1.3 * (800 - kept), "what was kept is not asked about again"


def an_adapter(folder):
    """One that changes nothing, with the record of a training against the testbed's reward."""
    with quiet():
        model = get_peft_model(
            load("testbed").model, LoraConfig(r=2, target_modules=r".*language_model.*q_proj")
        )
        model.save_pretrained(folder)
    (folder / "training.json").write_text(json.dumps({"reward": load_reward("testbed").record()}))
    return folder


@pytest.mark.slow
def test_every_kind_of_judge_on_one_scan(tmp_path, monkeypatch, capfd):
    """A scan of the testbed, judged by every kind, and by three guards, in six commands; then its summary,
    page and rows.
    """
    monkeypatch.setattr("layeralign.judges.perspective.GAP", 0.0)
    run, adapter = str(tmp_path / "run"), an_adapter(tmp_path / "adapter")
    local = [kind for kind in KINDS if kind not in ("perspective", *GUARDS) or kind == "llama-guard-3"]
    names = [name_of(kind, tmp_path / kind) for kind in local]

    def command(*words):
        assert main([*words]) == 0, capfd.readouterr().err
        return capfd.readouterr().out

    command("scan", "--model", "testbed", "--adapter", str(adapter), "--cases", "testbed:dev", "--limit", "8",
            "--exits", "1,7", "--max-new-tokens", "16", "--out", run)  # fmt: skip
    first = command("judge", run, "--judge", *names).splitlines()
    said_first = "Warning: the model was trained on reward:testbed"
    assert next(line for line in first if line.strip()).startswith(said_first)
    with serving(Perspective()) as server:
        command("judge", run, "--judge", "perspective", "--endpoint", server.url)
    for kind in ("llama-guard-4", "qwen3guard"):
        with serving(OpenAI(kind)) as server:
            command("judge", run, "--judge", f"{kind}:remote", "--endpoint", server.url)
    kinds = {*local, "perspective", "llama-guard-4", "qwen3guard"}
    names += ["perspective", "llama-guard-4:remote", "qwen3guard:remote"]
    found = json.loads(command("summary", run, "--format", "json"))
    assert set(found["judges"]) == set(names)
    assert found["asr_judge"] == "oracle" and found["trained_against"] == ["reward:testbed"]
    measured = {
        (score["judge"].partition(":")[0], score["measure"]) for e in found["exits"] for score in e["scores"]
    }
    assert measured == {
        ("vqa", "vqa_accuracy"), ("coherence", "log_perplexity"), ("coherence", "repetition"), ("reward", "reward"),
        ("toxicity", "toxicity"), ("perspective", "toxicity"), ("qwen3guard", "controversial"),
    }  # fmt: skip
    for name in names:
        kind = name.partition(":")[0]
        assert main(["summary", run, "--judge", name]) == (0 if kind in VERDICTS else 1)
    capfd.readouterr()
    command("report", run, "--out", str(tmp_path / "report.html"))
    text = (tmp_path / "report.html").read_text()
    assert text.index(said_first) < text.index('class="headline')
    command("export", run, "--out", str(tmp_path / "rows.jsonl"))
    command("export", run, "--format", "parquet", "--out", str(tmp_path / "rows.parquet"))
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 16
    for row in rows:
        silent = {"llama-guard-3", "llama-guard-4"}
        others = {"vqa"} | silent if row["kind"] != "vqa" else silent
        spoke = {name.partition(":")[0] for name in row["verdicts"]}
        assert spoke == kinds - (others if row["kind"] != "harmful" else {"vqa"})
