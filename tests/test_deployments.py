"""Files that say how servers are started, held against a run: commands, manifests, Ollama's files, fleets."""

import json
import shlex
import shutil
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import layeralign
from layeralign import LayeralignError
from layeralign._util import strict_yaml
from layeralign.cli import main
from layeralign.gating.deployments import command, runtimes, tables
from layeralign.gating.deployments.place import Undecided
from test_check import TESTBED, make
from test_check_gguf import written

MODEL = TESTBED.path
LAYER = '{"vision_feature_layer": 3}'
QUOTED = LAYER.replace('"', '\\"')
PAGE = Path(__file__).parent.parent / "docs" / "runtimes.md"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make(tmp_path_factory.mktemp("deployments") / "run")


def check(run, folder, name, content, **options):
    file = folder / name
    file.write_text(content)
    return layeralign.check(file, run, **options)


@pytest.mark.parametrize(
    ("line", "exit"),
    [
        ("vllm serve MODEL", 7),
        (f"vllm serve MODEL --hf-overrides '{LAYER}'", 3),
        (f"vllm serve MODEL --hf-overrides='{LAYER}'", 3),
        (f"vllm serve --port 8000 --enforce-eager MODEL --hf_overrides '{LAYER}'", 3),
        ("vllm serve MODEL --hf-overrides.vision_feature_layer 3", 3),
        ("vllm serve MODEL --hf-overrides.vision_feature_layer=-1", 8),
        ("vllm serve MODEL --hf-overrides.vision_feature_layer -1 --port=1", 8),
        (f"vllm serve MODEL --hf-overrides '{LAYER}' --hf-overrides.vision_feature_layer 5", 5),
        ("vllm serve MODEL --hf-overrides '{\"vision_feature_layer\": 1}' \\\n  --hf-overrides \\\n" + f"'{LAYER}'", 3),
        (f"vllm serve --served-model-name a b --model MODEL --hf-overrides '{LAYER}' > log 2>&1 &", 3),
        (f"vllm serve MODEL >log --api-key 'a;#b' --hf-overrides '{LAYER}' # note --port 1", 3),
        (f"vllm serve MODEL &> log --hf-overrides '{LAYER}'", 3),
        (f"cd /x && X=1 exec /usr/bin/python3 -m vllm.entrypoints.openai.api_server --model MODEL --hf-overrides '{LAYER}'", 3),
        (f"docker run --gpus all vllm/vllm-openai:v0.33.0 --model MODEL --hf-overrides '{LAYER}'", 3),
        ("bash -lc \"vllm serve MODEL --hf-overrides '{\\\"vision_feature_layer\\\": 3}'\"", 3),
        (f"python -m sglang.launch_server --model-path MODEL --json-model-override-args '{LAYER}'", 3),
        ("sglang serve --model MODEL --tp 2", 7),
    ],
)  # fmt: skip
def test_the_exit_of_a_command(run, tmp_path, line, exit):
    found = check(run, tmp_path, "serve.sh", line.replace("MODEL", str(MODEL)))
    assert (found.exit, found.result, found.weights) == (exit, "fail" if exit == 3 else found.result, True)
    assert found.runtime.startswith(("vllm", "sglang")) and "vision_feature_layer" in found.key


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("vllm serve MODEL --enable-mm-embeds", "lets a request carry features of any exit"),
        ("vllm serve MODEL --quantization fp8", "quantises the model"),
        ("vllm serve MODEL --trust-remote-code", "runs code of the model's folder"),
        ("vllm serve MODEL --hf-over '{}'", "its --hf-over does something that is not known"),
        ("vllm serve MODEL --json-model-override-args '{}'", "does something that is not known"),
        ("vllm serve MODEL --skip-vision 3", "its --skip-vision does something"),
        ("vllm serve MODEL $EXTRA", "has a variable, $EXTRA"),
        ("vllm serve MODEL --port `port`", "--port has no value, or a variable"),
        ("vllm serve MODEL --port $(port) --hf-overrides '{}'", "--port has no value, or a variable"),
        ("vllm serve MODEL --port", "--port has no value"),
        ("vllm serve MODEL --port --hf-overrides={}", "--port has no value"),
        ("vllm serve MODEL --seed {1,--hf-overrides.vision_feature_layer=3}", "--seed has no value, or a variable"),
        ("vllm serve MODEL --seed {1,'--hf-overrides.vision_feature_layer=3'}", "or a variable"),
        ("vllm serve MODEL > >(tee log) --hf-overrides '{}'", "has a variable, $()"),
        ("vllm serve MODEL other", "words of no flag"),
        ("vllm serve --port 80", "names no model"),
        ("vllm serve MODEL --config gone.yaml", "its --config gone.yaml is no file here"),
        ("vllm serve MODEL --config=gone.yaml", "its --config does something"),
        ("vllm serve MODEL --hf-overrides.vision_feature_layer+ 3", "is not known"),
        ("vllm serve MODEL --hf-overrides.vision_config.num_hidden_layers 3", "an override of its vision_config"),
        ("vllm serve MODEL --hf-overrides.a 3 --hf-overrides.a.b 3", "give a twice"),
        ("vllm serve MODEL --hf-overrides.vision_feature_layer 9223372036854775808", "out of range"),
        ("vllm serve /models/llava", "is no folder here and not the scanned testbed"),
        (f"vllm serve {'a' * 5000}", "its model cannot be read (File name too long)"),
        ("vllm serve acme/llava", "is no folder here and not the scanned testbed"),
        ("sglang serve --model MODEL --json-model-override-args '{\"mm_vision_select_layer\": 3}'",
         "its mm_vision_select_layer is not the scanned model's"),
    ],
)  # fmt: skip
def test_what_a_command_hides_is_inconclusive(run, tmp_path, line, why):
    found = check(run, tmp_path, "serve.sh", line.replace("MODEL", str(MODEL)))
    assert (found.result, found.exit_code) == ("inconclusive", 3) and why in found.why


