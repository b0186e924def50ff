"""The small CLIP models that ship with the package, and how they are trained."""
