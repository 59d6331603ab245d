"""Judges of your own: a rubric for any model on a server, and two rubrics that ship."""
