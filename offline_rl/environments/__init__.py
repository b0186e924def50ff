"""Live environments to fine-tune and evaluate in."""
