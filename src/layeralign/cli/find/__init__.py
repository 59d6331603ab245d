"""Commands that find the early-exit hole."""
