"""Engines: what computes the two towers of a dual encoder."""
