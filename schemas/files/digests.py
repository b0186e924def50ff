"""Digests of files: what has changed since it was written, by a fault of the disk, say, is refused before it is read.

parts/<unit>.parquet ◄── markers/<unit>.json, or manifest.json: "sha256"
step-000012000.pt    ◄── step-000012000.pt.sha256
"""

import functools
import hashlib
import json
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlm_rewards.schemas.files.errors import explaining_os_errors
from vlm_rewards.schemas.files.remote_paths import Location

_SETTLED_S = 2.0  # a file changed within the resolution of the clock would look the same
_REMEDY = "Remove it, and run the command that makes it again"


def check_digest(path: Path, expected: str, remedy: str = _REMEDY, shown: Location | None = None) -> None:
    """Refuses a file that is not as it was written. A file that stays as it is is read once in a process.

    Args:
        path: The file.
        expected: Its SHA-256 in hexadecimal.
        remedy: What the user can do.
        shown: What the message names instead: where this copy is from.

    Raises:
        ValueError: The file has another digest.
    """
    with explaining_os_errors(path):
        status = path.stat()
        compute = _sha256 if time.time() - max(status.st_mtime, status.st_ctime) > _SETTLED_S else _sha256.__wrapped__
        found = compute(str(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if found != expected:
        raise ValueError(
            f"a file must be as it was written, got {shown or path} with other contents (SHA-256 {found[:12]}..., and "
            f"{str(expected)[:12]}... when it was written). {remedy}"
        )


@functools.lru_cache(maxsize=4096)
def _sha256(path: str, *_: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_part(path: Location, copy: Path) -> bool:
    """Refuses a part of an output folder that is not as it was written, by its marker, else by the manifest.

    A file outside of its output folder is let through with a warning: nothing says what it was.

    Returns:
        Whether the part could be checked.

    Args:
        path: The part.
        copy: Its file on this machine.

    Raises:
        ValueError: The part has another digest, or the marker or manifest cannot be read.
    """
    expected = _expected(path)
    if expected is None:
        warnings.warn(
            f"a part can be checked for changes only in the folder it was written to: got {path} without its marker and "
            f"manifest. Read it there if you can",
            stacklevel=2,
        )
        return False
    check_digest(copy, expected, shown=path)
    return True


def check_recorded(path: Path) -> None:
    """Refuses a file of `record` that is not as it was written; one outside of such a folder is let through.

    Args:
        path: A shard of a corpus.

    Raises:
        ValueError: The shard has another digest, or the marker or manifest cannot be read.
    """
    expected = _expected(path)
    if expected is not None:
        check_digest(path, expected)


def _expected(part: Location) -> str | None:
    path = part.absolute() if isinstance(part, Path) else part
    folder = path.parent.parent
    if path.parent.name != "parts":
        return None
    marker, manifest = folder / "markers" / f"{path.stem}.json", folder / "manifest.json"
    source = marker if marker.is_file() else manifest
    if not source.is_file():
        return None
    try:
        record = json.loads(source.read_text(encoding="utf-8"))
        if source == marker:
            return str(record["sha256"])
        return next((str(part["sha256"]) for part in record["parts"] if part["path"] == f"parts/{path.name}"), None)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"the record of a part must be as it was written, got {source} ({type(error).__name__}: {error}). {_REMEDY}"
        ) from error


def seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a JSON object with its own digest, for `check_seal`."""
    plain = {name: value for name, value in record.items() if name != "digest"}
    return {**plain, "digest": hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:32]}


def check_seal(record: Mapping[str, Any], path: Location, remedy: str = _REMEDY) -> None:
    """Refuses a JSON object that has changed since `seal`; one without a digest, of an earlier version, is let through.

    Args:
        record: The object.
        path: Its file, for the message.
        remedy: What the user can do.

    Raises:
        ValueError: It has changed.
    """
    if "digest" in record and record != seal(record):
        raise ValueError(f"{path} must be as it was written, got another digest. {remedy}")


def digest_beside(path: Path) -> Path:
    """Where the digest of a file is that has no marker and no manifest."""
    return path.with_name(f"{path.name}.sha256")


def digest_text(path: Path) -> str:
    """Returns the contents of the file that `digest_beside` names."""
    return f"{_sha256.__wrapped__(str(path))}\n"


def check_digest_beside(path: Path, remedy: str = _REMEDY) -> None:
    """Refuses a file that is not as it was written; one without a digest, of an earlier version, is let through.

    Raises:
        ValueError: The file has another digest.
    """
    if digest_beside(path).is_file():
        check_digest(path, digest_beside(path).read_text(encoding="utf-8", errors="replace").strip(), remedy)
