"""What each family's encoder gives at an exit, computed by hand: the full tower's `hidden_states[l]`, then what
follows the blocks, written out. Nothing here uses layeralign's cut.
"""

import torch
import torch.nn.functional as F
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image


def states(vlm, inputs, tie=None, **others):
    """All hidden states of the uncut tower, exit 0 to L; `tie` False where its output is not the last."""
    vlm.tower.config.tie_last_hidden_states = tie
    found = vlm.tower(**inputs, output_hidden_states=True, **others).hidden_states
    del vlm.tower.config.tie_last_hidden_states
    assert len(found) == vlm.exits.layers + 1
    return found


def llava(vlm, made, exit):
    if isinstance(vlm.model.config.vision_feature_layer, list):
        return joined(vlm, made, exit)
    state = states(vlm, {"pixel_values": made["pixel_values"]})[exit]
    drop = vlm.model.config.vision_feature_select_strategy == "default"
    return vlm.model.model.multi_modal_projector(state[:, 1:] if drop else state)[0]


def tiles(vlm, made, exit):
    """LLaVA-NeXT and OneVision before their packing, [tiles, tokens, width]."""
    pixels = made["pixel_values"][0]
    state = states(vlm, {"pixel_values": pixels})[exit]
    drop = vlm.model.config.vision_feature_select_strategy == "default"
    return vlm.model.model.multi_modal_projector(state[:, 1:] if drop else state)


