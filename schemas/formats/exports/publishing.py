"""Publishes the files of an export: all of them or none.

    Changes(apart)   .file("data/file-000.parquet") ──► a path to write to, apart
          │
          ├─ into a new folder, or a copy of the corpus:  written beside the output, which gets its name last
          └─ into the corpus itself (in place):
                <corpus>/.vlm-rewards-export/new/...      written and flushed first
                                             journal.json names every file that will be replaced
                                             old/...      the corpus's own files, moved here one by one as the new ones move in
                                             (journal.json removed: done; then old/ and new/)

An interruption before the journal leaves the corpus as it was; one after it is undone by the next export into that folder, or by
`undo_interrupted`, which moves the old files back. In between, `Corpus` refuses to open the folder.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from vlm_rewards.schemas.files.errors import explaining_os_errors
from vlm_rewards.schemas.files.json_records import read_json_object
from vlm_rewards.schemas.folders import locked, publish, sync_file, sync_folder, temporary_path, write_atomically

JOURNAL_FOLDER = ".vlm-rewards-export"
JOURNAL = "journal.json"
_LOCK = ".vlm-rewards-export.lock"


class Changes:
    """New files of an export by their names below the target, written to a separate folder until all are complete.

    Args:
        apart: Separate folder that they are written to; created if needed.
    """

    def __init__(self, apart: Path) -> None:
        self._apart = apart
        self._names: dict[str, None] = {}

    def file(self, name: str) -> Path:
        """Returns the path to write the new file of this name to; its folder is there.

        Args:
            name: Path below the target, with "/" between names.
        """
        path = self._apart / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._names[name] = None
        return path

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the files so far, in the order of the requests; the last one is moved last."""
        return tuple(self._names)


def all_files(folder: Path, only: str = "") -> list[str]:
    """Returns the names of all files below a folder, those of an export into it left out, in order.

    Args:
        folder: The folder.
        only: Name of the one file or folder below it that counts; "" for all.
    """
    if (folder / only).is_file():
        return [only]
    found = []
    for directory, folders, names in os.walk(folder / only):
        folders[:] = [name for name in folders if name != JOURNAL_FOLDER]
        found += [Path(directory, name).relative_to(folder).as_posix() for name in names if name != _LOCK]
    return sorted(found)


def publish_folder(
    output: Path,
    make: Callable[[Changes], list[str]],
    *,
    source: Path | None = None,
    names: Iterable[str] = (),
    link: bool = False,
) -> list[str]:
    """Creates a folder that is either complete or absent.

    Args:
        output: The folder; it must not exist, or be empty.
        make: Function that writes the new files.
        source: Folder that is copied; None for a folder of the new files alone.
        names: Files of `source` to copy, those that `make` writes left out.
        link: Whether to copy by hard links where the file system supports them.

    Returns:
        The result of `make`.

    Raises:
        ValueError: The output is not empty.
    """
    if output.is_symlink() or (output.exists() and not output.is_dir()) or (output.is_dir() and any(output.iterdir())):
        raise ValueError(
            f"an export goes into a folder that is empty or not there: got {output}. Give another folder, or remove this one"
        )
    with explaining_os_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        apart = temporary_path(output)
        apart.mkdir()
        try:
            changes = Changes(apart)
            lines = make(changes)
            if source is not None:
                for name in names:
                    if name not in changes.names:
                        _copy(source / name, changes.file(name), link=link)
            for name in changes.names:
                sync_file(apart / name)
            for folder in {(apart / name).parent for name in changes.names}:
                sync_folder(folder)
            if output.is_dir():
                output.rmdir()
            publish(apart, output)
        except BaseException:
            shutil.rmtree(apart, ignore_errors=True)
            raise
    return lines


def _copy(source: Path, target: Path, *, link: bool) -> None:
    if link:
        try:
            target.hardlink_to(source.resolve())
        except OSError:  # another file system, or one without hard links: the copy is what was asked for
            shutil.copy2(source, target)
    else:
        shutil.copy2(source, target)


def publish_in_place(folder: Path, make: Callable[[Changes], list[str]]) -> list[str]:
    """Moves new files into a folder, replacing those of the same names: all or none, even if the process is killed.

    Args:
        folder: The corpus's folder.
        make: Function that writes and checks the new files; nothing is changed until it returns.

    Returns:
        The result of `make`.

    Raises:
        ValueError: Another export into the folder is running, or the folder has a new file's name as a folder.
    """
    with explaining_os_errors(folder), locked(folder / _LOCK):
        _undo(folder)
        journal_folder = folder / JOURNAL_FOLDER
        try:
            changes = Changes(journal_folder / "new")
            lines = make(changes)
            for name in changes.names:
                if (folder / name).is_dir():
                    raise ValueError(f"an export replaces files: got the folder {folder / name}. Move it away")
                sync_file(journal_folder / "new" / name)
            record = {"files": [{"name": name, "is_new": not (folder / name).exists()} for name in changes.names]}
            write_atomically(journal_folder / JOURNAL, json.dumps(record, indent=1) + "\n")
            for name in changes.names:
                _swap(folder, name)
            (journal_folder / JOURNAL).unlink()  # from here on, the export has happened
            sync_folder(journal_folder)
        except BaseException:
            _undo(folder)
            raise
        shutil.rmtree(journal_folder)
    return lines


def _swap(folder: Path, name: str) -> None:
    target, old = folder / name, folder / JOURNAL_FOLDER / "old" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() or target.is_symlink():
        old.parent.mkdir(parents=True, exist_ok=True)
        publish(target, old)
    publish(folder / JOURNAL_FOLDER / "new" / name, target)


def undo_interrupted(folder: Path) -> bool:
    """Undoes an export into a folder that was interrupted.

    Returns:
        Whether there was one.

    Raises:
        ValueError: It is running.
    """
    if not (folder / JOURNAL_FOLDER).is_dir():
        return False
    with explaining_os_errors(folder), locked(folder / _LOCK):
        return _undo(folder)


def _undo(folder: Path) -> bool:
    journal_folder = folder / JOURNAL_FOLDER
    if not journal_folder.is_dir():
        return False
    journal = journal_folder / JOURNAL
    was_begun = journal.is_file()
    if was_begun:
        record = read_json_object(journal, f"Move the files below {journal_folder / 'old'} back by hand")
        for entry in reversed(record["files"]):
            target, old = folder / entry["name"], journal_folder / "old" / entry["name"]
            if old.exists() or old.is_symlink():
                publish(old, target)
            elif entry["is_new"]:
                target.unlink(missing_ok=True)
        journal.unlink()
        sync_folder(journal_folder)
    shutil.rmtree(journal_folder)
    return was_begun
