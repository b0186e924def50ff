"""Measures labels against ground truth, and compares two labelings."""
