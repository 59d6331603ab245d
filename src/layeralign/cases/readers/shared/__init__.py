"""What readers of benchmarks share."""
