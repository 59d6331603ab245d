"""A tiny model of every image-text-to-text class of transformers, for coverage_models.py.

It has its class's default config, with narrow and few layers, its own processor, and a tokenizer that reads bytes.
"""

import inspect
import re
import sys
from typing import Any

import transformers
from tables import ROOT
from transformers import AutoConfig
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

sys.path[:0] = [str(ROOT / "tests")]

import recent  # noqa: E402
import tiny  # noqa: E402
from layeralign.vlm.processor import without_video  # noqa: E402

CLASSES = dict(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
LAYERS, WIDTH, HEADS = 3, 64, 4
SMALL = {  # what a config's field becomes, if it has it
    **dict.fromkeys(("num_hidden_layers", "depth", "encoder_layers", "decoder_layers", "num_layers"), LAYERS),
    **dict.fromkeys(("hidden_size", "embed_dim", "d_model", "width", "out_hidden_size", "projection_dim"), WIDTH),
    **dict.fromkeys(("text_hidden_size", "output_dim", "encoder_hidden_size", "projector_hidden_size", "projection_hidden_size"), WIDTH),
    **dict.fromkeys(("intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim", "mlp_dim", "ffn_dim"), 96),
    **dict.fromkeys(("num_attention_heads", "num_heads", "attention_heads", "num_key_value_heads"), HEADS),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), HEADS),
    **dict.fromkeys(("head_dim", "attention_head_dim", "global_head_dim"), WIDTH // HEADS),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "top_k_experts", "moe_topk", "moe_k"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("n_group", "topk_group"), 1),
    **dict.fromkeys(("layers", "index_n_heads", "linear_num_heads", "linear_num_value_heads", "indexer_n_heads"), HEADS),
    **dict.fromkeys(("linear_num_key_heads", "index_topk_blocks"), 2),
    **dict.fromkeys(("linear_head_dim", "linear_key_head_dim", "linear_value_head_dim", "index_head_dim"), WIDTH // HEADS),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 32),
    "mrope_section": [2, 3, 3], "initializer_range": 0.2,
}  # fmt: skip
PROCESSORS = {
    "glm_ocr": "Glm46VProcessor", "glmga": "Glm46VProcessor", "cosmos3_omni": "Qwen3VLProcessor", "kosmos-2": "Kosmos2Processor",
    "qwen2_5_omni_thinker": "Qwen2_5OmniProcessor", "qwen3_omni_moe_thinker": "Qwen3OmniMoeProcessor",
    "fast_vlm": "LlavaProcessor",
}  # fmt: skip
IMAGES = {
    "glm_ocr": "Glm46VImageProcessorPil", "qwen2_5_omni_thinker": "Qwen2VLImageProcessorPil", "fast_vlm": "CLIPImageProcessorPil",
    "qwen3_omni_moe_thinker": "Qwen2VLImageProcessorPil", "instructblipvideo": "BlipImageProcessorPil",
    "diffusion_gemma": "Gemma4ImageProcessorPil",
}  # fmt: skip
MARKS = {  # what the chat template writes for a picture, if not the processor's token alone
    "hunyuan_vl": "<image_start_token><image_token><image_end_token>", "pp_chart2table": "<img>" + "<imgpad>" * 64 + "</img>",
    "qianfan_ocr": "<image>",
}  # fmt: skip
WRITES_BOS = ("hunyuan_vl", "lfm2_vl")
"""Classes whose processor lets the chat template write the BOS."""
FIXES: dict[str, dict[str, Any]] = {
    "cohere_compass": {
        "image.patch_size": 16,
        "text_config.rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}},
    },
    "cosmos3_omni": {"image.patch_size": 16},
    "hunyuan_vl": {"text_config.head_dim": 16},
    "kimi_k25": {"text_config.qk_rope_head_dim": 16},
    "lfm3_vl": {"image.patch_size": 16},
    "muse_glimmer": {"out_hidden_size": 4 * WIDTH},
    "muse_spark": {"out_hidden_size": 4 * WIDTH, "audio_config.num_hidden_layers": 4},
    "qwen3_omni_moe_thinker": {"image.patch_size": 16, "vision_start_token_id": 0},
    "qwen4_exp": {
        "image.patch_size": 16, "text_config.indexer_n_heads": 4, "text_config.indexer_kv_heads": 1, "text_config.indexer_head_dim": 16,
        "text_config.indexer_budget": 64, "text_config.indexer_compress_ratio": 4,
    },
    "dots3_note": {
        "image.temporal_patch_size": 1, "text_config.qk_rope_head_dim": 16, "vision_config.per_layer_config": {2: {"num_local_experts": 2}},
        "vision_config.adapter_in_dim": WIDTH, "vision_config.adapter_out_dim": WIDTH, "audio_config.adapter_out_dim": WIDTH,
        "audio_config.adapter_input_size": WIDTH,
    },
    "perception_lm": {
        "vision_config": {
            "architecture": "vit_pe_lang_large_patch14_448", "do_pooling": False, "model_type": "timm_wrapper",
            "model_args": {
                "depth": LAYERS, "embed_dim": WIDTH, "num_heads": HEADS, "img_size": [56, 56], "global_pool": "", "use_post_transformer_norm": False,
                "init_values": 0.1, "ref_feat_shape": [4, 4],
            },
        },
        "image.tile_size": 56, "processor.patch_size": 14, "processor.pooling_ratio": 1,
    },
    "pp_chart2table": {
        "vision_config.global_attn_indexes": [1], "vision_config.image_size": 512, "image_token_index": "<imgpad>", "image.size": {"height": 512, "width": 512},
    },
    "qianfan_ocr": {"image.size": {"height": 448, "width": 448}},
    "granite_docling": {
        "text_config.attention_multiplier": 0.25, "text_config.embedding_multiplier": 1.0, "text_config.residual_multiplier": 1.0,
    },
    "step3p7": {"text_config.sliding_window": 8},
    "nemotron_h_omni": {"vision_hidden_size": WIDTH},
    "qwen2_5_omni_thinker": {"vision_start_token_id": 0},
    "unlimited_ocr": {"image.size": {"height": 512, "width": 512}, "vision_config.sam_config.downsample_channels": [32, WIDTH], "vision_config.sam_config.global_attn_indexes": [1]},
    "deepseek_ocr2": {
        "image.size": {"height": 768, "width": 768}, "vision_config.sam_config.patch_size": 32,
        "vision_config.sam_config.downsample_channels": [32, WIDTH], "vision_config.sam_config.global_attn_indexes": [1], "text_config.mlp_layer_types": ["dense", "sparse", "sparse"],
        "text_config.num_experts_per_tok": 2,
    },
    "video_llama_3": {"vision_config.patch_size": 14},
    "aria": {"vision_config.patch_size": 14, "vision_config.image_size": 490, "image.max_image_size": 490},
    "aya_vision": {
        "vision_config.image_size": 364, "vision_config.patch_size": 14, "processor.img_size": 364, "processor.patch_size": 28,
        "processor.downsample_factor": 1, "image.size": {"height": 364, "width": 364},
    },
    "cohere2_vision": {"vision_config.image_size": 512, "vision_config.patch_size": 16},
    "deepseek_vl": {"vision_config.image_size": 384, "vision_config.patch_size": 16},
    "deepseek_vl_hybrid": {"vision_config.image_size": 384, "vision_config.patch_size": 16},
    "ernie4_5_vl_moe": {"text_config.moe_intermediate_size": [32, 32], "text_config.rope_parameters.mrope_section": [3, 3, 2]},
    "got_ocr2": {"vision_config.global_attn_indexes": [1], "image.size": {"height": 1024, "width": 1024}},
    "idefics2": {"vision_config.patch_size": 14, "vision_config.image_size": 980},
    "lighton_ocr": {"vision_config.patch_size": 14, "image.patch_size": {"height": 14, "width": 14}},
    "llava_next_video": {
        "image.size": {"shortest_edge": 336}, "image.crop_size": {"height": 336, "width": 336},
        "processor.num_additional_image_tokens": 1, "vision_config.image_size": 336, "vision_config.patch_size": 14,
    },
    **{kind: {
        "vision_config.patch_size": 14, "vision_config.image_size": 980, "vision_config.insert_layer_id": 1, "insert_layer_id": 1,
    } for kind in ("minicpm_ocr", "minicpmv4_6", "minicpmv4_7")},
    "mistral_large4": {"processor.spatial_merge_size": 2, "text_config.qk_rope_head_dim": 16},
    "ovis2": {
        "image_token_id": "<IMG_ATOM>", "visual_indicator_token_ids": [f"<IMG_{name}>" for name in ("START", "END", "GRID", "COL", "ROW")],
        "hidden_size": WIDTH, "vision_config.hidden_stride": 2, "vision_config.image_size": 448, "image.size": {"height": 448, "width": 448},
    },
    "video_llava": {"vision_config.patch_size": 14},
}  # fmt: skip
"""model_type -> fields of its config ("vision_config.x") and arguments of its processors ("processor.x", "image.x")."""


def small(config: dict[str, Any]) -> dict[str, Any]:
    """A config's content with narrow and few layers."""
    depth = next((config[name] for name in ("num_hidden_layers", "depth") if name in config), None)
    made = {}
    for name, value in config.items():
        if name == "per_layer_config":
            continue  # names layers by number
        if isinstance(value, dict):
            made[name] = small(value)
        elif name in SMALL and value is not None:
            made[name] = SMALL[name]
        elif name == "layer_types" and value:
            made[name] = (list(dict.fromkeys(value)) * LAYERS)[:LAYERS]  # every kind
        elif isinstance(value, list) and len(value) == depth:
            continue  # made anew for the new depth
        elif str(name).endswith(("_indexes", "_indices")) and isinstance(value, list):
            made[name] = [0, 1]
        else:
            made[name] = value
    return made


def put(config: dict[str, Any], path: str, value: Any) -> None:
    """Set a field by its path."""
    *folders, name = path.split(".")
    for folder in folders:
        config = config.setdefault(folder, {})
    config[name] = value


def found(name: str, kind: str) -> Any:
    """A class of transformers, even where a backend that we do not need is missing."""
    return getattr(transformers, name, None)


def tokens_of(processor: type) -> Any:
    """A tokenizer with every token that the processor's source names."""
    source = inspect.getsource(inspect.getmodule(processor))
    literal = re.findall(r"""["'`](<[^"'`\s{}]{1,40}>|\[[A-Z_]{2,20}\])["'`]""", source)
    literal += [
        "<img>",
        "</img>",
        "<imgpad>",
        *(f"<IMG_{name}>" for name in ("START", "END", "GRID", "COL", "ROW", "ATOM")),
    ]
    literal += re.findall(r"""[A-Z_]+_TOKEN = ["'](\S+)["']""", source)
    names = {name: f"<{name}>" for name in re.findall(r"tokenizer\.(\w+_token)\b", source)}
    names |= dict(re.findall(r"""(\w+_token)["']?(?:: str)? ?[=,] ?["'](<[^"'\s]+>)["']""", source))
    names = {name: token for name, token in names.items() if name[:3] not in ("bos", "eos", "pad", "unk")}
    names.setdefault("image_token", "<image>")
    more = [f"<extra_{i}>" for i in range(24)]
    return tiny.tokenizer([*literal, *more], bos="<s>", adds_bos=True, **names)


def made(kind: str) -> tuple[Any, Any, Any]:
    """Processor, class and tiny config of a model type, as `tiny.FAMILIES` makes them."""
    fixes = FIXES.get(kind, {})
    name = PROCESSORS.get(kind) or PROCESSOR_MAPPING_NAMES.get(kind)
    if name is None:
        raise LookupError("transformers names no processor for it")
    processor = found(name, kind)
    names = tokens_of(processor)
    config = small(AutoConfig.for_model(kind).to_dict())
    rope = (config.get("text_config") or config).get("rope_parameters") or {}
    if not any(isinstance(value, dict) for value in rope.values()):
        rope.setdefault("mrope_section", SMALL["mrope_section"])
    for path, value in fixes.items():
        if path.partition(".")[0] not in ("processor", "image"):
            put(config, path, value)
    pictures = IMAGES.get(kind) or IMAGE_PROCESSOR_MAPPING_NAMES.get(kind) or {}
    if not isinstance(pictures, str):
        pictures = pictures.get("pil") or pictures.get("torchvision")
    given = {path[6:]: value for path, value in fixes.items() if path.startswith("image.")}
    parts = {"tokenizer": names, "image_processor": found(pictures, kind)(**given), "video_processor": None}
    takes = inspect.signature(processor.__init__).parameters
    vision = config.get("vision_config") or {}
    told = {"patch_size": vision["patch_size"]} if "patch_size" in vision else {}
    told |= {
        "vision_feature_select_strategy": config.get("vision_feature_select_strategy", "full"),
        "chat_template": None,
    }
    told |= {path[10:]: value for path, value in fixes.items() if path.startswith("processor.")}
    kinds = processor.get_attributes()
    if "feature_extractor" in kinds:
        parts["feature_extractor"] = found(
            FEATURE_EXTRACTOR_MAPPING_NAMES.get(kind, "WhisperFeatureExtractor"), kind
        )()
    given = {name: value for name, value in (parts | told).items() if name in takes}
    processor = (without_video(processor) if "video_processor" in kinds else processor)(**given)
    if "video_processor" in kinds:
        processor.video_processor.font = ""  # one processor looks for it when it is saved
    processor.chat_template = recent.template(MARKS.get(kind) or str(processor.image_token))
    if kind in WRITES_BOS:
        processor.chat_template = names.bos_token + processor.chat_template
    ids(config, names, processor)
    return processor, getattr(transformers, CLASSES[kind]), type(AutoConfig.for_model(kind))(**config)


def ids(config: dict[str, Any], names: Any, processor: Any) -> None:
    """Set every token's id in a config to one of the tokenizer."""
    extra = iter(names.convert_tokens_to_ids([f"<extra_{i}>" for i in range(24)]))
    vocabulary = len(names)
    for part in (config, config.get("text_config") or {}):
        for name, value in list(part.items()):
            match = re.fullmatch(r"(\w+)_token_(id|index)", name)
            if match and match[1] in ("bos", "eos", "pad"):
                part[name] = getattr(names, f"{match[1]}_token_id")
            elif "token_i" in name and isinstance(value[0] if isinstance(value, list) else value, str):
                part[name] = names.convert_tokens_to_ids(value)  # given as text
            elif match and match[1] == "image":
                part[name] = getattr(processor, "image_token_id", None) or names.convert_tokens_to_ids(
                    processor.image_token
                )
            elif match and isinstance(value, int):
                part[name] = getattr(names, f"{match[1]}_token_id", None) or next(extra)
        if "vocab_size" in part:
            part["vocab_size"] = vocabulary
