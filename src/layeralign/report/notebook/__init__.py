"""Results as notebooks show them: a line, a table with a curve, a frame and a figure."""
