"""Projector repair: the projector learns to carry every exit's features to what the default exit means.

The language model is untouched; LoRA acts on the projector's linear layers. The objective is that of
`consistency`: the reference policy's distribution at the default exit. So an early exit may get its sight
back, where training the language model can only teach it to refuse.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from layeralign.training.baselines.imitation import Imitated, Imitation
from layeralign.training.data.features import Row
from layeralign.training.data.rollout import Batch
from layeralign.vlm.feature import Feature


class Repair(Imitation):
    """The method `repair`."""

    def collate(self, rows: Sequence[Row], answers: Sequence[Sequence[int]]) -> Batch:
        """Return the batch as the reference policy sees it, since features are cached."""
        with self.policy.reference():
            return super().collate(rows, answers)

    def seen(self, micro: Imitated) -> Batch:
        """Return the batch with features from the trained projector, with their graph."""
        at_exit: dict[int, list[int]] = defaultdict(list)
        for at, (case, exit) in enumerate(micro.rows):
            if case.picture is not None:
                at_exit[exit].append(at)
        features: list[Feature | None] = list(micro.batch.features)
        for exit, places in at_exit.items():
            pictures = [picture.open() for at in places if (picture := micro.rows[at][0].picture)]
            encoded = self.policy.vlm.encode(pictures, [exit], gradients=True)[exit]
            for at, feature in zip(places, encoded, strict=True):
                features[at] = feature
        return replace(micro.batch, features=tuple(features))
