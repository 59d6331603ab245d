"""Scans: cases × exits -> a run."""
