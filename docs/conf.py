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

from docutils import nodes  # noqa: E402
from reference import complete  # noqa: E402 - found by the path above
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

python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries = False

html_theme = "furo"
html_title = f"vlm-rewards {release}"
html_favicon = "static/icon.svg"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "github-dark"


def _complete(app: Sphinx, page: str, source: list[str]) -> None:
    source[0] = complete(page, source[0])


def _draw_dashes(app: Sphinx, doctree: nodes.document) -> None:
    """Draws the dash between a parameter and its description, which Sphinx leaves to `smartquotes`."""
    for text in list(doctree.findall(lambda node: isinstance(node, nodes.Text) and node == " -- ")):
        text.parent.replace(text, nodes.Text(" \N{EN DASH} "))


def setup(app: Sphinx) -> None:
    """Connects the generated pages."""
    app.connect("source-read", _complete)
    app.connect("doctree-read", _draw_dashes)
