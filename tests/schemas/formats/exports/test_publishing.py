import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.formats.exports import publishing
from vlm_rewards.schemas.formats.exports.publishing import (
    JOURNAL_FOLDER,
    Changes,
    all_files,
    publish_folder,
    publish_in_place,
    undo_interrupted,
)

BEFORE = {"data/a.bin": b"old a", "meta/info.json": b"{}", "videos/v.mp4": b"video"}
AFTER = {**BEFORE, "data/a.bin": b"new a", "data/added.bin": b"added", "meta/info.json": b'{"new": 1}'}


class Killed(BaseException):
    """Stands for a signal."""


def corpus(folder: Path) -> Path:
    for name, content in BEFORE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in all_files(folder)}


def make(changes: Changes) -> list[str]:
    for name in ("data/a.bin", "data/added.bin", "meta/info.json"):
        changes.file(name).write_bytes(AFTER[name])
    return ["made three files"]


def test_a_copy_holds_new_files_and_all_others(tmp_path: Path) -> None:
    source, output = corpus(tmp_path / "corpus"), tmp_path / "deep" / "copy"
    assert publish_folder(output, make, source=source, names=all_files(source)) == ["made three files"]
    assert contents(output) == AFTER
    assert contents(source) == BEFORE
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["copy"]
    assert not (source / "videos/v.mp4").samefile(output / "videos/v.mp4")


def test_unchanged_files_of_a_copy_may_be_links(tmp_path: Path) -> None:
    source, output = corpus(tmp_path / "corpus"), tmp_path / "copy"
    publish_folder(output, make, source=source, names=all_files(source), link=True)
    assert (source / "videos/v.mp4").samefile(output / "videos/v.mp4")
    assert contents(source) == BEFORE


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def fails(changes: Changes) -> list[str]:
        make(changes)
        raise Killed

    with pytest.raises(Killed):
        publish_folder(tmp_path / "out", fails)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"empty or not there: got .*corpus\. Give another folder"):
        publish_folder(corpus(tmp_path / "corpus"), make)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="empty or not there: got .*file"):
        publish_folder(tmp_path / "file", make)
    (tmp_path / "empty").mkdir()
    publish_folder(tmp_path / "empty", make)
    assert sorted(contents(tmp_path / "empty")) == ["data/a.bin", "data/added.bin", "meta/info.json"]


def test_in_place_replaces_files_and_leaves_nothing_else(tmp_path: Path) -> None:
    folder = corpus(tmp_path)
    assert publish_in_place(folder, make) == ["made three files"]
    assert contents(folder) == AFTER
    assert sorted(entry.name for entry in folder.iterdir()) == ["data", "meta", "videos"]


@pytest.mark.parametrize("calls_before", range(9))
def test_an_export_in_place_that_raises_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls_before: int
) -> None:
    """Whichever of the renames fails."""
    folder = corpus(tmp_path)
    left = [calls_before]
    real = publishing.publish

    def publish(temporary: Path, path: Path) -> None:
        if left[0] == 0:
            left[0] -= 1
            raise Killed
        left[0] -= 1
        real(temporary, path)

    monkeypatch.setattr(publishing, "publish", publish)
    if calls_before < 5:  # two files are replaced, by two renames each, and one is added
        with pytest.raises(Killed):
            publish_in_place(folder, make)
        assert contents(folder) == BEFORE
    else:
        publish_in_place(folder, make)
        assert contents(folder) == AFTER
    assert not (folder / JOURNAL_FOLDER).exists()


def _killed_in(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, calls_before: int) -> None:
    """Leaves the folder as a process leaves it that is killed in the middle: nothing is undone."""
    left = [calls_before]
    real: Callable[..., object] = getattr(publishing, name)

    def dying(*arguments: object) -> object:
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(publishing, name, dying)
        patched.setattr(publishing, "_undo", lambda folder: False)
        with pytest.raises(Killed):
            publish_in_place(folder, make)


@pytest.mark.parametrize("calls_before", range(5))
def test_an_export_that_was_killed_is_undone_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls_before: int
) -> None:
    folder = corpus(tmp_path)
    _killed_in(folder, monkeypatch, "publish", calls_before)
    assert (folder / JOURNAL_FOLDER / "journal.json").is_file()
    with pytest.raises(ValueError, match="was interrupted, and some of its files are new"):
        open_corpus(folder)
    assert undo_interrupted(folder)
    assert contents(folder) == BEFORE
    assert not undo_interrupted(folder)
    assert publish_in_place(folder, make) == ["made three files"]
    assert contents(folder) == AFTER


def test_an_export_that_was_killed_before_its_journal_has_changed_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = corpus(tmp_path)
    _killed_in(folder, monkeypatch, "write_atomically", 0)
    assert contents(folder) == BEFORE
    assert not undo_interrupted(folder)
    assert not (folder / JOURNAL_FOLDER).exists()


def test_an_export_that_was_killed_after_its_journal_has_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = corpus(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(publishing.shutil, "rmtree", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            publish_in_place(folder, make)
    assert not undo_interrupted(folder)
    assert contents(folder) == AFTER
    assert not (folder / JOURNAL_FOLDER).exists()


def test_a_journal_that_is_broken_says_where_the_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = corpus(tmp_path)
    _killed_in(folder, monkeypatch, "publish", 1)
    (folder / JOURNAL_FOLDER / "journal.json").write_text("{")
    with pytest.raises(ValueError, match=r"Move the files below .*old back by hand"):
        undo_interrupted(folder)
    assert (folder / JOURNAL_FOLDER / "old" / "data" / "a.bin").read_bytes() == b"old a"


def test_a_folder_of_a_new_files_name_is_refused(tmp_path: Path) -> None:
    folder = corpus(tmp_path)
    (folder / "data" / "added.bin").mkdir()
    with pytest.raises(ValueError, match=r"replaces files: got the folder .*added.bin"):
        publish_in_place(folder, make)
    assert contents(folder) == BEFORE


def test_the_journal_names_new_and_replaced_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = corpus(tmp_path)
    _killed_in(folder, monkeypatch, "publish", 0)
    assert json.loads((folder / JOURNAL_FOLDER / "journal.json").read_text()) == {
        "files": [
            {"name": "data/a.bin", "is_new": False},
            {"name": "data/added.bin", "is_new": True},
            {"name": "meta/info.json", "is_new": False},
        ]
    }
