"""Tiny models of the families of 2025 and 2026, made as those of `tiny`.

Their chat template is a plain one: the tests that read published templates do not use them.
"""

import transformers as t
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil
from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil
from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil
from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil
from transformers.models.kosmos2_5.image_processing_pil_kosmos2_5 import Kosmos2_5ImageProcessorPil

import tiny
from layeralign.vlm.processor import without_video

NO_TORCHVISION = "its processor needs torchvision"
WITH_TORCHVISION = ("mistral3", "llama4", "molmo2")


def template(picture, turn="User:", answer="\nAssistant:"):
    return (
        "{% for m in messages %}{% if m['role'] == 'user' %}"
        + turn
        + "{% elif m['role'] == 'system' %}System:"
        "{% else %}" + answer + "{% endif %}{% if m['content'] is string %}{{ m['content'] }}{% else %}"
        "{% for c in m['content'] %}{% if c['type'] == 'image' %}" + picture + "{% else %}{{ c['text'] }}"
        "{% endif %}{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}"
        + answer
        + "{% endif %}"
    )


def _moe(**others):
    return {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2} | others


def _linear(names, **others):
    """The language model of Qwen3.5: a layer of linear attention, then one of full attention."""
    rope = {
        "rope_type": "default", "mrope_section": [2, 2, 1], "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
        "mrope_interleaved": True,
    }  # fmt: skip
    return tiny.text_size(
        names, head_dim=20, rope_parameters=rope, layer_types=["linear_attention", "full_attention"],
        linear_conv_kernel_dim=3, linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2,
        linear_num_value_heads=4, **others,
    )  # fmt: skip


def _qwen(kind, config, text, **vision):
    names = tiny._qwen_names()
    processor = without_video(t.Qwen3VLProcessor)(
        tiny._qwen_pictures(tiny.PATCH), names, None,
        chat_template=template("<|vision_start|><|image_pad|><|vision_end|>"),
    )  # fmt: skip
    seen = {
        "depth": tiny.BLOCKS, "hidden_size": 48, "intermediate_size": 96, "num_heads": 3, "patch_size": tiny.PATCH,
        "out_hidden_size": 40, "num_position_embeddings": 16,
    }  # fmt: skip
    return (
        processor,
        kind,
        config(vision_config=seen | vision, text_config=text(names), **tiny._qwen_ids(names)),
    )


def qwen3_5():
    return _qwen(t.Qwen3_5ForConditionalGeneration, t.Qwen3_5Config, _linear)


def qwen3_5_moe():
    def text(names):
        return _linear(names, **_moe(shared_expert_intermediate_size=16))

    return _qwen(t.Qwen3_5MoeForConditionalGeneration, t.Qwen3_5MoeConfig, text)


def qwen3_vl_moe():
    rope = {"rope_type": "default", "mrope_section": [4, 3, 3], "rope_theta": 10000.0}

    def text(names):
        return tiny.text_size(names, head_dim=20, rope_parameters=rope, tie_word_embeddings=False, **_moe())

    made = t.Qwen3VLMoeForConditionalGeneration
    return _qwen(made, t.Qwen3VLMoeConfig, text, deepstack_visual_indexes=[0, 2])


def gemma4():
    names = tiny.tokenizer(
        bos="<bos>", eos="<turn|>", adds_bos=True, boi_token="<|image>", eoi_token="<image|>",
        image_token="<|image|>", audio_token="<|audio|>", boa_token="<|audio>", eoa_token="<audio|>",
        video_token="<|video|>",
    )  # fmt: skip
    processor = without_video(t.Gemma4Processor)(
        t.Gemma4AudioFeatureExtractor(),
        Gemma4ImageProcessorPil(max_soft_tokens=70, pooling_kernel_size=2, patch_size=4), names, None,
        image_seq_length=70, chat_template=template("<|image|>"),
    )  # fmt: skip
    text = t.Gemma4TextConfig(**tiny._gemma_size(
        names, num_hidden_layers=4, sliding_window=8, vocab_size_per_layer_input=len(names), global_head_dim=24,
        hidden_size_per_layer_input=6, num_kv_shared_layers=2, use_bidirectional_attention="vision",
        layer_types=["sliding_attention", "full_attention"] * 2, final_logit_softcapping=3.0,
    ))  # fmt: skip
    vision = t.Gemma4VisionConfig(
        hidden_size=48, intermediate_size=96, num_hidden_layers=tiny.BLOCKS, num_attention_heads=3,
        num_key_value_heads=3, head_dim=16, patch_size=4, pooling_kernel_size=2, position_embedding_size=256,
        standardize=True,
    )  # fmt: skip
    ids = {
        f"{name}_token_id": getattr(names, f"{name}_token_id")
        for name in ("boi", "eoi", "image", "audio", "video")
    }
    config = t.Gemma4Config(
        vision_config=vision, text_config=text, audio_config=None, tie_word_embeddings=False, **ids
    )
    return processor, t.Gemma4ForConditionalGeneration, config


