"""Cases × exits → a run."""