@pytest.mark.parametrize(
    "hidden",
    [
        'eval "vllm serve MODEL"', "ssh host 'vllm serve MODEL'", "su user -c 'vllm serve MODEL'",
        "bash -c -l 'vllm serve MODEL --trust-remote-code'", "$VLLM serve MODEL", "$(which vllm) serve MODEL",
        "`which vllm` serve MODEL", "python -mvllm.entrypoints.openai.api_server --model MODEL",
        "python /opt/vllm/entrypoints/openai/api_server.py", "python -m sglang_router.launch_server",
    ],
)  # fmt: skip
def test_a_second_server_cannot_hide_behind_a_first(run, tmp_path, hidden):
    """It was dropped, and the check passed for the first one alone."""
    safe = f"docker run vllm/vllm-openai:v0.32.0 {MODEL}\n"
    told = check(run, tmp_path, "serve.sh", safe + hidden.replace("MODEL", str(MODEL)))
    assert [one.result for one in told.servers] == ["pass", "inconclusive"] and told.exit_code == 3


def test_other_words_about_a_server_start_none(run, tmp_path):
    words = "pip install vllm\ncurl http://vllm-serve:8000/v1\n"
    assert check(run, tmp_path, "serve.sh", f"{words}vllm serve {MODEL}").exit == 7


def test_the_hub_id_that_was_scanned_has_the_runs_config(run, tmp_path, monkeypatch):
    from layeralign.analysis.results import Results

    loaded = Results.load(run)
    object.__setattr__(loaded, "model", "acme/llava")
    monkeypatch.setattr(Results, "load", lambda _: loaded)
    line = "vllm serve acme/llava --hf-overrides.vision_feature_layer 3"
    found = check(run, tmp_path, "serve.sh", line)
    assert (found.exit, found.result, found.weights) == (3, "fail", False)
    assert "its revision v2 of acme/llava" in check(run, tmp_path, "serve.sh", f"{line} --revision v2").why


WORDS = st.lists(
    st.text(
        st.characters(
            exclude_categories=["Cs"], min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f"
        ),
        max_size=8,
    ),
    min_size=1,
)


@given(WORDS)
def test_quoted_words_come_back(words):
    (found, *inside) = [each for _, each in command.commands(f"  {shlex.join(words)}\n", "x")]
    assert found == words and (inside == [] or "-c" in " ".join(words))


