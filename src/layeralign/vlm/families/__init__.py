"""Families of models, one per file, and their registry."""
