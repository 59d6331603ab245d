"""What a training step is made of: its rows, their exits, features, prompts and answers."""
