"""Uses the labels: transitions for goal-conditioned agents. No Beam."""
