"""From vectors to scores: formulas, negatives, prompts, windows."""
