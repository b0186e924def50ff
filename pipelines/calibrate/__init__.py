"""vlm-rewards calibrate."""
