"""Try every image-text-to-text class of transformers, and write docs/coverage.md's table.

    python benchmarks/coverage_models.py [model_type ...]    # names: only print how these end

A tiny random model of each class is built from its default config, with narrow and few layers, and loaded as a user would.
A class without a family of its own has to pass the proof on a grey picture; then every exit is compared with a tower that
really has no more blocks. Needs torchvision, which some processors of transformers want.
"""

import copy
import inspect
import json
import re
import resource
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from tables import ROOT, write
from transformers import AutoConfig
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

sys.path[:0] = [str(ROOT / "tests")]

import recent  # noqa: E402
import tiny  # noqa: E402
from layeralign import LayeralignError  # noqa: E402
from layeralign._util.quiet import quiet  # noqa: E402
from layeralign.testing import noise  # noqa: E402
from layeralign.vlm.cost import flops  # noqa: E402
from layeralign.vlm.families.registry import NO_ENCODER, OWN  # noqa: E402
from layeralign.vlm.load import load, shape  # noqa: E402
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
FIXES: dict[str, dict[str, Any]] = {
    "aria": {"vision_config.patch_size": 14, "vision_config.image_size": 980},
    "aya_vision": {
        "vision_config.image_size": 364, "vision_config.patch_size": 14, "processor.img_size": 364, "processor.patch_size": 28,
        "processor.downsample_factor": 1, "image.size": {"height": 364, "width": 364},
    },
    "cohere2_vision": {"vision_config.image_size": 512, "vision_config.patch_size": 16},
    "deepseek_vl": {"vision_config.image_size": 384, "vision_config.patch_size": 16},
    "deepseek_vl_hybrid": {"vision_config.image_size": 384, "vision_config.patch_size": 16},
    "ernie4_5_vl_moe": {"text_config.moe_intermediate_size": [32, 32]},
    "got_ocr2": {"image.size": {"height": 1024, "width": 1024}},
    "idefics2": {"vision_config.patch_size": 14, "vision_config.image_size": 980},
    "lighton_ocr": {"vision_config.patch_size": 14, "image.patch_size": {"height": 14, "width": 14}},
    "llava_next_video": {
        "image.size": {"shortest_edge": 336}, "image.crop_size": {"height": 336, "width": 336},
        "processor.num_additional_image_tokens": 1, "vision_config.image_size": 336, "vision_config.patch_size": 14,
    },
    "minicpm_ocr": {"vision_config.patch_size": 14, "vision_config.image_size": 980},
    "minicpmv4_6": {"vision_config.patch_size": 14, "vision_config.image_size": 980},
    "minicpmv4_7": {"vision_config.patch_size": 14, "vision_config.image_size": 980},
    "mistral_large4": {"processor.spatial_merge_size": 2},
    "ovis2": {"vision_config.image_size": 448, "image.size": {"height": 448, "width": 448}},
    "video_llava": {"vision_config.patch_size": 14},
}  # fmt: skip
"""model_type -> fields of its config ("vision_config.x") and arguments of its processors ("processor.x", "image.x")."""


def small(config: dict[str, Any]) -> dict[str, Any]:
    """A config's content with narrow and few layers."""
    depth = next((config[name] for name in ("num_hidden_layers", "depth") if name in config), None)
    made = {}
    for name, value in config.items():
        if isinstance(value, dict):
            made[name] = small(value)
        elif name in SMALL and value is not None:
            made[name] = SMALL[name]
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
    if kind in FEATURE_EXTRACTOR_MAPPING_NAMES:
        parts["feature_extractor"] = found(FEATURE_EXTRACTOR_MAPPING_NAMES[kind], kind)()
    takes = inspect.signature(processor.__init__).parameters
    vision = config.get("vision_config") or {}
    told = {
        "patch_size": vision.get("patch_size"),
        "vision_feature_select_strategy": config.get("vision_feature_select_strategy", "full"),
        "chat_template": None,
    }
    told |= {path[10:]: value for path, value in fixes.items() if path.startswith("processor.")}
    given = {name: value for name, value in (parts | told).items() if name in takes}
    kinds = processor.get_attributes()
    processor = (without_video(processor) if "video_processor" in kinds else processor)(**given)
    mark = str(processor.image_token)
    processor.chat_template = recent.template(mark)
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
            elif match and match[1] == "image":
                part[name] = getattr(processor, "image_token_id", None) or names.convert_tokens_to_ids(
                    processor.image_token
                )
            elif match and isinstance(value, int):
                part[name] = getattr(names, f"{match[1]}_token_id", None) or next(extra)
        if "vocab_size" in part:
            part["vocab_size"] = vocabulary


