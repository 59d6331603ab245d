"""A model whose language model stays on disk, for scans in which another engine computes it."""

from __future__ import annotations

from layeralign.vlm.vlm import Vlm


def language_model_on_disk(vlm: Vlm, device: str) -> dict[str, str]:
    """A `device_map` with the encoder and the projector on a device, and all else in its files.

    The language model can still be run: each of its layers is read from the disk when it is computed.

    Args:
        vlm: The model without weights, from `layeralign.vlm.load.empty`.
        device: Torch device of the encoder and the projector.

    Returns:
        Name of a module or parameter -> `device` or `disk`, for every part of the model.
    """
    heads = [vlm.model.get_decoder(), vlm.model.get_output_embeddings()]
    far = {vlm.path_of(module) for module in heads}
    outer = {name[:at] for name in far for at, letter in enumerate(name) if letter == "."} | {""}
    placed = {}
    for name, module in vlm.model.named_modules():
        if name in outer:
            own = (part for part, _ in module.named_parameters(recurse=False))
            placed |= {f"{name}.{part}".lstrip("."): device for part in own}
        elif name.rpartition(".")[0] in outer:
            placed[name] = "disk" if name in far else device
    return placed
