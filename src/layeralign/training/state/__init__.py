"""The files of a training, and the checks whether it may continue."""
