"""What is seen of a folder, and what is left out of it with a reason."""

import errno
import json
import os
import re
import socket
from pathlib import Path

import fsspec
import pytest

from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.listing import COMPANION, list_local, list_remote

HIDDEN = "is hidden: its name begins with '.' or '_'"
SETTINGS = {"kind": "labels", "version": 1, "fingerprint": {}, "settings": {}}


def write(folder: Path, *names: str, text: str = "x") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def write_output(folder: Path, kind: str, *, finished: bool = True) -> None:
    write(folder, "parts/u.parquet", "markers/u.json", "failures/u.jsonl")
    write(folder, "settings.json", text=json.dumps({**SETTINGS, "kind": kind}))
    if finished:
        write(folder, "manifest.json", text="{}")


@pytest.fixture(params=["disk", "store"])
def seen(request, tmp_path):
    """Lists the files and what was left out of `tmp_path`: from the disk, and from an object store in memory."""

    def listed(below=""):
        if request.param == "disk":
            listing = list_local(str(tmp_path), below)
        else:
            store = fsspec.filesystem("memory")
            store.store.clear()
            for path in tmp_path.rglob("*"):
                if path.is_file():
                    store.pipe(f"/bucket/corpus/{path.relative_to(tmp_path)}", path.read_bytes())
            listing = list_remote("memory://bucket/corpus", below)
        return [file.name for file in listing.files], dict(listing.left_out)

    return listed


def test_files_and_folders_that_are_no_data_are_left_out_by_name(tmp_path, seen):
    write(
        tmp_path,
        "b/2.tar",
        "a.parquet",
        "b/.hidden.tar",
        "_old/x/1.tar",
        ".git/config",
        "README.md",
        "LICENSE_CODE.txt",
    )
    write(tmp_path, "b/.DS_Store", "_SUCCESS", "goals.jsonl", "a.parquet.tmp-0f3a")
    files, left_out = seen()
    assert files == ["a.parquet", "b/2.tar"]
    assert left_out == {
        ".git/": COMPANION,
        "LICENSE_CODE.txt": COMPANION,
        "README.md": COMPANION,
        "_SUCCESS": COMPANION,
        "_old/": HIDDEN,
        "a.parquet.tmp-0f3a": "is an unfinished file of a run that was stopped; remove it",
        "b/.DS_Store": COMPANION,
        "b/.hidden.tar": HIDDEN,
        "goals.jsonl": COMPANION,
    }


def test_outputs_of_ours_are_left_out_and_a_corpus_among_them_shows_its_parts(tmp_path, seen):
    write(tmp_path, "a.parquet", "other/settings.json", "strange/settings.json", text="[1, 2")
    write_output(tmp_path / "labels", "labels")
    write_output(tmp_path / "recorded", "corpus")
    write_output(tmp_path / "half", "corpus", finished=False)
    write(tmp_path / "recorded", "goals.jsonl", ".lock", "notes.txt")
    write(tmp_path / "report", "quality.json", text='{"kind": "evaluation"}')
    write(tmp_path / "other", "quality.json", text='{"kind": "another"}')
    files, left_out = seen()
    assert files == [
        "a.parquet",
        "other/quality.json",
        "other/settings.json",
        "recorded/parts/u.parquet",
        "strange/settings.json",
    ]
    assert left_out == {
        "half/": "is a corpus that is not finished; run the command that made it again",
        "labels/": "is an output of vlm-rewards: labels",
        "recorded/notes.txt": "is not in parts/, where the corpus is",
        "report/": "is an output of vlm-rewards: evaluation",
    }


def test_beside_the_parts_of_a_recorded_corpus_strangers_are_named(tmp_path, seen):
    write_output(tmp_path, "corpus")
    write(tmp_path, "goals.jsonl", "c.parquet", "more/d.parquet")
    write_output(tmp_path / "labels", "labels")
    files, left_out = seen("parts")
    assert files == ["parts/u.parquet"]
    assert {name.partition("/")[0] for name in left_out} == {"c.parquet", "more", "labels"}
    assert set(left_out.values()) == {"is not in parts/, where the corpus is"}


def test_links_and_odd_entries_are_named(tmp_path):
    outside, corpus = tmp_path / "outside", tmp_path / "corpus"
    write(outside, "c.tar")
    write(corpus, "a.tar", "b/b.tar")
    (corpus / "linked").symlink_to(outside)
    (corpus / "linked.tar").symlink_to(outside / "c.tar")
    (corpus / "lost.tar").symlink_to(corpus / "nowhere.tar")
    (corpus / "self.tar").symlink_to(corpus / "self.tar")
    (corpus / "b" / "up").symlink_to(corpus)
    (corpus / "empty").mkdir()
    os.mkfifo(corpus / "pipe.tar")
    Path(os.fsdecode(os.fsencode(corpus) + b"/caf\xe9.tar")).write_bytes(b"x")
    Path(os.fsdecode(os.fsencode(corpus) + b"/\xff")).mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(corpus / "socket.tar"))
    listing = list_local(str(corpus))
    assert [file.name for file in listing.files] == ["a.tar", "b/b.tar", "linked/c.tar", "linked.tar"]
    no_file = "is a pipe, a socket or a device, which is no file; remove it"
    not_utf_8 = "has a name that is not UTF-8; rename it"
    assert dict(listing.left_out) == {
        "\\xff/": not_utf_8,
        "b/up/": "is a link back to a folder above it; remove it",
        "caf\\xe9.tar": not_utf_8,
        "empty/": "is empty",
        "lost.tar": "is a link that leads nowhere; restore its target, or remove it",
        "pipe.tar": no_file,
        "self.tar": "is a link that leads to itself; remove it",
        "socket.tar": no_file,
    }


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EACCES, "this user lacks the permission. Change the perm"), (errno.ESTALE, "lost the file .* Mount it")],
)
def test_a_folder_that_cannot_be_listed_is_refused(tmp_path, monkeypatch, number, words):
    write(tmp_path, "a/one.parquet", "b/two.parquet")
    listed = os.scandir

    def scandir(path):
        if str(path).endswith("/b"):
            raise OSError(number, os.strerror(number), str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(OSError, match="/b") as caught:
        _ = Folder(str(tmp_path)).files
    assert re.search(f"/b: .*{words}", caught.value.__notes__[0])


def test_a_remote_folder_that_cannot_be_listed_is_refused(tmp_path, monkeypatch):
    write(tmp_path, "a/one.parquet", "b/two.parquet")
    url, store = f"file://{tmp_path}", fsspec.filesystem("file")
    assert [file.name for file in list_remote(url).files] == ["a/one.parquet", "b/two.parquet"]
    listed = type(store).ls

    def ls(self, path, detail=False, **kwargs):
        if path.rstrip("/").endswith("/b"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return listed(self, path, detail=detail, **kwargs)

    monkeypatch.setattr(type(store), "ls", ls)
    with pytest.raises(PermissionError, match="/b"):
        list_remote(url)


def test_a_file_that_is_opened_by_itself_has_no_neighbours(tmp_path):
    write(tmp_path, "a.tar", "b.txt")
    assert Folder.at(tmp_path / "a.tar").left_out == ()
