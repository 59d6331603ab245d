"""Any exit of a model behind an OpenAI-compatible endpoint."""
