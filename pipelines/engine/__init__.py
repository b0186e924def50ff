"""Shared machinery of all commands: output folder, Beam runner, progress, workers."""
