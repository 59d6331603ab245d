"""Tiny, randomly initialised models of the real transformers classes, one for every family, with their
processors: real code for pictures, the published chat template, and a tokenizer that has a token for every byte.
"""

from pathlib import Path

import torch
import transformers as t
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from layeralign._util.quiet import quiet
from layeralign.vlm.processor import without_video

TEMPLATES = Path(__file__).parent / "templates"
BLOCKS, SIZE, PATCH = 4, 32, 8
PINPOINTS = [[32, 64], [64, 32], [64, 64], [32, 96], [96, 32]]
SQUARE = {"height": SIZE, "width": SIZE}


def tokenizer(special=(), *, bos=None, eos="</s>", adds_bos=False, **names):
    """A token for every byte; `special` tokens besides; `names` become attributes, as `image_token`."""
    tokens = ["<pad>", *([bos] if bos else []), eos, *special, *names.values()]
    tokens = list(dict.fromkeys(tokens))
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    table = {token: i for i, token in enumerate([*tokens, *letters])}
    core = Tokenizer(BPE(table, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    if adds_bos:
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, table[bos])]
        )
    return t.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token=bos, eos_token=eos, padding_side="left",
        extra_special_tokens=names, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def template(name):
    return (TEMPLATES / f"{name}.jinja").read_text()


def text_size(names, **others):
    return {
        "vocab_size": len(names), "hidden_size": 40, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.2,
        "bos_token_id": names.bos_token_id, "eos_token_id": names.eos_token_id, "pad_token_id": 0,
    } | others  # fmt: skip


VISION = {
    "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": BLOCKS, "num_attention_heads": 3,
    "image_size": SIZE, "patch_size": PATCH,
}  # fmt: skip


def llava():
    names = tokenizer(bos="<s>", adds_bos=True, image_token="<image>")
    processor = t.LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=SQUARE), tokenizer=names,
        patch_size=PATCH, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=template("llava"),
    )  # fmt: skip
    config = t.LlavaConfig(
        vision_config=t.CLIPVisionConfig(**VISION), text_config=t.LlamaConfig(**text_size(names)),
        image_token_index=names.image_token_id, image_seq_length=16, vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )  # fmt: skip
    return processor, t.LlavaForConditionalGeneration, config


def _llava_next(name, text):
    names = tokenizer(bos="<s>", adds_bos=True, image_token="<image>")
    processor = t.LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil(
            size={"shortest_edge": SIZE}, crop_size=SQUARE, image_grid_pinpoints=PINPOINTS
        ),
        tokenizer=names, patch_size=PATCH, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=template(name),
    )  # fmt: skip
    config = t.LlavaNextConfig(
        vision_config=t.CLIPVisionConfig(**VISION), text_config=text(**text_size(names)),
        image_token_index=names.image_token_id, image_grid_pinpoints=PINPOINTS, vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )  # fmt: skip
    return processor, t.LlavaNextForConditionalGeneration, config


def llava_next():
    return _llava_next("llava_next_mistral", t.MistralConfig)


def llava_next_vicuna():
    return _llava_next("llava_next_vicuna", t.LlamaConfig)


def llava_onevision():
    names = tokenizer(["<|im_start|>"], eos="<|im_end|>", image_token="<image>", video_token="<video>")
    processor = without_video(t.LlavaOnevisionProcessor)(
        LlavaOnevisionImageProcessorPil(size=SQUARE, image_grid_pinpoints=PINPOINTS), names, None,
        num_image_tokens=16, vision_feature_select_strategy="full", vision_aspect_ratio="anyres_max_2",
        chat_template=template("llava_onevision"),
    )  # fmt: skip
    config = t.LlavaOnevisionConfig(
        vision_config=t.SiglipVisionConfig(**VISION), text_config=t.Qwen2Config(**text_size(names)),
        image_token_index=names.image_token_id, video_token_index=names.video_token_id,
        image_grid_pinpoints=PINPOINTS, vision_feature_layer=-1, vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_2",
    )  # fmt: skip
    return processor, t.LlavaOnevisionForConditionalGeneration, config