@torch.no_grad()
def exits_differ(vlm: Any) -> str:
    """Where an exit's features are not those of a tower with only so many blocks; empty if nowhere."""
    picture = noise(48, 96)
    ours = vlm.encode([picture], vlm.exits.all)
    inputs, texts = vlm.prepare([picture])
    for exit in range(vlm.exits.default, 0, -1):
        other = copy.copy(vlm)
        other.model = copy.deepcopy(vlm.model)
        if vlm._reads_a_layer:
            inputs["vision_feature_layer"] = exit
        else:
            del other.blocks[exit:]
        output = other.inner.get_image_features(**inputs, return_dict=True)
        (theirs,) = other.features(output, inputs, texts, exit)
        gap = (theirs.tokens - ours[exit][0].tokens).abs().max() / theirs.tokens.abs().max()
        if not gap < 1e-4:
            return f"exit {exit} is not that of a tower with {exit} blocks (differs by {float(gap):.1e})"
        if exit < vlm.exits.default and torch.equal(ours[exit][0].tokens, ours[exit + 1][0].tokens):
            return f"exits {exit} and {exit + 1} are equal"
    return ""


def tried(kind: str) -> tuple[str, str]:
    """How a class ends: its status, and the reason of a refusal."""
    if kind in {family.family for family in OWN}:
        return "own family", ""
    if kind in NO_ENCODER:
        return "no tower", "its language model reads the patches itself"
    if kind in NOT_TRIED:
        return NOT_TRIED[kind]
    with tempfile.TemporaryDirectory() as folder, quiet():
        try:
            tiny.save(kind, Path(folder), lambda: made(kind))
        except Exception as error:
            return "not tried", f"no tiny model could be built ({type(error).__name__}: {error})"
        try:
            vlm = load(folder)
        except LayeralignError as error:
            said = (
                str(error)
                .replace(folder, "MODEL")
                .removesuffix("; CONTRIBUTING explains how to add a family")
            )
            return "refused", said.partition("since it ")[2] or said
        differs = exits_differ(vlm)
        return ("refused", differs) if differs else ("proved", "")


NOT_TRIED: dict[str, tuple[str, str]] = {
    "chameleon": ("no tower", "convolutions turn the picture into tokens of a vocabulary (VQ-VAE)"),
    "emu3": ("no tower", "convolutions turn the picture into tokens of a vocabulary (VQ-VAE)"),
    "evolla": ("no tower", "reads proteins, no pictures"),
    "mistral4": ("no tower", "reads text only"),
    "fast_vlm": ("no tower", "its encoder is timm's FastViT, in stages of convolutions"),
    "gemma3n": ("no tower", "its encoder is timm's MobileNet, in stages of convolutions"),
    "udop": ("no tower", "embeds patches and words together, and reads both in one encoder"),
    "vision-encoder-decoder": ("no tower", "joins any encoder and decoder; there is no such model by itself"),
    "instructblipvideo": ("refused", "reads videos, and layeralign pictures"),
    "pi0": ("refused", "gives the actions of a robot, no text"),
    "diffusion_gemma": ("refused", "writes blocks of text by diffusion, and layeralign token by token"),
    "shieldgemma2": ("refused", "answers whether a picture breaks a policy, and no text"),
    "blip": ("refused", "its text decoder reads the picture by cross-attention, and it takes no features"),
    "git": ("refused", "it takes no features"),
    "idefics": (
        "refused",
        "its language model reads the picture by cross-attention, and it takes no features",
    ),
    "pix2struct": ("refused", "an encoder-decoder, whose decoder reads the picture by cross-attention"),
    "kosmos-2": ("refused", "it takes no features under transformers' name for them"),
    "kosmos-2.5": ("refused", "it takes no features under transformers' name for them"),
    "pp_formulanet": ("refused", "an encoder-decoder, whose decoder reads the picture by cross-attention"),
}
"""model_type -> how it ends without a try, read from its code."""
MOST_MEMORY = 12 * 2**30
"""Bytes of address space; a "tiny" model that needs more is not tried."""
FOUND = ROOT / "benchmarks" / "results" / "coverage_models.tsv"


