"""Every family proves itself on a tiny random model of the real class; docs/families.md is made from this file."""

import importlib.util
import json
import os
import shutil
from contextlib import contextmanager, nullcontext

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.blip_2.modeling_blip_2 import BaseModelOutputWithVisionQformerOutputs

import by_hand
import recent
import tiny
from layeralign import LayeralignError, testing
from layeralign.gating.deployments.place import Undecided, place
from layeralign.testing import FamilySuite, noise
from layeralign.vlm.families.apart import Apart
from layeralign.vlm.load import load

MODELS = dict.fromkeys(tiny.FAMILIES) | {"mllama-vendor": "vendor", "qwen3_vl-hold": "hold"}
MODELS |= dict.fromkeys(recent.FAMILIES)

QUICK = ("llava", "qwen3_vl")  # a picture is tokens alone; more goes with them
SIBLINGS = ("qwen3_vl_moe", "qwen3_5_moe", "glm4v_moe", "glm46v", "llava_joined")
"""Their classes add no code to another family's; benchmarks/families.py tests them, too."""
SHOWN = [name for name in MODELS if name not in SIBLINGS or os.environ.get("LAYERALIGN_EVERY_FAMILY")]
EACH = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SHOWN]


def asked_of_paligemma(vlm, text, picture):
    if picture is None:  # its processor wants a picture
        ids = torch.tensor([vlm.tokenizer(f"<bos>{text}\n")["input_ids"]])
        return {"input_ids": ids, "token_type_ids": torch.zeros_like(ids)}
    made = vlm.processor(images=picture, text=f"<image>{text}", return_tensors="pt")
    return {name: value for name, value in made.items() if name != "labels"}


def asked_of_blip(vlm, text, picture):
    asked = f"Question: {text} Answer:" if vlm.family == "blip-2" else text
    if picture is not None:
        return dict(vlm.processor(images=picture, text=asked, return_tensors="pt"))
    none = BaseModelOutputWithVisionQformerOutputs(pooler_output=torch.zeros(0, 40))  # it wants a picture
    ids = torch.tensor([vlm.tokenizer(asked)["input_ids"]])
    unread = {"qformer_input_ids": None} if vlm.family == "instructblip" else {}
    return {"input_ids": ids, "pixel_values": None, "mm_encoder_outputs": {"image": none}} | unread


def asked_of_idefics(vlm, text, picture):
    asked = [f"User:{text}"] if picture is None else ["User:", picture, text]
    asked[-1] += "<end_of_utterance>\nAssistant:"
    return dict(vlm.processor(text=[asked], add_end_of_utterance_token=False))


def asked_of_kosmos(vlm, text, picture):
    chat = (
        "<md>A chat between a curious user and an artificial intelligence assistant. The assistant gives "
        f"helpful, detailed, and polite answers to the user's questions. USER: {text} ASSISTANT:"
    )
    asked = f"Question: {text} Answer:" if vlm.family == "kosmos-2" else chat
    if picture is not None:
        return dict(vlm.processor(images=picture, text=asked, return_tensors="pt"))
    ids = vlm.tokenizer(f"<s>{asked}", add_special_tokens=False, return_tensors="pt")["input_ids"]
    none = torch.zeros(0, 1, vlm.text_width)  # it wants a picture
    return {"input_ids": ids, "image_embeds": none, "image_embeds_position_mask": torch.zeros_like(ids)}


def asked_of_blip1(vlm, text, picture):
    names, start = vlm.tokenizer, vlm.model.config.text_config.bos_token_id
    ids = torch.tensor([[start, *names(text, add_special_tokens=False)["input_ids"]]])
    pixels = None if picture is None else vlm.processor(images=picture, return_tensors="pt")["pixel_values"]
    return {"pixel_values": pixels, "input_ids": ids, "attention_mask": torch.ones_like(ids)}


@contextmanager
def own_blip(model):
    """BLIP's own code, given the [SEP] that its `generate` takes off, and no picture where there is none."""
    end = torch.tensor([[model.config.text_config.sep_token_id]])
    generate, encode = model.generate, model.vision_model.forward

    def with_end(pixel_values, input_ids, attention_mask, pad_token_id, **settings):
        ids, mask = torch.cat([input_ids, end], 1), torch.cat([attention_mask, torch.ones_like(end)], 1)
        return generate(pixel_values, ids, mask, **settings)

    def seen(pixel_values, **others):
        return BaseModelOutputWithPooling() if pixel_values is None else encode(pixel_values, **others)

    model.generate, model.vision_model.forward = with_end, seen
    try:
        yield
    finally:
        del model.generate, model.vision_model.forward


