"""The pages of the documentation as tests see them: their blocks, their links, and a run of their blocks as a reader would."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from warm_process import WarmProcess

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.glob("*.md")])

RUN = ("bash", "python")
"""Languages of the blocks that are executed."""

SHOWN = ("console", "text", "toml", "json", "sh", "dockerfile")
"""Languages of blocks that are only shown: transcripts, pictures, files of other projects, make targets."""

PUBLIC_MODEL = "openai/clip-vit-large-patch14"
"""The hub's model in examples; a test cannot download it, so a tiny one of the same kind stands in its place."""

_BLOCK = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CONTINUES = re.compile(r"^This page continues from \[[^\]]+\]\(([\w-]+\.md)\)", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Lists the fenced blocks of a page that name a language; Sphinx directives are none of them."""
    found = [Block(*match) for match in _BLOCK.findall(page.read_text(encoding="utf-8"))]
    return [block for block in found if not block.language.startswith("{")]


def links(page: Path) -> Iterator[str]:
    """Yields the targets of the page's links and pictures, outside of blocks."""
    yield from _LINK.findall(_BLOCK.sub("", page.read_text(encoding="utf-8")))


def page_before(page: Path) -> Path | None:
    """Returns the page whose folder this one starts with, by its sentence "This page continues from"."""
    found = _CONTINUES.search(page.read_text(encoding="utf-8"))
    return DOCS / found[1] if found else None


def run_blocks(page: Path, folder: Path, model: Path, process: WarmProcess) -> None:
    """Runs the page's bash and python blocks in order in a folder; the python blocks share one interpreter, as a reader's do.

    Args:
        page: The page.
        folder: Working folder of the blocks.
        model: Folder of the model that stands in the place of PUBLIC_MODEL.
        process: Runs the python blocks, and the command `vlm-rewards`.

    Raises:
        AssertionError: A block failed; the message holds its output.
    """
    program = ["import subprocess", "names = {'__name__': '__main__'}"]
    for number, (language, text) in enumerate(blocks(page)):
        text = text.replace(PUBLIC_MODEL, str(model))
        if language == "bash":
            program.append(f"subprocess.run(['bash', '-euo', 'pipefail', '-c', {text!r}], check=True)")
        elif language == "python":
            program.append(f"exec(compile({text!r}, '{page.name}, block {number}', 'exec'), names)")
    path = os.pathsep.join([str(process.path), str(Path(sys.executable).parent), os.environ["PATH"]])
    output = folder.with_suffix(".output")
    status = process.run("\n".join(program), folder, {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}, output)
    assert status == 0, f"{page.name}\n{output.read_text(errors='replace')}"
