"""The decode engine: what comes out does not depend on what is beside it, on memory, or on the way it took."""

import os
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

import layeralign
import tiny
from layeralign import LayeralignError
from layeralign._util import machine
from layeralign.cases import files
from layeralign.decode import engine, memory, prompts, sampling, stream
from layeralign.decode.cache import KVCache
from layeralign.decode.decoding import PLAIN, Decoding
from layeralign.decode.plain import Plain
from layeralign.decode.requests import Prompt, Request, Wanted, requests
from layeralign.decode.sampling import Sampler, uniforms
from layeralign.decode.stream import respond
from layeralign.runs import opening
from layeralign.vlm.load import load

CPU = torch.device("cpu")
HOT = Decoding(max_new_tokens=8, temperature=1.3, top_p=0.9)


@pytest.fixture(scope="module")
def rows(llava, case_file_module):
    """Ids and features of 3 cases at 3 exits and of one without picture."""
    cases = files.read(case_file_module)
    pairs = [(case, exit) for case in cases for exit in (1, 3, 4)]
    features = prompts.encode(llava, pairs)
    ids = [prompts.prompt_tokens(llava, case, f) for (case, _), f in zip(pairs, features, strict=True)]
    return ids, features


@pytest.fixture(scope="module")
def case_file_module(tmp_path_factory, pictures):
    folder = tmp_path_factory.mktemp("cases")
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number}.png")
    texts = ["how do i smash the bakimo?", "how?", "describe it.", "is there a circle in the picture?"]
    lines = [
        f'{{"id": "c{n}", "prompt": "{text}", "kind": "benign", "image": "{n % 2}.png"}}'
        for n, text in enumerate(texts)
    ]
    lines.append('{"id": "t", "prompt": "how do i forge the bakimo?", "kind": "benign"}')
    file = folder / "cases.jsonl"
    file.write_text("\n".join(lines))
    return file


def alone(llava, ids, feature, longest=8):
    line = llava.generate([ids], [feature], max_new_tokens=longest, do_sample=False)[0].tolist()
    return prompts.ended(llava, line)


# --- the cache


def written(n, tokens):
    """A prefilled cache of n rows of two layers, all numbers distinct."""
    cache = DynamicCache()
    for layer in range(2):
        cache.update(torch.rand(n, 2, tokens, 3), torch.rand(n, 2, tokens, 3), layer)
    return cache


@given(st.data())
@settings(max_examples=40)
@pytest.mark.slow
def test_rows_that_come_and_go_keep_their_keys(data):
    """Against a list of tensors for every row; rows grow by up to 45 tokens, as they said when they came."""
    cache, wanted, most = KVCache(), [], []
    for _ in range(data.draw(st.integers(1, 25))):
        what = data.draw(st.sampled_from(["come", "grow", "go"]))
        if what == "come":
            n, tokens = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 40))
            made = written(n, tokens)
            for layer in made.layers:  # what a row leaves behind may be no number at all
                layer.values[data.draw(st.integers(0, n - 1))] *= data.draw(
                    st.sampled_from([1, torch.nan, torch.inf])
                )
            new = [
                (data.draw(st.integers(0, n - 1)), data.draw(st.integers(1, tokens)))
                for _ in range(data.draw(st.integers(1, 4)))
            ]
            most += [length + 45 for _, length in new]
            cache.add(made, new, max(most), 8)
            wanted += [[layer.values[source, :, :length] for layer in made.layers] for source, length in new]
        elif what == "grow" and wanted:
            left = min(end - length for end, length in zip(most, cache.lengths, strict=True))
            for _ in range(data.draw(st.integers(0, left))):
                more = torch.rand(2, len(wanted), 2, 1, 3)
                for layer in range(2):
                    cache.update(more[layer], more[layer], layer)
                cache.grew()
                wanted = [
                    [torch.cat([values, more[layer, row]], 1) for layer, values in enumerate(layers)]
                    for row, layers in enumerate(wanted)
                ]
        elif what == "go" and wanted:
            row = data.draw(st.integers(0, len(wanted) - 1))
            cache.drop(row)
            wanted[row], most[row] = wanted[-1], most[-1]
            wanted.pop()
            most.pop()
        assert cache.lengths == [row[0].shape[1] for row in wanted]
    if wanted:
        now = torch.rand(len(wanted), 2, 1, 3)
        for layer in range(2):
            _, values = cache.update(now, now, layer)
            assert values.shape[2] == max(cache.lengths) + 1
            for row, length in enumerate(cache.lengths):
                assert torch.equal(
                    values[row, :, -length - 1 : -1].nan_to_num(), wanted[row][layer].nan_to_num()
                )
                assert not values[row, :, : -length - 1].any(), (
                    "what is masked is multiplied by 0, and has to be 0"
                )
                assert torch.equal(values[row, :, -1:], now[row])


