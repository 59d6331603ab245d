"""Reward models: trained on preference pairs, with the schedule, checkpoint and record of `align`."""
