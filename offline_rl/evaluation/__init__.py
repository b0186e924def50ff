"""Agents measured by ground truth and by the model that rewards them."""
