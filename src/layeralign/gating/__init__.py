"""A run against a policy, and a deployed config against a run."""
