"""Tables for a terminal, one file for each command or table."""