@given(st.integers(-9, 8), st.permutations(["--port 80", "-q", "--dtype=auto"]), st.sampled_from(
    ["--hf-overrides '{\"vision_feature_layer\": %d}'", "--hf-overrides={\\\"vision_feature_layer\\\":%d}",
     '--hf_overrides "{\\"vision_feature_layer\\": %d}"', "--hf-overrides.vision_feature_layer %d",
     "--hf_overrides.vision_feature_layer='%d'"]))  # fmt: skip
def test_every_form_of_an_override_is_the_same(layer, others, form):
    words = [one for one in others if one != "-q"]
    line = " ".join(["vllm serve m", words[0], form % layer, *words[1:]])
    (server,) = command.of_script(line, Path("x"))
    assert server.unknown == "" and server.overrides == {"vision_feature_layer": layer}


@given(st.text(max_size=200))
def test_any_text_is_a_sentence_at_worst(text):
    try:
        command.of_script("vllm serve m " + text, Path("x"))
    except LayeralignError as error:
        assert len(str(error)) < 400


CONTAINERS = [
    ("image: 'vllm/vllm-openai:v0.32.0'\nargs: [--model, MODEL, --hf-overrides, 'LAYER']", 3),
    ("image: 'vllm/vllm-openai:v0.32.0'\nargs: [MODEL, --port, 8000]", 7),
    ("image: x\ncommand: [vllm, serve, MODEL]\nargs: ['--hf-overrides=LAYER']", 3),
    ("image: x\ncommand: [/bin/sh, -c, \"vllm serve MODEL --hf-overrides 'QUOTED'\"]", 3),
    ("image: x\ncommand: [python, -m, sglang.launch_server, --model-path, MODEL, --json-model-override-args, 'LAYER']", 3),
]  # fmt: skip


@pytest.mark.parametrize(("text", "exit"), CONTAINERS)
@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_the_exit_of_a_container(run, tmp_path, text, exit, suffix):
    text = text.replace("MODEL", str(MODEL)).replace("LAYER", LAYER).replace("QUOTED", QUOTED)
    content = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: llava\n    " + text.replace(
        "\n", "\n    "
    )
    if suffix == "json":
        import yaml

        content = json.dumps(yaml.safe_load(content))
    found = check(run, tmp_path, f"pod.{suffix}", content)
    assert found.exit == exit and found.config.endswith("container llava")
    assert "image: 'vllm" not in text or found.runtime == "vllm@0.32.0"


def test_each_container_is_a_row(run, tmp_path, capsys):
    compose = f"""
x-common: &common {{image: "vllm/vllm-openai:v0.6.0", restart: always}}
services:
  one: {{<<: *common, command: "--model {MODEL} --hf-overrides '{QUOTED}'"}}
  two: {{image: "vllm/vllm-openai:v0.32.0", entrypoint: [vllm, serve], command: [{MODEL}]}}
  three: {{image: x, command: "python -m sglang.launch_server --model-path ${{MODEL}}"}}
  four: {{image: my/vllm, command: ./start.sh}}
  five: {{image: redis, command: [redis-server, --port, "1"]}}
"""
    found = check(run, tmp_path, "compose.yaml", compose)
    assert [(row.server.split()[-1], row.result, row.exit) for row in found.rows] == [
        ("one", "inconclusive", None), ("two", "pass", "7"), ("three", "inconclusive", None),
        ("four", "inconclusive", None),
    ]  # fmt: skip
    assert found.rows[0].why.startswith("its exit is unknown: the exit at which vllm@0.6.0")
    assert (found.result, found.exit_code) == ("inconclusive", 3)
    assert main(["check", str(tmp_path / "compose.yaml"), "--against", str(run)]) == 3
    assert "inconclusive: 3 inconclusive, 1 pass" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "compose.yaml"), "--against", str(run), "--format", "json"]) == 3
    assert [row["exit"] for row in json.loads(capsys.readouterr().out)] == [None, "7", None, None]


@pytest.mark.parametrize("more", ["", f"image: 'vllm/vllm-openai:v0.32.0', command: {MODEL}, "])
def test_a_service_that_extends_another_is_inconclusive(run, tmp_path, more):
    text = f"services: {{one: {{{more}extends: {{file: other.yaml, service: two}}}}}}"
    told = check(run, tmp_path, "compose.yaml", text)
    assert (told.result, told.why[:26]) == ("inconclusive", "it extends another service")


