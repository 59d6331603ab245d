"""Training that makes a model safe at its exits: L-PPO, its baselines, and reward models."""
