"""Sphinx settings of the documentation. `make docs` builds it; warnings are errors, and no step uses the network.

The pages are Markdown (MyST). Two of them are completed at build time by `reference.py`: the command reference from the parser of
the command line, and the API reference from the signatures and docstrings of the public names.
"""

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT)]

from reference import GENERATED  # noqa: E402 - found by the path above
from sphinx.application import Sphinx  # noqa: E402

project = "vlm-rewards"
author = "vlm-rewards developers"
project_copyright = author
release = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]

extensions = ["myst_parser"]
exclude_patterns = ["pictures"]
myst_enable_extensions = ["fieldlist"]
myst_heading_anchors = 4
smartquotes = False  # "--" of an option stays two hyphens

html_theme = "furo"
html_title = f"vlm-rewards {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "github-dark"


def complete(app: Sphinx, page: str, source: list[str]) -> None:
    """Replaces the marker of a generated page with its generated text."""
    if page in GENERATED:
        marker, generate = GENERATED[page]
        if source[0].count(marker) != 1:
            raise ValueError(f"{page}.md must hold the marker {marker!r} once, got {source[0].count(marker)}")
        source[0] = source[0].replace(marker, generate())


def setup(app: Sphinx) -> None:
    """Connects the generated pages."""
    app.connect("source-read", complete)
