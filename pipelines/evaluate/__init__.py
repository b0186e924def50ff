"""vlm-rewards evaluate: joins labels with truth and counts."""
