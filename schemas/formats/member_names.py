"""Escapes ids and camera names reversibly, so that they can be keys and fields of WebDataset.

2024.01.02_run1   ──► 2024%2E01%2E02_run1        a key ends at the first dot
kitchen/run 2     ──► kitchen%2Frun 2            "/" would make a folder; spaces and letters of any language stay
50%               ──► 50%25                      or "%2E" and "." would be one name
"""

import re
from collections.abc import Sequence

_SPECIAL = str.maketrans({character: f"%{ord(character):02X}" for character in "%./\\"})


def escape_name(name: str) -> str:
    """Returns an id or camera name escaped for a tar member; different names stay different."""
    escaped = name.translate(_SPECIAL)
    return f"%5F{escaped[1:]}" if escaped.startswith("__") else escaped  # `datasets` skips files with this prefix


def unescape_name(escaped: str) -> str:
    """Returns the inverse of `escape_name`; text that it never produces, but other tools may write, stays unchanged."""
    name = re.sub("%(2[5EF]|5[CF])", lambda match: chr(int(match[1], 16)), escaped)
    return name if escape_name(name) == escaped else escaped


def check_fields(cameras: Sequence[str]) -> None:
    """Refuses camera names that differ only in case, which readers of WebDataset would merge.

    Raises:
        ValueError: Two camera names differ only in case.
    """
    seen: dict[str, str] = {}
    for camera in cameras:
        other = seen.setdefault(camera.lower(), camera)
        if other != camera:
            raise ValueError(
                f"cameras in tar files must differ in more than their case: got {other!r} and {camera!r}. Rename one, or write "
                "Parquet"
            )
