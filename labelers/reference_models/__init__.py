"""The small CLIP models that ship with the package, and how they are trained."""

from pathlib import Path

REFERENCE_FOLDER = Path(__file__).parent / "weights"
"""Where the reference models lie that ship with the package, one folder per model."""
