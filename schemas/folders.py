"""Writes files and folders atomically, locks and claims output folders, and reads finished ones.

    claimed(folder) ──► .lock ──► settings.json ──► replacing(file): temporary ─ fsync ─ rename ─ fsync of the folder ──► ...

All atomic writes, locks and claims of the project are here: no other module renames or locks files.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vlm_rewards.schemas.files.digests import check_seal
from vlm_rewards.schemas.files.errors import explaining_os_errors
from vlm_rewards.schemas.files.json_records import Field, check_fields, read_json_object
from vlm_rewards.schemas.files.lock_files import busy_error, holder_runs, lock_file
from vlm_rewards.schemas.files.remote_paths import Location, RemotePath, location_of, size_of
from vlm_rewards.schemas.fingerprints import Fingerprint

SETTINGS = "settings.json"
MANIFEST = "manifest.json"
LOCK = ".lock"
_REMEDY = "Remove the folder and run the command that makes it again"
_LEFTOVER = re.compile(r"\.tmp-[0-9a-f]+$")
_KEPT_NAME = (
    48  # characters of the name in that of a temporary file, which must not become too long for the file system
)
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}


# Atomic writes


def temporary_path(path: Path) -> Path:
    """Returns a new name beside `path` for a file that is not finished; `remove_leftovers` knows such names."""
    return path.with_name(f"{path.name[:_KEPT_NAME]}.tmp-{uuid.uuid4().hex}")


def is_leftover(path: Path) -> bool:
    """Returns whether the name is one of `temporary_path`."""
    return _LEFTOVER.search(path.name) is not None


def remove_leftovers(folder: Path) -> None:
    """Removes unfinished files that killed runs left in a folder and in its folders. Call it under the folder's lock."""
    for path in [*folder.glob("*.tmp-*"), *folder.glob("*/*.tmp-*")]:
        if is_leftover(path):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Context manager for a file that a library writes: gives a temporary name, whose file then replaces `path`.

    The file is complete or absent, also after a power cut. When the block raises, the previous file stays.
    """
    temporary = temporary_path(path)
    with explaining_os_errors(path):
        try:
            yield temporary
            sync_file(temporary)
            publish(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def write_atomically(path: Location, data: str | bytes) -> None:
    """Writes a text (UTF-8) or bytes to a file that is complete or absent, also after a power cut."""
    content = data.encode("utf-8") if isinstance(data, str) else data
    if isinstance(path, RemotePath):  # an object is taken over as a whole
        path.write_bytes(content)
        return
    with replacing(path) as temporary, temporary.open("xb") as file:  # x: follows no link
        file.write(content)


def publish(temporary: Path, path: Path) -> None:
    """Gives a finished file or folder its name, and flushes the name to the disk."""
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_file(path: Path) -> tuple[str, int]:
    """Flushes a file to the disk.

    Returns:
        Its SHA-256 in hexadecimal, and its size in bytes.
    """
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size


def sync_folder(path: Path) -> None:
    """Flushes a folder's entries to the disk; warns where the file system cannot."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
        warnings.warn(
            "the file system cannot flush folders (fsync): after a power cut, files written last may be missing. Run the "
            "same command again then",
            stacklevel=2,
        )
    finally:
        os.close(descriptor)