THEIRS = {
    "paligemma": asked_of_paligemma, "blip-2": asked_of_blip, "instructblip": asked_of_blip,
    "blip": asked_of_blip1, "idefics": asked_of_idefics, "kosmos-2": asked_of_kosmos, "kosmos-2.5": asked_of_kosmos,
}  # fmt: skip
"""Families whose processor has no chat template, or one that does not take what others take."""


class TestFamilies(FamilySuite):
    @pytest.fixture(scope="class", params=EACH)
    def vlm(self, request, tmp_path_factory):
        name, folder = request.param.partition("-")[0], tmp_path_factory.mktemp(request.param)
        if name in recent.WITH_TORCHVISION and importlib.util.find_spec("torchvision") is None:
            pytest.skip("its processor needs torchvision")
        save = tiny.save if name in tiny.FAMILIES else recent.save
        return load(save(name, folder), variant=MODELS[request.param])

    @pytest.fixture(scope="class")
    def pictures(self, vlm):
        if vlm.family != "mistral3":
            return [noise(*size) for size in testing._SIZES]
        # transformers' own code fails on a picture of 8 × 8, which is a single token
        return [noise(*(size if size != (8, 8) else (40, 24))) for size in testing._SIZES]

    def behind(self, vlm):
        named = {
            "blip-2": "language_projection", "instructblip": "vision_model.post_layernorm", "blip": "vision_model.post_layernorm", "idefics": "perceiver_resampler", "kosmos-2": "image_to_text_projection", "kosmos-2.5": "image_to_text_projection", "gemma4": "embed_vision", "granite4_vision": "layerwise_projectors.0", "llama4": "vision_model.vision_adapter"
        }  # fmt: skip
        return vlm.inner.get_submodule(named[vlm.family]) if vlm.family in named else super().behind(vlm)

    def their_inputs(self, vlm, text, picture):
        if vlm.family in THEIRS:
            return THEIRS[vlm.family](vlm, text, picture)
        made = super().their_inputs(vlm, text, picture)
        return {name: given.float() if given.is_floating_point() else given for name, given in made.items()}

    def own_features(self, vlm, picture):
        if isinstance(vlm, Apart):  # they have no method for it
            return self.reference(vlm, picture, vlm.exits.default)
        if vlm.family in ("llama4", "granite4_vision"):  # their features are no pooler's output
            made = vlm.prepare([picture])[0]
            with torch.no_grad():
                own = vlm.model.get_image_features(**made, return_dict=True)
            return (
                own.last_hidden_state.flatten(0, 1)
                if vlm.family == "llama4"
                else own.deepstack_features[0][1][0]
            )
        if vlm.family != "mllama":
            return super().own_features(vlm, picture)
        if vlm.reading == "vendor":
            return self.reference(vlm, picture, vlm.exits.default)
        made = self.pixels(vlm, picture)
        names = ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")
        with torch.no_grad():
            state = vlm.tower(**{name: made[name] for name in names}).last_hidden_state
            return vlm.model.model.multi_modal_projector(state).flatten(0, -2)

    def pixels(self, vlm, picture):
        if isinstance(vlm, Apart):
            return vlm.prepare([picture])[0]
        return vlm.processor(images=[[picture]], text=[vlm.placeholder], return_tensors="pt")

    def reference(self, vlm, picture, exit):
        with torch.no_grad():
            return by_hand.REFERENCES[vlm.family](vlm, self.pixels(vlm, picture), exit)

    def test_one_bos_and_the_right_number_of_picture_tokens(self, vlm, pictures):
        if vlm.family == "blip":  # no token stands for a picture
            (feature,), start = vlm.encode(pictures[:1], [1])[1], vlm.model.config.text_config.bos_token_id
            ids = vlm.tokens(vlm.prompt("Hello.", picture=True), feature)
            assert ids == vlm.tokens(vlm.prompt("Hello.", picture=False), None)
            assert ids[0] == start and not {start, vlm.picture_token_id} & set(ids[1:])
            return None
        if vlm.family != "kosmos-2.5":
            return super().test_one_bos_and_the_right_number_of_picture_tokens(vlm, pictures)
        (feature,) = vlm.encode(pictures[:1], [1])[1]  # BOS tokens also hold a picture's places
        ids = vlm.tokens(vlm.prompt("Hello.", picture=True), feature)
        start, end, bos = (
            vlm.tokenizer.convert_tokens_to_ids(name) for name in ("<image>", "</image>", "<s>")
        )
        assert (
            ids[:2] == [bos, start] and ids[2:7] == [bos] * 4 + [end] and not {bos, start, end} & set(ids[7:])
        )

    def as_read(self, vlm):
        """transformers' own code; for Llama's vendor with the indices that read the states as the vendor does."""
        if vlm.family == "blip":
            return own_blip(vlm.model)
        return vlm._read() if vlm.reading == "vendor" else nullcontext()

    def test_default_exit_tokens_and_logits(self, vlm, pictures):
        with self.as_read(vlm):
            super().test_default_exit_tokens_and_logits(vlm, pictures)

    def test_default_exit_greedy_answers(self, vlm, pictures):
        with self.as_read(vlm):
            super().test_default_exit_greedy_answers(vlm, pictures)

    @pytest.mark.slow
    def test_an_adapter_trains_and_loads_and_touches_no_vision(self, vlm, pictures, tmp_path):
        refused = pytest.raises(LayeralignError, match="into its experts' parameters")
        with refused if vlm.family == "glm4v_moe" else nullcontext():
            super().test_an_adapter_trains_and_loads_and_touches_no_vision(vlm, pictures, tmp_path)

    @pytest.mark.slow
    def test_a_cut_tower_gives_what_check_says_it_gives(self, vlm, pictures, tmp_path):
        """The same weights under a config of fewer blocks, as transformers computes them, are an exit's."""
        config = vlm.checkpoint.config()
        depth = "depth" if "depth" in config["vision_config"] else "num_hidden_layers"
        cuts = [{depth: tiny.BLOCKS - 1}, *([{"num_global_layers": 1}] if vlm.family == "mllama" else [])]
        for number, cut in enumerate(cuts):
            shorter = config | {"vision_config": config["vision_config"] | cut}
            if not vlm.reads_cut:
                with pytest.raises(Undecided, match="reading of an exit is another"):
                    place(shorter, config, vlm.variant)
                continue
            folder = shutil.copytree(vlm.checkpoint.path, tmp_path / str(number))
            file = folder / "config.json"
            file.write_text(json.dumps(shorter))
            short = type(vlm.model).from_pretrained(folder)
            short.save_pretrained(folder)  # without the weights past the cut
            file.write_text(json.dumps(shorter))
            made = load(folder, variant=vlm.reading)
            exit = place(shorter, config, vlm.variant)
            (own,) = made.encode(pictures[:1], [made.exits.default])[made.exits.default]
            (ours,) = vlm.encode(pictures[:1], [exit])[exit]
            self.equal(own.tokens, ours.tokens)
            for name, extra in own.extras.items():
                self.equal(extra, ours.extras[name])

    def test_deepstack(self, vlm, pictures):
        if vlm.family not in ("qwen3_vl", "qwen3_vl_moe", "granite4_vision"):
            pytest.skip("has none")
        for exit, made in vlm.encode(pictures[:1], vlm.exits.all).items():
            with torch.no_grad():
                wanted = by_hand.further(vlm, self.pixels(vlm, pictures[0]), exit)
            self.equal(made[0].extras["deepstack"], wanted) if wanted.any() else None
            assert made[0].extras["deepstack"].any() == wanted.any()

    @pytest.mark.parametrize("size", [(1, 1), (1, 60), (60, 1), (1, 900)])
    def test_very_small_and_very_long_pictures(self, vlm, size):
        """Each is taken, or refused in one sentence that says how large it is."""
        try:
            (feature,) = vlm.encode([noise(*size)], [1])[1]
        except LayeralignError as error:
            assert vlm.family.startswith(("qwen", "glm", "mistral")) and size == (1, 900), (
                "only these have a limit"
            )
            assert "900 × 1" in str(error) and (
                "absolute aspect ratio" in str(error) or vlm.family == "mistral3"
            )
            return
        ids = vlm.tokens(vlm.prompt("Hello", picture=True), feature)
        assert vlm.generate([ids], [feature], max_new_tokens=1).shape == (1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["Hello.", " a space", "<a tag>", "é"])
def test_idefics2_writes_what_its_processor_writes_behind_a_picture(tmp_path, text):
    """A space before a word, but none before a space or a tag."""
    vlm = load(recent.save("idefics2", tmp_path))
    picture = noise(40, 30)
    (feature,) = vlm.encode([picture], [1])[1]
    prompt = vlm.prompt(text, picture=True)
    theirs = vlm.processor(images=[[picture]], text=[prompt])["input_ids"][0]
    assert vlm.tokens(prompt, feature) == theirs
