"""Scans whose language model runs on a vLLM server."""
