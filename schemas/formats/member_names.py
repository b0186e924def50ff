"""Names of tar members: ids and cameras in a form that a key or field of WebDataset can hold, reversibly.

2024.01.02_run1   ──► 2024%2E01%2E02_run1        a key ends at the first dot
kitchen/run 2     ──► kitchen%2Frun 2            "/" would make a folder; spaces and letters of any language stay
50%               ──► 50%25                      or "%2E" and "." would be one name
"""

import re
from collections.abc import Sequence

_SPECIAL = str.maketrans({character: f"%{ord(character):02X}" for character in "%./\\"})


def escape_name(name: str) -> str:
    """Escapes an id or a camera's name for a tar member; no two names become one."""
    escaped = name.translate(_SPECIAL)
    return f"%5F{escaped[1:]}" if escaped.startswith("__") else escaped  # `datasets` passes over files that begin so


def unescape_name(escaped: str) -> str:
    """The inverse of `escape_name`; what it never makes, but other tools may write, stays as it is."""
    name = re.sub("%(2[5EF]|5[CF])", lambda match: chr(int(match[1], 16)), escaped)
    return name if escape_name(name) == escaped else escaped


def check_fields(cameras: Sequence[str]) -> None:
    """Refuses cameras that readers of WebDataset, who turn fields into small letters, would take for one.

    Raises:
        ValueError: Two cameras differ in nothing but their case.
    """
    seen: dict[str, str] = {}
    for camera in cameras:
        other = seen.setdefault(camera.lower(), camera)
        if other != camera:
            raise ValueError(
                f"cameras in tar files must differ in more than their case: got {other!r} and {camera!r}. Rename one, or write "
                "Parquet"
            )
