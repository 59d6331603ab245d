"""From an answer to a judgement."""