def internvl():
    names = tokenizer(
        ["<|im_start|>"], eos="<|im_end|>", start_image_token="<img>", end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>", video_token="<video>",
    )  # fmt: skip
    processor = without_video(t.InternVLProcessor)(
        GotOcr2ImageProcessorPil(size=SQUARE, crop_to_patches=True, min_patches=1, max_patches=4), names, None,
        image_seq_length=4, chat_template=template("internvl"),
    )  # fmt: skip
    shape = VISION | {"image_size": [SIZE, SIZE], "patch_size": [PATCH, PATCH], "layer_scale_init_value": 1.0}
    config = t.InternVLConfig(
        vision_config=t.InternVLVisionConfig(**shape), text_config=t.Qwen2Config(**text_size(names)),
        image_token_id=names.context_image_token_id, image_seq_length=4,
    )  # fmt: skip
    return processor, t.InternVLForConditionalGeneration, config


def _paligemma(text):
    names = tokenizer(bos="<bos>", eos="<eos>", image_token="<image>")
    pictures = SiglipImageProcessorPil(size=SQUARE)
    pictures.image_seq_length = 16
    processor = t.PaliGemmaProcessor(image_processor=pictures, tokenizer=names)
    config = t.PaliGemmaConfig(
        vision_config=t.SiglipVisionConfig(**VISION, vision_use_head=False), text_config=text(len(names)),
        image_token_index=names.image_token_id, projection_dim=40, hidden_size=40, tie_word_embeddings=False,
    )  # fmt: skip
    config.text_config.vocab_size = len(processor.tokenizer)
    return processor, t.PaliGemmaForConditionalGeneration, config


def _gemma_size(names, **others):
    return text_size(names, head_dim=20, tie_word_embeddings=False) | others


def paligemma():
    names = tokenizer(bos="<bos>", eos="<eos>", image_token="<image>")
    return _paligemma(lambda n: t.GemmaConfig(**_gemma_size(names)))


def paligemma2():
    names = tokenizer(bos="<bos>", eos="<eos>", image_token="<image>")
    size = _gemma_size(names, sliding_window=8, query_pre_attn_scalar=20, final_logit_softcapping=3.0)
    return _paligemma(lambda n: t.Gemma2Config(**size))


def gemma3():
    names = tokenizer(
        ["<start_of_turn>"], bos="<bos>", eos="<end_of_turn>", adds_bos=True, boi_token="<start_of_image>",
        eoi_token="<end_of_image>", image_token="<image_soft_token>",
    )  # fmt: skip
    processor = t.Gemma3Processor(
        image_processor=Gemma3ImageProcessorPil(size=SQUARE), tokenizer=names, image_seq_length=4,
        chat_template=template("gemma3"),
    )  # fmt: skip
    text = t.Gemma3TextConfig(**_gemma_size(
        names, sliding_window=8, query_pre_attn_scalar=20, layer_types=["sliding_attention", "full_attention"]
    ))  # fmt: skip
    config = t.Gemma3Config(
        vision_config=t.SiglipVisionConfig(**VISION, vision_use_head=False), text_config=text,
        mm_tokens_per_image=4, boi_token_index=names.boi_token_id, eoi_token_index=names.eoi_token_id,
        image_token_index=names.image_token_id, tie_word_embeddings=False,
    )  # fmt: skip
    return processor, t.Gemma3ForConditionalGeneration, config


def _rows_and_columns():
    return [f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)]


def idefics3():
    names = tokenizer(
        ["<fake_token_around_image>", "<image>", "<global-img>", *_rows_and_columns()],
        bos="<|begin_of_text|>", eos="<end_of_utterance>", adds_bos=True,
    )  # fmt: skip
    pictures = Idefics3ImageProcessorPil(size={"longest_edge": 96}, max_image_size={"longest_edge": SIZE})
    processor = t.Idefics3Processor(
        image_processor=pictures, tokenizer=names, image_seq_len=4, chat_template=template("idefics3")
    )
    config = t.Idefics3Config(
        vision_config=t.Idefics3VisionConfig(**VISION).to_dict(),
        text_config=t.LlamaConfig(**text_size(names)).to_dict(),
        image_token_id=names.convert_tokens_to_ids("<image>"), scale_factor=2,
    )  # fmt: skip
    return processor, t.Idefics3ForConditionalGeneration, config


def smolvlm():
    names = tokenizer(
        ["<fake_token_around_image>", "<image>", "<global-img>", *_rows_and_columns()],
        bos="<|im_start|>", eos="<end_of_utterance>",
    )  # fmt: skip
    pictures = SmolVLMImageProcessorPil(size={"longest_edge": 96}, max_image_size={"longest_edge": SIZE})
    processor = without_video(t.SmolVLMProcessor)(
        pictures, names, None, image_seq_len=4, chat_template=template("smolvlm")
    )
    config = t.SmolVLMConfig(
        vision_config=t.SmolVLMVisionConfig(**VISION).to_dict(),
        text_config=t.LlamaConfig(**text_size(names)).to_dict(),
        image_token_id=names.convert_tokens_to_ids("<image>"), scale_factor=2,
    )  # fmt: skip
    return processor, t.SmolVLMForConditionalGeneration, config


