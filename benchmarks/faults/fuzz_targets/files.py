"""Files that people write or download: cases, policies, labels, rubrics, benchmarks, pictures."""

from __future__ import annotations

import contextlib
import io
import zipfile
from pathlib import Path
from types import SimpleNamespace

import drawn
import published
from fuzz_targets.common import Target, each, told

ROW = {
    "id": "a",
    "prompt": "what is it?",
    "kind": "vqa",
    "image": "a.png",
    "reference": "x",
    "answers": ["x", "y"],
}


def case_files(work: Path, suffix: str, seeds: list[bytes]) -> Target:
    """A file of cases, with a picture next to it."""
    from layeralign.cases import files

    file = work / f"cases{suffix}"
    (work / "a.png").write_bytes(drawn.KINDS["text.png"][0])

    def do(data: bytes) -> None:
        file.write_bytes(data)
        for case in files.read(file):
            assert case.sha256 and case.asked

    return seeds, do


def case_lines(work: Path) -> Target:
    """Cases as JSON Lines."""
    return case_files(work, ".jsonl", [told(ROW), told(ROW) + b"\n" + told({**ROW, "id": "b", "_note": 1})])


def case_table(work: Path) -> Target:
    """Cases as CSV."""
    return case_files(
        work, ".csv", [b'id,prompt,kind,image,category\na,"what, ""is"" it?",benign,a.png,x\nb,c,vqa,,\n']
    )


def policy(work: Path) -> Target:
    """A policy of a gate."""
    from layeralign.exits import Exits
    from layeralign.gating.policy import read

    file, exits = work / "policy.yaml", Exits(8, 7)

    def do(data: bytes) -> None:
        file.write_bytes(data)
        for rule in read(file).rules:
            assert rule.title and rule.allowed and rule.beyond(0.5) is not None
            rule.at(exits)

    rule = b"judge: oracle\nrules:\n  - {metric: asr, exits: all, upper_bound: 0.15, by: category}\n"
    more = (
        b"  - score: toxicity\n    judge: x\n    kind: harmful\n    exits: [early, 3]\n    upper_bound: 0.2\n"
    )
    last = (
        b"  - metric: utility\n    exits: 1-8\n    category: 'x'\n    no_worse_than: base\n    margin: 0.01\n"
    )
    return [rule, rule + more, rule + more + last], do


def deployment(work: Path, name: str, seeds: list[bytes]) -> Target:
    """A file that says how servers are started."""
    from layeralign.gating.deployments import targets

    file = work / name
    (work / "blobs").mkdir()
    (work / "blobs" / f"sha256-{'a' * 64}").write_bytes(b"GGUF")
    (work / "a.gguf").write_bytes(b"GGUF")
    (work / "flags.yaml").write_bytes(b"dtype: float16\n")

    def do(data: bytes) -> None:
        file.write_bytes(data)
        assert all(server.name for server in targets.servers(file))

    return seeds, do


def deployment_yaml(work: Path) -> Target:
    """A Kubernetes manifest, a compose file, or a server's own YAML."""
    pod = b"kind: Pod\nspec:\n  containers:\n  - name: a\n    image: vllm/vllm-openai:v0.11.0\n    args: [--model, m]\n"
    compose = (
        b"x-a: &a {image: 'lmsysorg/sglang:v0.5.3'}\nservices:\n  b:\n    <<: *a\n    command: vllm serve m\n"
    )
    return deployment(work, "a.yaml", [pod, compose, b"model: m\nhf-overrides: {vision_feature_layer: 3}\n"])


def deployment_command(work: Path) -> Target:
    """A shell script."""
    line = b"""vllm serve m --config flags.yaml --hf-overrides '{"vision_feature_layer": 3}' --tp 2"""
    nested = b'bash -lc "python -m sglang.launch_server --model-path m --port=1" && vllm serve m --hf-overrides.a 1'
    return deployment(work, "a.sh", [line, nested + b" # x\n" + line])


def deployment_modelfile(work: Path) -> Target:
    """Ollama's Modelfile."""
    return deployment(work, "Modelfile", [b"FROM ./a.gguf\n", b'# x\nFROM "."\nADAPTER b\nFROM ~x/a\n'])


def deployment_json(work: Path) -> Target:
    """Ollama's manifest, or a Kubernetes object."""
    layer = {"mediaType": "application/vnd.ollama.image.projector", "digest": f"sha256:{'a' * 64}"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "spec": {"containers": [{"image": "x", "command": ["vllm", "serve", "m"]}]},
    }
    return deployment(work, "a.json", [told({"layers": [layer]}), told(pod)])


def fleet(work: Path) -> Target:
    """A fleet's YAML file, whose run is not there."""
    from layeralign.gating import fleet as parser

    file = work / "fleet.yaml"

    def do(data: bytes) -> None:
        file.write_bytes(data)
        parser.check_fleet(file)

    return [b"against: gone\nservers:\n- {target: a, limit: 0.1, runtime: 'vllm@0.32.0'}\n- target: b\n"], do


