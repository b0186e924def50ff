"""Commands on file systems that lack something, or refuse it: never a bare number."""

import errno
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vlm_rewards.cli import main

SHARDS = ["--frame-size", "28", "--max-steps", "8", "--episodes-per-shard", "1", "--episodes", "4"]
ON_A_SMALL_DISK = """
import contextlib, io, json, pathlib, subprocess, sys
from vlm_rewards.cli import main

disk, size, words = sys.argv[1], sys.argv[2], sys.argv[3:]
said = {}
for moment, options in (("full", f"size={size}"), ("read-only", "remount,ro"), ("larger", "remount,rw,size=8m")):
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=True)
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        status = main(words)
    files = sorted(path for path in pathlib.Path(disk).rglob("*") if path.is_file())
    said[moment] = [status, errors.getvalue(), {str(path.relative_to(disk)): path.read_bytes().hex() for path in files}]
print(json.dumps(said))
"""
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


def contents(folder: Path) -> dict[str, str]:
    """The files of a recording in hexadecimal, without those that hold times."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes().hex() for path in files if path.parent.name != "markers"}


def test_a_full_and_a_read_only_disk_keep_what_is_finished(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode != 0:
        pytest.skip("needs a user namespace in which a tmpfs can be mounted (unshare -rm)")
    assert main([*RECORD, str(tmp_path / "unbroken"), *SHARDS]) == 0
    disk = tmp_path / "disk"
    disk.mkdir()
    pages = {path: -(-path.stat().st_size // 4096) for path in (tmp_path / "unbroken").rglob("*") if path.is_file()}
    of_parts = [count for path, count in pages.items() if path.parent.name == "parts"]
    size = 4096 * (sum(pages.values()) - 2 * max(of_parts))
    command = [
        "unshare",
        "-rm",
        sys.executable,
        "-c",
        ON_A_SMALL_DISK,
        str(disk),
        str(size),
        *RECORD,
        str(disk / "corpus"),
        *SHARDS,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout.splitlines()[-1])
    whole = contents(tmp_path / "unbroken")
    for moment, words in (("full", "the disk is full. Free some space"), ("read-only", "the file system is read-only")):
        status, errors, files = said[moment]
        assert status == 2
        assert words in errors, errors
        assert "Traceback" not in errors
        kept = {name.removeprefix("corpus/"): data for name, data in files.items() if "/markers/" not in name}
        parts = {name: data for name, data in kept.items() if name.startswith("parts/")}
        assert 1 <= len(parts) < 4
        assert parts.items() <= whole.items()
        assert "manifest.json" not in kept
    status, errors, files = said["larger"]
    assert (status, errors) == (0, "")
    kept = {name.removeprefix("corpus/"): data for name, data in files.items() if "/markers/" not in name}
    assert kept == whole


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main([*RECORD, str(tmp_path / "unbroken"), *SHARDS]) == 0
    jumps, now = itertools.cycle([0, 86_400, -86_400, 7]), time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now() + next(jumps))
        assert main([*RECORD, str(tmp_path / "jumping"), *SHARDS]) == 0
        os.utime(tmp_path / "jumping" / "manifest.json", (0, 0))
        markers = {path: path.read_bytes() for path in (tmp_path / "jumping" / "markers").iterdir()}
        assert main([*RECORD, str(tmp_path / "jumping"), *SHARDS]) == 0
    assert len(markers) == 4
    assert all(path.read_bytes() == data for path, data in markers.items())  # the second run did nothing again
    assert contents(tmp_path / "jumping") == contents(tmp_path / "unbroken")
