"""Corpora in RLDS, as TensorFlow Datasets writes them, read without TensorFlow."""
