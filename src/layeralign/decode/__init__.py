"""Decoding: cases and exits in, answers out. Scans and training use it."""
