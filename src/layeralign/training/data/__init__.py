"""The parts of a training step: its rows, their exits, features, prompts and answers."""
