"""NaN and infinity are no behaviour: a row that meets them is invalid, says so, and spoils no other row."""

import itertools
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import layeralign
import tiny
from layeralign import LayeralignError
from layeralign.cases.case import Case
from layeralign.cli import main
from layeralign.decode import engine, memory
from layeralign.decode.decoding import Decoding
from layeralign.decode.requests import Prompt, Request, Wanted
from layeralign.decode.sampling import NON_FINITE, Sampler
from layeralign.decode.stream import respond
from layeralign.judges.models.local import LocalSpeaker
from layeralign.judges.models.remote import Completion
from layeralign.judges.toxicity import Output
from layeralign.testing import noise
from layeralign.training.settings import AlignSettings
from layeralign.training.train import train
from layeralign.vlm.load import load

CPU = torch.device("cpu")
BAD = [float("nan"), float("inf")]
EACH = list(zip(tiny.FAMILIES, itertools.cycle(BAD), strict=False))
"""Every family with one of the two."""


# --- the choice of a token


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(
    "decoding", [Decoding(), Decoding(temperature=1.0), Decoding(temperature=1.0, top_p=0.5)]
)
def test_no_token_is_chosen_from_logits_that_are_not_finite(bad, decoding):
    logits = torch.zeros(3, 50)
    logits[1, 7] = bad
    drawn = None if not decoding.temperature else torch.full((3,), 0.5, dtype=torch.float64)
    for suppressed in ([], [7]):  # also where the bad one could not be said
        made = Sampler(decoding, CPU, suppressed)(logits, drawn).tolist()
        assert made[1] == NON_FINITE and made[0] == made[2] >= 0


def test_a_token_that_cannot_come_is_no_failure():
    """Minus infinity is how models mask a token; only where nothing else is left is it a failure."""
    logits = torch.tensor([[0.0, -torch.inf, 1.0], [-torch.inf] * 3])
    assert Sampler(Decoding(), CPU)(logits, None).tolist() == [2, NON_FINITE]


# --- rows that fail, and their neighbours


def asked(vlm, n=6):
    """Rows of several pictures, exits and lengths, the first of them with features that are NaN or infinite."""
    pictures = [noise(32, 32), noise(20, 60)]
    exits = vlm.exits.all[1:4]
    made = vlm.encode(pictures, exits)
    features = [made[exits[row % len(exits)]][row % 2] for row in range(n)]
    texts = ["Hi.", "What is shown here, and why?", "Go!", "Describe it.", "A", "Count the shapes."]
    ids = [
        vlm.tokens(vlm.prompt(texts[row % 6] + "." * row, picture=True), f) for row, f in enumerate(features)
    ]
    return ids, features


def poisoned(feature, bad):
    found = feature.clone()
    found.tokens[0] = bad
    return found


@pytest.mark.parametrize(("name", "bad"), EACH)
@pytest.mark.slow
def test_a_row_that_fails_ends_with_that_reason_and_others_say_what_they_said(name, bad, tmp_path):
    vlm = load(tiny.save(name, tmp_path))
    ids, features = asked(vlm)
    wanted = respond(vlm, ids, features, Decoding(6), batch_size=3)
    for broken in ({0}, {1, 4}):
        spoilt = [poisoned(f, bad) if row in broken else f for row, f in enumerate(features)]
        made = respond(vlm, ids, spoilt, Decoding(6), batch_size=3)
        for row, (one, other) in enumerate(zip(made, wanted, strict=True)):
            if row in broken:
                assert (one.finish_reason, one.tokens) == ("non-finite", [])
            else:
                assert (one.tokens, one.finish_reason) == (other.tokens, other.finish_reason)


