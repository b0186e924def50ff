"""Commands on file systems that lack something, or refuse it: never a bare number."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from vlm_rewards.cli import main

RECORD = ["record", "--env", "BabyAI-GoToLocal-v0", "--episodes", "1", "--workers", "1", "--output"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_a_command_works_and_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert main([*RECORD, str(tmp_path / "corpus")]) == 0
    lines = capsys.readouterr().err.splitlines()
    (warning,) = [line for line in lines if "warning" in line]
    assert warning == (
        f"vlm-rewards record: warning: the file system of {tmp_path / 'corpus'} has no locks (flock): the file .lock.held is "
        f"the lock instead"
    )
    assert (tmp_path / "corpus" / "manifest.json").is_file()
    assert not list((tmp_path / "corpus").glob(".lock*"))


def test_without_flushes_of_folders_a_command_works_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fsync = os.fsync

    def refuse_folders(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir():
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    assert main([*RECORD, str(tmp_path / "corpus")]) == 0
    assert capsys.readouterr().err.count("warning: the file system cannot flush folders (fsync)") == 1


def test_errors_of_the_operating_system_name_path_lack_and_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for output, lacking in (
        (tmp_path / ("x" * 300), "the name is longer than the file system allows. Shorten the names"),
        (tmp_path / "file" / "corpus", "a part of the path is a file, not a folder. Check the path"),
    ):
        assert main([*RECORD, str(output)]) == 2
        assert f"cannot use {output}: {lacking}" in capsys.readouterr().err


def test_a_prepared_link_is_not_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis").write_text("mine")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / ".lock").symlink_to(tmp_path / "thesis")
    assert main([*RECORD, str(tmp_path / "corpus")]) == 2
    assert f"got the symbolic link {tmp_path / 'corpus' / '.lock'}. Remove it" in capsys.readouterr().err
    assert (tmp_path / "thesis").read_text() == "mine"
