"""vlm-rewards inspect."""
