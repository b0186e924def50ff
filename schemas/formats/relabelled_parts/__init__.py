"""Parts of relabelled trajectories: one row or tar sample per episode."""