def _qwen_names():
    return tokenizer(
        ["<|im_start|>", "<|vision_start|>", "<|vision_end|>"], eos="<|im_end|>", image_token="<|image_pad|>",
        video_token="<|video_pad|>",
    )  # fmt: skip


def _qwen_pictures(patch):
    shape = {"patch_size": patch, "merge_size": 2, "temporal_patch_size": 2}
    return Qwen2VLImageProcessorPil(**shape, size={"shortest_edge": 16 * 16, "longest_edge": 48 * 48})


def _qwen_ids(names):
    return {
        "image_token_id": names.image_token_id, "video_token_id": names.video_token_id,
        "vision_start_token_id": names.convert_tokens_to_ids("<|vision_start|>"),
        "vision_end_token_id": names.convert_tokens_to_ids("<|vision_end|>"),
    }  # fmt: skip


def qwen2_5_vl():
    names = _qwen_names()
    processor = without_video(t.Qwen2_5_VLProcessor)(
        _qwen_pictures(PATCH), names, None, chat_template=template("qwen2_5_vl")
    )
    vision = {
        "depth": BLOCKS, "hidden_size": 48, "intermediate_size": 96, "num_heads": 3, "patch_size": PATCH,
        "window_size": 32, "out_hidden_size": 40, "fullatt_block_indexes": [1, 3],
    }  # fmt: skip
    rope = {"rope_type": "default", "mrope_section": [2, 4, 4], "rope_theta": 10000.0}
    text = text_size(names, rope_parameters=rope)
    config = t.Qwen2_5_VLConfig(vision_config=vision, text_config=text, **_qwen_ids(names))
    return processor, t.Qwen2_5_VLForConditionalGeneration, config


def qwen3_vl():
    names = _qwen_names()
    processor = without_video(t.Qwen3VLProcessor)(
        _qwen_pictures(PATCH), names, None, chat_template=template("qwen3_vl")
    )
    vision = {
        "depth": BLOCKS, "hidden_size": 48, "intermediate_size": 96, "num_heads": 3, "patch_size": PATCH,
        "out_hidden_size": 40, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 2],
    }  # fmt: skip
    rope = {"rope_type": "default", "mrope_section": [4, 3, 3], "rope_theta": 10000.0}
    text = text_size(names, head_dim=20, rope_parameters=rope)
    config = t.Qwen3VLConfig(vision_config=vision, text_config=text, **_qwen_ids(names))
    return processor, t.Qwen3VLForConditionalGeneration, config


def mllama():
    names = tokenizer(
        ["<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>"], bos="<|begin_of_text|>",
        eos="<|eot_id|>", adds_bos=True, image_token="<|image|>",
    )  # fmt: skip
    processor = t.MllamaProcessor(
        image_processor=MllamaImageProcessorPil(size=SQUARE, max_image_tiles=4), tokenizer=names,
        chat_template=template("mllama"),
    )  # fmt: skip
    vision = {
        "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": BLOCKS, "num_global_layers": 2,
        "attention_heads": 3, "image_size": SIZE, "patch_size": PATCH, "max_num_tiles": 4,
        "intermediate_layers_indices": [1, 2], "vision_output_dim": 48 * 3,
    }  # fmt: skip
    text = text_size(names, num_hidden_layers=3, cross_attention_layers=[1], head_dim=20)
    # as in the real ones, the picture's id is behind the last that can be said
    text["vocab_size"] = len(names)
    config = t.MllamaConfig(vision_config=vision, text_config=text, image_token_index=names.image_token_id)
    return processor, t.MllamaForConditionalGeneration, config


FAMILIES = {
    made.__name__: made
    for made in (
        llava, llava_next, llava_next_vicuna, mllama, llava_onevision, internvl, paligemma, paligemma2, gemma3,
        idefics3, smolvlm, qwen2_5_vl, qwen3_vl,
    )
}  # fmt: skip


