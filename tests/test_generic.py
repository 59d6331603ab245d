"""Families that layeralign has no file for, and those that other packages bring."""

import json
import re
from functools import wraps
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import transformers as t
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

import tiny
from layeralign import LayeralignError
from layeralign._util.quiet import quiet
from layeralign.cli import main
from layeralign.testing import FamilySuite, noise
from layeralign.vlm.families import registry as families
from layeralign.vlm.families.gemma import Gemma3
from layeralign.vlm.families.generic import Generic
from layeralign.vlm.load import empty, load
from layeralign.vlm.processor import without_video
from layeralign.vlm.vlm import Vlm


def aya_vision(folder, *, weights=True):
    """SigLIP, pixel shuffle, a gated projector, Cohere's language model: layeralign has no file for it."""
    names = tiny.tokenizer(
        ["<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_LINE_BREAK|>", "TILE_GLOBAL"]
        + [f"TILE_{i}" for i in range(13)],
        bos="<BOS>", adds_bos=True, image_token="<|IMG_PATCH|>",
    )  # fmt: skip
    template = (
        "{% for m in messages %}{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
    )
    processor = t.AyaVisionProcessor(
        image_processor=GotOcr2ImageProcessorPil(size=tiny.SQUARE, crop_to_patches=True, max_patches=2),
        tokenizer=names, patch_size=tiny.PATCH * 2, img_size=tiny.SIZE, downsample_factor=1,
        chat_template=template,
    )  # fmt: skip
    text = t.CohereConfig(**tiny.text_size(names), logit_scale=1.0, tie_word_embeddings=True)
    config = t.AyaVisionConfig(
        vision_config=t.SiglipVisionConfig(**tiny.VISION, vision_use_head=False), text_config=text,
        image_token_index=names.image_token_id, downsample_factor=2, vision_feature_layer=-1,
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = t.AyaVisionForConditionalGeneration(config)
    with torch.no_grad():
        for weight in model.model.multi_modal_projector.parameters():
            weight.add_(torch.randn_like(weight) * 0.5)
        for weight in model.model.vision_tower.parameters():
            weight.mul_(3.0)
    with quiet():
        if weights:
            model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder


@pytest.mark.slow
class TestUnknownFamily(FamilySuite):
    """The generic cut, on a family that only transformers knows, proves itself as the others do."""

    @pytest.fixture(scope="class")
    def vlm(self, tmp_path_factory):
        return load(aya_vision(tmp_path_factory.mktemp("aya")))

    def reference(self, vlm, picture, exit):
        made = vlm.processor(images=[[picture]], text=[vlm.placeholder], return_tensors="pt")
        with torch.no_grad():
            state = vlm.tower(made["pixel_values"], output_hidden_states=True).hidden_states[exit]
            return vlm.model.model.multi_modal_projector(state).flatten(end_dim=-2)

    def test_it_is_the_generic_one(self, vlm):
        assert vlm.family == "generic" and vlm.exits.layers == tiny.BLOCKS


def unlike_llava(folder, kind, config):
    processor, _, _ = tiny.llava()
    with quiet():
        kind(config).save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_what_is_not_like_llava_gets_one_sentence(tmp_path):
    vision = t.GitVisionConfig(**tiny.VISION).to_dict()
    config = t.GitConfig(vision_config=vision, vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=1,
                         intermediate_size=16)  # fmt: skip
    unlike_llava(tmp_path, t.GitForCausalLM, config)
    with pytest.raises(
        LayeralignError, match="family 'git' is unknown, and it is not like LLaVA, since it "
    ) as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


def test_a_model_without_an_encoder_is_refused(tmp_path):
    for kind in families.NO_ENCODER:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "vision_config": {}}))
        with pytest.raises(LayeralignError, match=f"family {kind} has no image encoder, .* no exit to scan"):
            empty(tmp_path)


def forward_with(monkeypatch, change):
    """Aya Vision whose forward changes its logits."""
    plain = t.AyaVisionForConditionalGeneration.forward

    @wraps(plain)
    def changed(self, input_ids=None, **kwargs):
        made = plain(self, input_ids, **kwargs)
        made.logits = change(made.logits, input_ids)
        return made

    monkeypatch.setattr(t.AyaVisionForConditionalGeneration, "forward", changed)


@pytest.mark.slow
def test_a_model_that_caps_its_logits_gives_them_capped(tmp_path, monkeypatch):
    forward_with(monkeypatch, lambda logits, _: torch.tanh(logits) * 3)
    vlm = load(aya_vision(tmp_path))
    hidden = torch.randn(2, 5, vlm.text_width)
    torch.testing.assert_close(vlm.logits(hidden), torch.tanh(vlm.head(hidden)) * 3)
    assert vlm.logits(hidden[0, 0]).shape == (vlm.head.weight.shape[0],)
    assert "forward" not in vars(vlm.inner)


