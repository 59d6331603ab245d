"""Charts: what they show (series, metrics), how they are drawn, and the same as CSV."""
