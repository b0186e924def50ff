"""vlm-rewards hindsight."""