def _glm(kind, config, **text):
    names = tiny.tokenizer(
        ["[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|begin_of_image|>", "<|end_of_image|>"],
        eos="<|endoftext|>", image_token="<|image|>", video_token="<|video|>",
    )  # fmt: skip
    processor = without_video(t.Glm4vProcessor)(
        Glm4vImageProcessorPil(
            patch_size=tiny.PATCH, merge_size=2, temporal_patch_size=2,
            size={"shortest_edge": 16 * 16 * 2, "longest_edge": 48 * 48 * 2},
        ),
        names, None,
        chat_template=template("<|begin_of_image|><|image|><|end_of_image|>", "[gMASK]<sop><|user|>", "<|assistant|>"),
    )  # fmt: skip
    vision = {
        "depth": tiny.BLOCKS, "hidden_size": 48, "intermediate_size": 96, "num_heads": 3, "patch_size": tiny.PATCH,
        "out_hidden_size": 40, "image_size": tiny.SIZE,
    }  # fmt: skip
    rope = {
        "rope_type": "default",
        "mrope_section": [2, 2, 1],
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
    }
    ids = {
        "image_token_id": names.image_token_id, "video_token_id": names.video_token_id,
        "image_start_token_id": names.convert_tokens_to_ids("<|begin_of_image|>"),
        "image_end_token_id": names.convert_tokens_to_ids("<|end_of_image|>"),
    }  # fmt: skip
    size = tiny.text_size(names, rope_parameters=rope, tie_word_embeddings=False, **text)
    return processor, kind, config(vision_config=vision, text_config=size, **ids)


def glm4v():
    return _glm(t.Glm4vForConditionalGeneration, t.Glm4vConfig)


def glm46v():
    return _glm(t.Glm46VForConditionalGeneration, t.Glm46VConfig)


