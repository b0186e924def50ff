"""Recorded transitions: written once, mapped into memory, drawn in batches."""
