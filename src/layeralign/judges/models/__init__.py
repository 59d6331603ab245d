"""Models that judge: local or on a server."""
