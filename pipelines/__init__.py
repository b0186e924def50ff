"""Moves data: a reader and a writer a corpus format, and the Beam pipelines that join them."""
