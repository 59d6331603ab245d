"""Benchmarks whose requests come with a picture of their own."""
