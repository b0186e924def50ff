"""Small text files that stand for large ones, as Git LFS and Xet leave them in a clone that was not completed."""

from pathlib import Path

MAX_POINTER_BYTES = 1024
_POINTERS = {b"version https://git-lfs.github.com/spec/": "Git LFS", b"# xet version ": "Xet"}


def pointer_kind_of(head: bytes) -> str | None:
    """Returns "Git LFS" or "Xet" for the first bytes of a pointer, else None."""
    return next((kind for start, kind in _POINTERS.items() if head.startswith(start)), None)


def pointer_kind(path: Path) -> str | None:
    """Returns "Git LFS" or "Xet" for a file that is a pointer, else None."""
    return None if path.stat().st_size > MAX_POINTER_BYTES else pointer_kind_of(path.read_bytes())
