"""Vision-language models: encode -> exit at l -> project -> language model."""