def test_an_unknown_version_can_fail_but_not_pass(run, tmp_path):
    file = tmp_path / "serve.sh"
    for flags, results in (("", ("inconclusive", "pass")), (f"--hf-overrides '{LAYER}'", ("fail", "fail"))):
        file.write_text(f"vllm serve {MODEL} {flags}")
        found = [layeralign.check(file, run, runtime=version) for version in (None, "vllm@0.32.0")]
        assert tuple(one.result for one in found) == results
        if results[0] == "inconclusive":
            assert found[0].exit == 7 and found[0].why.startswith(
                "its version is not known; add --runtime vllm@"
            )


def test_the_yaml_of_a_server(run, tmp_path):
    text = f"model: {MODEL}\nport: 80\nenforce-eager: true\nhf-overrides: {{vision_feature_layer: 3}}\n"
    assert check(run, tmp_path, "vllm.yaml", text).exit == 3
    assert (
        check(run, tmp_path, "sglang.yml", f"model-path: {MODEL}\njson-model-override-args: '{LAYER}'").exit
        == 3
    )
    assert check(run, tmp_path, "serve.sh", "vllm serve --config vllm.yaml").exit == 3
    line = f"vllm serve {MODEL} --config vllm.yaml --hf-overrides.vision_feature_layer 5"
    assert check(run, tmp_path, "serve.sh", line).exit == 5
    with pytest.raises(LayeralignError, match=r"flags.yaml: has no server .*expected a container"):
        check(run, tmp_path, "flags.yaml", "port: 80")


def manifest(folder, *kinds, digest=None):
    """Ollama's folder of models, with one manifest whose layers are the written file."""
    name = "a" * 64
    (folder / "blobs").mkdir()
    shutil.move(written(folder, layers=[3], tensors=()), folder / "blobs" / f"sha256-{name}")
    file = folder / "manifests" / "registry.ollama.ai" / "library" / "llava" / "7b"
    file.parent.mkdir(parents=True)
    layers = [
        {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": digest or f"sha256:{name}"}
        for kind in kinds
    ]
    file.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))
    return file


@pytest.mark.slow
def test_ollamas_manifest_and_folder(run, tmp_path):
    file = manifest(tmp_path, "model", "projector")
    for target in (file, tmp_path):
        found = layeralign.check(target, run)
        assert (found.exit, found.result) == (3, "fail")
        assert (found.runtime, found.key) == ("ollama", "clip.vision.feature_layer [3]")
    assert layeralign.check(tmp_path / "blobs" / ("sha256-" + "a" * 64), run).exit == 3
    assert layeralign.check(file, run, runtime="llama.cpp@b10488").exit == 3
    assert "no version of it is known" in layeralign.check(file, run, runtime="ollama@0.9").why


@pytest.mark.parametrize(
    ("kinds", "why"),
    [
        (("model",), "it has no vision file of its own"),
        (("projector", "projector"), "it has 2 vision files"),
        (("projector", "adapter"), "its adapter changes the model"),
    ],
)
def test_what_a_manifest_hides_is_inconclusive(run, tmp_path, kinds, why):
    assert layeralign.check(manifest(tmp_path, *kinds), run).why.startswith(why)


@pytest.mark.parametrize(
    "digest", ["sha256:../../etc/passwd", "sha256-" + "a" * 63, "../x", "sha256:" + "a" * 65]
)
def test_a_digest_that_is_a_path_is_refused(run, tmp_path, digest, capsys):
    file = manifest(tmp_path, "projector", digest=digest)
    assert main(["check", str(file), "--against", str(run)]) == 1
    err = capsys.readouterr().err
    assert "layer 1: digest is " in err and err.count("\n") == 1