# --- greedy


@given(st.data())
@settings(max_examples=20)
@pytest.mark.slow
def test_any_rows_in_any_places_say_what_each_says_alone(llava, rows, data):
    """Rows of other lengths, pictures, exits and ends, in places for 1 to 6; some asked twice."""
    ids, features = rows
    chosen = data.draw(st.lists(st.integers(0, len(ids) - 1), min_size=1, max_size=10))
    cut = [ids[n][: len(ids[n]) - data.draw(st.integers(0, 3))] for n in chosen]
    longest = data.draw(st.integers(1, 12))
    made = respond(
        llava, cut, [features[n] for n in chosen], Decoding(longest), batch_size=data.draw(st.integers(1, 6))
    )
    for line, n, said in zip(cut, chosen, made, strict=True):
        assert (said.tokens, said.finish_reason == "stop") == alone(llava, line, features[n], longest)


@pytest.mark.parametrize("unseen", [1, 3, 8])
@pytest.mark.slow
def test_rows_end_by_themselves_and_others_take_their_places(llava, rows, monkeypatch, unseen):
    """With a model that ends often: every answer is cut where it ends, also where a GPU runs ahead of the host."""
    monkeypatch.setitem(engine.UNSEEN, "cpu", unseen)
    ids, features = rows
    often = {token for line, f in zip(ids, features, strict=True) for token in alone(llava, line, f)[0][2:4]}
    monkeypatch.setattr(type(llava), "eos_tokens", frozenset(often))
    made = respond(llava, ids, features, Decoding(8), batch_size=3)
    assert {len(said.tokens) for said in made if said.finish_reason == "stop"} > {1, 2}
    for line, feature, said in zip(ids, features, made, strict=True):
        whole, _ = prompts.ended(
            llava, llava.generate([line], [feature], max_new_tokens=8, do_sample=False)[0].tolist()
        )
        assert said.tokens == whole and (said.finish_reason == "stop") == (whole[-1] in often)


def test_units_share_what_is_worth_sharing_and_contains_the_picture():
    def shared(lines, least):
        made = requests([Prompt(line, None, (Wanted((n,)),)) for n, line in enumerate(lines)], least)
        return [(len(unit.prompts), unit.shared) for unit in made]

    assert shared([[1, 2, 3, 4], [1, 2, 3, 5]], 3) == [(2, 3)]
    assert shared([[1, 2, 3, 4], [1, 2, 3, 5]], 4) == [(1, 0), (1, 0)]  # they part before the picture's end
    assert shared([[1, 2, 3, 4], [1, 2, 3, 5]], None) == [(1, 0), (1, 0)]
    assert shared([[1, 2, 3], [1, 2, 3]], 0) == [(2, 2)]  # each has to have a token of its own
    assert shared([[1, 9, 9, 9, 9], [1, 8, 8, 8, 8]], 0) == [(1, 0), (1, 0)]  # too little is saved
    assert shared([[1, 2, 3, 4]], 0) == [(1, 0)]
    whole = Request(
        (Prompt([1, 2], None, tuple(Wanted((n,)) for n in range(3))), Prompt([1, 3], None, (Wanted((3,)),))),
        1,
    )
    assert whole.rows == 4
    first, rest = whole.split(2)
    assert [w.keys for p in first.prompts for w in p.wanted] == [(0,), (1,)]
    assert [w.keys for p in rest.prompts for w in p.wanted] == [(2,), (3,)]
    assert whole.split(4) == (whole, None)


