"""vlm-rewards label."""
