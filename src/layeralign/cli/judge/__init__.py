"""Commands that judge answers and summarise a run."""