def command_config(work: Path) -> Target:
    """The file of `--config`, as `scan` and `gate` read it."""
    from cyclopts import CycloptsError

    from layeralign.cli import config_file
    from layeralign.cli.app import app

    file = work / "config.yaml"

    def read(command: str) -> None:
        tokens, app.config = config_file.take([command, "--config", str(file)])
        with contextlib.suppress(CycloptsError):  # the command line makes a sentence of it
            app.parse_args(tokens, print_error=False, exit_on_error=False)

    def do(data: bytes) -> None:
        file.write_bytes(data)
        each(lambda: read("scan"), lambda: read("gate"))

    return [
        b"model: testbed\ncases: testbed\nexits: early,20\nlimit: 4\nseed: 1\n",
        b"policy: p.yaml\njson: true\n",
    ], do


def labels(work: Path) -> Target:
    """Labels of people."""
    import faulty
    from layeralign.judges import labels as parser

    run, file = faulty.a_run(work / "run", 8), work / "labels.jsonl"
    rows = [
        row | {"label": label}
        for row, label in zip(parser.sample(run, 4), ("safe", "unsafe", None, "unclear"), strict=False)
    ]

    def do(data: bytes) -> None:
        file.write_bytes(data)
        parser.adopt(run, file)

    return [b"\n".join(map(told, rows)), told(rows[0])], do


def quality(work: Path) -> Target:
    """The error rates of a judge."""
    from layeralign.analysis.judging.quality_file import read_quality

    file, run = work / "quality.json", SimpleNamespace(judge_records={"j": {"a": 1}}, path=work)
    entry = {"sensitivity": 0.9, "n_positive": 10, "specificity": 0.8, "n_negative": 20}
    full = entry | {"effective_positive": 5.0, "effective_negative": 7.5, "source": "x", "record": {"a": 1}}

    def do(data: bytes) -> None:
        file.write_bytes(data)
        read_quality(file, "j", run).correct(0.5, 100)

    return [told({"j": entry}), told({"j": full, "k": entry})], do


def rubric(work: Path) -> Target:
    """A rubric, and what it makes of replies."""
    from layeralign.judges.rubrics.rubric import PRESETS, Rubric

    file = work / "rubric.yaml"

    def do(data: bytes) -> None:
        file.write_bytes(data)
        made = Rubric.read(file)
        for reply in ("yes", "a: 1\nb: 2", "refused: 0\nconvincing: 3\nspecific: 5"):
            assert made.parse(reply).verdict in ("safe", "unsafe", "invalid")

    short = b"ask: '{prompt} {answer}'\ngrades: {a: [0, 1], b: [1, 5]}\nzero_if: a\nunsafe_from: 0.5\n"
    return [short, b"ask: '{prompt} {answer}'\nsystem: x\nunsafe: ['yes']\nsafe: ['no']\nmax_tokens: 9\n",
            *(preset.read_bytes() for preset in PRESETS.values())], do  # fmt: skip


def benchmark(work: Path, name: str) -> Target:
    """A public benchmark: the bytes stand for each of its text files in turn."""
    from layeralign.cases.readers.reader import read

    places: list[tuple[Path, Path, bytes]] = []
    for at, make in enumerate(make for known, make in published.ALL if known == name):
        make(folder := work / str(at))
        texts = [
            file
            for file in sorted(folder.rglob("*"))
            if file.suffix in (".csv", ".json", ".jsonl", ".gz", ".txt")
        ]
        places += [(folder, file, file.read_bytes()) for file in texts]

    def do(data: bytes) -> None:
        for folder, file, own in places:
            file.write_bytes(data)
            each(lambda folder=folder: read(name, folder))
            file.write_bytes(own)

    return [own for *_, own in places], do


def picture(work: Path) -> Target:
    """A picture."""
    from layeralign.cases import pictures

    def do(data: bytes) -> None:
        (work / "a.png").write_bytes(data)
        assert pictures.check(work, "a.png", "here").open().mode == "RGB"

    return [content for content, *_ in drawn.KINDS.values()], do


def archive(work: Path) -> Target:
    """A downloaded archive, the record of a download, and preference pairs."""
    from layeralign.cases import cache, origins
    from layeralign.training.reward.pairs import read_pairs

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a.json", "{}" * 50)
    origin, file = origins.Archives("x", {"a.json": "a.zip"}), work / "a.json"
    file.touch()

    def do(data: bytes) -> None:
        origins._download = lambda url, draft, most: draft.write_bytes(data)
        (work / "a.json.fetched").write_bytes(data)
        (work / "pairs").write_bytes(data)
        with contextlib.suppress(OSError, ValueError):  # `fetched` makes a sentence of it
            each(lambda: origin.fetch(None, "a.json", work / "draft", 10**6))
        each(lambda: cache.held(file, None), lambda: read_pairs(work / "pairs"))

    record = {"sha256": "0" * 64, "url": "u", "revision": None, "licence": "l", "fetched": "f"}
    return [packed.getvalue(), told(record), *map(told, published.hh_rows()[:2])], do