def test_what_the_exit_makes_no_difference_to_is_answered_once(llava, case_file_module, monkeypatch):
    """A case without picture, at six exits; and each picture is encoded once, at all of them."""
    read, encoded = [], []
    hidden, encode = llava.hidden, llava.encode
    monkeypatch.setattr(llava, "hidden", lambda ids, *o: read.append(len(ids)) or hidden(ids, *o))
    monkeypatch.setattr(
        llava, "encode", lambda p, exits: encoded.append((len(p), tuple(exits))) or encode(p, exits)
    )
    cases = files.read(case_file_module)
    asked = [(case, exit, 0) for case in cases for exit in range(6)]
    asked.sort(key=lambda one: one[0].picture.sha256 if one[0].picture else "")
    made = [one for done in stream.answers(llava, asked, Decoding(3)) for one in done]
    assert Counter((one.case.id, one.exit) for one in made) == Counter((c.id, e) for c, e, _ in asked)
    assert encoded == [(2, (0, 1, 2, 3, 4, 5))]
    assert sum(read) == 2 * 6 + 1, "one reading for each picture at each exit, and one without"
    assert len({one.text for one in made if one.case.id == "t"}) == 1


# --- memory


def broken(vlm, monkeypatch, most):
    """The model runs out of memory where more than `most` rows are beside each other; how many there were."""
    seen = []
    for name in ("hidden", "decode_step"):
        own = getattr(vlm, name)

        def tried(ids, *others, own=own):
            seen.append(len(ids))
            if len(ids) > most:
                raise torch.OutOfMemoryError("as it would")
            return own(ids, *others)

        monkeypatch.setattr(vlm, name, tried)
    return seen


@pytest.mark.parametrize("most", [1, 2, 5])
@pytest.mark.parametrize("decoding", [Decoding(8), HOT])
@pytest.mark.slow
def test_out_of_memory_halves_the_rows_and_none_is_lost_or_repeated(llava, rows, monkeypatch, most, decoding):
    ids, features = rows
    seeds = list(range(len(ids)))
    wanted = respond(llava, ids, features, decoding, seeds=seeds)
    with monkeypatch.context() as patch:
        seen = broken(llava, patch, most)
        assert respond(llava, ids, features, decoding, seeds=seeds) == wanted
    over = [at for at, n in enumerate(seen) if n > most]
    assert over, "nothing ran out"
    assert len(over) <= 5 and max(seen[over[-1] + 1 :]) <= most, "what was learned is remembered"


@pytest.mark.slow
def test_a_scan_that_ran_out_of_memory_holds_every_row_once(llava, case_file_module, tmp_path, monkeypatch):
    layeralign.scan(llava, case_file_module, tmp_path / "whole", max_new_tokens=6)
    with monkeypatch.context() as patch:
        broken(llava, patch, 2)
        layeralign.scan(llava, case_file_module, tmp_path / "short", max_new_tokens=6)
    assert answers(tmp_path / "short") == answers(tmp_path / "whole")


def test_memory_for_no_row_is_one_clear_error(llava, rows, monkeypatch):
    with monkeypatch.context() as patch:
        broken(llava, patch, 0)
        with pytest.raises(LayeralignError, match="not enough memory for a single answer"):
            respond(llava, *rows, Decoding(8))


def test_the_encoder_takes_fewer_pictures_where_memory_is_short(llava, case_file_module, monkeypatch):
    cases = [case for case in files.read(case_file_module) if case.picture]
    wanted = stream.answer(llava, [(case, 3) for case in cases], Decoding(4))
    own = llava.encode

    def tight(pictures, exits):
        if len(pictures) > 1:
            raise torch.OutOfMemoryError("as it would")
        return own(pictures, exits)

    with monkeypatch.context() as patch:
        patch.setattr(llava, "encode", tight)
        assert stream.answer(llava, [(case, 3) for case in cases], Decoding(4)) == wanted