@pytest.mark.slow
def test_a_modelfile(run, tmp_path):
    written(tmp_path, layers=[3], tensors=())
    language = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    language.write_header_to_file()
    language.write_kv_data_to_file()
    language.close()
    assert (
        check(run, tmp_path, "Modelfile", "# a model\nFROM ./mmproj.gguf\nPARAMETER temperature 0\n").exit
        == 3
    )
    assert layeralign.check(tmp_path, run).exit == 3
    assert check(run, tmp_path, "llava.txt", 'from "."\nSYSTEM x').exit == 3
    for text, why in {
        "FROM llava:7b": "its FROM llava:7b is no file here",
        "FROM .\nADAPTER x": "its ADAPTER changes the model",
        "FROM ./run": "it has no vision file of its own",
    }.items():
        (tmp_path / "run").mkdir(exist_ok=True)
        assert check(run, tmp_path, "Modelfile", text).why.startswith(why)
    with pytest.raises(LayeralignError, match="has no FROM line"):
        check(run, tmp_path, "Modelfile", "SYSTEM x")
    for text in ('SYSTEM """\nFROM ./mmproj.gguf\n"""', "SYSTEM a\u2028FROM ./mmproj.gguf"):
        told = check(run, tmp_path, "Modelfile", f"FROM ./model.gguf\n{text}")  # a text starts nothing
        assert told.why.startswith("it has no vision file of its own")


def test_a_vision_file_cannot_hide_behind_its_name(run, tmp_path):
    """Otherwise a Modelfile could name it first, and then a file of a safe exit, which alone would count."""
    written(tmp_path, layers=[3], tensors=())
    hidden = gguf.GGUFWriter(tmp_path / "hidden.gguf", "clip")
    hidden.add_string("general.name", "x" * 5000)
    fields = hidden.kv_data[0]
    fields["general.architecture"] = fields.pop("general.architecture")  # it is usually the first field
    hidden.write_header_to_file()
    hidden.write_kv_data_to_file()
    hidden.close()
    told = check(run, tmp_path, "Modelfile", "FROM ./hidden.gguf\nFROM ./mmproj.gguf\n")
    assert told.why.startswith("it has 2 vision files")


@pytest.mark.slow
def test_the_version_of_llama_cpp(run, tmp_path, capsys):
    file = written(tmp_path, tensors=())
    found = layeralign.check(file, run, runtime="llama.cpp@b10488")
    assert (found.exit, found.result, found.key) == (6, "pass", "clip.vision.block_count 7")
    for version, why in {
        "llama.cpp@b9000": "known are b9093 to b11434",
        "vllm@0.32.0": "is not known",
    }.items():
        assert why in layeralign.check(file, run, runtime=version).why
    for text in ("llama.cpp@x", "llama@b1", "vllm@1e9", "vllm@" + "9" * 40):
        assert main(["check", str(file), "--against", str(run), "--runtime", text]) == 1
        assert capsys.readouterr().err.startswith("layeralign: runtime ")


def test_a_folder_of_mlx(run, tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(TESTBED.config() | {"vision_feature_layer": 3}))
    save_file({"x": np.zeros(1)}, tmp_path / "model.safetensors", metadata={"format": "mlx"})
    found = layeralign.check(tmp_path, run)
    assert (found.exit, found.runtime) == (3, "mlx-vlm")
    assert found.why.startswith("its model.safetensors is not the scanned model's")
    assert layeralign.check(file, run, runtime="mlx-vlm@0.7.10").result == "fail"
    assert "known are 0.7.10" in layeralign.check(file, run, runtime="mlx-vlm@0.8").why


def test_the_versions_of_a_reading():
    for version, known in {
        "0.32.0": True,
        "0.33.9": True,
        "0.31.9": False,
        "0.34": False,
        "1": False,
    }.items():
        found = runtimes.runtime(f"vllm@{version}")
        if known:
            assert found.check("llava") == ""
        else:
            with pytest.raises(Undecided):
                found.check("llava")
    for family in ("qwen2_5_vl", "internvl", "mistral3", "any", ""):
        with pytest.raises(Undecided):
            runtimes.Runtime("vllm").check(family)


def test_the_page_and_the_command_show_the_table(capsys):
    rows = [f"| {' | '.join(cell or '–' for cell in vars(one).values())} |" for one in runtimes.TABLE]
    after = PAGE.read_text().split(f"| {' | '.join(tables.HEADINGS)} |\n")[1]
    assert after.split("\n\n")[0].splitlines()[1:] == rows
    assert main(["check", "--list", "--format", "json"]) == 0
    assert [list(row.values()) for row in json.loads(capsys.readouterr().out)] == [
        list(vars(one).values()) for one in runtimes.TABLE
    ]
    assert main(["check", "--list"]) == 0
    out = capsys.readouterr().out
    assert all(one.runtime in out for one in runtimes.TABLE) and "`" not in out and "…" not in out


