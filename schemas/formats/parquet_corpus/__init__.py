"""Corpora in Parquet: one row per frame."""
