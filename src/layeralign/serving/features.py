"""Features of the pictures that clients ask about: an attack asks many texts about one picture."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from layeralign.decode import stream
from layeralign.vlm.feature import Feature
from layeralign.vlm.vlm import Vlm


class Features:
    """Encodes pictures, and keeps the features that were used last."""

    def __init__(self, vlm: Vlm, most: int) -> None:
        """Keep nothing yet.

        Args:
            vlm: The model.
            most: Size of all features that are kept, in bytes.
        """
        self._vlm, self._most = vlm, most
        self._kept: OrderedDict[stream.Seen, Feature] = OrderedDict()  # the last used one is the last

    def of(self, asked: Mapping[stream.Seen, stream.Query]) -> dict[stream.Seen, Feature | None]:
        """The features of each picture at its exit, as `stream.encoded` gives them."""
        found: dict[stream.Seen, Feature | None] = {
            seen: self._kept[seen] for seen in asked if seen in self._kept
        }
        new = {seen: query for seen, query in asked.items() if seen not in found}
        found |= stream.encoded(self._vlm, new) if new else {}
        for seen, feature in found.items():
            if feature is not None:
                self._kept[seen] = feature
                self._kept.move_to_end(seen)
        size = sum(feature.nbytes for feature in self._kept.values())
        while size > self._most:
            size -= self._kept.popitem(last=False)[1].nbytes
        return found