def spoil(monkeypatch, vlm, doomed, bad):
    """Behind their third token the rows that asked `doomed` prompts have `bad` in all that is cached of them.

    Where nothing is spoilt (None), the same rows leave at the same time. Returns the logits of every step.
    """
    heard = []
    own, decide, logits = engine.Engine._step, engine.Engine._ended, vlm.logits

    def step(self, state):
        for number, row in enumerate(self._rows):
            if row.wanted.keys[0] in doomed and len(row.tokens) == 3 and bad is not None:
                for whole in (t for held in self._cache._kv for t in held or ()):
                    whole[number] = bad
        return own(self, state)

    def ended(self, row):
        gone = bad is None and row.wanted.keys[0] in doomed and len(row.tokens) == 4
        return gone or decide(self, row)

    def watched(hidden):
        heard.append(logits(hidden))
        return heard[-1]

    monkeypatch.setattr(engine.Engine, "_step", step)
    monkeypatch.setattr(engine.Engine, "_ended", ended)
    monkeypatch.setattr(vlm, "logits", watched)
    return heard


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", ["llava", "mllama", "gemma3", "qwen3_vl", "paligemma2", "idefics3"])
@pytest.mark.slow
def test_keys_and_values_of_a_row_that_failed_reach_no_other(name, bad, tmp_path, monkeypatch):
    """Long rows fail and go, short ones take their places beside other long ones. Compared bit by bit."""
    vlm = load(tiny.save(name, tmp_path))
    ids, features = asked(vlm, 12)
    order = sorted(range(12), key=lambda row: -len(ids[row]))
    doomed = {order[1], order[3], order[6]}  # the last place among them, whose keys nothing overwrites
    runs = []
    for spoilt in (bad, None):
        with monkeypatch.context() as patch:
            heard = spoil(patch, vlm, doomed, spoilt)
            patch.setitem(memory.PREFILL_TOKENS, "cpu", 1)  # one prompt at a time, so that rows come and go
            made = engine.Engine(vlm, Sampler(Decoding(), CPU), 9, 4)
            requests = [Request((Prompt(ids[row], features[row], (Wanted((row,)),)),)) for row in order]
            said = {one.keys[0]: one for done in made.run(requests) for one in done}
            runs.append((heard, said))
    (heard, said), (clean, wanted) = runs
    assert {said[row].finish_reason for row in doomed} == {"non-finite"}
    for row in set(order) - doomed:
        assert said[row] == wanted[row]
    assert len(heard) == len(clean)
    for one, other in zip(heard, clean, strict=True):
        fine = one.isfinite().all(-1)
        assert torch.equal(one[fine], other[fine])
    assert sum(int((~one.isfinite().all(-1)).sum()) for one in heard) == len(doomed)


def test_a_model_that_does_not_stream_ends_such_a_row_too(llava, monkeypatch):
    ids, features = asked(llava)
    wanted = respond(llava, ids, features, Decoding(6))
    monkeypatch.setattr(type(llava), "streams", False)
    spoilt = [poisoned(f, float("nan")) if row == 1 else f for row, f in enumerate(features)]
    made = respond(llava, ids, spoilt, Decoding(6), batch_size=3)
    assert (made[1].finish_reason, made[1].tokens) == ("non-finite", [])
    for row in (0, 2, 3, 4, 5):
        assert made[row].tokens == wanted[row].tokens


# --- a scan


def overflowing(folder, exits=(2, 3)):
    """A LLaVA whose features are infinite at some exits: block 2 raises a channel, block 4 takes it back."""
    vlm = load(folder)
    own = vlm.encode

    def encode(pictures, wanted):
        made = own(pictures, wanted)
        return {e: [poisoned(f, float("inf")) if e in exits else f for f in rows] for e, rows in made.items()}

    vlm.encode = encode
    return vlm


