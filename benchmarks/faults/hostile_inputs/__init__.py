"""Inputs of hostile.py: name -> a function that makes the input in a folder that holds a good one."""
