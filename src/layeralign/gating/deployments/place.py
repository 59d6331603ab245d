"""The exit, in the scanned encoder's numbering, at which a model with another config runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from layeralign._util.text import json_of, printable
from layeralign.analysis.results import Results
from layeralign.errors import LayeralignError
from layeralign.exits import Exits

_Path = tuple[str, ...]
"""Keys that lead to a value of a config; one text would mix up a key with a dot and a nested one."""
_NOT_THE_MODEL = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache"}
"""Keys in which two configs of one model may differ. The number format of the weights is not compared."""
READS_PLAINLY = ("llava", "llava_next", "llava_onevision")
"""Families with `Vlm.reads_plainly`."""
_LAYER: _Path = ("vision_feature_layer",)
_DEPTHS = {("vision_config", name) for name in ("num_hidden_layers", "depth", "num_global_layers")}
"""Keys with the number of blocks of the encoder, over all families."""


class Undecided(Exception):
    """The exit of a config cannot be determined; the message says why."""


def overridden(config: Mapping[str, Any], given: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a config with what a server changes in it."""
    changes = json_of(given, "hf_overrides") if isinstance(given, str) else given or {}
    if not isinstance(changes, Mapping):
        raise LayeralignError(f"hf_overrides: is a {type(changes).__name__}; expected a JSON object")
    if nested := [key for key, value in changes.items() if isinstance(value, Mapping)]:
        raise Undecided(f"what an override of its {printable(nested[0], 80)} does is not known")
    return {**config, **changes}


def scanned_config(run: Results) -> Mapping[str, Any]:
    """Return the config of a run's model; it has to be there."""
    if "config" not in run.noted:
        raise Undecided("the run has no config of its model; repeat the command of its scan to add it")
    return run.noted["config"]


def plain_exit(config: Mapping[str, Any], scanned: Mapping[str, Any], run: Results) -> int | None:
    """Return the exit of a config that is the scanned one, or has another plain `vision_feature_layer`.

    None for all other configs: only a model that is built from them shows their exit, which takes seconds.
    """
    here, there = (dict(_fields(_plain(one))) for one in (config, scanned))
    differ = {
        key
        for key in {*here, *there}
        if key[-1] not in _NOT_THE_MODEL and here.get(key, Undecided) != there.get(key, Undecided)
    }
    if not differ:
        return run.exits.default
    layers = [one.get(_LAYER) for one in (there, here)]
    if differ != {_LAYER} or run.identity.get("family") not in READS_PLAINLY:
        return None
    try:
        was, now = (run.exits.resolve(layer) for layer in layers if type(layer) is int)
    except (LayeralignError, ValueError):
        return None
    return now if was == run.exits.default else None


def place(config: Mapping[str, Any], scanned: Mapping[str, Any], variant: str) -> int:
    """Return the exit, in the scanned encoder's numbering, at which a model with this config runs.

    Args:
        config: the config of the deployed model.
        scanned: the config of the scanned model.
        variant: the scan's way to read an exit, from its identity.

    Raises:
        Undecided: the exit cannot be determined.
    """
    kinds = [printable(repr(one.get("model_type")), 60) for one in (config, scanned)]
    if kinds[0] != kinds[1]:
        raise Undecided(f"it is of model_type {kinds[0]}, and the scanned model of {kinds[1]}")
    try:
        return _place(_plain(config), _plain(scanned), variant)
    except LayeralignError as error:
        raise Undecided(str(error)) from error


def _plain(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Replace a list of one layer by that layer, as transformers does."""
    layer = config.get("vision_feature_layer")
    one = isinstance(layer, list) and len(layer) == 1
    return {**config, "vision_feature_layer": layer[0]} if one and layer else config


def _place(config: Mapping[str, Any], scanned: Mapping[str, Any], variant: str) -> int:
    from layeralign.vlm.families.registry import family_of  # torch takes seconds to import
    from layeralign.vlm.load import filled, shape

    family = family_of("config", dict(scanned))
    here, there = (dict(_fields(filled(one, "config"))) for one in (config, scanned))
    joined = any(isinstance(one.get(_LAYER), list) for one in (here, there))
    understood = _DEPTHS | ({_LAYER} if family.reads_plainly and not joined else set())
    differ = [
        key
        for key in sorted({*here, *there} - understood)
        if key[-1] not in _NOT_THE_MODEL and here.get(key, Undecided) != there.get(key, Undecided)
    ]
    if differ:
        others = f", nor are {len(differ) - 1} other fields" if len(differ) > 1 else ""
        named = printable(".".join(differ[0]), 80)
        raise Undecided(f"its {named} is not the scanned model's{others}; what that does is not known")
    if any(here[key] > there[key] for key in _DEPTHS & there.keys()):
        raise Undecided("its encoder has more blocks than the scanned one")
    reading = next((name for name in family.variants if variant.startswith(f"{name}: ")), None)
    vlm = shape(scanned, "the run's config", reading)
    return _same_exit(shape(config, "config", reading).exits, vlm.exits, reads_cut=vlm.reads_cut)


def _same_exit(here: Exits, there: Exits, *, reads_cut: bool) -> int:
    """Return the scanned encoder's exit that equals an encoder of its first blocks."""
    swept = [(track, other) for track, other in zip(there.tracks, here.tracks, strict=True) if track.swept]
    cut = [track.name + f":{other.exits}" for track, other in swept if other.exits < track.exits]
    if (cut or here.layers < there.layers) and not reads_cut:
        raise Undecided(
            "its encoder is cut, and the run's reading of an exit is another (see docs/families.md)"
        )
    if len(cut) + (here.layers < there.layers) > 1:
        raise Undecided("two stages of its encoder are cut, and no scan does that")
    return there.parse(cut[0])[0] if cut else here.default


def _fields(config: Mapping[Any, Any], path: _Path = ()) -> Iterator[tuple[_Path, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _fields(value, (*path, str(key)))
        else:
            yield (*path, str(key)), value
