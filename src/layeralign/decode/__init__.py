"""Cases and exits in, answers out: the one place where prompts meet features. Scan and training use it."""
