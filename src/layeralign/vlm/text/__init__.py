"""Text handling: chat template, ends of an answer, reasoning."""
