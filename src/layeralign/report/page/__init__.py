"""The self-contained page: findings, charts, and the rows of a run."""