@pytest.mark.slow
def test_a_model_whose_logits_need_more_than_hidden_states_is_refused(tmp_path, monkeypatch):
    """Its logits would be wrong in training: found before anything runs."""
    forward_with(monkeypatch, lambda logits, ids: logits * (1 + ids.float().mean()))
    with pytest.raises(LayeralignError, match="answers differently"):
        load(aya_vision(tmp_path))


@pytest.mark.slow
def test_a_model_that_reads_the_tower_otherwise_is_refused(tmp_path, monkeypatch):
    """What the tower gives besides its blocks' states cannot be cut: here, what is inside a block."""
    plain = t.AyaVisionModel.get_image_features

    def peeking(self, pixel_values, **kwargs):
        seen = []
        inside = self.vision_tower.encoder.layers[0].mlp
        handle = inside.register_forward_hook(lambda *given: seen.append(given[2].mean()))
        made = plain(self, pixel_values, **kwargs)
        handle.remove()
        made.pooler_output = made.pooler_output + 50 * sum(seen)
        return made

    monkeypatch.setattr(t.AyaVisionModel, "get_image_features", peeking)
    with pytest.raises(LayeralignError, match="different features when its encoder exits"):
        load(aya_vision(tmp_path))


@pytest.mark.slow
def test_a_model_that_runs_its_tower_twice_is_read_as_it_is(tmp_path, monkeypatch):
    plain = t.AyaVisionModel.get_image_features

    def twice(self, pixel_values, **kwargs):
        made, again = (plain(self, pixel_values * n, **kwargs) for n in (1, 3))
        made.pooler_output = made.pooler_output + again.pooler_output
        return made

    one = load(aya_vision(tmp_path))
    picture = noise(40, 40)
    alone = one.encode([picture], one.exits.all)
    inputs, texts = one.prepare([picture])
    monkeypatch.setattr(one, "prepare", lambda _: ({"pixel_values": 3 * inputs["pixel_values"]}, texts))
    brighter = one.encode([picture], one.exits.all)
    monkeypatch.setattr(t.AyaVisionModel, "get_image_features", twice)
    for exit, (made,) in load(tmp_path).encode([picture], one.exits.all).items():
        torch.testing.assert_close(made.tokens, alone[exit][0].tokens + brighter[exit][0].tokens)


@pytest.mark.slow
def test_a_model_whose_batches_change_its_logits_answers_row_by_row(tmp_path, monkeypatch):
    plain = t.AyaVisionForConditionalGeneration.forward

    @wraps(plain)
    def shifted(self, input_ids=None, **kwargs):
        made = plain(self, input_ids, **kwargs)
        made.logits = made.logits * torch.linspace(1, len(made.logits), len(made.logits))[:, None, None]
        made.logits[..., 40] += 0.1 * made.logits.abs().max() * (len(made.logits) > 1)
        return made

    assert not load(aya_vision(tmp_path)).answers_alone
    monkeypatch.setattr(t.AyaVisionForConditionalGeneration, "forward", shifted)
    vlm = load(tmp_path)
    assert vlm.answers_alone
    ids = [vlm.tokens(vlm.prompt(text, picture=False), None) for text in ("Hi.", "What is it?")]
    alone = [vlm.generate([line], [None], max_new_tokens=5, min_new_tokens=5)[0].tolist() for line in ids]
    assert vlm.generate(ids, [None, None], max_new_tokens=5, min_new_tokens=5).tolist() == alone


def qwen2_vl(folder):
    """Its language model needs 3D positions, which come from the picture's grid."""
    names = tiny._qwen_names()
    processor = without_video(t.Qwen2VLProcessor)(
        tiny._qwen_pictures(tiny.PATCH), names, None, chat_template=tiny.template("qwen2_5_vl")
    )
    vision = {"depth": 4, "embed_dim": 48, "hidden_size": 40, "num_heads": 3, "patch_size": 8, "mlp_ratio": 2}
    rope = {"rope_type": "default", "mrope_section": [2, 4, 4], "rope_theta": 10000.0}
    text = tiny.text_size(names, rope_parameters=rope)
    config = t.Qwen2VLConfig(vision_config=vision, text_config=text, **tiny._qwen_ids(names))
    torch.manual_seed(0)
    with quiet():
        t.Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_model_that_needs_a_pictures_grid_gets_it(tmp_path):
    vlm = load(qwen2_vl(tmp_path))
    (feature,) = vlm.encode([noise(32, 64)], [1])[1]
    assert vlm.family == "generic" and feature.extras["image_grid_thw"].tolist() == [[1, 4, 8]]


@pytest.mark.slow
def test_a_model_that_needs_more_than_features_is_refused_not_misread(tmp_path, monkeypatch):
    monkeypatch.setattr(Generic, "extras", Vlm.extras)
    with pytest.raises(LayeralignError, match=r"fails on a grey picture|answers differently"):
        load(qwen2_vl(tmp_path))


