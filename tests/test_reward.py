import json
import math
import os
import random
import resource
import signal
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
)

import children
from layeralign._util.quiet import quiet
from layeralign.cases.case import Case
from layeralign.cases.dialogue import dialogue, human_turn
from layeralign.errors import LayeralignError
from layeralign.judges.oracle import outcome
from layeralign.rewards.reward import load_reward
from layeralign.testbed import preferences
from layeralign.testbed.cases import cases
from layeralign.testbed.world import REFUSAL, VERBS, Request, Scene, Thing, split_of
from layeralign.training.reward import testbed as testbed_reward
from layeralign.training.reward import train
from layeralign.training.reward.pairs import read_pairs, split
from layeralign.training.reward.train import bradley_terry, train_reward

LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
TINY = testbed_reward.Recipe(width=16, layers=1, heads=2, base_steps=2)
SETTINGS = {"epochs": 2, "batch_size": 4, "lr": 1e-3, "seed": 3, "held_out": 0.2, "save_every": 2}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny GPT-2 with dropout, so that a resumed run has random draws to repeat."""
    folder = tmp_path_factory.mktemp("base")
    testbed_reward.save_base(folder, TINY, seed=0)
    config = json.loads((folder / "config.json").read_text())
    config |= {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def pair_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    file.write_text("".join(json.dumps(pair) + "\n" for pair in preferences.pairs(40, seed=1)))
    return file


@pytest.fixture(scope="module")
def trained(base, pair_file, tmp_path_factory):
    """A run that was not stopped: its folder and its record."""
    out = tmp_path_factory.mktemp("trained")
    return out, train_reward(pair_file, base, out, sees="scene", **SETTINGS)


@pytest.fixture(scope="module")
def shipped():
    return load_reward("testbed")


def change_config(folder, **keys):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


# the loss, the pairs


def test_the_loss_is_bradley_and_terrys():
    chosen, rejected = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 0.0])
    # -log(1 / (1 + e^-1)) = 0.3132617, -log(1/2) = 0.6931472
    assert bradley_terry(chosen, rejected).item() == pytest.approx((0.3132617 + 0.6931472) / 2, abs=1e-6)
    assert bradley_terry(torch.tensor([-50.0]), torch.tensor([50.0])).item() == pytest.approx(100)


GOOD = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON"),
        ('{"chosen": "a", "rejected": "b", "chosen": "c"}', "field 'chosen' occurs twice"),
        ('{"chosen": "\\ud800", "rejected": "b"}', "field 'chosen' holds half a character"),
        ("[1]", "expected a JSON object, found list"),
        (json.dumps({"chosen": GOOD["chosen"]}), "field 'rejected' is missing"),
        (json.dumps(GOOD | {"chosen": 3}), "field 'chosen' is 3; expected text"),
        (json.dumps(GOOD | {"rejected": "hello"}), "field 'rejected' has no answer"),
        (json.dumps(GOOD | {"rejected": "\n\nHuman: z\n\nAssistant: b"}), "differ before their first answer"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, message):
    file = tmp_path / "pairs.jsonl"
    file.write_text(f"{json.dumps(GOOD)}\n\n{line}\n")
    with pytest.raises(LayeralignError, match=r"pairs\.jsonl:3: ") as caught:
        read_pairs(file)
    assert message in str(caught.value)


def test_files_without_pairs_and_folders_are_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(LayeralignError, match="holds no pair"):
        read_pairs(tmp_path / "empty.jsonl")
    with pytest.raises(LayeralignError, match="cannot be read"):
        read_pairs(tmp_path)


def test_the_prompt_is_what_both_dialogues_share_before_the_last_answer(tmp_path):
    turns = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c"
    rows = [
        {"chosen": f"{turns}\n\nAssistant: yes", "rejected": f"{turns}\n\nAssistant: yet"},
        {"chosen": f"{turns}\n\nAssistant: same", "rejected": f"{turns}\n\nAssistant: same"},
        {
            "chosen": f"{turns}\n\nAssistant: x",
            "rejected": f"{turns}\n\nAssistant: y\n\nHuman: d\n\nAssistant: e",
        },
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    read, identical = read_pairs(file)
    assert [pair.prompt for pair in read] == [turns, turns] and identical == 1


def test_no_prompt_is_both_trained_on_and_held_out(tmp_path):
    rows = [pair for pair in preferences.pairs(300) for _ in range(2)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    train, test = split(read_pairs(file)[0], 0.3)
    assert not {p.prompt for p in train} & {p.prompt for p in test}
    assert 0.2 < len(test) / len(rows) < 0.4 and len(test) + len(train) == len(rows)


# training


@pytest.mark.slow
def test_training_leaves_a_normal_checkpoint_and_a_record(trained, pair_file):
    out, record = trained
    assert record == json.loads((out / "reward.json").read_text())
    assert not list(out.glob("*checkpoint*")) and not list(out.glob("*.part")) and not list(out.glob("*.bin"))
    held_out = record["pairs"]["held_out"]
    assert record["held_out"]["n"] == held_out > 0 and held_out + record["pairs"]["trained"] == 40
    assert record["held_out"]["low"] <= record["held_out"]["accuracy"] <= record["held_out"]["high"]
    assert str(pair_file.parent) not in json.dumps(record)
    model = AutoModelForSequenceClassification.from_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert model.config.num_labels == 1 and model.config.layeralign_sees == "scene"
    case = cases("train", 1)[0]
    ours = load_reward(str(out), device="cpu").score([case], ["yes."])
    text = dialogue(human_turn(case.prompt, case.facts["scene"]), "yes.")
    theirs = model(**tokenizer(text, return_tensors="pt")).logits[0]
    torch.testing.assert_close(ours, theirs)


@pytest.mark.slow
def test_a_model_is_readable_as_the_umask_says(trained):
    """safetensors wrote the weights for their owner alone, next to a config that all can read."""
    shown = {path.stat().st_mode & 0o777 for path in trained[0].glob("[!.]*")}
    assert shown == {(trained[0] / "config.json").stat().st_mode & 0o777}


def test_pairs_that_change_while_they_are_read_are_refused(base, pair_file, tmp_path, monkeypatch):
    """The record had the hash of other pairs than those that were trained on."""
    file = tmp_path / "pairs.jsonl"
    file.write_bytes(pair_file.read_bytes())

    def read(asked):
        found = read_pairs(asked)
        asked.write_bytes(pair_file.read_bytes() * 2)
        return found

    monkeypatch.setattr(train, "read_pairs", read)
    with pytest.raises(LayeralignError, match=r"pairs\.jsonl changed while it was read"):
        train_reward(file, base, tmp_path / "out", **SETTINGS)


def test_a_finished_training_is_not_done_again_and_not_mixed_with_another(trained, base, pair_file):
    out, record = trained
    assert train_reward(pair_file, base, out, sees="scene", **SETTINGS) == record
    with pytest.raises(
        LayeralignError, match=r"holds another training, with settings\.seed = 3, and this command has 4"
    ):
        train_reward(pair_file, base, out, sees="scene", **(SETTINGS | {"seed": 4}))


@pytest.mark.parametrize(
    ("setting", "value"),
    [("epochs", 0), ("batch_size", True), ("lr", 0.0), ("held_out", 1.0), ("sees", "all")],
)
def test_a_setting_out_of_range_is_named(base, pair_file, tmp_path, setting, value):
    with pytest.raises(LayeralignError, match=f"{setting} is {value}".replace("all", "'all'")):
        train_reward(pair_file, base, tmp_path / "out", **{setting: value})


def dying(function, last):
    """The function, in whose call number `last` the process is killed."""
    calls = 0

    def call(*arguments):
        nonlocal calls
        calls += 1
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)

    return call


def training_that_is_killed(pairs, base, out):
    if out.name == "step":  # in the sixth step: the checkpoint of the fourth is there
        train.bradley_terry = dying(train.bradley_terry, 6)
    else:  # while the second checkpoint takes the first one's place
        Path.replace = dying(Path.replace, 2)
    train.train_reward(pairs, base, out, sees="scene", **SETTINGS)


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_weights_bit_for_bit(trained, base, pair_file, tmp_path):
    ways = ("step", "checkpoint")
    started = [children.start(training_that_is_killed, pair_file, base, tmp_path / way) for way in ways]
    assert [process.wait() for process in started] == [-signal.SIGKILL] * 2
    for way in ways:
        assert (tmp_path / way / "checkpoint.safetensors").is_file()
        assert not (tmp_path / way / "reward.json").exists()
        with pytest.raises(LayeralignError, match=r"holds another training, with settings\.sees"):
            train_reward(pair_file, base, tmp_path / way, sees="text", **SETTINGS)
        record = train_reward(pair_file, base, tmp_path / way, sees="scene", **SETTINGS)
        assert record["held_out"] == trained[1]["held_out"]
        ours, theirs = (load_file(f / "model.safetensors") for f in (tmp_path / way, trained[0]))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def test_a_folder_has_one_reward_training_at_a_time(base, pair_file, tmp_path, monkeypatch):
    def twice(*_):
        with pytest.raises(LayeralignError, match="another command writes to it"):
            train_reward(pair_file, base, tmp_path / "r", **SETTINGS)
        raise LayeralignError("asked again")

    monkeypatch.setattr(train, "_load_base", twice)
    for _ in range(2):  # a training that failed does not hold its folder
        with pytest.raises(LayeralignError, match="asked again"):
            train_reward(pair_file, base, tmp_path / "r", **SETTINGS)


def test_a_model_on_a_full_disk_is_one_sentence(base, pair_file, tmp_path, monkeypatch):
    """It was called a bug in layeralign."""
    monkeypatch.setattr(train.checkpoint, "save", lambda *_: None)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))
    try:
        with pytest.raises(LayeralignError, match=r"out .*: the model cannot be written \(.*File too large"):
            train_reward(pair_file, base, tmp_path / "r", **SETTINGS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_something_else_in_the_checkpoints_place_is_named(base, pair_file, tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"not that")
    with pytest.raises(LayeralignError, match=r"checkpoint\.safetensors: is damaged"):
        train_reward(pair_file, base, tmp_path, **SETTINGS)
    for record, why in (
        ("[1]", "expected"),
        ('{"settings": []}', r"field 'settings' is \[\]"),
        ('{"settings": {}, "x": NaN}', "NaN is not a JSON number"),
        ('{"settings": {}, "x": 1e999}', "1e999 is too large"),
    ):
        (tmp_path / "reward.json").write_text(record)
        with pytest.raises(LayeralignError, match=rf"reward\.json is no record of a training .*{why}"):
            train_reward(pair_file, base, tmp_path, **SETTINGS)


@pytest.mark.slow
def test_a_base_without_head_gets_one_and_gpt2s_padding(tmp_path, llava_dir, pair_file):
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = testbed_reward.tokenizer()
    tokenizer.pad_token = None
    with quiet():
        GPT2LMHeadModel(
            GPT2Config(vocab_size=len(tokenizer), n_positions=128, n_embd=16, n_layer=1, n_head=2)
        ).save_pretrained(tmp_path / "base")
        tokenizer.save_pretrained(tmp_path / "base")
    train_reward(pair_file, tmp_path / "base", tmp_path / "out", **SETTINGS)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["pad_token_id"] == tokenizer.eos_token_id and config["layeralign_sees"] == "text"
    with pytest.raises(LayeralignError, match="cannot be loaded"):
        train_reward(pair_file, llava_dir, tmp_path / "llava", **SETTINGS)


@pytest.mark.parametrize(
    ("bomb", "why"),
    [
        (lambda base: change_config(base, n_layer=0), r"transformer\.h has 0 layers, but its weights hold 1"),
        (
            lambda base: change_config(base, num_labels=10**9, id2label=None, label2id=None),
            "takes more than 1 s",
        ),
        (lambda base: (base / "chat_template.jinja").write_text(LOOPS), "chat template"),
    ],
)
def test_a_base_is_tried_out_as_a_model_is(base, pair_file, tmp_path, monkeypatch, bomb, why):
    """It was loaded in this process at once, and with fewer layers than its weights have."""
    monkeypatch.setattr("layeralign._util.bounded.SECONDS", 1)
    bomb(copy_of(base, tmp_path / "base"))
    with pytest.raises(LayeralignError, match=rf"base .*{why}"):
        train_reward(pair_file, tmp_path / "base", tmp_path / "out", **SETTINGS)


# scoring


@pytest.mark.slow
def test_a_score_does_not_depend_on_the_other_rows(shipped):
    made = cases("dev", 40)
    answers = [case.facts["helpful"] + " <pad> </s>" * (i % 3) for i, case in enumerate(made)]
    together = shipped.score(made, answers)
    alone = torch.cat([shipped.score([case], [answer]) for case, answer in zip(made, answers, strict=True)])
    assert together.dtype == torch.float32 and together.shape == (40,)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert shipped.score([], []).shape == (0,)


def test_of_a_text_that_is_too_long_the_answer_is_kept(shipped):
    case = cases("dev", 1)[0]
    asked = [replace(case, prompt="where is the red shape? " * n + case.prompt) for n in (40, 80)]
    first, second = shipped.score(asked, [REFUSAL] * 2).tolist()
    assert first == pytest.approx(second, abs=1e-5), "what was cut off does not tell"
    rows = shipped.classifier.rows([dialogue(asked[0].prompt, REFUSAL)])
    assert len(rows[0]["input_ids"]) == shipped.classifier.longest
    assert shipped.classifier.tokenizer.decode(rows[0]["input_ids"]).endswith("can not help with that.")
    assert abs(shipped.score(asked[:1], ["yes."]).item() - first) > 0.01


def test_a_reward_that_is_told_the_scene_needs_it(shipped):
    with pytest.raises(LayeralignError, match="case 'x' has no fact 'scene'"):
        shipped.score([Case("x", "how do i clean the bakimo?", "benign")], ["yes."])


def test_a_score_that_is_no_number_is_an_error(trained):
    reward = load_reward(str(trained[0]), device="cpu")
    with torch.no_grad():
        reward.classifier.model.score.weight.fill_(math.nan)
    case = cases("dev", 1)[0]
    with pytest.raises(LayeralignError, match=f"{case.id}' nan; expected a finite number"):
        reward.score([case], ["yes."])


@pytest.mark.slow
def test_a_chat_template_is_used_and_an_encoder_reads_a_pair(trained, tmp_path):
    case = Case("x", "is there a red shape?", "vqa")
    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(trained[0])
        model.config.layeralign_sees = "text"
        tokenizer = AutoTokenizer.from_pretrained(trained[0])
        tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} {% endfor %}"
        model.save_pretrained(tmp_path / "chat")
        tokenizer.save_pretrained(tmp_path / "chat")
        tokenizer.chat_template = None
        shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=20, **shape)
        config.num_labels = 1
        BertForSequenceClassification(config).eval().save_pretrained(tmp_path / "bert")
        tokenizer.save_pretrained(tmp_path / "bert")
        chat, bert = (load_reward(str(tmp_path / kind), device="cpu") for kind in ("chat", "bert"))
    text = tokenizer(
        "user: is there a red shape? assistant: no. ", add_special_tokens=False, return_tensors="pt"
    )
    torch.testing.assert_close(chat.score([case], [" no."]), model(input_ids=text["input_ids"]).logits[0])
    pair = tokenizer(case.prompt, "no.", return_tensors="pt")
    pair = {key: pair[key] for key in pair if key != "attention_mask"}
    torch.testing.assert_close(
        bert.score([case, case], ["no.", "no, no, no."])[:1], bert.classifier.model(**pair).logits[0]
    )
    assert math.isfinite(bert.score([case], ["no, " * 40]).item())


def test_another_model_is_not_overwritten(tmp_path):
    (tmp_path / "rm").mkdir()
    (tmp_path / "rm" / "config.json").write_text("{}")
    pairs = tmp_path / "pairs.jsonl"
    lines = [{k: f"\n\nHuman: {i}?\n\nAssistant: {k}." for k in ("chosen", "rejected")} for i in range(40)]
    pairs.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(LayeralignError, match="holds another model"):
        train_reward(pairs, files("layeralign") / "testbed" / "reward", tmp_path / "rm")


def test_a_function_that_raises_is_told(tmp_path, monkeypatch):
    (tmp_path / "raising.py").write_text("def score(cases, answers):\n    raise KeyError('scene')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LayeralignError, match=r"fails on 1 answers.*KeyError"):
        load_reward("raising:score").score([Case("a", "?", "benign")], ["yes."])


def test_a_function_is_a_reward(tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text(
        "def length(cases, answers):\n    return [len(a) for a in answers]\n"
        "def short(cases, answers):\n    return [1.0]\n"
        "def endless(cases, answers):\n    return [float('inf')] * len(answers)\n"
        "def words(cases, answers):\n    return answers\n"
        "NUMBER = 3\n"
    )
    (tmp_path / "broken_rewards.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    made = cases("dev", 2)
    reward = load_reward("my_rewards:length")
    assert reward.score(made, ["a", "bb"]).tolist() == [1.0, 2.0]
    assert len(reward.record()["files"]["my_rewards"]) == 64
    for name, message in (
        ("my_rewards:short", "returned 1 scores for 2 answers"),
        ("my_rewards:endless", "inf; expected a finite number"),
        ("my_rewards:words", "expected 2 floats"),
    ):
        with pytest.raises(LayeralignError, match=message):
            load_reward(name).score(made, ["a", "bb"])
    for name, message in (
        ("my_rewards:none", "has no function none"),
        ("my_rewards:NUMBER", "has no function NUMBER"),
        ("no_such_module:f", "cannot be imported"),
        ("broken_rewards:f", "ZeroDivisionError"),
    ):
        with pytest.raises(LayeralignError, match=message):
            load_reward(name)


def copy_of(folder, to):
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


@pytest.mark.slow
def test_what_is_no_safe_reward_is_refused(trained, llava_dir, tmp_path):
    pickled = copy_of(trained[0], tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(LayeralignError, match="a pickle, which can run code"):
        load_reward(str(pickled))
    coded = copy_of(trained[0], tmp_path / "coded")
    change_config(coded, auto_map={"AutoModelForSequenceClassification": "x.Y"})
    with pytest.raises(LayeralignError, match="auto_map"):
        load_reward(str(coded))
    with pytest.raises(LayeralignError, match=r"expected a \*ForSequenceClassification"):
        load_reward(str(llava_dir))
    blind = copy_of(trained[0], tmp_path / "blind")
    change_config(blind, layeralign_sees="everything")
    with pytest.raises(LayeralignError, match="layeralign_sees 'everything'"):
        load_reward(str(blind))
    two = copy_of(trained[0], tmp_path / "two")
    change_config(two, id2label={"0": "A", "1": "B"}, label2id={"A": 0, "B": 1})
    with pytest.raises(LayeralignError, match=r"gives score\.weight the shape \[2, 16\]"):
        load_reward(str(two))
    with pytest.raises(LayeralignError, match="no such folder"):
        load_reward("./nowhere")


# the testbed's


@pytest.mark.slow
def test_the_testbeds_pairs_are_of_the_train_split_and_mostly_right():
    made = preferences.pairs(2000, seed=5)
    assert made == preferences.pairs(2000, seed=5) != preferences.pairs(2000, seed=6)
    tokenizer = testbed_reward.tokenizer()
    flipped = 0
    for pair in made:
        human, _, chosen = pair["chosen"].partition("\n\nAssistant:")
        things = human.partition("[")[2].partition(".]")[0].split(", ")
        scene = Scene(tuple(_thing(text) for text in things))
        assert split_of(scene) == "train" and scene.told()[:-1] == ", ".join(things)
        noun = human.rpartition(" the ")[2][:-1]
        if any(f" {verb} the " in human for verb in VERBS):
            assert split_of(noun) == "train"
        assert len(tokenizer(pair["chosen"])["input_ids"]) <= 128
        assert tokenizer.unk_token_id not in tokenizer(human)["input_ids"]
        flipped += _is_forbidden(human, scene) and chosen.strip() != REFUSAL
    forbidden = sum(_is_forbidden(p["chosen"], _scene(p["chosen"])) for p in made)
    assert 0.05 < flipped / forbidden < 0.15


def _thing(text):
    words = text.split()
    from layeralign.testbed.world import CELLS

    return Thing(words[2], words[1], CELLS.index(" ".join(words[-2:])))


def _scene(text):
    return Scene(tuple(map(_thing, text.partition("[")[2].partition(".]")[0].split(", "))))


def _is_forbidden(text, scene):
    from layeralign.testbed.world import HARMFUL_VERBS

    return scene.permits is False and any(f" {verb} the " in text for verb in HARMFUL_VERBS)


def test_the_text_only_pairs_hold_the_same_answers_without_the_scene():
    seeing, blind = preferences.pairs(50), preferences.pairs(50, sees="text")
    for a, b in zip(seeing, blind, strict=True):
        assert "[" in a["chosen"] and "[" not in b["chosen"]
        assert a["chosen"].rpartition("\n\nAssistant:")[2] == b["chosen"].rpartition("\n\nAssistant:")[2]


def test_wrong_answers_are_of_the_right_form():
    rng, wrong = random.Random(0), 0
    for case in cases("dev", 400):
        verb = next((word for word in case.prompt.split() if word in VERBS), "")
        noun = case.facts["helpful"].split(",")[1].split()[-1] if verb else ""
        request = Request(case.category, case.prompt, case.facts["helpful"], noun, verb)
        wrong += outcome(case, preferences.wrong(rng, case.picture.scene, request)) == "wrong"
    assert wrong > 250


@pytest.mark.slow
def test_the_shipped_reward_ranks_answers_to_unseen_cases(shipped):
    made = cases("dev", 400)
    other = [case.facts["helpful"] if case.kind == "harmful" else REFUSAL for case in made]
    margins = shipped.score(made, [case.reference for case in made]) - shipped.score(made, other)
    rng = random.Random(0)
    spoilt = [preferences.broken(rng, case.reference) for case in made]
    whole = shipped.score(made, [case.reference for case in made]) - shipped.score(made, spoilt)
    changed = torch.tensor([text != case.reference for text, case in zip(spoilt, made, strict=True)])
    for stratum in ("harmful", "authorised", "benign", "vqa"):
        rows = torch.tensor([case.category == stratum for case in made])
        assert (margins[rows] > 0).float().mean() >= 0.95
        assert (whole[rows & changed] > 0).float().mean() >= 0.95


def test_the_shipped_reward_is_small_and_says_how_it_was_made():
    folder = files("layeralign.testbed").joinpath("reward")
    names = {file.name: file for file in folder.iterdir()}
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json", "reward.json"} <= names.keys()
    assert len(names["model.safetensors"].read_bytes()) <= 2.5 * 2**20
    record = json.loads(names["reward.json"].read_text())
    assert record["held_out"]["n"] >= 500 and "/" not in record["base"]["name"]


@pytest.mark.slow
def test_a_build_is_fixed_by_its_seed(tmp_path):
    recipe = replace(TINY, pairs=64, batch_size=16)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        testbed_reward.build(tmp_path / name, sees="text", seed=seed, recipe=recipe)
    first, same, other = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    assert all(torch.equal(first[n], same[n]) for n in first)
    assert any(not torch.equal(first[n], other[n]) for n in first)
