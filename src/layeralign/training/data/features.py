"""The image features of a training's rows, cached."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch

from layeralign.cases.case import Case
from layeralign.vlm.feature import Feature
from layeralign.vlm.vlm import Vlm

CACHE_BYTES = 4 * 2**30
"""Memory limit of the cache; the least recently used features are dropped first."""
_GROUP = 32
"""Pictures encoded in one pass."""

Row = tuple[Case, int]
"""A case and the exit of its answer."""


class Features:
    """Picture features at the exits of a training, each computed once if memory allows.

    The encoder is frozen, so its features are data. The same picture in another batch may have features with
    other last bits, and a resumed training must use identical features. Therefore, if all features fit into
    CACHE_BYTES, pictures are encoded at all exits in groups that follow the order of the cases. Otherwise
    each picture is encoded alone, at the requested exit.
    """

    def __init__(self, vlm: Vlm, cases: Sequence[Case], exits: Sequence[int]) -> None:
        self._vlm, self._exits = vlm, tuple(sorted(set(exits)))
        pictures = {case.picture.sha256: case.picture for case in cases if case.picture}
        self._pictures = list(pictures.values())
        self._cached: OrderedDict[tuple[int, int], list[Feature]] = OrderedDict()
        self._group, self._bytes = 1, 0
        if pictures:
            self._bytes = self._encode(0, (self._exits[0],))[self._exits[0]][0].nbytes
            if self._bytes * len(pictures) * len(self._exits) <= CACHE_BYTES:
                self._group = _GROUP
        self._place = {name: divmod(at, self._group) for at, name in enumerate(pictures)}

    def of(self, row: Row) -> Feature | None:
        """Return the features of a row's picture at its exit; None for a case without a picture."""
        case, exit = row
        if case.picture is None:
            return None
        group, at = self._place[case.picture.sha256]
        if (group, exit) in self._cached:
            self._cached.move_to_end((group, exit))
        else:
            encoded = self._encode(group, self._exits if self._group > 1 else (exit,))
            self._cached.update({(group, one): features for one, features in encoded.items()})
            while self._group == 1 and len(self._cached) > max(1, CACHE_BYTES // self._bytes):
                self._cached.popitem(last=False)
        return self._cached[group, exit][at]

    @torch.no_grad()
    def _encode(self, group: int, exits: Sequence[int]) -> dict[int, list[Feature]]:
        pictures = self._pictures[group * self._group : (group + 1) * self._group]
        states = self._vlm.encode([picture.open() for picture in pictures], exits)
        return {exit: [one.clone() for one in features] for exit, features in states.items()}
