"""Reading answers without a model: language, refusal phrases, plain text."""
