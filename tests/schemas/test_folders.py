"""Folders and files: what is atomic, what is locked, what is refused, and what a finished folder says of itself."""

import contextlib
import errno
import fcntl
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from relabelled_folders import one_camera, write_relabelled

from vlm_rewards.schemas import folders
from vlm_rewards.schemas.files.digests import seal
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.folders import (
    claimed,
    is_leftover,
    locked,
    open_finished,
    read_manifest,
    read_settings,
    remove_leftovers,
    replacing,
    sync_folder,
    temporary_path,
    write_atomically,
)

PRINT = Fingerprint({"weights": "w", "seed": 0})


def claim(
    folder: Path, kind: str = "labels", fingerprint: Fingerprint = PRINT, *, renew: bool = False, **settings: object
) -> None:
    with claimed(folder, kind=kind, fingerprint=fingerprint, settings=settings, renew=renew):
        (folder / "made").touch()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fail_with(monkeypatch: pytest.MonkeyPatch, module: object, function: str, number: int) -> None:
    """Makes a function of the operating system fail, as on a file system that lacks it."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, function, refuse)


# Atomic writes


def test_a_write_that_fails_leaves_the_file_of_before(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert names(tmp_path) == ["f"]
    write_atomically(path, b"\x00new")
    assert path.read_bytes() == b"\x00new"


def test_a_file_is_flushed_before_it_gets_its_name_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    fsync, replace = os.fsync, os.replace

    def told_fsync(descriptor: int) -> None:
        said.append("fsync " + Path(f"/proc/self/fd/{descriptor}").readlink().name.split(".tmp-")[0])
        fsync(descriptor)

    def told_replace(source: Path, target: Path) -> None:
        said.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", told_fsync)
    monkeypatch.setattr(os, "replace", told_replace)
    (tmp_path / "out").mkdir()
    write_atomically(tmp_path / "out" / "f", "text")
    assert said == ["fsync f", "rename", "fsync out"]


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, link = tmp_path / "victim", tmp_path / "f.tmp-0123"
    victim.write_text("of somebody else")
    link.symlink_to(victim)
    monkeypatch.setattr(folders, "temporary_path", lambda path: link)
    with pytest.raises(FileExistsError, match="File exists"):
        write_atomically(tmp_path / "f", "text")
    assert victim.read_text() == "of somebody else"
    assert not (tmp_path / "f").exists()


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    kept = [tmp_path / "a.tmp-notes", tmp_path / "parts" / "shard.tmp-12.parquet", tmp_path / "parts" / "a.parquet"]
    leftovers = [temporary_path(tmp_path / "settings.json"), temporary_path(tmp_path / "parts" / "a.parquet")]
    for path in [*kept, *leftovers]:
        path.touch()
    assert [is_leftover(path) for path in [*kept, *leftovers]] == [False] * 3 + [True] * 2
    remove_leftovers(tmp_path)
    assert [path.exists() for path in [*kept, *leftovers]] == [True] * 3 + [False] * 2


def test_a_long_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 127)  # 254 bytes, of 255 that Linux allows
    write_atomically(path, "text")
    assert path.read_text() == "text"


def test_a_file_system_that_cannot_flush_folders_is_warned_of_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (errno.EINVAL, errno.ENOTSUP):
        fail_with(monkeypatch, os, "fsync", number)
        with pytest.warns(UserWarning, match="cannot flush folders"):
            sync_folder(tmp_path)
    fail_with(monkeypatch, os, "fsync", errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(tmp_path)


# Locks


@contextlib.contextmanager
def without_flock(monkeypatch: pytest.MonkeyPatch, number: int) -> Iterator[None]:
    with monkeypatch.context() as context:
        fail_with(context, fcntl, "flock", number)
        yield


@pytest.mark.parametrize("number", [None, errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP])
@pytest.mark.filterwarnings("ignore:the file system of")
def test_a_lock_is_held_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None) -> None:
    with contextlib.nullcontext() if number is None else without_flock(monkeypatch, number):
        with locked(tmp_path / ".lock"):
            with (
                pytest.raises(ValueError, match="one run at a time, got .* while .* writes to it"),
                locked(tmp_path / ".lock"),
            ):
                pass
            assert (tmp_path / ".lock").exists()
        assert names(tmp_path) == []
        with pytest.raises(ZeroDivisionError), locked(tmp_path / ".lock"):
            raise ZeroDivisionError
        with locked(tmp_path / ".lock"):  # free again
            pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [None, errno.ENOSYS])
@pytest.mark.filterwarnings("ignore:the file system of")
def test_a_lock_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None) -> None:
    inside = []
    most = []

    def work() -> None:
        with locked(tmp_path / ".lock", wait=True):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()

    with contextlib.nullcontext() if number is None else without_flock(monkeypatch, number):
        threads = [threading.Thread(target=work) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most == [1] * 5
    assert names(tmp_path) == []


def _hold_for_ever(folder: Path, ready: object) -> None:
    with locked(folder / ".lock"):
        ready.set()  # type: ignore[attr-defined]
        time.sleep(100)


@pytest.mark.parametrize("number", [None, errno.ENOSYS])
@pytest.mark.filterwarnings("ignore:the file system of")
def test_the_lock_of_a_killed_process_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    context = multiprocessing.get_context("fork")
    with contextlib.nullcontext() if number is None else without_flock(monkeypatch, number):
        ready = context.Event()
        process = context.Process(target=_hold_for_ever, args=(tmp_path, ready))
        process.start()
        assert ready.wait(10)
        with pytest.raises(ValueError, match="one run at a time"), locked(tmp_path / ".lock"):
            pass
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        warned = pytest.warns(UserWarning, match=rf"left by process {process.pid}, which has ended")
        with contextlib.nullcontext() if number is None else warned:
            with locked(tmp_path / ".lock"):
                pass


@pytest.mark.filterwarnings("ignore:the file system of")
def test_who_holds_a_lock_file_is_told_and_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = tmp_path / ".lock.held"
    with without_flock(monkeypatch, errno.ENOSYS):
        with locked(tmp_path / ".lock"):
            own = json.loads(held.read_text())
        held.write_text(json.dumps({**own, "host": "elsewhere", "pid": 7}))
        with pytest.raises(
            ValueError, match=r"while process 7 on elsewhere writes to it.*or remove .*held if that run has"
        ):
            with locked(tmp_path / ".lock"):
                pass
        held.write_text(json.dumps({**own, "processes": "of a container", "pid": 7}))
        with pytest.raises(ValueError, match="one run at a time"), locked(tmp_path / ".lock"):
            pass
        held.write_text("")  # just being written
        with pytest.raises(ValueError, match="while a run writes to it"), locked(tmp_path / ".lock"):
            pass
        stale = {**own, "started": "1"}  # another process of this number
        for record in ({**own, "boot": "the one before"}, stale):
            held.write_text(json.dumps(record))
            with pytest.warns(UserWarning, match="which has ended"), locked(tmp_path / ".lock"):
                pass


def test_a_file_system_without_locks_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with without_flock(monkeypatch, errno.ENOSYS):
        with pytest.warns(UserWarning, match=r"has no locks \(flock\): the file .lock.held is the lock"):
            with locked(tmp_path / ".lock"):
                pass
    with without_flock(monkeypatch, errno.EIO):
        with pytest.raises(OSError, match="Input/output error"), locked(tmp_path / ".lock"):
            pass


@pytest.mark.parametrize("number", [None, errno.ENOSYS])
@pytest.mark.filterwarnings("ignore:the file system of")
def test_a_lock_follows_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None) -> None:
    (tmp_path / "thesis").write_text("mine")
    (tmp_path / "out").mkdir()
    name = ".lock" if number is None else ".lock.held"
    (tmp_path / "out" / name).symlink_to(tmp_path / "thesis")
    with contextlib.nullcontext() if number is None else without_flock(monkeypatch, number):
        with pytest.raises(ValueError, match="a lock must be a plain file, got the symbolic link|one run at a time"):
            claim(tmp_path / "out")
    assert (tmp_path / "thesis").read_text() == "mine"
    (tmp_path / "out" / name).unlink()
    (tmp_path / "out" / ".lock").unlink(missing_ok=True)
    os.mkfifo(tmp_path / "out" / ".lock")
    with pytest.raises(ValueError, match="a lock must be a plain file, got another kind of file"):
        claim(tmp_path / "out")


# Claims


def test_a_folder_is_taken_up_again_by_its_own_output_only(tmp_path: Path) -> None:
    claim(tmp_path / "out", steps=3)
    claim(tmp_path / "out", steps=4)
    record = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert (record["kind"], record["version"], record["settings"]) == ("labels", 1, {"steps": 3})
    assert record["fingerprint"] == {"weights": "w", "seed": 0}
    claim(tmp_path / "out", steps=4, renew=True)
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["settings"] == {"steps": 4}
    with pytest.raises(ValueError, match=r"got other seed \(seed is 0 there and 1 here\)"):
        claim(tmp_path / "out", fingerprint=Fingerprint({"weights": "w", "seed": 1}))
    with pytest.raises(ValueError, match="must hold agent or nothing, got .*out with labels"):
        claim(tmp_path / "out", kind="agent")
    assert names(tmp_path / "out") == ["made", "settings.json"]


def test_folders_that_hold_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="the output must be a folder, got the file"):
        claim(tmp_path / "file")
    with pytest.raises(ValueError, match=r"must be empty or hold an earlier run of this command, got .* with 'file'"):
        claim(tmp_path)
    (tmp_path / "settings.json").write_text("[1, 2]")  # of another program
    with pytest.raises(ValueError, match=r"settings.json must hold a JSON object, got list"):
        claim(tmp_path)
    (tmp_path / "nowhere").symlink_to(tmp_path / "not there")
    with pytest.raises(ValueError, match="the output must be a folder, got the file"):
        claim(tmp_path / "nowhere")
    assert names(tmp_path) == ["file", "nowhere", "settings.json"]


def test_a_folder_that_another_run_claimed_while_this_one_waited_for_the_lock_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, others = fcntl.flock, [Fingerprint({"weights": "other", "seed": 0})]

    def late(descriptor: int, operation: int) -> None:
        if others:
            claim(tmp_path / "out", fingerprint=others.pop())
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(ValueError, match=r'other weights \(weights is "other" there and "w" here\)'):
        claim(tmp_path / "out")
    assert read_settings(tmp_path / "out")["fingerprint"]["weights"] == "other"


def test_a_claim_that_made_nothing_is_taken_back(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        with claimed(tmp_path / "deep" / "out", kind="labels", fingerprint=PRINT, settings={}) as folder:
            (folder / "parts").mkdir()
            raise ZeroDivisionError
    assert names(tmp_path) == []
    (tmp_path / "out").mkdir()
    with pytest.raises(ZeroDivisionError), claimed(tmp_path / "out", kind="labels", fingerprint=PRINT, settings={}):
        raise ZeroDivisionError
    assert names(tmp_path / "out") == []  # the folder itself is not ours to remove
    with pytest.raises(ZeroDivisionError), claimed(tmp_path / "out", kind="labels", fingerprint=PRINT, settings={}):
        (tmp_path / "out" / "part").touch()
        raise ZeroDivisionError
    assert names(tmp_path / "out") == ["part", "settings.json"]
    with pytest.raises(ZeroDivisionError), claimed(tmp_path / "out", kind="labels", fingerprint=PRINT, settings={}):
        (tmp_path / "out" / "part").unlink()
        raise ZeroDivisionError
    assert names(tmp_path / "out") == ["settings.json"]  # of an earlier run


def test_a_claim_removes_what_a_killed_run_left(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    temporary_path(out / "settings.json").touch()  # killed while it claimed the folder
    claim(out)
    (out / "checkpoints").mkdir()
    temporary_path(out / "checkpoints" / "step.pt").touch()
    claim(out)
    assert names(out / "checkpoints") == []


# Finished folders


def test_settings_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must hold settings.json"):
        read_settings(tmp_path)
    for text, match in (
        ("{", "settings.json must be JSON, got Expecting"),
        ("\xff", "settings.json must be JSON, got 'utf-8' codec"),
        ("[" * 100_000, "settings.json must be JSON, got maximum recursion"),
        ("3", "must hold a JSON object, got int"),
        ("{}", r"must have the entries kind, fingerprint and settings, got \[\]"),
        ('{"kind": "labels", "fingerprint": 3, "settings": {}}', "fingerprint of .* must be a JSON object, got 3"),
        ('{"kind": "labels", "fingerprint": {}, "settings": []}', r"settings of .* must be a JSON object, got \[\]"),
    ):
        (tmp_path / "settings.json").write_text(text, encoding="latin-1")
        with pytest.raises(ValueError, match=match):
            read_settings(tmp_path)


def test_a_manifest_of_another_kind_or_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="which is not there"):
        read_manifest(tmp_path / "none", "labels")
    claim(tmp_path / "out")
    with pytest.raises(ValueError, match="must hold corpus, got .* with labels"):
        read_manifest(tmp_path / "out", "corpus")
    with pytest.raises(ValueError, match="labels must be finished, got .*out without manifest.json"):
        read_manifest(tmp_path / "out", "labels")
    part = {"path": "parts/a", "sha256": "0", "num_bytes": 3}
    manifest = {"kind": "labels", "fingerprint": {"weights": "w", "seed": 0}, "parts": [part]}
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    assert read_manifest(tmp_path / "out", "labels") == manifest
    for odd in (
        {"kind": "embeddings"},
        {"fingerprint": {"weights": "v"}},
        {"parts": None},
        {"parts": []},
        {"parts": [3]},
        *({"parts": [{**part, name: None}]} for name in part),
    ):
        (tmp_path / "out" / "manifest.json").write_text(json.dumps({**manifest, **odd}))
        with pytest.raises(ValueError, match="must be the manifest of the labels beside it, got something else"):
            read_manifest(tmp_path / "out", "labels")
    (tmp_path / "out" / "manifest.json").write_text(json.dumps({**seal(manifest), "rows": 7}))
    with pytest.raises(ValueError, match="manifest.json must be as it was written, got another digest"):
        read_manifest(tmp_path / "out", "labels")


def test_a_finished_folder_says_what_it_is(tmp_path: Path) -> None:
    folder = write_relabelled(tmp_path / "one", [[one_camera("a")], [one_camera("b")]])
    opened = open_finished(folder, "relabelled")
    assert [part.name for part in opened.parts] == ["shard-0.parquet", "shard-1.parquet"]
    assert opened.fingerprint.parts["labels"] == {"weights": "sha256:1", "camera": "main", "threshold": 0.5}
    other = write_relabelled(tmp_path / "other", [[one_camera("a")], [one_camera("c")]])
    assert open_finished(other, "relabelled").digest != opened.digest
    with pytest.raises(ValueError, match="the folder must hold embeddings, got .*one with relabelled"):
        open_finished(folder, "embeddings")
    part = folder / "parts" / "shard-1.parquet"
    size = part.stat().st_size
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(
        ValueError, match=rf"a part must be as it was written, {size} bytes, got {size - 1} in .*shard-1"
    ):
        open_finished(folder, "relabelled")
    part.unlink()
    with pytest.raises(ValueError, match=rf"a part must be as it was written, {size} bytes, got None in .*shard-1"):
        open_finished(folder, "relabelled")
