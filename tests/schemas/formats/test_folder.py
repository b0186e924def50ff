"""Folders of corpora: on a disk, and behind a URL."""

import hashlib
import pickle

import fsspec
import pytest
from small_corpora import assert_same, plain_episode, read_whole

from vlm_rewards.schemas.episodes import CorpusFeatures
from vlm_rewards.schemas.formats.corpus import FORMATS, open_corpus, writable_format, write_episodes
from vlm_rewards.schemas.formats.folder import File, Folder

NAMES = [known.name for known in FORMATS if known.write is not None]


@pytest.fixture
def memory():
    """An object store in memory, empty."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs.clear()
    return store


def test_files_are_named_below_the_folder_in_order(tmp_path, memory):
    for name in ("b/2.parquet", "a.tar", "b/1.Parquet", "b-c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
        memory.pipe(f"/corpus/{name}", name.encode())
    for folder in (Folder.at(tmp_path), Folder.at("memory://corpus")):
        assert [file.name for file in folder.files] == ["a.tar", "b/1.Parquet", "b/2.parquet", "b-c.txt"]
        assert [file.num_bytes for file in folder.files] == [5, 11, 11, 7]
        assert [file.suffix for file in folder.files] == [".tar", ".parquet", ".parquet", ".txt"]
        assert folder.read("b/2.parquet") == b"b/2.parquet"
        with folder.open("a.tar") as file:
            assert file.seek(2) == 2
            assert file.read() == b"tar"
        assert (folder.has_file("a.tar"), folder.has_file("b"), folder.has_folder("b")) == (True, False, True)
        assert folder.size("a.tar") == 5
        assert pickle.loads(pickle.dumps(folder)) == folder
    assert Folder.at(tmp_path).is_local
    assert not Folder.at("memory://corpus").is_local
    assert Folder.at("memory://corpus").path("b/2.parquet") == "memory://corpus/b/2.parquet"
    assert (Folder("memory://x/corpus").name, Folder("memory://x/corpus").above) == ("corpus", Folder("memory://x"))
    assert (Folder(str(tmp_path / "b")).name, Folder(str(tmp_path / "b")).above) == ("b", Folder(str(tmp_path)))


def test_a_single_file_is_a_folder_that_shows_nothing_else(tmp_path, memory):
    for name in ("a.tar", "b.tar"):
        (tmp_path / name).write_bytes(b"x")
        memory.pipe(f"/corpus/{name}", b"x")
    for folder in (Folder.at(tmp_path / "b.tar"), Folder.at("memory://corpus/b.tar")):
        assert folder.files == (File("b.tar", 1),)
        assert folder.is_single_file
        assert str(folder).endswith("corpus/b.tar" if not folder.is_local else "b.tar")
        assert folder.has_file("a.tar")


@pytest.mark.parametrize("path", ["nowhere", "memory://nowhere"])
def test_what_is_not_there_is_refused(tmp_path, memory, path):
    with pytest.raises(
        ValueError, match=r"must be a file or a folder, got .*nowhere, which is not there\. Check the path"
    ):
        Folder.at(path if "://" in path else tmp_path / path)


@pytest.mark.parametrize("size", [0, 1, 300, 256 * 2**10, 256 * 2**10 + 1, 3 * 2**20])
def test_a_digest_changes_with_any_block_of_a_file(tmp_path, size):
    folder, path = Folder(str(tmp_path)), tmp_path / "a"
    data = bytearray(size)
    path.write_bytes(data)
    before = folder.digest("a")
    assert folder.digest("a") == before
    assert before.startswith("2-")
    for start in range(0, size, 128 * 2**10):  # a shard of the same size whose middle is another
        changed = bytearray(data)
        changed[start : start + 128 * 2**10] = bytes([1]) * len(changed[start : start + 128 * 2**10])
        path.write_bytes(changed)
        assert folder.digest("a") != before, start


def test_many_files_have_the_digests_that_each_has_alone(tmp_path, memory):
    names = [f"{number // 50}/{number}.png" for number in range(300)]
    for number, name in enumerate(names):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([number % 256]) * (number * 100))
    memory.put(f"{tmp_path}/", "/many/", recursive=True)
    folder = Folder(str(tmp_path))
    expected = {name: folder.digest(name) for name in names}
    assert len(set(expected.values())) == 300
    assert folder.digests([*names, *names]) == expected
    assert Folder("memory://many").digests(names) == expected
    (tmp_path / names[200]).unlink()
    with pytest.raises(FileNotFoundError, match=r"4/200\.png"):
        folder.digests(names)


def test_files_are_found_by_their_endings(tmp_path):
    for name in ("a.PNG", "b.jpg", "c.png", "d", "e.tar.gz"):
        (tmp_path / name).write_bytes(b"")
    folder = Folder(str(tmp_path))
    assert folder.endings == {".png", ".jpg", "", ".gz"}
    assert [file.name for file in folder.files_ending({".png"})] == ["a.PNG", "c.png"]
    assert [file.name for file in folder.files_ending({".gz", ".jpg"})] == ["b.jpg", "e.tar.gz"]


def test_the_digest_of_version_0_2_is_still_known(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    expected = hashlib.sha256(b"100000\n" + b"x" * 65536 + b"x" * 65536).hexdigest()[:16]
    assert Folder(str(tmp_path)).digest_of_version_0_2("a") == expected


def test_a_remote_file_is_told_by_what_its_store_says(memory, monkeypatch):
    memory.pipe("/corpus/a", b"xyz")
    folder = Folder("memory://corpus")
    by_content = folder.digest("a")
    told = {"size": 3, "ETag": "one"}
    monkeypatch.setattr(type(memory), "info", lambda self, path, **kwargs: dict(told))
    by_tag = folder.digest("a")
    told["ETag"] = "two"
    assert len({by_content, by_tag, folder.digest("a")}) == 3


@pytest.mark.parametrize("format_name", NAMES)
def test_a_corpus_in_an_object_store_is_read_like_one_on_a_disk(tmp_path, memory, format_name):
    ending = writable_format(format_name).extension
    episodes = [plain_episode(index, 3 + index) for index in range(4)]
    for name, chosen in (("a", episodes[:2]), ("b", episodes[2:])):
        write_episodes(tmp_path / f"{name}.{ending}", CorpusFeatures.of(chosen[0]), chosen, format_name)
        memory.put(str(tmp_path / f"{name}.{ending}"), f"/bucket/corpus/{name}.{ending}")
    local, remote = open_corpus(tmp_path), open_corpus("memory://bucket/corpus")
    assert remote.features == local.features
    for max_bytes in (1, 2**28):
        units = remote.units(max_bytes)
        assert [unit.name for unit in units] == [unit.name for unit in local.units(max_bytes)]
        read = [episode for unit in units for episode in read_whole(remote.episodes(unit))]
        for written, found in zip(episodes, read, strict=True):
            assert_same(written, found)
    assert [unit.content for unit in remote.units()] == [unit.content for unit in local.units()]
