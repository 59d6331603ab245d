"""A watch for the running system: whether a picture's features come from the approved exit.

`fit` learns from the projected features of the approved exit what is usual. `Watch.score` then needs the
features alone, which every runtime has, and no second model: a few lines for a deployer.

A picture's features are pooled to the mean and the deviation over its tokens. Their distribution is a
probabilistic principal component model (Tipping & Bishop 1999, J. R. Statist. Soc. B 61, 611-622). The limit
is a conformal quantile of pictures that were not fitted, so that a usual picture is above it with a
probability of at most `alpha` (Vovk et al. 2005, "Algorithmic Learning in a Random World").
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from layeralign._util.files import atomic, saving
from layeralign._util.progress import Progress
from layeralign.errors import LayeralignError

if TYPE_CHECKING:  # a server that watches needs no model
    from layeralign.cases.case import Case
    from layeralign.vlm.vlm import Vlm

ALPHA = 0.01
"""Share of usual pictures above the limit, at most."""
_TENSORS = ("mean", "scale", "factors", "variances")
_GROUP = 32
"""Pictures encoded in one pass."""
_LEAST = 1e-6
"""Smallest `alpha`: it needs two million pictures."""
_FACTORS = 32
"""Most principal components; there are never more than a quarter of the fitted pictures."""


@dataclass(frozen=True, repr=False)
class Watch:
    """What is usual of the features of one exit.

    Attributes:
        mean: float32 [2 · width], of pooled features.
        scale: float32 [2 · width], their deviations, above 0.
        factors: float32 [k, 2 · width], orthonormal principal components of the scaled pooled features.
        variances: float32 [k], their variances, above 0.
        rest: variance of a scaled dimension outside the components, above 0.
        limit: the largest usual score.
        about: records: `model`, the `files` of its identity, `exit`, `alpha`, number of `pictures`, and
            `noticed`: other exit -> share of pictures above the limit, of those that were not fitted.
    """

    mean: Tensor
    scale: Tensor
    factors: Tensor
    variances: Tensor
    rest: float
    limit: float
    about: Mapping[str, Any]

    def __repr__(self) -> str:
        """Return model, exit, number of pictures, and the other exits that are noticed."""
        noticed = ", ".join(f"{name} {100 * share:.0f} %" for name, share in self.about["noticed"].items())
        return (
            f"<Watch: {self.about['model']}, exit {self.about['exit']}, {self.about['pictures']} pictures; "
            f"pictures noticed at other exits: {noticed}>"
        )

    def score(self, features: Tensor) -> float:
        """Return how unusual a picture's features [tokens, width] are: a Mahalanobis distance per dimension.

        Raises:
            LayeralignError: the features have another width.
        """
        pooled = pool(features)
        if pooled.shape != self.mean.shape:
            width = len(self.mean) // 2
            raise LayeralignError(f"features: have width {features.shape[-1]}; expected {width}")
        return float(_distances(self, pooled[None]))

    def usual(self, features: Tensor) -> bool:
        """Return whether a picture's features [tokens, width] look like those of the approved exit."""
        return self.score(features) <= self.limit

    def save(self, file: Path) -> None:
        """Write the watch as safetensors.

        Raises:
            LayeralignError: `file` exists and is no watch, such as weights, or it cannot be written.
        """
        if file.exists():
            try:
                Watch.load(file)
            except LayeralignError as error:
                raise LayeralignError(f"out {file}: exists and is no watch; expected another file") from error
        tensors = {name: getattr(self, name).contiguous() for name in _TENSORS}
        about = {"about": json.dumps(dict(self.about)), "rest": repr(self.rest), "limit": repr(self.limit)}
        with atomic(file) as draft, saving(f"out {file}:"):
            save_file(tensors, draft, metadata=about)

    def _check(self) -> None:
        """Refuse values that `learn` never writes: with some of them every picture would be usual.

        Raises:
            ValueError: there is one.
        """
        positive = torch.tensor([self.rest, self.limit])
        parts = (self.mean, self.scale, self.factors, self.variances, positive)
        wide, k = self.mean.shape, self.variances.shape
        if any(part.dtype != torch.float32 or not part.isfinite().all() for part in parts):
            raise ValueError("not finite float32")
        if any((part <= 0).any() for part in (self.scale, self.variances, positive)):
            raise ValueError("not above 0")
        if len(wide) != 1 or len(k) != 1 or self.scale.shape != wide or self.factors.shape != (*k, *wide):
            raise ValueError("other shapes")
        named = self.about if isinstance(self.about, dict) else {}
        if not isinstance(named.get("noticed"), dict) or {"model", "exit", "pictures"} - set(named):
            raise ValueError("other records")

    @classmethod
    def load(cls, file: str | Path) -> Watch:
        """Read a watch.

        Raises:
            LayeralignError: the file is none.
        """
        try:
            if not Path(file).is_file():  # a pipe would be waited for
                raise FileNotFoundError(file)
            with safe_open(file, framework="pt") as opened:
                about = opened.metadata()
                mean, scale, factors, variances = map(opened.get_tensor, _TENSORS)
            rest, limit = float(about["rest"]), float(about["limit"])
            made = cls(mean, scale, factors, variances, rest, limit, json.loads(about["about"]))
            made._check()
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise LayeralignError(f"watch {file}: cannot be read; make it with layeralign watch") from error
        return made


