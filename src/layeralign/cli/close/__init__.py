"""Commands that close the early-exit hole."""