def llava_next(vlm, made, exit, most=None):
    """Base picture first; then the tiles as one picture, its padding cut off, a newline after each row."""
    features, size = tiles(vlm, made, exit), made["image_sizes"][0]
    config, newline = vlm.model.config, vlm.model.model.image_newline
    side = config.vision_config.image_size // config.vision_config.patch_size
    rows, columns = get_anyres_image_grid_shape(
        size, config.image_grid_pinpoints, config.vision_config.image_size
    )
    width = features.shape[-1]
    whole = torch.zeros(width, rows * side, columns * side)
    for row in range(rows):
        for column in range(columns):
            tile = features[1 + row * columns + column].reshape(side, side, width).permute(2, 0, 1)
            whole[:, row * side : (row + 1) * side, column * side : (column + 1) * side] = tile
    whole = unpad_image(whole, size)
    if most is not None:
        _, height, wide = whole.shape
        ratio = (height * wide / (most * side**2)) ** 0.5
        if ratio > 1.1:
            shape = [int(height // ratio), int(wide // ratio)]
            whole = F.interpolate(whole[None], shape, mode="bilinear")[0]
    lines = [features[0]]
    for row in range(whole.shape[1]):
        lines += [whole[:, row].T, newline[None]]
    return torch.cat(lines)


def llava_onevision(vlm, made, exit):
    return llava_next(vlm, made, exit, most=2)


def internvl(vlm, made, exit):
    state = vlm.tower.layernorm(states(vlm, {"pixel_values": made["pixel_values"]})[exit])[:, 1:]
    tiles, patches, width = state.shape
    side = int(patches**0.5)
    found = torch.zeros(tiles, (side // 2) ** 2, 4 * width)
    grid = state.reshape(tiles, side, side, width)
    for down in range(side // 2):
        for right in range(side // 2):
            square = grid[:, 2 * down : 2 * down + 2, 2 * right : 2 * right + 2]
            found[:, down * (side // 2) + right] = square.flatten(1)
    return vlm.model.model.multi_modal_projector(found).flatten(0, 1)


def paligemma(vlm, made, exit):
    state = states(vlm, {"pixel_values": made["pixel_values"]})[exit]
    return vlm.model.model.multi_modal_projector(vlm.tower.post_layernorm(state))[0]


def gemma3(vlm, made, exit):
    state = vlm.tower.post_layernorm(states(vlm, {"pixel_values": made["pixel_values"]})[exit])
    project = vlm.model.model.multi_modal_projector
    side = 4
    grid = state.reshape(side, side, -1)
    pooled = torch.stack([
        grid[2 * down : 2 * down + 2, 2 * right : 2 * right + 2].flatten(0, 1).mean(0)
        for down in range(2) for right in range(2)
    ])  # fmt: skip
    return project.mm_soft_emb_norm(pooled) @ project.mm_input_projection_weight


def idefics3(vlm, made, exit):
    pixels, mask = made["pixel_values"][0], made["pixel_attention_mask"][0]
    patch = vlm.model.config.vision_config.patch_size
    seen = F.max_pool2d(mask[:, None].float(), patch)[:, 0].bool()
    state = states(vlm, {"pixel_values": pixels, "patch_attention_mask": seen})[exit]
    return vlm.model.model.connector(vlm.tower.post_layernorm(state)).flatten(0, 1)


def qwen2_5_vl(vlm, made, exit):
    """hidden_states[L] is what the merger reads; a window's tokens go back to their places behind it."""
    grid = made["image_grid_thw"]
    state = states(vlm, {"hidden_states": made["pixel_values"], "grid_thw": grid})[exit]
    merged = vlm.tower.merger(state)
    _, height, width = (int(n) for n in grid[0])
    side = vlm.tower.window_size // vlm.tower.spatial_merge_size // vlm.tower.patch_size
    order = [
        (down, right)
        for top in range(0, height // 2, side) for left in range(0, width // 2, side)
        for down in range(top, min(top + side, height // 2)) for right in range(left, min(left + side, width // 2))
    ]  # fmt: skip
    found = torch.zeros_like(merged)
    for row, (down, right) in zip(merged, order, strict=True):
        found[down * (width // 2) + right] = row
    return found


def qwen3_vl(vlm, made, exit):
    inputs = {"hidden_states": made["pixel_values"], "grid_thw": made["image_grid_thw"]}
    return vlm.tower.merger(states(vlm, inputs)[exit])


def deepstack(vlm, made, exit):
    """Each tap's merger on the state behind its block; zeros past the exit, or with `hold` the exit's state."""
    inputs = {"hidden_states": made["pixel_values"], "grid_thw": made["image_grid_thw"]}
    known = states(vlm, inputs)
    found = []
    for index, merger in zip(
        vlm.tower.deepstack_visual_indexes, vlm.tower.deepstack_merger_list, strict=True
    ):
        merged = merger(known[min(index + 1, exit)])
        found.append(merged if index + 1 <= exit or vlm.reading == "hold" else torch.zeros_like(merged))
    return torch.stack(found)


def further(vlm, made, exit):
    """What the language model gets in its further layers."""
    if vlm.family == "granite4_vision":
        return torch.stack(granite4_vision(vlm, made, exit)[1:])
    return deepstack(vlm, made, exit)


def mllama(vlm, made, exit):
    """The vendor's encoder, block by block; `vendor` takes intermediate state i before block i, not behind it."""
    vision, track, at = vlm.tower, *vlm.exits.place(exit)
    captured = {}

    def keep(name):
        def hook(_, args, kwargs):
            captured[name] = (args[0] if args else kwargs["hidden_states"], kwargs["attention_mask"])

        return hook

    handles = [
        part.register_forward_pre_hook(keep(name), with_kwargs=True)
        for name, part in (("local", vision.transformer), ("global", vision.global_transformer))
    ]
    names = ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")
    vision(**{name: made[name] for name in names})
    for handle in handles:
        handle.remove()
    state, mask = captured["local"]
    known = [state]
    for block in vision.transformer.layers:
        known.append(block(known[-1], attention_mask=mask))
    layers = len(vision.transformer.layers)
    local = at if track == "local" else layers
    clip = at if track in ("local", "intermediate") else layers
    shift = 0 if vlm.reading == "vendor" else 1
    middle = torch.stack([known[min(i + shift, clip)] for i in vision.intermediate_layers_indices], -1)
    images, rows, width = state.shape
    patches = rows // vision.max_num_tiles
    final = vision.layernorm_post(known[local]).reshape(images, vision.max_num_tiles, patches, width)
    final = vision.post_tile_positional_embedding(final, made["aspect_ratio_ids"].reshape(images, -1))
    final = final.reshape(images, rows, width)
    depth = at if track == "global" else len(vision.global_transformer.layers)
    for block in list(vision.global_transformer.layers)[:depth]:
        final = block(final, attention_mask=mask)
    joined = torch.cat([final, middle.flatten(-2)], -1).reshape(images, vision.max_num_tiles, patches, -1)
    joined = joined[:, :, : vision.num_patches]
    return vlm.model.model.multi_modal_projector(joined).flatten(0, 2)


def glm4v(vlm, made, exit):
    """Post-norm; each four patches of a square, which lie together, to one by a linear layer; merger."""
    grid = made["image_grid_thw"]
    state = states(vlm, {"hidden_states": made["pixel_values"], "grid_thw": grid}, tie=False)[exit]
    squares = vlm.tower.post_layernorm(state).unflatten(0, (-1, 4))
    weight, bias = vlm.tower.downsample.weight, vlm.tower.downsample.bias
    rows = [
        sum(weight[:, :, number // 2, number % 2] @ square[number] for number in range(4))
        for square in squares
    ]
    return vlm.tower.merger(torch.stack(rows) + bias)


def gemma4(vlm, made, exit):
    """The mean of each square of patches times the root of the width, standardised; norm, projection."""
    at, config = made["image_position_ids"], vlm.tower.config
    seen = {"pixel_values": made["pixel_values"], "pixel_position_ids": at}
    state, side = states(vlm, seen, tie=False)[exit][0], config.pooling_kernel_size
    squares = {}
    for (right, down), one in zip(at[0].tolist(), state, strict=True):
        if right >= 0:
            squares.setdefault((down // side, right // side), []).append(one)
    pooled = torch.stack([torch.stack(squares[key]).mean(0) for key in sorted(squares)])
    pooled = (pooled * config.hidden_size**0.5 - vlm.tower.std_bias) * vlm.tower.std_scale
    normed = pooled / (pooled.pow(2).mean(-1, keepdim=True) + config.rms_norm_eps) ** 0.5
    return normed @ vlm.model.model.embed_vision.embedding_projection.weight.T


def mistral3(vlm, made, exit):
    """Norm; the patches of a square, channel by channel, to one token; two linear layers."""
    (size,) = made["image_sizes"].tolist()
    project, patch = vlm.model.model.multi_modal_projector, vlm.tower.config.patch_size
    height, width = (length // patch for length in size)
    pixels = made["pixel_values"][..., : size[0], : size[1]]
    state = project.norm(states(vlm, {"pixel_values": pixels})[exit][0]).reshape(height, width, -1)
    tokens = [
        state[down : down + 2, right : right + 2].flatten(0, 1).T.flatten()
        for down in range(0, height, 2) for right in range(0, width, 2)
    ]  # fmt: skip
    merged = torch.stack(tokens) @ project.patch_merger.merging_layer.weight.T
    return project.linear_2(project.act(project.linear_1(merged)))


def llama4(vlm, made, exit):
    """Block by block; post-norm, the class token (the last) dropped, then transformers' own adapter."""
    known = []
    hooks = [vlm.tower.model.register_forward_pre_hook(lambda _, args: known.append(args[0]))]
    hooks += [
        block.register_forward_hook(lambda _, args, output: known.append(output[0]))
        for block in vlm.tower.model.layers
    ]
    vlm.tower(made["pixel_values"].float())  # the processor gives bfloat16
    for hook in hooks:
        hook.remove()
    return vlm.tower.vision_adapter(vlm.tower.layernorm_post(known[exit])[:, :-1]).flatten(0, 1)


def joined(vlm, made, exit):
    """The class token dropped; a layer past the exit is read at the exit."""
    known = states(vlm, {"pixel_values": made["pixel_values"]})
    layers = [layer % len(known) for layer in vlm.model.config.vision_feature_layer]
    joined = torch.cat([known[min(layer, exit)][:, 1:] for layer in layers], dim=-1)
    return vlm.model.model.multi_modal_projector(joined)[0]


def granite4_vision(vlm, made, exit):
    """For each layer of the language model: one layer of the encoder, at most the exit, projected and packed."""
    inner, config, size = vlm.model.model, vlm.model.config, made["image_sizes"]
    known = states(vlm, {"pixel_values": made["pixel_values"][0]})
    maps = [layer for layer, _ in config.deepstack_layer_map]
    parts = list(zip(maps, inner.layerwise_projectors, strict=True))
    parts += [(config.spatial_vision_layer, projector) for projector in inner.spatial_projectors]
    return [
        inner.pack_image_features(
            [projector(known[min(layer % len(known), exit)])], size, "full", inner.image_newline
        )[0]
        for layer, projector in parts
    ]


def molmo2(vlm, made, exit):
    """The config counts blocks from 0: its layer i is the state behind block i, at most the exit."""
    known = states(vlm, {"pixel_values": made["pixel_values"].flatten(0, -3)})
    blocks = len(known) - 1
    layers = [
        i + 1 if i >= 0 else blocks + 1 + i for i in vlm.model.config.adapter_config.vision_feature_layer
    ]
    joined = torch.cat([known[min(layer, exit)] for layer in layers], dim=-1)
    return vlm.model.model.multi_modal_projector(joined, made["image_token_pooling"]).last_hidden_state


def idefics2(vlm, made, exit):
    pixels, mask = made["pixel_values"][0], made["pixel_attention_mask"][0]
    patch = vlm.model.config.vision_config.patch_size
    whole = mask.unfold(1, patch, patch).unfold(2, patch, patch).sum((-1, -2)) > 0
    state = states(vlm, {"pixel_values": pixels, "patch_attention_mask": whole}, tie=False)[exit]
    made = vlm.model.model.connector(vlm.tower.post_layernorm(state), attention_mask=whole.flatten(1))
    return made.flatten(0, 1)


def blip2(vlm, made, exit):
    model = vlm.model
    state = vlm.tower.post_layernorm(states(vlm, {"pixel_values": made["pixel_values"]}, tie=False)[exit])
    asked = model.qformer(query_embeds=model.query_tokens, encoder_hidden_states=state)
    return model.language_projection(asked.last_hidden_state)[0]


def kosmos2(vlm, made, exit):
    state = vlm.tower.model.post_layernorm(
        states(vlm, {"pixel_values": made["pixel_values"]}, tie=False)[exit]
    )
    return vlm.model.image_to_text_projection(F.normalize(state, dim=-1))[0][0]


def kosmos2_5(vlm, made, exit):
    patches, tower = made["flattened_patches"], vlm.tower
    seen = (patches.sum(-1) != 0).float()
    known = tower.encoder(
        tower.embeddings(patches), attention_mask=seen, output_hidden_states=True
    ).hidden_states
    return vlm.model.image_to_text_projection(F.normalize(tower.layernorm(known[exit]), dim=-1))[0][0]


def instructblip(vlm, made, exit):
    return vlm.tower.post_layernorm(states(vlm, {"pixel_values": made["pixel_values"]}, tie=False)[exit])[0]


def idefics(vlm, made, exit):
    tower, known = vlm.tower, [None]
    known[0] = tower.pre_layrnorm(tower.embeddings(made["pixel_values"]))
    for block in tower.encoder.layers:
        known.append(block(known[-1], None))
    return vlm.model.model.perceiver_resampler(known[exit])[0]


REFERENCES = {
    "llava": llava, "llava_next": llava_next, "llava_onevision": llava_onevision, "internvl": internvl,
    "paligemma": paligemma, "gemma3": gemma3, "idefics3": idefics3, "smolvlm": idefics3,
    "qwen2_5_vl": qwen2_5_vl, "qwen3_vl": qwen3_vl, "mllama": mllama, "qwen3_vl_moe": qwen3_vl,
    "qwen3_5": qwen3_vl, "qwen3_5_moe": qwen3_vl, "glm4v": glm4v, "glm4v_moe": glm4v, "glm46v": glm4v,
    "gemma4": gemma4, "mistral3": mistral3, "llama4": llama4, "vipllava": joined,
    "granite4_vision": lambda *given: granite4_vision(*given)[0], "molmo2": molmo2,
    "blip-2": blip2, "idefics2": idefics2, "kosmos-2": kosmos2, "kosmos-2.5": kosmos2_5,
    "instructblip": instructblip, "idefics": idefics, "blip": instructblip,
}  # fmt: skip
