"""The judges that there are, by name."""

from __future__ import annotations

from collections.abc import Sequence

from layeralign.errors import LayeralignError
from layeralign.judges.judge import Judge
from layeralign.judges.oracle import Oracle
from layeralign.judges.refusal import RefusalMatcher

JUDGES: dict[str, type[Judge]] = {Oracle.name: Oracle, RefusalMatcher.name: RefusalMatcher}
"""Name -> judge, the most trusted first: a summary reports the first that has judged."""


def judges(names: Sequence[str]) -> list[Judge]:
    """The judges of these names.

    Raises:
        LayeralignError: there is no judge of a name.
    """
    for name in names:
        if name not in JUDGES:
            raise LayeralignError(f"judge {name!r}: expected one of {', '.join(JUDGES)}")
    return [JUDGES[name]() for name in names]
