"""The methods that L-PPO is compared with, on the same rows, exits and retention rows."""
