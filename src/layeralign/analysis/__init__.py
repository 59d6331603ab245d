"""From verdicts to figures: intervals, paired tests, summaries."""
