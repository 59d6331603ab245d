"""What each family's encoder gives at an exit, computed by hand: the full tower's `hidden_states[l]`, then what
follows the blocks, written out. Nothing here uses layeralign's cut.
"""

import torch
import torch.nn.functional as F
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image


def states(vlm, inputs, **others):
    """All hidden states of the uncut tower, exit 0 to L."""
    found = vlm.tower(**inputs, output_hidden_states=True, **others).hidden_states
    assert len(found) == vlm.exits.layers + 1
    return found


def llava(vlm, made, exit):
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


REFERENCES = {
    "llava": llava, "llava_next": llava_next, "llava_onevision": llava_onevision, "internvl": internvl,
    "paligemma": paligemma, "gemma3": gemma3, "idefics3": idefics3, "smolvlm": idefics3,
    "qwen2_5_vl": qwen2_5_vl, "qwen3_vl": qwen3_vl, "mllama": mllama,
}  # fmt: skip
