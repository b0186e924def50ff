"""vlm-rewards export."""
