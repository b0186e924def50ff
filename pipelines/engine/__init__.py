"""What every command runs on: output folder, Beam runner, progress, workers."""