def save(name, folder, made=None):
    """The tiny model of a family as a checkpoint in `folder`; `made` makes one that is not in `FAMILIES`."""
    processor, kind, config = (made or FAMILIES[name])()
    torch.manual_seed(0)
    model = kind(config)
    with torch.no_grad():  # nothing may pass because a gate, a norm or a projector starts at nothing
        for weight_name, weight in model.named_parameters():
            if weight.ndim <= 1 and not weight_name.endswith("class_embedding"):
                weight.add_(torch.randn_like(weight) * 0.3)
            elif not any(part in weight_name for part in ("language_model", "text_model", "lm_head")):
                weight.normal_(0, 1.5 / max(weight.shape[-1], 1) ** 0.5)
            if any(part in weight_name for part in ("projector", "merger", "connector")):
                weight.mul_(2.0)
            if "image_to_text" in weight_name:  # a resampler, which averages over all patches
                weight.mul_(3.0)
    with quiet():
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder


def guard(kind, folder):
    """A random model with a guard's template, as a checkpoint in `folder`; one that sees if the guard does."""
    if kind in ("llama-guard-3-vision", "llama-guard-4", "nemotron-safety"):
        return save(kind, folder, lambda: _seeing_guard(kind))
    names = tokenizer(
        ["<|start_header_id|>", "<|end_header_id|>", "<|im_start|>", "<|im_end|>", "<|start_of_role|>",
         "<|end_of_role|>", "<|image|>"],
        bos="<|begin_of_text|>", eos="<|eot_id|>", adds_bos=not kind.startswith("qwen"),
    )  # fmt: skip
    if kind not in ("harmbench", "wildguard"):  # they have none
        names.chat_template = template("qwen3guard" if kind.startswith("qwen") else kind)
    return _saved(t.LlamaForCausalLM, t.LlamaConfig(**text_size(names)), names, folder)


def _seeing_guard(kind):
    if kind == "llama-guard-4":  # its image processor needs torchvision
        import pytest

        pytest.importorskip("torchvision")
        import recent

        made = recent.llama4()
    else:
        made = mllama() if kind == "llama-guard-3-vision" else gemma3()
    if kind != "nemotron-safety":  # whose template is not public: its base model's stands for it
        made[0].chat_template = made[0].tokenizer.chat_template = template(kind)
    return made


def language_model(folder, **others):
    """A random GPT-2 that reads bytes."""
    names = tokenizer(eos="<|endoftext|>")
    size = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.3}
    config = t.GPT2Config(
        vocab_size=len(names), eos_token_id=names.eos_token_id, bos_token_id=None, **size | others
    )
    return _saved(t.GPT2LMHeadModel, config, names, folder)


CLASSIFIERS = ("bert", "roberta", "deberta", "gpt2", "llama")


def classifier(kind, folder, labels=("neutral", "toxic"), problem="single_label_classification", **others):
    """A random text classifier of a real class that reads bytes, 32 tokens at a time."""
    about = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    about |= {"problem_type": problem} if problem else {}
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    if kind in ("gpt2", "llama"):
        names = tokenizer(eos="</s>")
        if kind == "llama":
            config = t.LlamaConfig(**text_size(names, max_position_embeddings=32), **about, **others)
            return _saved(t.LlamaForSequenceClassification, config, names, folder)
        config = t.GPT2Config(
            vocab_size=len(names), n_embd=32, n_layer=2, n_head=2, n_positions=32, initializer_range=0.3,
            pad_token_id=0, eos_token_id=1, bos_token_id=None, **about, **others,
        )  # fmt: skip
        return _saved(t.GPT2ForSequenceClassification, config, names, folder)
    names = tokenizer(["<s>"], eos="</s>")
    names.add_special_tokens({"cls_token": "<s>", "sep_token": "</s>"})
    ends = [(token, names.convert_tokens_to_ids(token)) for token in ("<s>", "</s>")]
    names.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=ends
    )
    shape = small | about | {"vocab_size": len(names), "pad_token_id": 0, "initializer_range": 0.3} | others
    made, config, positions = {
        "bert": (t.BertForSequenceClassification, t.BertConfig, 32),
        "roberta": (
            t.RobertaForSequenceClassification,
            t.RobertaConfig,
            33,
        ),  # counted from behind the padding's
        "deberta": (t.DebertaV2ForSequenceClassification, t.DebertaV2Config, 32),
    }[kind]
    return _saved(made, config(max_position_embeddings=positions, **shape), names, folder)


def _saved(made, config, names, folder):
    torch.manual_seed(0)
    with quiet():
        made(config).save_pretrained(folder)
        names.save_pretrained(folder)
    return folder