@pytest.mark.slow
def test_a_numerical_failure_is_no_attack_that_succeeded(llava_dir, case_file, tmp_path, capsys):
    """It was 100 % at those exits, which looked exactly like the hole."""
    result = layeralign.scan(overflowing(llava_dir), case_file, tmp_path / "run", max_new_tokens=4)
    by_exit = {exit.exit: exit for exit in result.summary.exits}
    for exit in (2, 3):  # two harmful cases have a picture, the third has none and is answered once
        assert (by_exit[exit].n, by_exit[exit].invalid) == (3, 2)
        assert by_exit[exit].over_refusal is None and by_exit[exit].utility is None
    assert by_exit[1].invalid == 0
    (found,) = result.summary.no_answers
    assert (found.reason, found.exits, found.rows, found.of) == ("non-finite", ("2", "3"), 10, 12)
    assert main(["summary", str(tmp_path / "run")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "Numerical failure at exits 2, 3 (float32): the logits of 10 of 12 answers there" in told
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "Numerical failure at exits 2, 3" in page
    capsys.readouterr()
    assert main(["summary", str(tmp_path / "run"), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["no_answers"][0]["reason"] == "non-finite"


@pytest.mark.slow
def test_a_failure_in_float16_says_what_to_try(tmp_path, llava_dir):
    vlm = overflowing(llava_dir)
    vlm.model.half()
    result = layeralign.scan(vlm, [Case("h", "how?", "harmful", _shown())], tmp_path / "run", exits=[2, 4],
                             max_new_tokens=2)  # fmt: skip
    assert result.summary.dtype == "float16"
    from layeralign.analysis.cautions import caution

    assert "try bfloat16 or float32" in caution(result.summary)


def _shown():
    from layeralign.testing import _Shown

    return _Shown(noise(32, 32))


@pytest.mark.slow
def test_where_every_row_fails_nothing_is_said_of_the_model(llava_dir, tmp_path):
    vlm = overflowing(llava_dir, exits=range(6))
    cases = [Case(f"h{n}", f"how {n}?", "harmful", _shown()) for n in range(3)]
    result = layeralign.scan(vlm, cases, tmp_path / "run", exits=[1, 4], max_new_tokens=3)
    assert all(exit.asr is None and exit.invalid == 3 for exit in result.summary.exits)
    assert result.summary.asr_judge == "refusal"


@pytest.mark.slow
def test_the_screen_makes_no_number_of_it(llava_dir, tmp_path, monkeypatch):
    """NaN became a refusal that is certain: min(1, NaN) is 1."""
    vlm = overflowing(llava_dir)
    monkeypatch.setattr("layeralign.sweep.screen.refuses", lambda answer: True)
    cases = [Case(f"h{n}", f"how {n}?", "harmful", _shown()) for n in range(3)]
    with pytest.raises(LayeralignError, match=r"numerical failure: its logits are not finite at exits 2, 3"):
        layeralign.screen(vlm, cases, tmp_path / "run", max_new_tokens=4)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_training_learns_nothing_from_it(llava_dir, tmp_path):
    cases = [
        Case(f"{kind}{n}", f"how {n}?", kind, _shown()) for kind in ("harmful", "benign") for n in range(4)
    ]
    from layeralign.testing import _Reward

    few = AlignSettings(exits="2", steps=1, rows=8, epochs=1, max_new_tokens=3, rank=2)
    with pytest.raises(LayeralignError, match=r"numerical failure: its logits are not finite at exit 2"):
        train(overflowing(llava_dir), cases, _Reward(), tmp_path / "out", few)


# --- weights


@pytest.mark.parametrize("bad", BAD)
def test_weights_that_are_no_numbers_are_refused_at_load(llava_dir, tmp_path, bad):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(llava_dir, folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("layers.1.mlp.down_proj.weight"))
    weights[name][0, 0] = bad
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        LayeralignError, match=rf"model {folder}: 1 of its weights have NaN or infinity \(float32\)"
    ):
        load(folder)


@pytest.mark.slow
def test_weights_that_float16_cannot_hold_are_refused_at_load(llava_dir, tmp_path):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(llava_dir, folder)
    weights = load_file(folder / "model.safetensors")
    next(weight for name, weight in weights.items() if "mlp.down_proj" in name)[0, 0] = 1e6
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    load(folder)
    load(folder, dtype="bfloat16")
    with pytest.raises(LayeralignError, match=r"\(float16\).*try bfloat16 or float32"):
        load(folder, dtype="float16")


@pytest.mark.slow
def test_an_adapter_that_is_no_numbers_is_refused_at_load(llava_dir, tmp_path):
    from layeralign.testing import _Reward

    cases = [Case(f"{kind}{n}", f"how {n}?", kind) for kind in ("harmful", "benign") for n in range(4)]
    few = AlignSettings(exits="2", steps=1, rows=8, epochs=1, max_new_tokens=3, rank=2)
    train(load(llava_dir), cases, _Reward(), tmp_path / "out", few)
    file = tmp_path / "out" / "adapter_model.safetensors"
    weights = load_file(file)
    next(iter(weights.values()))[0, 0] = float("nan")
    save_file(weights, file)
    with pytest.raises(LayeralignError, match=rf"adapter {tmp_path / 'out'}: 1 of its weights have NaN"):
        load(llava_dir, adapter=tmp_path / "out")


# --- judges


def test_a_guard_whose_logits_are_no_numbers_says_nothing(tmp_path):
    """Its reply was token 0, whatever that is in its vocabulary."""
    speaker = LocalSpeaker.load(str(tiny.guard("llama-guard-3", tmp_path)), dtype="float32")
    talk = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "No."}]
    (fine,) = speaker.ask_all([talk], max_tokens=4)
    assert isinstance(fine, Completion)
    speaker._model.lm_head.register_forward_hook(lambda *given: given[2] * float("nan"))
    (reply,) = speaker.ask_all([talk], max_tokens=4)
    assert reply.why == "the judge's logits were not finite numbers"


def test_a_classifier_that_overflows_is_not_sure_of_toxicity():
    """The sigmoid of infinity is 1."""
    for independent in (True, False):
        share = Output("toxic", 1, independent).share(torch.tensor([[0.0, torch.inf], [0.0, 0.0]]))
        assert share[0].isnan() and share[1] == 0.5
