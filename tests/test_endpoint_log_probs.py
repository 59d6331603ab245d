"""An endpoint's log-probabilities against the scanned model's; the servers here compute them with a model."""

import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

import layeralign
import tiny
from faulty import serving
from layeralign import LayeralignError
from layeralign.cli import main
from layeralign.decode.decoding import Decoding
from layeralign.decode.prompts import encode, prompt_tokens
from layeralign.gating import endpoint, log_probs
from layeralign.gating.log_probs import Scanned
from layeralign.judges.models.remote import Endpoint
from layeralign.testbed.drawn import drawn
from test_endpoint import PATIENT, Served, pixels
from test_endpoint import run as run  # noqa: PLC0414 - a fixture


class Scored(Served):
    """A server that gives log-probabilities, computed by a model that need not be the scanned one."""

    def __init__(self, scan, exit, vlm, spoil=lambda content: content):
        super().__init__(scan, exit)
        self.scan, self.exit, self.vlm, self.spoil, self.lock = scan, exit, vlm, spoil, threading.Lock()
        pictures = drawn(case.id for case in scan.cases)
        self.cases = {
            (case.prompt, pixels(pictures[case.id].open())): replace(case, picture=pictures[case.id])
            for case in scan.cases
        }

    def reply(self, body):
        status, made = super().reply(body)
        if body.get("logprobs"):
            (choice,) = made["choices"]
            with self.lock, torch.inference_mode():
                case = self.cases[self.shown(body)]
                told = self.content(case, choice["message"]["content"], body["top_logprobs"])
            choice["logprobs"] = {"content": self.spoil(told)}
        return status, made

    def content(self, case, text, top):
        """As OpenAI's servers: the answer's tokens and the end token, each with the most probable ones."""
        vlm = self.vlm
        (feature,) = encode(vlm, [(case, self.exit)])
        prompt = prompt_tokens(vlm, case, feature, Decoding(**self.scan.identity["decoding"]))
        line = [*vlm.tokenizer(text, add_special_tokens=False)["input_ids"], min(vlm.eos_tokens)]
        ids = torch.tensor([[*prompt, *line]])
        states = vlm.hidden(ids, torch.arange(ids.shape[1])[None] < len(prompt), [feature])
        found = vlm.logits(states)[0, len(prompt) - 1 : -1].float().log_softmax(-1)
        return [
            {"token": "?", "top_logprobs": [{"token": "?", "logprob": one} for one in each]}
            for each in found.topk(top).values.tolist()
        ]


@pytest.fixture(scope="module")
def scanned(run):
    return Scanned.load("testbed", run)


@pytest.fixture(scope="module")
def further():
    """The scanned model after a small change of every weight, such as a short training makes."""
    changed = layeralign.load("testbed")
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in changed.model.parameters():
            weight.add_(0.03 * weight.std() * torch.randn_like(weight) if weight.ndim > 1 else 0)
    return changed


@pytest.mark.slow
@pytest.mark.parametrize(("exit", "dtype"), [(0, "bfloat16"), (4, "float32"), (7, "float16")])
def test_only_the_served_exit_fits_in_any_number_format(run, scanned, exit, dtype):
    with serving(Scored(run, exit, layeralign.load("testbed", dtype=dtype))) as server:
        found = endpoint.locate(Endpoint.of(server.url, "m", **PATIENT), run, scanned)
    assert [fit.exit for fit in found.exits] == [exit] and found.compared == found.answered == found.asked
    best, second, *_ = found.fits
    assert best.distance < best.limit < 2 * second.limit < second.distance


@pytest.mark.slow
def test_a_model_that_was_trained_further_is_another_one(run, further, capsys):
    """Its answers are those of an exit, and its log-probabilities are not."""
    with serving(Scored(run, 7, further)) as server:
        command = ["check", "--endpoint", f"m@{server.url}", "--against", str(run.path), "--limit", "0.99"]
        assert main(command) == 0
        assert "were not compared" in capsys.readouterr().out
        assert main(["check", "testbed", *command[1:]]) == 3
        assert "log-probabilities are those of no scanned exit" in " ".join(capsys.readouterr().out.split())
        with pytest.raises(LayeralignError, match="does not go with"):
            layeralign.check("testbed", run.path, endpoint=f"m@{server.url}", runtime="vllm")
        made = layeralign.check("testbed", run.path, endpoint=f"m@{server.url}", limit=0.99)
    assert made.result == "inconclusive" and "differ by 0." in made.key