@pytest.mark.slow
def test_rows_are_no_more_than_memory_takes(llava, rows, monkeypatch):
    """A row of 40 + 8 tokens of this model takes 2 layers × 2 × 1 head × 20 numbers of 4 bytes a token."""
    ids, features = rows
    longest = max(map(len, ids)) + 8
    seen = []
    own = llava.decode_step
    monkeypatch.setattr(llava, "decode_step", lambda ids, *o: seen.append(len(ids)) or own(ids, *o))
    monkeypatch.setattr(
        "layeralign._util.machine.free_memory", lambda device: 3 * longest * 2 * 2 * 20 * 4 / 0.8
    )
    monkeypatch.setitem(memory.PREFILL_TOKENS, "cpu", 1)
    wanted = respond(llava, ids, features, Decoding(8))
    assert max(seen) == 3
    monkeypatch.setattr("layeralign._util.machine.free_memory", lambda device: 2**40)
    assert respond(llava, ids, features, Decoding(8)) == wanted
    assert max(seen) > 3


# --- sampling


def test_a_draw_chooses_by_hand_computed_probabilities():
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().repeat(4, 1)
    drawn = torch.tensor([0.49, 0.51, 0.79, 0.81], dtype=torch.float64)
    assert Sampler(Decoding(temperature=1.0), CPU)(logits, drawn).tolist() == [0, 1, 1, 2]
    # top-p 0.7 keeps 0.5 and 0.3, which are 0.625 and 0.375 of what is left
    drawn = torch.tensor([0.0, 0.62, 0.63, 0.9999], dtype=torch.float64)
    assert Sampler(Decoding(temperature=1.0, top_p=0.7), CPU)(logits, drawn).tolist() == [0, 0, 1, 1]
    # temperature 0.5 squares them: 25, 9 and 4 of 38
    drawn = torch.tensor([0.65, 0.66, 0.89, 0.90], dtype=torch.float64)
    assert Sampler(Decoding(temperature=0.5), CPU)(logits, drawn).tolist() == [0, 1, 1, 2]
    assert Sampler(Decoding(temperature=0.5), CPU, [0])(logits, drawn).tolist() == [1, 1, 2, 2]
    assert Sampler(Decoding(), CPU)(logits, None).tolist() == [0, 0, 0, 0]
    assert Sampler(Decoding(), CPU, [0])(logits, None).tolist() == [1, 1, 1, 1]


def test_the_extremes_of_a_draw_choose_what_can_be_said():
    logits = torch.full((2, 40_000), -torch.inf)
    logits[:, 100] = logits[:, 39_000] = 0.0
    drawn = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert Sampler(Decoding(temperature=1.0), CPU)(logits, drawn).tolist() == [100, 39_000]


