"""Worlds in which it is known what a frame is worth: one folder per world."""
