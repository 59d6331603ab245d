"""Training of a model that is safe at its exits: L-PPO, its baselines, and reward models."""
