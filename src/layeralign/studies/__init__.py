"""Whole studies: scan, train and scan again, once or for each exit."""
