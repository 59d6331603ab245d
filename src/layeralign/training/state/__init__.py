"""What a training keeps on disk, and what decides whether it may continue."""
