"""What is asked of a model: cases, their files and their pictures."""
