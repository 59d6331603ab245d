"""Around a model's language: chat template, ends of an answer, reasoning."""
