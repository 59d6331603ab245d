"""Quality of a run's judges."""
