"""How episodes, labels and relabelled trajectories lie on disk: a folder per format, its reader beside its writer."""
