"""Storage formats of episodes, labels and relabelled trajectories: a folder per format, its reader beside its writer."""
