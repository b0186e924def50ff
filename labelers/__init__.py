"""What a frame is worth: encoders, prompts, reward formulas and quality measures. No Beam, no files of trajectories."""
