"""A running endpoint is asked from which exit it answers; the servers here answer from a run."""

import base64
import hashlib
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import layeralign
from faulty import QUICK, OpenAI, completion, serving
from layeralign import LayeralignError
from layeralign.analysis.results import Results
from layeralign.cli import main
from layeralign.gating import endpoint, questions
from layeralign.judges.models.remote import Endpoint
from layeralign.testbed.drawn import drawn

PATIENT = QUICK | {"timeout": 10.0}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The bundled model's answers to 80 cases at four exits."""
    folder = tmp_path_factory.mktemp("endpoint") / "run"
    layeralign.scan("testbed", "testbed:dev", folder, exits="0,3,4,7", limit=80, max_new_tokens=16)
    return Results.load(folder)


class Served(OpenAI):
    """The scanned model at one exit: it looks at the request's text and the pixels of its picture."""

    def __init__(self, run, exit, say=lambda answer: answer):
        super().__init__()
        pictures = drawn(case.id for case in run.cases)
        self.say = say
        self.known = {
            (case.prompt, pixels(pictures[case.id].open())): run.answers[case.id, exit, 0]
            for case in run.cases
        }

    def reply(self, body):
        return 200, completion(self.say(self.known[self.shown(body)]))

    @staticmethod
    def shown(body):
        picture, text = body["messages"][-1]["content"]
        encoded = picture["image_url"]["url"].partition("base64,")[2]
        return text["text"], pixels(Image.open(io.BytesIO(base64.b64decode(encoded))))


def third(text):
    """0 for about a third of all texts, the same ones each time."""
    return hashlib.sha256(text.encode()).digest()[0] % 3


