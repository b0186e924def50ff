"""Parts of labels and kept embeddings: one Parquet row per frame."""