def pool(features: Tensor) -> Tensor:
    """Return the mean and the deviation over a picture's tokens: float32 [2 · width] of [tokens, width]."""
    found = features.detach().float().cpu()
    return torch.cat([found.mean(0), found.std(0, correction=0)])


def learn(vlm: Vlm, cases: Sequence[Case], exit: int, alpha: float = ALPHA) -> Watch:
    """Learn what is usual at an exit from the pictures of cases, and measure what is noticed at every other.

    Raises:
        LayeralignError: there are too few different pictures for `alpha`, `alpha` is no share, or features of
            the exit are not finite.
    """
    from layeralign.vlm.finite import advice
    from layeralign.vlm.identity import identity

    if not _LEAST <= alpha < 1:
        raise LayeralignError(f"alpha {alpha}: expected a share from {_LEAST:g} to below 1")
    pictures = list({case.picture.sha256: case.picture for case in cases if case.picture}.values())
    check_enough(len(pictures), alpha)
    at: dict[int, list[Tensor]] = {one: [] for one in vlm.exits.all}
    with Progress("pictures", len(pictures)) as progress:
        for start in range(0, len(pictures), _GROUP):
            some = [picture.open() for picture in pictures[start : start + _GROUP]]
            for one, features in vlm.encode(some, vlm.exits.all).items():
                at[one] += [pool(feature.tokens) for feature in features]
            progress.advance(len(some))
    pooled = {one: torch.stack(found) for one, found in at.items()}
    if broken := int((~pooled[exit].isfinite().all(1)).sum()):
        dtype = str(vlm.model.dtype).removeprefix("torch.")
        raise LayeralignError(
            f"model {vlm.name}: numerical failure: the features of {broken} of {len(pictures)} pictures are "
            f"not finite at exit {vlm.exits.name(exit)} ({dtype}); {advice([dtype])}"
        )
    made = fit(pooled[exit], alpha)
    noticed = {
        vlm.exits.name(one): float((~(_distances(made, found[1::2]) <= made.limit)).float().mean())
        for one, found in pooled.items()
        if one != exit
    }
    about = {
        "model": vlm.name, "files": identity(vlm)["files"], "exit": vlm.exits.name(exit), "alpha": alpha,
        "pictures": len(pictures), "noticed": noticed,
    }  # fmt: skip
    return replace(made, about=about)


def check_enough(pictures: int, alpha: float) -> None:
    """Refuse fewer pictures than a limit with `alpha` false alarms needs: half of them calibrate.

    Raises:
        LayeralignError: there are too few.
    """
    least = 2 * ceil(1 / alpha - 1)
    if pictures < least:
        raise LayeralignError(
            f"cases: have {pictures} different pictures; expected at least {least} for alpha {alpha:.3g}"
        )


def fit(pooled: Tensor, alpha: float = ALPHA) -> Watch:
    """Learn what is usual from pooled features, float32 [pictures, 2 · width]; half of them calibrate.

    Raises:
        LayeralignError: there are too few pictures for `alpha`.
    """
    check_enough(len(pooled), alpha)
    fitted, held = pooled[::2], pooled[1::2]
    mean, scale = fitted.mean(0), fitted.std(0)
    scale = scale.clamp(min=float(scale.median()) * 1e-3 + 1e-12)
    scaled = (fitted - mean) / scale
    k = min(_FACTORS, len(fitted) // 4, scaled.shape[1] - 1)
    _, spread, factors = torch.linalg.svd(scaled, full_matrices=False)
    variances = spread.square() / (len(fitted) - 1)
    rest = max(float(variances[k:].sum()) / (scaled.shape[1] - k), 1e-6)
    made = Watch(mean, scale, factors[:k].contiguous(), variances[:k].clamp(min=rest), rest, 0.0, {})
    place = ceil((len(held) + 1) * (1 - alpha))
    return replace(made, limit=float(_distances(made, held).sort().values[place - 1]))


def _distances(watch: Watch, pooled: Tensor) -> Tensor:
    """Return Mahalanobis distances per dimension, [n] of [n, 2 · width]."""
    scaled = (pooled - watch.mean) / watch.scale
    along = scaled @ watch.factors.T
    left = (scaled.square().sum(1) - along.square().sum(1)).clamp(min=0)
    whole = (along.square() / watch.variances).sum(1) + left / watch.rest
    return (whole / scaled.shape[1]).sqrt()
