"""Making a model safe at its exits: L-PPO, its rewards and its baselines."""
