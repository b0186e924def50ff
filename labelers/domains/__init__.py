"""Domains: worlds with known ground truth, one folder per world."""