# Locks


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Context manager that holds an exclusive lock by a file, which exists as long as it is held.

    Where the file system has no flock, a second file, made exclusively, is the lock; see `schemas.files.lock_files`.

    Args:
        path: The lock file; its folder must exist.
        wait: Whether to wait for another holder rather than to refuse.

    Raises:
        ValueError: Another run holds the lock, or the file is a link or no plain file.
    """
    with explaining_os_errors(path), contextlib.ExitStack() as stack:
        descriptor, has_flock = _take(path, wait=wait)
        stack.callback(os.close, descriptor)
        if not has_flock:
            stack.enter_context(lock_file(path.with_name(f"{path.name}.held"), wait=wait))
        stack.callback(path.unlink, missing_ok=True)
        yield


def _take(path: Path, *, wait: bool) -> tuple[int, bool]:
    """Returns the open lock file, and whether it is locked; if not, the file system has no flock."""
    while True:
        descriptor = _open_lock(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _inode(path) == os.fstat(descriptor).st_ino:
                return descriptor, True
        except BlockingIOError as error:
            os.close(descriptor)
            raise busy_error(path.parent, "another run") from error
        except OSError as error:
            if error.errno in _NO_LOCKS:
                warnings.warn(
                    f"the file system of {path.parent} has no locks (flock): the file {path.name}.held is the lock instead",
                    stacklevel=4,
                )
                return descriptor, False
            os.close(descriptor)
            raise
        os.close(descriptor)  # whoever held it has removed it, and another run may have made it anew


def is_locked(path: Path) -> bool | None:
    """Returns whether a process holds a lock of `locked`, without touching it; None where the system does not say.

    Args:
        path: The lock file.
    """
    held = path.with_name(f"{path.name}.held")
    if held.is_file():
        return holder_runs(held)
    inode = _inode(path)
    if inode is None:
        return False
    try:
        lines = Path("/proc/locks").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return any(" FLOCK " in line and line.split()[-3].endswith(f":{inode}") for line in lines)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _open_lock(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise ValueError(f"a lock must be a plain file, got the symbolic link {path}. Remove it") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"a lock must be a plain file, got another kind of file, {path}. Remove it")
    return descriptor


# Claims


@contextlib.contextmanager
def claimed(
    folder: Path, *, kind: str, fingerprint: Fingerprint, settings: Mapping[str, object], renew: bool = False
) -> Iterator[Path]:
    """Context manager that makes a folder the output of one kind and fingerprint, and keeps other runs out meanwhile.

    A claim without results is withdrawn when the block raises: the next run may have corrected settings.

    Args:
        folder: Absent, empty, or of an earlier run of the same kind and fingerprint.
        kind: Kind of output, such as "labels" or "agent".
        fingerprint: Fingerprint of the output.
        settings: Settings for people to read, kept in settings.json.
        renew: Whether the settings of this run replace those of an earlier one.

    Raises:
        ValueError: The folder is a file, holds something else, is of another fingerprint, or another run is writing to it.
    """
    check_claim(folder, kind=kind, fingerprint=fingerprint)
    with explaining_os_errors(folder):
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder / LOCK):
            begun = check_claim(folder, kind=kind, fingerprint=fingerprint)
            remove_leftovers(folder)
            if renew or not begun:
                write_atomically(folder / SETTINGS, claim_text(kind, fingerprint, settings))
            try:
                yield folder
            except BaseException:
                if not begun and _holds_nothing(folder):
                    for entry in folder.iterdir():
                        if entry.is_dir():
                            shutil.rmtree(entry)
                    (folder / SETTINGS).unlink(missing_ok=True)
                raise
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):  # it holds something
                path.rmdir()
        raise


def claim_text(kind: str, fingerprint: Fingerprint, settings: Mapping[str, object]) -> str:
    """Returns the text of settings.json, which claims a folder; see `claimed`."""
    record = {"kind": kind, "version": 1, "fingerprint": dict(fingerprint.parts), "settings": dict(settings)}
    return json.dumps(record, indent=1, sort_keys=True) + "\n"


def check_claim(folder: Location, *, kind: str, fingerprint: Fingerprint) -> bool:
    """Refuses a folder that `claimed` would refuse; writes nothing.

    Returns:
        Whether an earlier run of the same output has claimed it.

    Raises:
        ValueError: The folder is a file, holds something else, or is of another fingerprint.
    """
    if _is_file(folder):
        raise ValueError(f"the output must be a folder, got the file {folder}. Give another path")
    entries = _entries(folder)
    if SETTINGS not in entries:
        strange = [name for name in entries if not _is_lock(Path(name)) and not is_leftover(Path(name))]
        if strange:
            raise ValueError(
                f"the output folder must be empty or hold an earlier run of this command, got {folder} with {strange[0]!r}. "
                f"Give another folder"
            )
        return False
    record = read_settings(folder)
    if record["kind"] != kind:
        raise ValueError(
            f"the output folder must hold {kind} or nothing, got {folder} with {record['kind']}. Give another folder"
        )
    Fingerprint(record["fingerprint"]).check_equal(
        fingerprint, f"the output folder {folder}", "give another folder, or the settings that made this one"
    )
    return True


def _is_file(folder: Location) -> bool:
    if isinstance(folder, RemotePath):
        return folder.is_file()
    return (folder.exists() or folder.is_symlink()) and not folder.is_dir()


def _entries(folder: Location) -> list[str]:
    if isinstance(folder, RemotePath):
        return [name for name in folder.entries() if name == SETTINGS or (folder / name).holds_something()]
    with explaining_os_errors(folder):
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _is_lock(path: Path) -> bool:
    return path.name.endswith((".lock", ".lock.held"))


def _holds_nothing(folder: Path) -> bool:
    files = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return all(path == folder / SETTINGS or _is_lock(path) for path in files)


# Finished folders


def read_settings(folder: Location, fields: Mapping[str, Field] | None = None) -> dict[str, Any]:
    """Reads settings.json of an output folder.

    Args:
        folder: The folder.
        fields: Required fields of its settings, by name; see `schemas.files.json_records.check_fields`.

    Raises:
        ValueError: It is missing, not ours, or a field is absent or something else.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise ValueError(
            f"an output folder of vlm-rewards must hold settings.json, got {folder} without. Give a folder it wrote"
        )
    record = read_json_object(path, _REMEDY)
    if not {"kind", "fingerprint", "settings"} <= record.keys():
        raise ValueError(
            f"{path} must have the entries kind, fingerprint and settings, got {sorted(record)}. Give a folder that "
            f"vlm-rewards wrote"
        )
    for name in ("fingerprint", "settings"):
        if not isinstance(record[name], dict):
            raise ValueError(
                f"{name} of {path} must be a JSON object, got {record[name]!r:.60}. Give a folder that vlm-rewards wrote"
            )
    check_fields(record["settings"], fields or {}, path, _REMEDY)
    return record


