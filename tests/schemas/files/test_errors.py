"""Errors of the operating system: no number stands alone."""

import errno
import os
from pathlib import Path

import pytest

from vlm_rewards.schemas.files.errors import explain_os_error, explaining_os_errors
from vlm_rewards.schemas.folders import write_atomically


def note_of(error: BaseException) -> str:
    (note,) = error.__notes__
    return note


def test_every_number_has_a_path_what_is_lacking_and_a_remedy() -> None:
    for number in errno.errorcode:
        error = OSError(number, os.strerror(number))
        explain_os_error(error, "labels/parts")
        note = note_of(error)
        assert note.startswith("cannot use labels/parts: "), note
        lacking, _, remedy = note.removeprefix("cannot use labels/parts: ").partition(". ")
        assert len(lacking) > 10, note
        assert len(remedy) > 10, note


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full. Free some space and run the same command again: finished parts are kept"),
        (errno.EDQUOT, "quota of this user is used up"),
        (errno.EROFS, "read-only. Give a folder that can be written"),
        (errno.ESTALE, "stale handle). Mount it again"),
        (errno.EMFILE, r"too many files open. Raise the limit (ulimit -n)"),
        (errno.ENOSYS, "does not have this operation. Give a folder on another file system"),
        (errno.EXFULL, "reports EXFULL. Give a folder on another file system"),
    ],
)
def test_common_faults_are_named(number: int, words: str) -> None:
    error = OSError(number, os.strerror(number))
    explain_os_error(error, "out")
    assert words in note_of(error)


def test_a_note_is_added_once_and_to_such_errors_only() -> None:
    error = OSError(errno.ENOSPC, "No space left", "deep/file")
    explain_os_error(error)
    explain_os_error(error, "out")
    assert note_of(error).startswith("cannot use deep/file: the disk is full")
    nameless = OSError(errno.ENOSPC, "No space left")
    explain_os_error(nameless)
    assert note_of(nameless).startswith("cannot use a file: the disk is full")
    for other in (ValueError("x"), FileNotFoundError("a corpus must have goals.jsonl")):
        explain_os_error(other, "out")
        assert not hasattr(other, "__notes__")


def test_real_faults_are_explained(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File name too long") as caught:
        write_atomically(tmp_path / ("x" * 300), "text")
    assert "the name is longer than the file system allows" in note_of(caught.value)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as caught, explaining_os_errors(tmp_path / "file"):
        (tmp_path / "file" / "below").mkdir()
    assert "a part of the path is a file" in note_of(caught.value)
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write_atomically(tmp_path / "folder", "text")
    assert "it is a folder, where a file is needed" in note_of(caught.value)
