"""Comparisons and counts within one run."""
