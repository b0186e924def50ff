"""Thresholds and temperatures, chosen from counts of scores and truth."""