def lines(found: dict[str, list[str]]) -> list[str]:
    """The table, after the share that is covered."""
    towers = [status for status, _ in found.values() if status != "no tower"]
    covered = len([status for status in towers if status in ("own family", "proved")])
    table = [
        f"{covered} of {len(towers)} classes with a tower ({100 * covered / len(towers):.0f} %) are covered.", "",
        "| `model_type` | class | status | why |", "|---|---|---|---|",
    ]  # fmt: skip
    return table + [
        f"| `{kind}` | `{CLASSES[kind]}` | {status} | {why} |" for kind, (status, why) in found.items()
    ]


SIZES = {  # shown -> the published config that the tests keep, or the model_type whose defaults are the checkpoint's
    "Qwen3-VL-8B": "Qwen/Qwen3-VL-8B-Instruct", "Qwen3.5-27B": "qwen3_5", "Qwen3.5-35B-A3B": "qwen3_5_moe",
    "Gemma 4 E2B": "gemma4", "Gemma 3 4B": "google/gemma-3-4b-it", "InternVL3-1B": "OpenGVLab/InternVL3-1B-hf",
    "Qwen2.5-VL-7B": "Qwen/Qwen2.5-VL-7B-Instruct", "Mistral 3": "mistral3", "GLM-4.1V-9B": "glm4v", "Llama 4 Scout": "llama4",
}  # fmt: skip


def sizes() -> list[str]:
    """What an exit at a third of the depth saves of the encoder, from shapes on the meta device."""
    published = json.loads((ROOT / "tests" / "configs" / "published.json").read_text())
    table = ["| model | blocks | default exit | exit | FLOPs of the encoder saved |", "|---|---|---|---|---|"]
    for name, source in SIZES.items():
        config = published.get(source) or AutoConfig.for_model(source).to_dict()
        config["vision_config"] = config["vision_config"] or {"model_type": f"{source}_vision"}
        vlm = shape(config, name)
        exits = vlm.exits
        third = round(exits.layers / 3)
        share = flops(vlm, third) / flops(vlm, exits.default)
        table.append(f"| {name} | {exits.layers} | {exits.default} | {third} | {100 * (1 - share):.0f} % |")
    return table


def main() -> int:
    """Try the classes, or those asked for, and write what is known of all."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))  # a config whose sizes stay large
    known = dict(line.split("\t", 1) for line in FOUND.read_text().splitlines()) if FOUND.exists() else {}
    for kind in sys.argv[1:] or CLASSES:
        status, why = tried(kind)
        known[kind] = f"{status}\t{' '.join(why.split())[:300]}"
        print(kind, known[kind], sep="\t", flush=True)
        FOUND.write_text("".join(f"{kind}\t{known[kind]}\n" for kind in CLASSES if kind in known))
    found = {kind: known.get(kind, "not tried\t").split("\t") for kind in CLASSES}
    about = f"transformers {version('transformers')}"
    write("coverage.md", "coverage_models.py", about, [*lines(found), "", "## Sizes", "", *sizes()])
    return 0


if __name__ == "__main__":
    sys.exit(main())
