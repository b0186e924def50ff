"""Lists the entries below the folder of a corpus: files that formats may read, and all others with the reason why not.

    corpus/a.parquet   corpus/b/c.parquet               files
    corpus/.git/       corpus/old -> nowhere            left out here; no format sees them
    corpus/labels/     an output of ours                left out; the parts of a recorded corpus are files

A folder that cannot be listed is refused, since its files would silently be missing.
"""

import errno
import json
import os
import stat
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from fsspec import AbstractFileSystem
from fsspec.asyn import AsyncFileSystem

from vlm_rewards.schemas.files.errors import explaining_os_errors
from vlm_rewards.schemas.files.stores import explaining_store_errors, store_at
from vlm_rewards.schemas.folders import MANIFEST, SETTINGS, is_leftover

COMPANION = "stands beside the corpus"
"""Why files that go with most corpora are not read."""
_TAGS = ("ETag", "etag", "md5Hash", "crc32c", "blob_id")
_QUALITY = "quality.json"
_OWN_LAYOUT = {SETTINGS, MANIFEST, "parts", "markers", "failures", "progress", "goals.jsonl", ".lock", ".lock.held"}
_COMPANIONS = {
    ".ds_store",
    ".git",
    ".gitattributes",
    ".gitignore",
    ".cache",
    ".huggingface",
    ".ipynb_checkpoints",
    "__macosx",
    "__pycache__",
    "_common_metadata",
    "_metadata",
    "_success",
    "calibration.json",
    "desktop.ini",
    "lost+found",
    "goals.csv",
    "goals.json",
    "goals.jsonl",
    "marks.csv",
    "md5sums",
    "sha256sums",
    "system volume information",
    "thumbs.db",
}
_DOCUMENTS = {"readme", "license", "licence", "copying", "notice", "citation", "changelog", "authors"}


class File(NamedTuple):
    """A file below a folder: its name with "/" between the parts, its size in bytes, and the content tag of its store."""

    name: str
    num_bytes: int
    tag: str = ""

    @property
    def suffix(self) -> str:
        """The file ending in lower case, with the dot; "" if there is none."""
        base = self.name.rpartition("/")[2]
        stem, dot, ending = base.rpartition(".")
        return f".{ending.lower()}" if dot and stem else ""


class PassedOver(NamedTuple):
    """An entry that is not read: its name, which ends with "/" for a folder, and the reason, beginning with a verb."""

    name: str
    reason: str


class Listing(NamedTuple):
    """All entries below a folder: `files` that formats may read, and those `left_out`; both sorted by name."""

    files: tuple[File, ...]
    left_out: tuple[PassedOver, ...]


class _Entry(NamedTuple):
    """An entry of a folder: name, whether it is a folder, size, why it cannot be read ("" if it can), content tag."""

    name: str
    is_folder: bool = False
    num_bytes: int = 0
    problem: str = ""
    tag: str = ""


def list_local(location: str, below: str = "") -> Listing:
    """Lists a folder on a local disk; links are followed.

    Args:
        location: Path of the folder.
        below: The only subfolder whose files are listed: the parts of one of our outputs. "" for all.

    Raises:
        OSError: A folder or file in it cannot be accessed; the note says what to do.
    """
    return _listing(lambda name: _local_entries(location, name), lambda name: Path(location, name).read_bytes(), below)


def list_remote(location: str, below: str = "") -> Listing:
    """Lists a folder behind a URL that fsspec opens; see `list_local`.

    Raises:
        ObjectStoreError: A folder in it cannot be listed.
    """
    files, inner = store_at(location)
    root = inner.rstrip("/") + "/"

    def read(name: str) -> bytes:
        return cast(bytes, files.cat_file(root + name))

    with explaining_store_errors(location):
        if _walks(files):
            return _listing(lambda folder: _remote_entries(files, root + folder), read, below)
        tree: dict[str, dict[str, _Entry]] = {"": {}}
        for path, info in files.find(root, detail=True).items():
            *folders, name = path.removeprefix(root).split("/")
            for depth, folder in enumerate(folders):
                tree.setdefault("/".join(folders[:depth]), {})[folder] = _Entry(folder, is_folder=True)
            if not name:  # an empty object that stands for the folder
                continue
            tree.setdefault("/".join(folders), {})[name] = _Entry(
                name, num_bytes=int(info["size"]), tag=content_tag(info)
            )
    return _listing(lambda folder: list(tree.get(folder, {}).values()), read, below)


def _walks(files: AbstractFileSystem) -> bool:
    """Returns whether `find` lists folder by folder and skips those that it cannot list; an object store has no folders."""
    own = getattr(type(files), "_find", None)
    return type(files).find is AbstractFileSystem.find if own is None else own is AsyncFileSystem._find


