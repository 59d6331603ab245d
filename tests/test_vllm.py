"""Scans whose language model runs on a vLLM server: on a loopback server that keeps vLLM's contract.

`benchmarks/runtimes/vllm_engine.py` compares with a real one.
"""

import json
import signal
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model

import children
import layeralign
import vllm_loopback
from layeralign import LayeralignError
from layeralign.cli import main
from layeralign.decode.decoding import Decoding
from layeralign.decode.stream import respond
from layeralign.judges.models.service import Failure
from layeralign.runs.opening import open_run
from layeralign.sweep.vllm import handshake, server
from layeralign.sweep.vllm.flow import LEAST, Flow
from layeralign.sweep.vllm.server import Asked, Said, Server
from layeralign.testbed.cases import cases
from layeralign.vlm.load import empty, load
from layeralign.vlm.placement import language_model_on_disk

SCAN = {"cases": "testbed:dev", "limit": 12, "exits": "0,3,default", "max_new_tokens": 10}


@pytest.fixture(scope="module")
def vlm():
    return load("testbed")


def rows(folder):
    with open_run(folder) as run:
        return sorted(
            (r["case"], r["exit"], r["sample"], r["answer"], r["tokens"], r["finish_reason"])
            for r in run.rows()
        )


def scan(url, out, **settings):
    return layeralign.scan("testbed", out=out, engine="vllm", endpoint=url, **SCAN | settings)


@pytest.fixture(scope="module")
def ours(vlm, tmp_path_factory):
    out = tmp_path_factory.mktemp("ours") / "run"
    layeralign.scan(vlm, out=out, **SCAN)
    return rows(out)


@pytest.mark.slow
def test_the_rows_are_those_of_our_engine(vlm, ours, tmp_path):
    with vllm_loopback.serving(vlm) as server:
        found = scan(server.url, tmp_path / "run")
    assert rows(tmp_path / "run") == ours
    engine = {"name": "vllm", "version": "0.32.0", "model": "m"}
    with open_run(tmp_path / "run") as run:
        assert run.identity["engine"] == engine
    assert found.summary.exits
    for body in server.bodies:  # nothing is left to the server's own defaults
        assert (body["repetition_penalty"], body["top_k"], body["min_p"]) == (1.0, 0, 0.0)


@pytest.mark.slow
def test_controls_and_samples_are_asked_as_they_are_here(vlm, tmp_path):
    settings = SCAN | {"limit": 6, "controls": True}
    layeralign.scan(vlm, out=tmp_path / "ours", **settings)
    sampled = SCAN | {"limit": 4, "temperature": 0.8, "samples": 2, "system": ""}
    layeralign.scan(vlm, out=tmp_path / "sampled", **sampled)
    with vllm_loopback.serving(vlm) as server:
        scan(server.url, tmp_path / "theirs", **settings)
        scan(server.url, tmp_path / "also", **sampled)
    assert rows(tmp_path / "theirs") == rows(tmp_path / "ours")
    assert rows(tmp_path / "also") == rows(tmp_path / "sampled")


@pytest.mark.slow
def test_a_run_of_another_engine_is_refused(vlm, tmp_path):
    layeralign.scan(vlm, out=tmp_path / "run", **SCAN | {"limit": 4})
    with vllm_loopback.serving(vlm) as server, pytest.raises(LayeralignError, match="engine"):
        scan(server.url, tmp_path / "run", limit=4)


@pytest.mark.slow
def test_the_language_model_is_not_loaded_and_computes_the_same(vlm):
    made = load("testbed", device_map=language_model_on_disk(empty("testbed"), "cpu"))
    assert all(weight.is_meta for weight in made.model.get_decoder().parameters())
    assert not any(weight.is_meta for weight in made.tower.parameters())
    (case,) = cases("dev", 1)
    features = [one.encode([case.picture.open()], [3])[3][0] for one in (made, vlm)]
    assert torch.equal(features[0].tokens, features[1].tokens)
    ids = torch.tensor([vlm.tokens(vlm.prompt(case.prompt, picture=True), features[0])])
    inside = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        one, other = (m.logits(m.hidden(ids, inside, features[:1])) for m in (made, vlm))
    assert torch.equal(one, other)


@pytest.mark.slow
def test_an_adapter_with_weights_of_the_model_itself_is_refused_on_disk(tmp_path):
    config = LoraConfig(r=2, target_modules=["lm_head"])  # PEFT saves the head, too
    get_peft_model(load("testbed").model, config).save_pretrained(tmp_path)
    places = language_model_on_disk(empty("testbed"), "cpu")
    with pytest.raises(LayeralignError, match=r"lm_head\.base_layer\.weight is a weight of the model itself"):
        load("testbed", adapter=tmp_path, allow_base=True, device_map=places)


# --- the handshake: a server that computes something else is refused, and nothing is written


