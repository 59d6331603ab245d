"""Statistics on plain arrays, independent of runs."""