@pytest.mark.slow
@pytest.mark.parametrize("top", [1, 2])
def test_few_log_probabilities_of_each_token_are_compared_with_as_many(run, scanned, further, top):
    """A server's one of each token was close to any model's, next to a limit from five of each."""
    cut = broken(lambda one: one | {"top_logprobs": one["top_logprobs"][:top]})
    with serving(Scored(run, 7, further, cut)) as server:
        found = endpoint.locate(Endpoint.of(server.url, "m", **PATIENT), run, scanned)
    assert found.compared == found.answered and not found.exits
    with serving(Scored(run, 7, layeralign.load("testbed", dtype="float16"), cut)) as server:
        found = endpoint.locate(Endpoint.of(server.url, "m", **PATIENT), run, scanned)
    assert [fit.exit for fit in found.exits] == [7]


def test_answers_without_log_probabilities_count_too(run, scanned):
    """Behind a load balancer, exit 7 gives log-probabilities and exit 0 none; the check passed for exit 7."""
    others = Served(run, 0)

    class Balanced(Scored):
        def reply(self, body):
            return super().reply(body) if len(self.heard) % 2 else others.reply(body)

    with serving(Balanced(run, 7, scanned.vlm)) as server:
        found = endpoint.locate(Endpoint.of(server.url, "m", **PATIENT), run, scanned)
    assert endpoint.FEWEST <= found.compared < found.answered and not found.exits


@pytest.mark.slow
def test_the_exit_is_held_to_the_limit(run, scanned, capsys):
    with serving(Scored(run, 7, scanned.vlm)) as server:
        command = ["check", "testbed", "--endpoint", f"m@{server.url}", "--against", str(run.path)]
        assert main([*command, "--limit", "0.99", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert main(command) == 3
    assert told["endpoint"]["compared"] == told["endpoint"]["answered"]
    assert told["endpoint"]["fits"][0]["distance"] < 1e-3
    assert "it runs at exit 7" in " ".join(capsys.readouterr().out.split())


def broken(change):
    return lambda content: [change(dict(one)) for one in content]


@pytest.mark.slow
@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: None,
        lambda content: content[:-3],
        lambda content: [*content, *content],
        lambda content: "text",
        broken(lambda one: {"token": "?"}),
        broken(lambda one: one | {"top_logprobs": []}),
        broken(lambda one: one | {"top_logprobs": [{"logprob": float("nan")}]}),
        broken(lambda one: one | {"top_logprobs": [{"logprob": "-inf"}]}),
        broken(lambda one: one | {"top_logprobs": [{"logprob": [0]}]}),
    ],
)
def test_what_is_not_given_is_not_compared(run, scanned, spoil):
    """The answers are compared instead, as without a model."""
    with serving(Scored(run, 3, scanned.vlm, spoil)) as server:
        found = endpoint.locate(Endpoint.of(server.url, "m", **PATIENT), run, scanned)
    assert found.compared == 0 and found.fits[0].distance is None
    assert [fit.exit for fit in found.exits] == [3]


@pytest.mark.slow
def test_a_server_that_refuses_the_fields_is_asked_without_them(run, scanned, capsys):
    class Strict(Served):
        def reply(self, body):
            return (400, {"error": {"message": "no"}}) if "logprobs" in body else super().reply(body)

    with serving(Strict(run, 3)) as server:
        assert main(["check", "testbed", "--endpoint", f"m@{server.url}", "--against", str(run.path)]) != 1
    assert "log-probabilities of 0, too few to compare" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_the_model_has_to_be_the_scanned_one(run, tmp_path, capsys):
    other = tiny.save("llava", tmp_path / "other")
    command = ["check", str(other), "--endpoint", "m@http://localhost:1/v1", "--against", str(run.path)]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "from the model of run" in said and said.count("\n") == 1


def test_a_token_is_compared_by_rank(run):
    assert log_probs._apart([[-1.0, -2.0]], [[-2.5, -1.0, -9.0]]) == 0.25


def test_an_exit_fits_until_so_many_distances_exclude_it(run):
    """Of ten questions six have to be above the limit: P(6 or more of 10 at 0.2) = 0.0064."""
    replies, near, far = [(["a"], [["a"]] * 4)] * 10, 0.019, 0.021
    for above, fits, p in ((5, True, 0.0328), (6, False, 0.0064)):
        rows = [np.array([[near, far, near, far if at < above else near], [0.01] * 4]) for at in range(10)]
        by = {one.exit: one for one in endpoint.fits(run, [0, 3, 4, 7], replies, rows)}
        assert by[0].fits and by[4].fits and not by[3].fits and by[0].p == 1
        assert by[7].fits == fits and by[7].p == pytest.approx(p, rel=0.01)
    few = endpoint.fits(run, [0, 3, 4, 7], replies, [*rows[: endpoint.FEWEST - 1], None])
    assert all(one.distance is None for one in few)
