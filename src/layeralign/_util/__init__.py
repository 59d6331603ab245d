"""Shared helpers: text, files, retries, the machine, progress."""
