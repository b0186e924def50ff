"""vlm-rewards record."""
