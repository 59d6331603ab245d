"""Untrusted adapters: which fields are read, and which model they belong to."""
