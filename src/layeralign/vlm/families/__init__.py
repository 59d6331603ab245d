"""One file for each family of models, and who serves what."""
