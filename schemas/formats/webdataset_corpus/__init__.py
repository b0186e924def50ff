"""Corpora in WebDataset: one tar sample per episode."""