def _remote_entries(files: AbstractFileSystem, folder: str) -> list[_Entry]:
    found = [(info["name"].rstrip("/").rpartition("/")[2], info) for info in files.ls(folder, detail=True)]
    return [
        _Entry(name, info["type"] == "directory", int(info["size"] or 0), tag=content_tag(info)) for name, info in found
    ]


def content_tag(info: Mapping[str, Any]) -> str:
    """Returns a store's tag of an object's content, which differs between contents; "" if there is none."""
    return next((str(info[key]) for key in _TAGS if info.get(key)), "")


def _local_entries(location: str, folder: str) -> list[_Entry]:
    path = Path(location, folder)
    with explaining_os_errors(path), os.scandir(path) as found:
        return [_local_entry(location, folder, entry) for entry in found]


def _local_entry(location: str, folder: str, entry: os.DirEntry[str]) -> _Entry:
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        readable = os.fsencode(entry.name).decode("utf-8", "backslashreplace")
        return _Entry(readable, entry.is_dir(), problem="has a name that is not UTF-8; rename it")
    with explaining_os_errors(entry.path):
        try:
            status = entry.stat()
        except FileNotFoundError:
            return _Entry(entry.name, problem="is a link that leads nowhere; restore its target, or remove it")
        except OSError as error:
            if not entry.is_symlink() or error.errno != errno.ELOOP:
                raise
            return _Entry(entry.name, problem="is a link that leads to itself; remove it")
        if stat.S_ISDIR(status.st_mode):
            if entry.is_symlink() and _leads_back(location, folder, status):
                return _Entry(entry.name, True, problem="is a link back to a folder above it; remove it")
            return _Entry(entry.name, is_folder=True)
    if not stat.S_ISREG(status.st_mode):
        return _Entry(entry.name, problem="is a pipe, a socket or a device, which is no file; remove it")
    return _Entry(entry.name, num_bytes=status.st_size)


def _leads_back(location: str, folder: str, status: os.stat_result) -> bool:
    steps = folder.split("/") if folder else []
    above = [Path(location, *steps[:depth]) for depth in range(len(steps) + 1)]
    return any(os.path.samestat(path.stat(), status) for path in above)


def _listing(entries_of: Callable[[str], list[_Entry]], read: Callable[[str], bytes], below: str) -> Listing:
    files: list[File] = []
    left_out: list[PassedOver] = []
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        entries = entries_of(folder)
        prefix = f"{folder}/" if folder else ""
        output = _output(entries, prefix, read) if folder else ""
        if output.startswith("is"):
            left_out.append(PassedOver(prefix, output))
            continue
        if folder and not entries:
            left_out.append(PassedOver(prefix, "is empty"))
        only = output if folder else below
        for entry in entries:
            name = prefix + entry.name
            reason = _reason(entry, only)
            if reason:
                left_out.append(PassedOver(name + "/" * entry.is_folder, reason))
            elif only and entry.name != only:  # other files of our outputs
                continue
            elif entry.is_folder:
                waiting.append(name)
            else:
                files.append(File(name, entry.num_bytes, entry.tag))
    return Listing(tuple(sorted(files, key=_order)), tuple(sorted(left_out, key=_order)))


def _order(entry: File | PassedOver) -> list[str]:
    return entry.name.split("/")


def _reason(entry: _Entry, only: str) -> str:
    """Returns why an entry is left out; "" if it is not. In an output of ours, what it consists of stays, and `only` is read."""
    if only and entry.name in _OWN_LAYOUT | {only}:
        return entry.problem
    name = entry.name.lower()
    if name in _COMPANIONS or name.partition(".")[0].partition("_")[0] in _DOCUMENTS:
        return COMPANION
    if entry.problem:
        return entry.problem
    if ".tmp-" in entry.name and is_leftover(Path(entry.name)):
        return "is an unfinished file of a run that was stopped; remove it"
    if entry.name[0] in "._":
        return "is hidden: its name begins with '.' or '_'"
    return f"is not in {only}/, where the corpus is" if only else ""


def _output(entries: Iterable[_Entry], prefix: str, read: Callable[[str], bytes]) -> str:
    """Returns why one of our outputs is not read, or the folder in it to read ("parts" of a recorded corpus). Else ""."""
    names = {entry.name for entry in entries if not entry.is_folder and not entry.problem}
    if _QUALITY in names and _kind(read(prefix + _QUALITY), ()) == "evaluation":
        return "is an output of vlm-rewards: evaluation"
    kind = _kind(read(prefix + SETTINGS), ("fingerprint", "settings")) if SETTINGS in names else ""
    if kind != "corpus":
        return f"is an output of vlm-rewards: {kind}" if kind else ""
    return "parts" if MANIFEST in names else "is a corpus that is not finished; run the command that made it again"


def _kind(text: bytes, fields: Collection[str]) -> str:
    """Returns the kind that our settings file names; "" if the file is not ours."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(record, dict) or any(field not in record for field in fields):
        return ""
    return str(record.get("kind", ""))
