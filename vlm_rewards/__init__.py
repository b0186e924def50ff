"""Labels recorded trajectories with rewards from vision-language models."""
