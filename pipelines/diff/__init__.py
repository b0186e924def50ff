"""vlm-rewards diff."""
