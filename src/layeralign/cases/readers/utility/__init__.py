"""Benchmarks that measure whether a model still understands pictures."""