@pytest.mark.slow
def test_inspect_shows_what_it_can_of_an_unknown_family(tmp_path, capsys):
    aya_vision(tmp_path / "aya")
    qwen2_vl(tmp_path / "qwen")
    for name in ("aya", "qwen"):
        assert main(["inspect", "--model", str(tmp_path / name), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["layers"] == 4 and {e["flops"] for e in told["exits"]} == {None}
    assert main(["inspect", "--model", str(tmp_path / "qwen"), "--time"]) == 1
    assert "cannot be timed alone" in capsys.readouterr().err


class Mine(Gemma3):
    """A family of another package."""

    family = "mine"
    variants: ClassVar = {"norm": "as Gemma 3"}


def entry(value, name="mine"):
    return EntryPoint(name, value, families.ENTRY_POINT)


@pytest.fixture
def points(monkeypatch):
    """The entry points that installed packages declare."""
    found = []
    monkeypatch.setattr(
        families, "entry_points", lambda group: found if group == families.ENTRY_POINT else []
    )
    return found


def test_another_package_brings_a_family(points):
    points += [entry("no_such_module:Thing", "broken"), entry("test_generic:Mine")]
    assert families.family_of("m", {"model_type": "mine"}) is Mine
    assert families.family_of("m", {"model_type": "gemma3"}) is Gemma3  # whatever else is broken


class NoFamily(Gemma3):
    family = 7


class NoVariants(Gemma3):
    family = "mine"
    variants: ClassVar = {}


class Listed(Gemma3):
    family = "mine"
    variants: ClassVar = ["norm"]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("no_such_module:Thing", "cannot be loaded"),
        ("test_generic:NoSuch", "cannot be loaded"),
        ("test_generic:entry", "expected a subclass"),
        ("test_generic:NoFamily", "must be 'mine'"),
        ("test_generic:NoVariants", "at least one"),
        ("test_generic:Listed", "at least one"),
        ("layeralign.vlm.families.gemma:Gemma3", "must be 'mine'"),
    ],
)
def test_a_bad_entry_point_is_one_sentence(points, value, says):
    points.append(entry(value))
    with pytest.raises(LayeralignError, match=says):
        families.family_of("m", {"model_type": "mine"})


def shown():
    """What CONTRIBUTING shows of a family and of its proof, run as it stands there."""
    text = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()
    blocks = re.findall(r"```(?:python|toml)\n(.*?)```", text, re.DOTALL)
    assert sum(block.count("\n") for block in blocks) < 60
    found = {"save_a_tiny_model": aya_vision}
    for block in blocks:
        if not block.startswith("["):
            exec(compile(block, "CONTRIBUTING.md", "exec"), found)
    return found


@pytest.mark.slow
class TestContributing(shown()["TestAyaVision"]):
    """The very class of CONTRIBUTING, its model served by the very family of CONTRIBUTING."""

    @pytest.fixture(scope="class")
    def vlm(self, tmp_path_factory):
        family = shown()["AyaVision"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(families, "OWN", (*families.OWN, family))
            yield load(aya_vision(tmp_path_factory.mktemp("aya")))

    reference = TestUnknownFamily.reference

    def test_it_is_the_shown_one(self, vlm):
        assert vlm.family == "aya_vision" and vlm.variant.startswith("for every tile")


class TestLlavaWithAnotherTower(FamilySuite):
    """A known family with a tower of another kind: DINOv2 has its blocks at `encoder.layer`."""

    @pytest.fixture(scope="class")
    def vlm(self, tmp_path_factory):
        return load(dinov2_llava(tmp_path_factory.mktemp("dinov2")))

    def reference(self, vlm, picture, exit):
        made = vlm.processor(images=[[picture]], text=[vlm.placeholder], return_tensors="pt")
        with torch.no_grad():
            state = vlm.tower(made["pixel_values"], output_hidden_states=True).hidden_states[exit]
            return vlm.model.model.multi_modal_projector(state[:, 1:]).flatten(end_dim=-2)

    def test_it_is_a_llava(self, vlm):
        assert vlm.family == "llava" and vlm.exits.layers == tiny.BLOCKS and not vlm.own_tower


def dinov2_llava(folder):
    processor, kind, config = tiny.llava()
    config.vision_config = t.Dinov2Config(**{**tiny.VISION, "mlp_ratio": 2}, layerscale_value=1.0)
    torch.manual_seed(0)
    unlike = kind(config)
    with quiet():
        unlike.save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_tower_whose_features_move_is_refused_with_what_to_write(tmp_path, monkeypatch):
    plain = t.Dinov2Model.forward

    @wraps(plain)
    def louder(self, *args, **kwargs):
        made = plain(self, *args, **kwargs)
        if made.hidden_states is not None and self.training is False:
            louder.calls += 1
            made.hidden_states = tuple(state * louder.calls for state in made.hidden_states)
        return made

    louder.calls = 0
    monkeypatch.setattr(t.Dinov2Model, "forward", louder)
    with pytest.raises(LayeralignError, match=r"family llava does not know its vision tower \(Dinov2Model\)"):
        load(dinov2_llava(tmp_path))
