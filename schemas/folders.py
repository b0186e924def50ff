"""Output folders on disk: files that are complete or absent, and what a finished folder says of itself."""

import contextlib
import errno
import hashlib
import json
import os
import uuid
from pathlib import Path

TEMPORARY = ".tmp-"
"""What the names of unfinished files hold."""


def explain_full_disk(error: BaseException, path: Path) -> None:
    """Adds to an error of a full disk what to do."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        error.add_note(
            f"the disk of {path} is full; free some space and run the same command again: finished parts are kept"
        )


def read_settings(folder: Path) -> dict:
    """settings.json of an output folder.

    Raises:
        ValueError: It is missing, or not ours.
    """
    path = folder / "settings.json"
    if not path.is_file():
        raise ValueError(
            f"an output folder of vlm-rewards must hold settings.json, got {folder} without; give a folder it wrote"
        )
    try:
        settings = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} must be JSON, got {error}; delete the folder and run the command again") from error
    if not isinstance(settings, dict) or not {"kind", "fingerprint", "settings"} <= settings.keys():
        raise ValueError(
            f"{path} must have the entries kind, fingerprint and settings; give a folder that vlm-rewards wrote"
        )
    return settings


def read_manifest(folder: Path, kind: str) -> dict:
    """manifest.json of a finished output folder.

    Raises:
        ValueError: The folder is not there, is of another kind or is not finished.
    """
    if not folder.is_dir():
        raise ValueError(
            f"{kind} must be a folder that vlm-rewards wrote, got {folder}, which is not there; check the path"
        )
    settings = read_settings(folder)
    if settings["kind"] != kind:
        raise ValueError(f"the folder must hold {kind}, got {folder} with {settings['kind']}; give another folder")
    path = folder / "manifest.json"
    if not path.is_file():
        raise ValueError(
            f"the {kind} in {folder} must be finished, got no manifest.json; run the command that makes it again"
        )
    return json.loads(path.read_text())


def write_atomically(path: Path, text: str) -> None:
    """Writes the file so that it is complete or absent, also after a power cut."""
    temporary = path.with_name(f"{path.name}{TEMPORARY}{uuid.uuid4().hex}")
    try:
        temporary.write_text(text, encoding="utf-8")
        sync_file(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        explain_full_disk(error, path.parent)
        raise
    sync_folder(path.parent)


def sync_file(path: Path) -> tuple[str, int]:
    """Flushes a file to the disk; its SHA-256 in hexadecimal, and its size in bytes."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size


def sync_folder(path: Path) -> None:
    """Flushes a folder's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
