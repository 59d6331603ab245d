"""Judges: they turn answers into verdicts or scores."""