def test_a_fleet(run, tmp_path, capsys):
    (tmp_path / "serve.sh").write_text(f"vllm serve {MODEL} --hf-overrides.vision_feature_layer 3\n")
    (tmp_path / "policy.yaml").write_text("rules: [{metric: asr, exits: all, upper_bound: 0.3}]")
    file = tmp_path / "fleet.yaml"
    file.write_text(
        f"against: {run}\nservers:\n  - {{target: testbed}}\n  - {{target: testbed, hf_overrides: '{LAYER}'}}\n"
        f"  - {{target: {tmp_path}/serve.sh, policy: {tmp_path}/policy.yaml, runtime: vllm@0.32.0}}\n"
    )
    found = layeralign.check(fleet=file)
    assert [(one.exit, one.result) for one in found.servers] == [
        (7, "pass"),
        (3, "fail"),
        (3, "inconclusive"),
    ]
    assert (found.result, found.exit_code, len(found.to_frame())) == ("fail", 2, 3)
    assert main(["check", "--fleet", str(file)]) == 2
    assert "fail: 1 fail, 1 inconclusive, 1 pass" in capsys.readouterr().out


def test_a_fleet_takes_no_other_option(run, capsys):
    assert main(["check", "--fleet", "x", "--limit", "0.1"]) == 1
    assert "--fleet does not go with other options" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1]", "is list; expected the keys servers and against"),
        ("servers: []", "line 1: servers is []; expected a list of 1 to 1000 servers"),
        ("servers: [x]", "line 1, server 1: is str; expected keys such as target"),
        (
            'against: RUN\nservers: [{target: testbed, policy: "a\\0b"}]',
            "server 1: policy a\ufffdb: cannot be read (embedded null byte)",
        ),
        ("servers: [{}]", "server 1: target is missing"),
        ("servers:\n- {target: a}", "line 2, server 1: against is missing, here and at the top"),
        ("servers:\n- {target: a, limits: 1}", "server 1: limits is unknown; expected target"),
        ("servers:\n- {target: a, limit: 'x'}", "server 1: limit is 'x'; expected a share"),
        (
            "against: RUN\nservers:\n- {target: gone.json}",
            "server 1: config gone.json: there is no such file",
        ),
        ("against: gone\nservers: [{target: testbed}]", "server 1: run gone: is not a run"),
        ("a: &a [1]\nb: *a", "has an alias"),
        (f"servers: [{{{'x' * 500}: 1}}]", "xxx… is unknown; expected target"),
        (f"against: {'a' * 5000}\nservers: [{{target: b}}]", "server 1: [Errno 36] File name too long"),
    ],
)
def test_a_wrong_fleet_is_one_sentence(run, tmp_path, text, says, capsys):
    file = tmp_path / "fleet.yaml"
    file.write_text(text.replace("RUN", str(run)))
    assert main(["check", "--fleet", str(file)]) == 1
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1 and len(err) < 600


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {k: v}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 9)}]}}\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "bomb.yaml": (BOMB, "parts with its aliases (*) written out"),
    "merges.yaml": (MERGES, "parts with its aliases (*) written out"),
    "itself.yaml": ("a: &a [*a]", "parts with its aliases (*) written out"),
    "deep.yaml": ("[" * 50_000, "is not valid YAML"),
    "large.yaml": ("a: 1\n" * 30_000, "is larger than 100000 bytes"),
    "tag.yaml": ("a: !!python/object/apply:os.system [ls]", "is not valid YAML"),
    "bool.yaml": ("a: !!bool x", "is not valid YAML"),
    "date.yaml": ("a: !!timestamp x", "is not valid YAML"),
    "scripts.sh": ("sh -c 'sh -c \"sh -c \\\"sh -c x\\\"\"'", "scripts in scripts, more than 3 deep"),
    "hidden.sh": ("vllm serve m " + "'vllm.' " * 12_000, None),
    "twice.yaml": ("a: 1\na: 2", "has 'a' twice"),
    "empty.yaml": ("", "has no server of vLLM or SGLang"),
    "list.yaml": ("- 1\n- [2]", "has no server of vLLM or SGLang"),
    "quote.yaml": ("image: x\ncommand: vllm serve 'm", "a quote is open"),
    "json.sh": ("vllm serve m --hf-overrides '{3}'", "is not valid JSON"),
    "deep.sh": ("vllm serve m --hf-overrides '" + "[" * 50_000 + "'", "is not valid JSON"),
    "list.sh": ("vllm serve m --hf-overrides '[3]'", "is a list; expected a JSON object"),
    "open.sh": ("vllm serve 'm", "line 1: is no shell command"),
    "return.sh": ("vllm serve m \\\r\n --port 1", "is no shell command"),
    "none.sh": ("echo hello", "has no command of vLLM or SGLang"),
    "large.txt": ("x " * 60_000, "is larger than 100000 bytes"),
    "words.sh": ("vllm serve m " + "'a' " * 24_000, None),
    "servers.sh": ("vllm serve m;" * 7_600, "has 7600 servers; expected at most 1000"),
    "Modelfile": ("FROM a" + " " * 90_000 + "b", "File name too long"),
    "home.Modelfile": ("FROM ~nobody-of-that-name/x", None),
    "null.Modelfile": ("FROM ~nobody\0 x", None),
    "long.sh": (f"vllm serve m --config {'a' * 5000}", "File name too long"),
    "image.yaml": ("image: vllm-openai" + ":111111.111111" * 7000 + "/\nargs: [x]", None),
    "number.yaml": (f"image: vllm-openai:1\nargs: [0x{'f' * 9000}]", "line 2: has a number of more than 1000"),
    "hours.yaml": ("a: " + "1:" * 40_000 + "1.5", "is not valid YAML"),
    "binary": ("\ud800\x00\x01", "is no text"),
    "many.json": ('{"layers": [3]}', None),
    "manifest.json": ('{"layers": [{"digest": 9223372036854775808}]}', "layer 1: digest is 9223372036854775808"),
    "lost.json": (f'{{"layers": [{{"digest": "sha256:{"a" * 64}"}}]}}', "no folder above it has blobs"),
    "pod.json": ('{"apiVersion": "v1", "kind": "Pod"}', "has no server of vLLM or SGLang"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_sentence(run, tmp_path, name, capsys):
    text, says = HOSTILE[name]
    file, started = tmp_path / name, time.monotonic()
    file.write_bytes(text.encode(errors="surrogatepass"))
    code = main(["check", str(file), "--against", str(run)])
    err = capsys.readouterr().err
    assert code == (3 if says is None else 1) and (says or "") in err
    assert err.count("\n") == (says is not None) and "bug" not in err and len(err) < 500
    assert time.monotonic() - started < 30


@given(st.binary(max_size=300))
def test_random_yaml_is_a_sentence_at_worst(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "random.yaml"
    file.write_bytes(content)
    try:
        strict_yaml.documents(file, "x")
    except LayeralignError as error:
        assert len(str(error)) < 400


def test_what_belongs_to_another_kind_of_target_is_refused(run, tmp_path):
    line = f"vllm serve {MODEL}"
    for options, says in (
        ({"revision": "main"}, "its own flags are read"),
        ({"hf_overrides": "{}"}, "its own flags are read"),
        ({"runtime": "sglang@0.5.23"}, "is for vllm; expected vllm@VERSION"),
    ):
        with pytest.raises(LayeralignError, match=says):
            check(run, tmp_path, "serve.sh", line, **options)
    with pytest.raises(LayeralignError, match="does not go with other arguments"):
        layeralign.check("testbed", run, fleet="x")
    with pytest.raises(LayeralignError, match="expected a config or endpoint"):
        layeralign.check("testbed")


def test_a_command_of_braces_is_read_at_once():
    start = time.process_time()
    assert list(command.commands("{" * 90_000, "x")) == [(1, ["{" * 90_000])]
    assert time.process_time() - start < 5  # a minute, when each brace was followed to the end
