"""Scoring of answers: learned reward models, classifiers, and functions of the user."""
