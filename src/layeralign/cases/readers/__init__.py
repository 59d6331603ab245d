"""Readers of public benchmarks in their published file formats."""