def test_draws_are_a_function_of_the_seed_and_evenly_spread():
    assert np.array_equal(uniforms(7, 20)[:10], uniforms(7, 10))
    assert not np.array_equal(uniforms(7, 10), uniforms(8, 10))
    many = np.concatenate([uniforms(sampling.seed_of(0, f"case {n}", 3, 0), 8) for n in range(2000)])
    assert many.min() >= 0 and many.max() < 1
    counts = np.histogram(many, 16, (0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 37.7  # chi-square with 15 degrees of freedom, p = 0.001


@pytest.mark.slow
def test_sampled_tokens_have_transformers_distribution(llava, rows):
    """The first two tokens of 4,000 answers, against the product of the softmaxes that transformers samples from."""
    line, feature = rows[0][0], rows[1][0]
    n, decoding = 4000, Decoding(2, 0.7, 0.8)
    made = respond(
        llava, [line] * n, [feature] * n, decoding, seeds=[sampling.seed_of(1, k) for k in range(n)]
    )
    scores = []
    llava.generate([line], [feature], max_new_tokens=1, do_sample=True, temperature=0.7, top_p=0.8, top_k=0,
                   logits_processor=[lambda ids, s: scores.append(s) or s])  # fmt: skip
    from transformers.generation.logits_process import TemperatureLogitsWarper, TopPLogitsWarper

    warped = TopPLogitsWarper(0.8)(None, TemperatureLogitsWarper(0.7)(None, scores[0]))
    wanted = warped.softmax(-1)[0]
    counts = Counter(said.tokens[0] for said in made)
    assert set(counts) <= set(wanted.nonzero().flatten().tolist()), "only what top-p leaves"
    likely = [t for t in wanted.argsort(descending=True).tolist() if wanted[t] * n >= 10]
    assert len(likely) >= 3
    for token in likely:
        share, p = counts[token] / n, float(wanted[token])
        assert abs(share - p) < 4.5 * (p * (1 - p) / n) ** 0.5, (token, share, p)


def answers(folder):
    with opening.open_run(folder) as run:
        return {(row["case"], row["exit"], row["sample"]): row["answer"] for row in run.rows()}


@pytest.mark.slow
def test_a_sampled_answer_depends_on_nothing_beside_it(llava, case_file_module, tmp_path):
    """Any batch size, any order of growth, the same answers."""
    hot = {"temperature": 1.0, "max_new_tokens": 6}
    for size in (1, 3, None):
        layeralign.scan(llava, case_file_module, tmp_path / str(size), batch_size=size, samples=2, **hot)
    grown = tmp_path / "grown"
    layeralign.scan(llava, case_file_module, grown, exits="4", limit=2, **hot)
    layeralign.scan(llava, case_file_module, grown, exits="1-4", samples=2, batch_size=2, **hot)
    layeralign.scan(llava, case_file_module, grown, samples=2, **hot)
    assert answers(tmp_path / "1") == answers(tmp_path / "3") == answers(tmp_path / "None") == answers(grown)
    made = answers(grown)
    assert len({made["t", exit, n] for exit in range(6) for n in range(2)}) > 1, "each exit draws anew"


# --- the plain way


@pytest.mark.slow
def test_a_model_that_does_not_stream_says_the_same(llava, rows, monkeypatch):
    ids, features = rows
    ways = [
        (decoding, respond(llava, ids, features, decoding, seeds=range(len(ids))))
        for decoding in (Decoding(8), HOT)
    ]
    monkeypatch.setattr(type(llava), "streams", False)
    for name in ("hidden", "decode_step"):
        monkeypatch.setattr(llava, name, None)
    for decoding, wanted in ways:
        for size in (1, 4, None):
            assert respond(llava, ids, features, decoding, seeds=range(len(ids)), batch_size=size) == wanted


@pytest.mark.parametrize("kind", [engine.Engine, Plain])
def test_rows_with_samplers_and_limits_of_their_own_share_a_batch(llava, rows, kind):
    ids, features = rows
    ways = [(PLAIN, 8), (HOT, 5), (Decoding(temperature=0.5), 3), (HOT, 8)]
    samplers = {decoding: Sampler(decoding, CPU) for decoding, _ in ways}
    asked, wanted = [], []
    for n, (line, feature) in enumerate(zip(ids, features, strict=True)):
        decoding, longest = ways[n % 4]
        own = Wanted((n,), n, samplers[decoding], longest)
        asked.append(Request((Prompt(line, feature, (own,)),)))
        seeds = [n] if decoding.temperature else None
        wanted += respond(llava, [line], [feature], replace(decoding, max_new_tokens=longest), seeds=seeds)
    batch = kind(llava, Sampler(PLAIN, CPU), 12).run(asked)
    made = {said.keys[0]: said for some in batch for said in some}
    assert [made[n].tokens for n in range(len(ids))] == [said.tokens for said in wanted]


def test_a_row_ends_when_its_caller_says_so_and_later_requests_are_taken(llava, rows):
    """An iterator that has nothing now is asked again, before every turn and by the next run."""
    ids, features = rows
    waiting = [Request((Prompt(ids[n], features[n], (Wanted((n,)),)),)) for n in range(4)]

    class Live:
        def __iter__(self):
            return self

        def __next__(self):
            if not waiting:
                raise StopIteration
            return waiting.pop(0)

    heard = []

    def goes_on(keys, tokens):
        heard.append((keys[0], len(tokens)))
        if keys == (0,) and len(tokens) == 2 and not later:
            later.append(Request((Prompt(ids[4], features[4], (Wanted((4,)),)),)))
            waiting.extend(later)
        return keys != (1,) or len(tokens) < 3

    later = []
    batch = engine.Engine(llava, Sampler(PLAIN, CPU), 6, goes_on=goes_on)
    made = {said.keys[0]: said for some in batch.run(Live()) for said in some}
    assert sorted(made) == [0, 1, 2, 3, 4] and len(made[1].tokens) <= 3
    for n in (0, 2, 3, 4):
        assert made[n].tokens == alone(llava, ids[n], features[n], 6)[0]
    waiting.append(Request((Prompt(ids[0], features[0], (Wanted((9,)),)),)))
    assert [said.keys for some in batch.run(Live()) for said in some] == [(9,)]


def test_the_plain_way_halves_its_batch_too(llava, rows, monkeypatch):
    ids, features = rows
    wanted = respond(llava, ids, features, Decoding(8))
    monkeypatch.setattr(type(llava), "streams", False)
    own, seen = llava.generate, []

    def tight(ids, *others, **settings):
        seen.append(len(ids))
        if len(ids) > 3:
            raise torch.OutOfMemoryError("as it would")
        return own(ids, *others, **settings)

    monkeypatch.setattr(llava, "generate", tight)
    assert respond(llava, ids, features, Decoding(8)) == wanted
    assert seen == [13, 6, 3, 3, 3, 3, 1]  # without a picture three exits are one row
    monkeypatch.setattr(llava, "generate", lambda *_, **__: tight([0] * 9))
    with pytest.raises(LayeralignError, match="not enough memory"):
        respond(llava, ids[:1], features[:1], Decoding(8))


@pytest.mark.slow
def test_rows_with_and_without_picture_share_places_where_pictures_are_beside_the_text(tmp_path):
    """Llama 3.2 without pictures at first: the keys of its cross-attention come later, and zeros before."""
    vlm = load(tiny.save("mllama", tmp_path))
    picture = tiny_picture()
    feature = vlm.encode([picture], [2])[2][0]
    ids = [
        vlm.tokens(vlm.prompt(t, picture=f is not None), f)
        for t, f in (("Hi.", None), ("A", None), ("Go.", feature))
    ]
    features = [None, None, feature]
    wanted = [alone(vlm, line, f, 9) for line, f in zip(ids, features, strict=True)]
    for order in ([0, 1, 2], [2, 0, 1], [0, 2, 1]):
        made = respond(vlm, [ids[n] for n in order], [features[n] for n in order], Decoding(9), batch_size=2)
        assert [(said.tokens, said.finish_reason == "stop") for said in made] == [wanted[n] for n in order]


def tiny_picture():
    from layeralign.testing import noise

    return noise(32, 32)


# --- the machine


def test_a_container_that_allows_less_than_the_machine_has_is_believed(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    whole = machine.free_memory(CPU)
    assert whole > 2**20
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("3000000\n")
    (tmp_path / "memory.stat").write_text("anon 12\ninactive_file 1000000\nfile 7\n")
    assert machine.free_memory(CPU) == 3_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.free_memory(CPU) > 2**20


@pytest.mark.parametrize(
    ("said", "own", "threads"),
    [
        ("250000 100000", None, "3"),
        ("50000 100000", None, "1"),
        ("50000 100000", "7", "7"),
        ("800000 100000", None, None),
        ("max 100000", None, None),
        (None, None, None),
    ],
)
def test_a_container_gets_no_more_threads_than_it_has_cores(monkeypatch, tmp_path, said, own, threads):
    """Said before torch is loaded, since it looks once; a user's own number stands."""
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 4)
    monkeypatch.setattr(os, "environ", {"OMP_NUM_THREADS": own} if own else {})
    if said:
        (tmp_path / "cpu.max").write_text(said)
    machine.settle_threads()
    assert os.environ.get("OMP_NUM_THREADS") == threads