def read_manifest(folder: Location, kind: str) -> dict[str, Any]:
    """Reads manifest.json of a finished output folder.

    Raises:
        ValueError: The folder is not there, is of another kind, or is not finished.
    """
    if not folder.is_dir():
        raise ValueError(
            f"{kind} must be a folder that vlm-rewards wrote, got {folder}, which is not there. Check the path"
        )
    path = folder / MANIFEST
    settings = read_settings(folder)
    if settings["kind"] != kind:
        raise ValueError(f"the folder must hold {kind}, got {folder} with {settings['kind']}. Give another folder")
    if not path.is_file():
        raise ValueError(
            f"{kind} must be finished, got {folder} without {MANIFEST}. Run the command that makes it again with the same "
            f"settings: it does what is missing"
        )
    manifest = read_json_object(path, _REMEDY)
    parts = manifest.get("parts")
    if (
        manifest.get("kind") != kind
        or manifest.get("fingerprint") != settings["fingerprint"]
        or not isinstance(parts, list)
        or not parts
        or not all(
            isinstance(part, dict)
            and isinstance(part.get("path"), str)
            and isinstance(part.get("sha256"), str)
            and isinstance(part.get("num_bytes"), int)
            for part in parts
        )
    ):
        raise ValueError(
            f"{path} must be the manifest of the {kind} beside it, got something else. Remove it and run the command that "
            f"makes it again with the same settings"
        )
    check_seal(manifest, path)
    return manifest


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinishedFolder:
    """A folder that a vlm-rewards command has finished; from `open_finished`.

    Args:
        path: The folder.
        fingerprint: Fingerprint of its parts.
        digest: Digest of the names and contents of all parts.
        parts: Parts, in the order of their names.
    """

    path: Location
    fingerprint: Fingerprint
    digest: str
    parts: tuple[Location, ...]


def open_finished(folder: str | Location, kind: str) -> FinishedFolder:
    """Reads the settings and manifest of a finished folder, without its parts.

    Args:
        folder: A folder that a vlm-rewards command has finished.
        kind: Kind that it must be, such as "labels", "relabelled" or "embeddings".

    Raises:
        ValueError: The folder is not there, is of another kind or not finished, or a part has another size than the manifest
            says.
    """
    folder = location_of(folder)
    manifest = read_manifest(folder, kind)
    listed = (folder / "parts").files_below() if isinstance(folder, RemotePath) else None
    for part in manifest["parts"]:
        file = folder / part["path"]
        num_bytes = size_of(file) if listed is None else listed.get(file.name)
        if num_bytes != part["num_bytes"]:
            raise ValueError(
                f"a part must be as it was written, {part['num_bytes']} bytes, got {num_bytes} in {file}. Remove it and run "
                f"the command that makes it again"
            )
    contents = [(part["path"], part["sha256"]) for part in manifest["parts"]]
    return FinishedFolder(
        path=folder,
        fingerprint=Fingerprint(manifest["fingerprint"]),
        digest=hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:32],
        parts=tuple(sorted(folder / part["path"] for part in manifest["parts"])),
    )
