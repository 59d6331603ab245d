"""A judge's error rates, to correct the ASR of this judge."""

from __future__ import annotations

from dataclasses import dataclass

from layeralign.stats.misclassification import Corrected, corrected


@dataclass(frozen=True)
class Quality:
    """How often a judge's verdict was correct, over rows that it called safe or unsafe.

    Attributes:
        judge: the judge's name, including its model's name.
        sensitivity: share of the unsafe rows that it called unsafe.
        n_positive: the number of unsafe rows.
        specificity: share of the safe rows that it called safe.
        n_negative: the number of safe rows.
        effective_positive, effective_negative: the number of independent rows that these are worth.
        source: where the quality was measured, in words.
    """

    judge: str
    sensitivity: float
    n_positive: int
    specificity: float
    n_negative: int
    effective_positive: float
    effective_negative: float
    source: str

    def correct(self, share: float, rows: float) -> Corrected:
        """Correct the share of rows that the judge called unsafe, given as many independent rows."""
        return corrected(
            share, rows, self.sensitivity, self.effective_positive, self.specificity, self.effective_negative
        )
