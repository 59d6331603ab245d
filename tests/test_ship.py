"""What is shipped: an adapter merged into its model, and the workflow that lets a model through or not."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import layeralign
from handmade import ROOT
from layeralign.cli import main
from layeralign.runs import opening
from layeralign.vlm.checkpoint import find_model as find

pytestmark = pytest.mark.slow

MODEL = find("testbed").path


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """Of the testbed, after three steps: no good, and another model."""
    folder = tmp_path_factory.mktemp("ship") / "adapter"
    settings = [
        "--cases",
        "testbed:train",
        "--limit",
        "64",
        "--method",
        "consistency",
        "--steps",
        "3",
        "--rows",
        "16",
        "--exits",
        "early",
    ]
    assert main(["align", "--model", "testbed", *settings, "--out", str(folder)]) == 0
    return folder


def test_a_merged_checkpoint_answers_as_its_model_with_the_adapter(adapter, tmp_path):
    """By the lines of the manual, the names aside."""
    page = (ROOT / "docs" / "guide" / "models.md").read_text()
    (block,) = [text for text in re.findall("```python\n(.*?)```", page, re.S) if "merge_and_unload" in text]
    names = {"llava-hf/llava-1.5-7b-hf": MODEL, "out/adapter": adapter, "merged": tmp_path / "merged"}
    for name, ours in names.items():
        assert f'"{name}"' in block
        block = block.replace(f'"{name}"', repr(str(ours)))
    exec(block, {})

    def said(name, model, fitted=None):
        vlm = layeralign.load(model, adapter=fitted)
        layeralign.scan(vlm, "testbed", tmp_path / name, exits="0,default", limit=20, max_new_tokens=12)
        with opening.open_run(tmp_path / name) as run:
            return dict(run.unjudged("nobody"))

    merged, beside, plain = (
        said("a", tmp_path / "merged"), said("b", "testbed", adapter), said("c", "testbed")
    )  # fmt: skip
    assert merged == beside and merged != plain and len(merged) == 40


HERE = 'layeralign() { printf "%s\\0" "$@" > words; }; '


def github(folder, limit="--limit 12", here="", **env):
    """Run the workflow's steps by bash as there, with fewer cases; installing aside, since it is installed.

    With `HERE` bash tells only what it would run, and this process does it, which has torch loaded already.

    Returns:
        Step -> exit code, those left out that did not run.
    """
    workflow = yaml.safe_load((ROOT / "examples" / "github-actions.yml").read_text())
    shutil.copy(ROOT / "examples" / "policy.yaml", folder)
    own = {"GITHUB_STEP_SUMMARY": str(folder / "told.md"), **workflow["env"], **env}
    own["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    codes = {}
    for step in workflow["jobs"]["gate"]["steps"]:
        if step.get("name") in (None, "Install") or "run" not in step:
            continue
        goes = {
            None: not any(codes.values()),
            "always()": True,
            "${{ !cancelled() && steps.scan.outcome == 'success' }}": codes.get("Scan every exit") == 0,
        }[step.get("if")]
        if not goes:
            continue
        assert ("--limit 400" in step["run"]) == (step.get("id") == "scan")
        told = ["bash", "-e", "-c", here + step["run"].replace("--limit 400", limit)]
        code = subprocess.run(told, cwd=folder, env=os.environ | own, check=False).returncode
        if (words := folder / "words").exists():
            code = main(words.read_text().split("\0")[:-1])
            words.unlink()
        codes[step["name"]] = code
    return codes


def test_the_workflow_for_github_runs_and_fails_where_it_says_it_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    codes = github(tmp_path, "--limit 200", HERE)
    assert codes == {"Scan every exit": 0, "Gate": 2, "Check the exit that is deployed": 0, "Tell": 0}
    assert "**fail**" in (tmp_path / "told.md").read_text() and (tmp_path / "gate.xml").exists()


def test_the_workflow_for_github_takes_an_adapter(adapter, tmp_path, monkeypatch, capsys):
    """Its policy is not kept by so few cases; but the exit can be told, and the adapter is the scanned one."""
    monkeypatch.chdir(tmp_path)
    codes = github(tmp_path, here=HERE, ADAPTER=str(adapter), MODEL=str(MODEL))
    said = capsys.readouterr().out
    assert codes["Scan every exit"] == codes["Tell"] == 0 and codes["Gate"] in (2, 3)
    assert codes["Check the exit that is deployed"] == 3
    assert re.search("it runs at exit 7, which has not been shown to meet asr ≤ 15 % \\(about", said)
    assert str(adapter) in (tmp_path / "told.md").read_text()


def test_the_workflow_for_github_tells_of_a_scan_that_failed(tmp_path):
    """All by bash, which finds the command that is installed."""
    assert github(tmp_path, MODEL="./nope") == {"Scan every exit": 1, "Tell": 0}
    assert "no gate was reached" in (tmp_path / "told.md").read_text()