def pixels(picture):
    return hashlib.sha256(picture.convert("RGB").tobytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("exit", [0, 3, 4, 7])
def test_the_served_exit_is_named(run, exit):
    with serving(Served(run, exit)) as server:
        found = endpoint.locate(Endpoint.of(server.url, "m", **PATIENT), run)
        assert server.asked == found.asked <= questions.QUESTIONS
    assert found.fits[0].exit == exit and found.fits[0].agreement == 1
    assert [fit.exit for fit in found.exits] == [exit]


@pytest.mark.slow
def test_an_exit_is_named_though_a_third_of_the_answers_go_another_way(run):
    """As in another precision: from some word on they differ from every exit's."""

    def other(answer):
        words = answer.split()
        return answer if third(answer) else " ".join([*words[:-2], "and", "so", "on"])

    with serving(Served(run, 3, other)) as server:
        found = endpoint.locate(Endpoint.of(server.url, "m", **PATIENT), run)
    assert [fit.exit for fit in found.exits] == [3] and 0.5 < found.fits[0].agreement < 1


@pytest.mark.slow
@pytest.mark.parametrize("words", ["", "no.", "the weather is fine today", "\x1b[31m<b>" * 20])
def test_another_model_fits_no_exit_and_passes_nothing(run, words, capsys):
    with serving(Served(run, 0, lambda _: words)) as server:
        assert (
            main(["check", "--endpoint", f"m@{server.url}", "--against", str(run.path), "--limit", "0.99"])
            == 3
        )
    said = capsys.readouterr()
    assert "those of no scanned exit" in said.out + said.err and "\x1b[31m" not in said.out + said.err


@pytest.mark.slow
def test_the_exit_is_held_to_the_limit(run, capsys):
    """Exit 0 answers most of the harmful requests, so it fails; no exit is shown safe by so few cases."""
    for exit, code in ((0, 2), (7, 3)):
        with serving(Served(run, exit)) as server:
            assert main(["check", "--endpoint", f"m@{server.url}", "--against", str(run.path)]) == code
        said = capsys.readouterr().out
        assert f"it runs at exit {exit}" in said and "100 % agreement" in said
    with serving(Served(run, 7)) as server:
        command = [
            "check",
            "--endpoint",
            f"m@{server.url}",
            "--against",
            str(run.path),
            "--limit",
            "0.99",
            "--json",
        ]
        assert main(command) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["endpoint"]["fits"][0]["exit"] == 7 and told["servers"][0]["result"] == "pass"


@pytest.mark.slow
def test_a_server_of_several_exits_is_none_of_them(run, capsys):
    """Behind a load balancer, half of the requests reach exit 0; the check passed for exit 7 alone."""
    others = Served(run, 0)

    class Balanced(Served):
        def reply(self, body):
            half = hashlib.sha256(str(body).encode()).digest()[0] % 2
            return super().reply(body) if half else others.reply(body)

    with serving(Balanced(run, 7)) as server:
        command = ["check", "--endpoint", f"m@{server.url}", "--against", str(run.path), "--limit", "0.99"]
        assert main(command) == 3
    assert "or several exits" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.slow
@pytest.mark.parametrize("other", [3, 4, 7])
def test_no_exit_explains_the_answers_of_two(run, other):
    """Answers of exits 0 and 7, each from one of them at random, fitted exit 3 once and passed for it."""
    exits = sorted({exit for _, exit, _ in run.answers})
    told = [[run.answers[case.id, exit, 0].split() for exit in exits] for case in run.cases]
    chosen = questions.choose(told)[: questions.QUESTIONS]
    named = 0
    for seed in range(200):
        from_other = np.random.default_rng(seed).permutation(len(chosen)) % 2
        replies = [
            (told[at][exits.index(other if second else 0)], told[at])
            for at, second in zip(chosen, from_other, strict=True)
        ]
        fits = endpoint.fits(run, exits, replies)
        named += any(fit.fits for fit in fits)
        assert not any(fit.fits and fit.exit not in (0, other) for fit in fits), seed
    assert named <= 4


@pytest.mark.slow
def test_failed_answers_are_no_evidence(run):
    class Broken(Served):
        def reply(self, body):
            known = super().reply(body)
            return known if third(str(body)) else (400, {"error": {"message": "no"}})

    with serving(Broken(run, 4)) as server:
        found = endpoint.locate(Endpoint.of(server.url, "m", **PATIENT), run)
    assert endpoint.FEWEST <= found.answered < found.asked and found.fits[0].exit == 4
    with serving(Served(run, 4), status=400) as server, pytest.raises(LayeralignError, match="answered 0 of"):
        endpoint.locate(Endpoint.of(server.url, "m", **PATIENT), run)


def test_mistakes_are_one_sentence(run, tmp_path, capsys):
    for words, says in (
        (["--endpoint", "http://localhost:1/v1", "--against", str(run.path)], "expected MODEL@URL"),
        (["--endpoint", "m@http://u:p@h/v1", "--against", str(run.path)], "contains credentials"),
        (["--endpoint", "m@http://h/v1"], "--against is missing"),
        (
            ["--endpoint", "m@http://h/v1", "--runtime", "vllm", "--against", str(run.path)],
            "does not go with",
        ),
        (
            ["--endpoint", "m@http://h/v1", "--adapter", "a", "--against", str(run.path)],
            "are those of a model",
        ),
        (["--endpoint", "m@http://h/v1", "--against", str(run.path), "--limit", "2"], "expected a share"),
    ):
        assert main(["check", *words]) == 1
        said = capsys.readouterr().err
        assert says in said and said.count("\n") == 1


@pytest.mark.parametrize("given", ["http://u:sk-1@localhost/v1", "m@HTTP://u:sk-1@localhost/v1"])
def test_an_address_that_is_no_endpoint_is_not_shown(given):
    with pytest.raises(LayeralignError, match="expected MODEL@URL") as error:
        endpoint.check(given, None)
    assert "sk-1" not in str(error.value)


def test_the_scans_system_prompt_is_sent(run):
    class Systemic(Served):
        def reply(self, body):
            assert body["messages"][0] == {"role": "system", "content": "Be brief."}
            return super().reply(body)

    decoding = run.identity["decoding"] | {"system": "Be brief."}
    run.pictures  # noqa: B018 - read before, as no folder has a run of this identity
    told = replace(run, identity={**run.identity, "decoding": decoding})
    with serving(Systemic(run, 7)) as server:
        assert endpoint.locate(Endpoint.of(server.url, "m", **PATIENT), told).fits[0].exit == 7


@pytest.mark.slow
def test_a_run_that_cannot_tell_is_refused(run, tmp_path):
    ask = Endpoint.of("http://localhost:1/v1", "m", **QUICK)
    for name, settings, says in (
        ("one", {"exits": "7"}, "has one exit"),
        ("sampled", {"exits": "0,7", "temperature": 1.0}, "was sampled"),
    ):
        layeralign.scan("testbed", "testbed:dev", tmp_path / name, limit=4, max_new_tokens=2, **settings)
        with pytest.raises(LayeralignError, match=says):
            endpoint.locate(ask, Results.load(tmp_path / name))


def test_agreement_counts_equal_words_at_the_start():
    assert questions.agreement(["a", "b", "c"], ["a", "b", "d", "e"]) == 0.5
    assert questions.agreement([], []) == 1 and questions.agreement([], ["a"]) == 0
    assert questions.agreement(["a"], ["a", "b"]) == 0.5


def test_questions_tell_every_two_exits_apart():
    """The first tells exit 0 from the others, the second exits 1 and 2; the third repeats the first."""
    told = [[["x"], ["y"], ["y"]], [["x"], ["x"], ["z"]], [["x"], ["y"], ["y"]], [["s"], ["s"], ["s"]]]
    assert questions.choose(told) == [0, 1, 2]
    with pytest.raises(LayeralignError, match="same answers"):
        questions.choose(told[3:])


def test_an_exit_fits_until_so_many_questions_exclude_it(run):
    """Questions for the best exit and none against: 0.1 to that power, times 3 others and 3 pairs of them."""
    yes, no = ["a"], ["b"]
    for count, p, fits in ((2, 0.06, True), (3, 0.006, False)):
        found = endpoint.fits(run, [0, 3, 4, 7], [(yes, [yes, no, no, yes])] * count)
        assert [one.exit for one in found] == [0, 7, 3, 4]
        assert [(one.p, one.fits) for one in found[2:]] == [(pytest.approx(p), fits)] * 2
        assert found[1].p == 1 and found[1].fits