def glm4v_moe():
    moe = {"moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2}
    return _glm(t.Glm4vMoeForConditionalGeneration, t.Glm4vMoeConfig, **moe)


def mistral3():
    names = tiny.tokenizer(
        ["[INST]", "[/INST]", "[IMG_BREAK]", "[IMG_END]"], bos="<s>", adds_bos=True, image_token="[IMG]"
    )
    processor = t.PixtralProcessor(
        image_processor=t.PixtralImageProcessor(
            size={"longest_edge": 64}, patch_size={"height": tiny.PATCH, "width": tiny.PATCH}
        ),
        tokenizer=names, patch_size=tiny.PATCH, spatial_merge_size=2,
        chat_template=template("[IMG]", "[INST]", "[/INST]"),
    )  # fmt: skip
    vision = t.PixtralVisionConfig(**tiny.VISION | {"image_size": 64, "head_dim": 16})
    config = t.Mistral3Config(
        vision_config=vision, text_config=t.MistralConfig(**tiny.text_size(names)), spatial_merge_size=2,
        image_token_index=names.image_token_id, vision_feature_layer=-1,
    )  # fmt: skip
    return processor, t.Mistral3ForConditionalGeneration, config


def llama4():
    names = tiny.tokenizer(
        ["<|header_start|>", "<|header_end|>", "<|image_start|>", "<|image_end|>", "<|patch|>",
         "<|tile_x_separator|>", "<|tile_y_separator|>"],
        bos="<|begin_of_text|>", eos="<|eot|>", adds_bos=True, image_token="<|image|>",
    )  # fmt: skip
    processor = t.Llama4Processor(
        image_processor=t.Llama4ImageProcessor(size=tiny.SQUARE, max_patches=4), tokenizer=names,
        patch_size=tiny.PATCH, pixel_shuffle_ratio=0.5, chat_template=template("<|image|>"),
    )  # fmt: skip
    vision = t.Llama4VisionConfig(**tiny.VISION | {
        "vision_output_dim": 56, "projector_input_dim": 56, "projector_output_dim": 56, "intermediate_size": 192,
    })  # fmt: skip
    text = t.Llama4TextConfig(**tiny.text_size(
        names, num_hidden_layers=4, head_dim=20, intermediate_size_mlp=64, num_local_experts=2,
        interleave_moe_layer_step=2, attention_chunk_size=64,
    ))  # fmt: skip
    config = t.Llama4Config(
        vision_config=vision, text_config=text, image_token_index=names.convert_tokens_to_ids("<|patch|>")
    )
    return processor, t.Llama4ForConditionalGeneration, config


def vipllava():
    processor, _, _ = tiny.llava()
    names = processor.tokenizer
    config = t.VipLlavaConfig(
        vision_config=t.CLIPVisionConfig(**tiny.VISION), text_config=t.LlamaConfig(**tiny.text_size(names)),
        image_token_index=names.image_token_id, image_seq_length=16, vision_feature_layer=[-1, -3, 1],
    )  # fmt: skip
    return processor, t.VipLlavaForConditionalGeneration, config


def llava_joined():
    """LLaVA whose config names two layers."""
    processor, kind, config = tiny.llava()
    return processor, kind, t.LlavaConfig(**config.to_dict() | {"vision_feature_layer": [-1, 1]})


def granite4_vision():
    names = tiny.tokenizer(bos="<s>", adds_bos=True, image_token="<image>")
    pictures, _, _ = tiny._llava_next("llava_next_mistral", t.MistralConfig)
    processor = t.Granite4VisionProcessor(
        image_processor=pictures.image_processor, tokenizer=names, patch_size=tiny.PATCH,
        vision_feature_select_strategy="full", downsample_rate="1/2", chat_template=template("<image>"),
    )  # fmt: skip
    former = t.Blip2QFormerConfig(
        intermediate_size=32, num_hidden_layers=1,
        cross_attention_frequency=1, use_qformer_text_input=False,
    )  # fmt: skip
    config = t.Granite4VisionConfig(
        vision_config=t.SiglipVisionConfig(**tiny.VISION | {"hidden_size": 64, "num_attention_heads": 4}),
        qformer_config=former,
        text_config=t.Granite4VisionTextConfig(**tiny.text_size(names, num_hidden_layers=7, logits_scaling=2.0)),
        image_token_index=names.image_token_id, image_grid_pinpoints=tiny.PINPOINTS, downsample_rate="1/2",
        deepstack_layer_map=[[-1, 0], [1, 1]], spatial_vision_layer=-2, spatial_target_layers=[2, 3, 4, 5],
        vision_feature_select_strategy="full",
    )  # fmt: skip
    return processor, t.Granite4VisionForConditionalGeneration, config


def molmo2():
    names = tiny.tokenizer(
        ["<im_patch>", "<im_col>", "<im_start>", "<low_res_im_start>", "<frame_start>", "<im_end>", "<frame_end>",
         "<im_low>"],
        bos="<|im_start|>", eos="<|im_end|>", image_token="<|image|>", video_token="<|video|>",
    )  # fmt: skip
    processor = without_video(t.Molmo2Processor)(
        t.Molmo2ImageProcessor(
            size=tiny.SQUARE, patch_size=tiny.PATCH, max_crops=2, overlap_margins=[1, 1], pooling_size=[2, 2]
        ),
        None, names, chat_template=template("<|image|>"),
    )  # fmt: skip
    shape = {"num_key_value_heads": 3, "head_dim": 16}
    vision = t.Molmo2VisionConfig(**tiny.VISION | shape | {"image_size": [tiny.SIZE, tiny.SIZE]})
    adapter = t.Molmo2AdapterConfig(
        hidden_size=48, num_attention_heads=3, intermediate_size=64, text_hidden_size=40,
        vision_feature_layer=[-1, 0], **shape,
    )  # fmt: skip
    size = tiny.text_size(names, head_dim=20)
    config = t.Molmo2Config(
        vision_config=vision, adapter_config=adapter, text_config=t.Molmo2TextConfig(**size),
        image_token_id=names.convert_tokens_to_ids("<im_patch>"),
    )  # fmt: skip
    return processor, t.Molmo2ForConditionalGeneration, config


def blip2():
    names = tiny.tokenizer(["<image>"], bos="<s>", adds_bos=True)  # its processor names the token
    processor = t.Blip2Processor(BlipImageProcessorPil(size=tiny.SQUARE), names, num_query_tokens=4)
    small = {"hidden_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = t.Blip2Config(
        vision_config=t.Blip2VisionConfig(**tiny.VISION, initializer_range=0.2).to_dict(),
        qformer_config=t.Blip2QFormerConfig(**small, intermediate_size=48, encoder_hidden_size=48).to_dict(),
        text_config=t.OPTConfig(
            **small, vocab_size=len(names), ffn_dim=64, word_embed_proj_dim=40, max_position_embeddings=512, init_std=0.2,
            bos_token_id=names.bos_token_id, eos_token_id=names.eos_token_id, pad_token_id=0,
        ).to_dict(),
        num_query_tokens=4, image_token_index=names.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    return processor, t.Blip2ForConditionalGeneration, config


def idefics2():
    names = tiny.tokenizer(
        ["<end_of_utterance>"], bos="<s>", adds_bos=True, image_token="<image>",
        image_boundary_token="<fake_token_around_image>",
    )  # fmt: skip
    pictures = Idefics2ImageProcessorPil(
        size={"shortest_edge": 16, "longest_edge": 64}, do_image_splitting=False
    )
    processor = t.Idefics2Processor(pictures, names, image_seq_len=4, chat_template=template("<image>"))
    resampler = {
        "resampler_n_latents": 4,
        "resampler_depth": 1,
        "resampler_n_heads": 2,
        "resampler_head_dim": 8,
    }
    config = t.Idefics2Config(
        vision_config=t.Idefics2VisionConfig(**tiny.VISION | {"image_size": 64}).to_dict(),
        perceiver_config=t.Idefics2PerceiverConfig(hidden_size=40, num_key_value_heads=1, **resampler).to_dict(),
        text_config=t.MistralConfig(**tiny.text_size(names)).to_dict(), image_token_id=names.image_token_id,
    )  # fmt: skip
    return processor, t.Idefics2ForConditionalGeneration, config


def _kosmos_text(names):
    return {
        "vocab_size": len(names), "embed_dim": 40, "layers": 2, "ffn_dim": 64, "attention_heads": 2, "init_std": 0.3,
        "max_position_embeddings": 512, "bos_token_id": names.bos_token_id, "eos_token_id": names.eos_token_id,
        "pad_token_id": names.pad_token_id, "tie_word_embeddings": False,
    }  # fmt: skip


def kosmos2():
    names = tiny.tokenizer(["<unk>"], bos="<s>")  # the ids behind that of <unk> stand in a picture's places
    names.add_special_tokens({"unk_token": "<unk>"})
    pictures = CLIPImageProcessorPil(size={"shortest_edge": tiny.SIZE}, crop_size=tiny.SQUARE)
    processor = t.Kosmos2Processor(pictures, names, num_patch_index_tokens=4)
    config = t.Kosmos2Config(
        text_config=_kosmos_text(processor.tokenizer),
        vision_config=tiny.VISION,
        latent_query_num=64,
        tie_word_embeddings=False,
    )
    return processor, t.Kosmos2ForConditionalGeneration, config


def kosmos2_5():
    t.Kosmos2_5Processor.images_kwargs["max_patches"] = 64  # no file of a checkpoint can lower its 4096
    names = tiny.tokenizer(bos="<s>", boi_token="<image>", eoi_token="</image>", image_token="<s>")
    processor = t.Kosmos2_5Processor(Kosmos2_5ImageProcessorPil(), names, num_image_tokens=4)
    size = {name: value for name, value in tiny.VISION.items() if name not in ("image_size", "patch_size")}
    config = t.Kosmos2_5Config(
        text_config=_kosmos_text(names),
        vision_config=size | {"head_dim": 16},
        latent_query_num=4,
        tie_word_embeddings=False,
    )
    return processor, t.Kosmos2_5ForConditionalGeneration, config


def instructblip():
    names = tiny.tokenizer(bos="<s>", adds_bos=True)  # its processor adds <image>
    reads = tiny.tokenizer(bos="<s>", adds_bos=True)
    processor = t.InstructBlipProcessor(
        BlipImageProcessorPil(size=tiny.SQUARE), names, reads, num_query_tokens=4
    )
    small = {"hidden_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = t.InstructBlipConfig(
        vision_config=t.InstructBlipVisionConfig(**tiny.VISION, initializer_range=0.2).to_dict(),
        qformer_config=t.InstructBlipQFormerConfig(
            **small, intermediate_size=48, encoder_hidden_size=48, vocab_size=len(reads), pad_token_id=0
        ).to_dict(),
        text_config=t.OPTConfig(
            **small, vocab_size=len(names), ffn_dim=64, word_embed_proj_dim=40, max_position_embeddings=512, init_std=0.2,
            bos_token_id=names.bos_token_id, eos_token_id=names.eos_token_id, pad_token_id=0,
        ).to_dict(),
        num_query_tokens=4, image_token_index=names.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    return processor, t.InstructBlipForConditionalGeneration, config


def blip():
    names = tiny.tokenizer(["[CLS]", "[SEP]", "[DEC]"])
    names.add_special_tokens({"cls_token": "[CLS]", "sep_token": "[SEP]"})
    start, end = names.convert_tokens_to_ids(["[DEC]", "[SEP]"])
    small = {"hidden_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    config = t.BlipConfig(
        vision_config=tiny.VISION | {"initializer_range": 0.2},
        text_config={
            **small, "vocab_size": len(names), "encoder_hidden_size": 48, "bos_token_id": start, "sep_token_id": end,
            "eos_token_id": end, "pad_token_id": 0, "initializer_range": 0.3,
        },
    )  # fmt: skip
    return (
        t.BlipProcessor(BlipImageProcessorPil(size=tiny.SQUARE), names),
        t.BlipForConditionalGeneration,
        config,
    )


def idefics():
    names = tiny.tokenizer(
        ["<end_of_utterance>", "<fake_token_around_image>"], bos="<s>", image_token="<image>"
    )  # fmt: skip
    processor = t.IdeficsProcessor(IdeficsImageProcessorPil(image_size=tiny.SIZE), names)
    seen = {name: value for name, value in tiny.VISION.items() if name != "hidden_size"} | {"embed_dim": 48}
    text = {name: value for name, value in tiny.text_size(names).items() if name != "num_key_value_heads"}
    resampler = {
        "resampler_n_latents": 4,
        "resampler_depth": 1,
        "resampler_n_heads": 2,
        "resampler_head_dim": 8,
    }
    config = t.IdeficsConfig(
        **text, vision_config=seen, perceiver_config=resampler, use_resampler=True, alpha_initializer="ones"
    )
    return processor, t.IdeficsForVisionText2Text, config


FAMILIES = {
    made.__name__: made
    for made in (
        qwen3_5, qwen3_5_moe, qwen3_vl_moe, gemma4, mistral3, glm4v, glm4v_moe, glm46v, llama4, vipllava,
        llava_joined, granite4_vision, molmo2, blip2, idefics2, kosmos2, kosmos2_5, instructblip, idefics, blip,
    )
}  # fmt: skip


def save(name, folder):
    """The tiny model of a family as a checkpoint in `folder`."""
    return tiny.save(name, folder, FAMILIES[name])