@pytest.mark.slow
def test_a_server_at_another_layer_is_refused(vlm, tmp_path):
    with vllm_loopback.serving(vlm) as server:
        server.layer = 0
        with pytest.raises(
            LayeralignError, match=r"features of exit 7; the server has another encoder layer"
        ):
            scan(server.url, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_server_with_another_language_model_is_refused(vlm, tmp_path):
    with (
        vllm_loopback.serving(changed(vlm)) as server,
        pytest.raises(LayeralignError, match="another language model"),
    ):
        scan(server.url, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_server_that_answers_from_its_own_picture_is_refused(vlm, tmp_path):
    """It is right at the default exit only."""
    with vllm_loopback.serving(vlm) as server:
        server.pictures = {}
        with pytest.raises(LayeralignError, match="are not those of model testbed"):
            scan(server.url, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def changed(vlm):
    other = load("testbed")
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in other.model.get_decoder().parameters():
            weight.add_(torch.randn_like(weight) * weight.std() * 0.5)
    return other


@pytest.mark.slow
def test_a_server_that_changes_during_the_scan_is_seen(vlm, tmp_path):
    with vllm_loopback.serving(vlm) as server:
        server.becomes = (22, changed(vlm))
        with pytest.raises(LayeralignError, match="no longer those of the start"):
            scan(server.url, tmp_path / "run", limit=6)
    with (  # it is put right: the answers were kept, and the same command ended as if all were well
        vllm_loopback.serving(vlm) as server,
        pytest.raises(LayeralignError, match="was changed while it answered, so use a new folder"),
    ):
        scan(server.url, tmp_path / "run", limit=6)
    layeralign.judge(tmp_path / "run", ["refusal"])
    policy = {"rules": [{"metric": "invalid", "exits": "default", "max": 0.5}]}
    found = layeralign.gate(tmp_path / "run", policy)
    assert found.result == "inconclusive" and "another model's" in found.caution
    assert "engine was changed while it answered" in found.outcomes[0].worst.why


@pytest.mark.slow
@pytest.mark.parametrize("token", ["picture", "end"])
def test_a_server_that_answers_with_control_tokens_is_refused(vlm, tmp_path, token):
    id = vlm.picture_token_id if token == "picture" else max(vlm.eos_tokens)
    said = [id] * (SCAN["max_new_tokens"] if token == "picture" else 1)
    with vllm_loopback.serving(vlm) as server:
        real = server.answer
        server.answer = lambda body: (
            real(body) | {"choices": [{"token_ids": said}]} if vllm_loopback.embeds(body) else real(body)
        )
        with pytest.raises(LayeralignError, match="are not those"):
            scan(server.url, tmp_path / "run", limit=4)


@pytest.mark.slow
def test_a_server_with_another_template_is_refused(vlm, tmp_path):
    with vllm_loopback.serving(vlm) as server:
        server.ids = lambda ids: ids[1:]
        with pytest.raises(
            LayeralignError, match="which differ from token 1 on; it has another chat template"
        ):
            scan(server.url, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_server_that_takes_no_features_is_refused(vlm, tmp_path):
    with vllm_loopback.serving(vlm) as server:
        server.features = False
        with pytest.raises(LayeralignError, match="start it with --enable-mm-embeds"):
            scan(server.url, tmp_path / "run")


@pytest.mark.parametrize(
    ("settings", "asked", "says"),
    [
        ({"version": None}, "", "answered 404.* expected a vLLM server"),
        ({"models": ()}, "", "has the models none; name one as MODEL@http"),
        ({"models": ("a", "b")}, "", "has the models a, b; name one as MODEL@http"),
        ({"models": ("a", "b")}, "c@", "has no model c; it has a, b"),
        ({"models": ("a\x1b[2J", "b" * 201, "\ud800", "c\u202e")}, "", "has the models none"),
    ],
)
def test_what_is_no_such_server_is_one_sentence(vlm, tmp_path, settings, asked, says):
    with vllm_loopback.serving(vlm, **settings) as server, pytest.raises(LayeralignError, match=says):
        scan(asked + server.url, tmp_path / "run")


def test_logits_here_that_are_not_numbers_are_a_difference(vlm, monkeypatch):
    (case,) = cases("dev", 1)
    feature = vlm.encode([case.picture.open()], [3])[3][0]
    ids = vlm.tokens(vlm.prompt(case.prompt, picture=True), feature)
    (said,) = respond(vlm, [ids], [feature], Decoding(max_new_tokens=4))
    given = [SimpleNamespace(tokens=said.tokens)]
    server = SimpleNamespace(service=SimpleNamespace(url="http://127.0.0.1:1/v1"))

    def compare():
        handshake._compare_own(server, vlm, [SimpleNamespace(ids=ids)], [feature], given, near=0.1)

    compare()
    logits = vlm.logits
    monkeypatch.setattr(vlm, "logits", lambda states: logits(states) * torch.nan)
    with pytest.raises(LayeralignError, match="1 of 1 answers are not those of model"):
        compare()


@pytest.mark.parametrize("longest", [True, 0, -5, 1.5, "9" * 5000, None])
def test_a_context_that_is_no_length_is_none(vlm, longest):
    with vllm_loopback.serving(vlm) as server:
        server.longest = longest
        assert Server(server.url).longest is None


@pytest.mark.slow
def test_a_text_that_spells_a_special_token_is_refused_before_others_are_asked(vlm, tmp_path):
    texts = [case.prompt for case in cases("dev", 12)]
    each = [{"id": str(n), "prompt": text, "kind": "harmful"} for n, text in enumerate(texts)]
    each[-1]["prompt"] += " </s>"
    given = tmp_path / "cases.jsonl"
    given.write_text("\n".join(map(json.dumps, each)))
    with vllm_loopback.serving(vlm) as server:
        with pytest.raises(LayeralignError, match=r"case '11': its text spells a special token"):
            scan(server.url, tmp_path / "run", cases=str(given))
        assert not server.bodies
        scan(server.url, tmp_path / "run", cases=str(given), special_tokens="parse")
    assert {row[0] for row in rows(tmp_path / "run")} == {str(n) for n in range(12)}


@pytest.mark.slow
def test_a_family_that_was_not_seen_in_vllm_is_refused(vlm, monkeypatch, tmp_path):
    monkeypatch.setattr(handshake, "FAMILIES", ("other",))
    with (
        vllm_loopback.serving(vlm) as server,
        pytest.raises(LayeralignError, match="family llava was not seen"),
    ):
        scan(server.url, tmp_path / "run")


def test_near_ties_do_not_count_and_other_differences_do():
    near = 0.01
    one = Said([], [1, 2, 3], [5.0, 0.001, 5.0])
    assert not handshake._differ(one, one, near)
    assert not handshake._differ(one, Said([], [1, 9, 3], [5.0, 0.001, 5.0]), near)
    assert handshake._differ(one, Said([], [9, 2, 3], [5.0, 5.0, 5.0]), near)
    assert handshake._differ(one, Said([], [1, 2], [5.0, 0.001]), near)


@pytest.mark.parametrize(
    ("chosen", "best", "gap"),
    [
        (-0.1, (-0.1, -3.1), 3.0),
        (-0.7, (-0.7, -0.701), 0.001),
        (-3.1, (-0.1, -3.1), 3.0),  # drawn, though greedy was asked for
        (-9.1, (-0.1, -0.1), 9.0),
        (float("nan"), (float("nan"), float("nan")), float("inf")),
        (-0.1, (), 0.0),
    ],
)
def test_the_gap_of_a_token_that_is_not_the_best_is_no_near_tie(chosen, best, gap):
    assert server._gap(chosen, [{"logprob": one} for one in best]) == pytest.approx(gap)


# --- while it answers


@pytest.mark.slow
def test_a_server_that_answers_nothing_more_is_given_up(vlm, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "_BUDGET_S", 0.2)
    monkeypatch.setattr(server, "_ANSWER_S", 2.0)
    with vllm_loopback.serving(vlm) as one:
        one.broken = dict.fromkeys(range(20, 1000), 503)
        with pytest.raises(LayeralignError, match="resumes the scan"):
            scan(one.url, tmp_path / "run", limit=100, exits="all", max_new_tokens=4)
        assert len(one.bodies) < 300


@pytest.mark.slow
def test_a_failed_request_keeps_the_others_and_the_same_call_ends_the_scan(vlm, ours, tmp_path):
    with vllm_loopback.serving(vlm) as server:
        server.broken = {
            18 + 5: 400,
            18 + 9: {"choices": [{"token_ids": [10**9] * 3}], "prompt_token_ids": []},
        }
        with pytest.raises(LayeralignError, match=r"the same command resumes the scan|reads case"):
            scan(server.url, tmp_path / "run")
        kept = rows(tmp_path / "run")
        assert 0 < len(kept) < len(ours)
        assert set(kept) < set(ours)
        server.broken = {}
        scan(server.url, tmp_path / "run")
    assert rows(tmp_path / "run") == ours


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        ([5], "neither an end token nor the largest length"),
        ([5] * 17, "more tokens than asked for"),
        ([10**6] * 16, "unknown ones"),
    ],
)
def test_tokens_that_no_model_would_give_are_a_failure(vlm, tokens, says):
    (case,) = cases("dev", 1)
    asked = Asked(((case, 0, 0),), [1, 2])
    given = Said([1, 2], tokens)
    assert says in Server.wrong(Server.__new__(Server), vlm, asked, given, Decoding(max_new_tokens=16))


@pytest.mark.parametrize(
    "reply", [{}, [], {"choices": []}, {"choices": [{"token_ids": [1], "logprobs": {"content": [
              {"logprob": 10**400, "top_logprobs": []}]}}], "prompt_token_ids": [1]}, {"choices": [{"token_ids": ["1"]}], "prompt_token_ids": [1]},
              {"choices": [{"token_ids": [-1]}], "prompt_token_ids": [1]},
              {"choices": [{"token_ids": [True]}], "prompt_token_ids": [1]}]
)  # fmt: skip
def test_a_reply_of_another_form_is_tried_again(reply):
    import httpx

    from layeralign._util.retry import Retry

    with pytest.raises(Retry):
        server.said_in(httpx.Response(200, json=reply))
    assert isinstance(server.said_in(httpx.Response(400, json=reply)), Failure)


@pytest.mark.slow
def test_a_prompt_longer_than_the_server_allows_is_one_sentence(vlm, tmp_path):
    with vllm_loopback.serving(vlm) as server:
        server.longest = 30
        with pytest.raises(LayeralignError, match=r"exceed the 30 positions .* larger --max-model-len"):
            scan(server.url, tmp_path / "run")


@pytest.mark.slow
def test_a_server_that_dies_ends_the_scan_with_one_sentence_and_loses_nothing(
    vlm, ours, tmp_path, monkeypatch
):
    monkeypatch.setattr(server, "_BUDGET_S", 0.5)
    with vllm_loopback.serving(vlm) as one:
        one.dies_after = 40
        with pytest.raises(LayeralignError, match="resumes"):
            scan(one.url, tmp_path / "run")
        kept = rows(tmp_path / "run")
        assert 0 < len(kept) < len(ours)
        one.dies_after = None
        scan(one.url, tmp_path / "run")
    assert rows(tmp_path / "run") == ours


@pytest.mark.slow
def test_the_uuid_names_the_features_and_not_the_picture(vlm):
    (case,) = cases("dev", 1)
    made = vlm.encode([case.picture.open()], [0, 3])
    ids = {server.features_part(vlm, made[exit][0])["uuid"] for exit in (0, 3)}
    other = load("testbed")
    with torch.no_grad():
        next(other.model.model.multi_modal_projector.parameters()).mul_(1.001)
    ids.add(server.features_part(other, other.encode([case.picture.open()], [3])[3][0])["uuid"])
    assert len(ids) == 3


# --- requests in flight


def rates(flow, per_second):
    """Let a server with `per_second(limit)` answers a second end a thousand rounds."""
    for _ in range(1000):
        limit = flow.limit
        for _ in range(4 * limit):
            now[0] += 1 / per_second(limit)
            flow.ended()


now = [0.0]


@pytest.mark.slow
def test_more_requests_are_in_flight_as_long_as_this_helps():
    for best, found in ((32, 32), (128, 128), (10_000, 512)):
        flow = Flow(clock=lambda: now[0])
        rates(flow, lambda limit, best=best: min(limit, best))
        assert flow.limit == found
    flow = Flow(clock=lambda: now[0])
    flow.at_most(3)
    rates(flow, lambda limit: limit)
    assert flow.limit == 3 < LEAST


# --- flags


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("--engine vllm", "belong together"),
        ("--endpoint http://localhost:1/v1", "belong together"),
        ("--engine vllm --endpoint localhost:1", "expected an address such as"),
        ("--engine vllm --endpoint http://127.0.0.1:9/v1 --screen", "work in one process"),
        ("--engine vllm --endpoint http://127.0.0.1:9/v1 --ray local", "expected one of them"),
        ("--engine vllm --endpoint http://127.0.0.1:9/v1", "cannot be reached"),
    ],
)
def test_wrong_flags_are_one_sentence(capsys, tmp_path, given, says):
    code = main(
        [
            "scan",
            "--model",
            "testbed",
            "--cases",
            "testbed",
            "--limit",
            "2",
            "--out",
            str(tmp_path / "r"),
            *given.split(),
        ]
    )
    err = capsys.readouterr().err
    assert code == 1 and says in err and not (tmp_path / "r").exists()


@pytest.mark.slow
def test_a_killed_scan_is_resumed_by_the_same_command(vlm, ours, tmp_path):
    with vllm_loopback.serving(vlm) as one:
        flags = [word for name, value in SCAN.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        command = [
            "scan",
            "--model",
            "testbed",
            *flags,
            "--out",
            str(tmp_path / "run"),
            "--engine",
            "vllm",
            "--endpoint",
            one.url,
        ]
        child = children.command(*command)
        child.wait_for(lambda: len(one.bodies) > 40)
        child.send(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        kept = rows(tmp_path / "run")
        assert set(kept) < set(ours)
        assert children.command(*command).wait() == 0
    assert rows(tmp_path / "run") == ours
