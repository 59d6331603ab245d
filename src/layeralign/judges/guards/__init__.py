"""Guards: models made to judge answers, each with its own input and its own form of reply."""
