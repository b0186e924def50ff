"""Object stores: one connection per process, what is refused, and with which remedy."""

import importlib.util
import threading

import pytest
import s3fs
from conftest import connect, forget_connections
from object_store import object_store
from small_corpora import plain_episode

from vlm_rewards.schemas.episodes import CorpusFeatures
from vlm_rewards.schemas.files import stores
from vlm_rewards.schemas.files.stores import ObjectStoreError, explaining_store_errors, store_at
from vlm_rewards.schemas.formats.corpus import open_corpus, write_episodes
from vlm_rewards.schemas.formats.folder import Folder


def test_all_threads_of_a_process_share_a_connection_that_remembers_no_listing(bucket):
    found = [store_at(f"{bucket}/a")[0]]
    threads = [threading.Thread(target=lambda: found.append(store_at(f"{bucket}/b")[0])) for _ in range(3)]
    for thread in threads:
        thread.start()
        thread.join()
    assert len(found) == 4
    assert len({id(files) for files in found}) == 1
    files, inner = store_at(f"{bucket}/a/b.txt")
    assert f"s3://{inner}" == f"{bucket}/a/b.txt"
    assert files.find(inner) == []
    s3fs.S3FileSystem(skip_instance_cache=True).pipe_file(inner, b"by another")
    assert files.find(inner) == [inner]


def test_contents_are_told_by_one_listing(bucket, monkeypatch):
    files, inner = store_at(bucket)
    files.pipe({f"{inner}/{number}.parquet": b"%d" % (number % 2) for number in range(6)})
    folder = Folder.at(bucket)
    asked: list[str] = []
    call = type(files)._call_s3

    async def counted(self, method, *args, **kwargs):
        asked.append(method)
        return await call(self, method, *args, **kwargs)

    monkeypatch.setattr(type(files), "_call_s3", counted)
    listed = [file.name for file in folder.files]
    once = len(asked)
    digests = [folder.digest(name) for name in listed]
    assert len(asked) == once
    assert len(set(digests)) == 2
    assert Folder(bucket).digest("0.parquet") == digests[0]  # without a listing the store is asked
    assert len(asked) > once


def test_an_empty_object_that_stands_for_a_folder_is_no_file(bucket):
    files, inner = store_at(bucket)
    name, _, key = f"{inner}/sub/".partition("/")
    files.call_s3("put_object", Bucket=name, Key=key, Body=b"")
    files.pipe_file(f"{inner}/sub/a.parquet", b"x")
    assert [file.name for file in Folder(bucket).files] == ["sub/a.parquet"]
    assert Folder(bucket).left_out == ()


def test_an_unknown_protocol_is_refused():
    with pytest.raises(
        ValueError, match=r"a protocol that fsspec knows, such as s3:// or gs://: got s4://bucket. Check"
    ):
        open_corpus("s4://bucket/corpus")


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="gcsfs is installed")
def test_a_missing_library_is_named_with_the_extra_that_brings_it():
    with pytest.raises(ImportError, match=r"gs:// needs a library .*Install it: pip install 'vlm-rewards\[gs\]'"):
        open_corpus("gs://bucket/corpus")


def test_a_name_on_the_hub_without_a_network_is_refused(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(stores, "_stores", {})
    with pytest.raises(
        ObjectStoreError, match=r"does not answer for hf://datasets/a/b: .*offline.* Check the network.*HF_TOKEN"
    ):
        open_corpus("hf://datasets/a/b")


def test_a_store_that_ends_while_a_file_is_read_is_no_broken_file(tmp_path, monkeypatch):
    (tmp_path / "store").mkdir()
    with object_store(tmp_path / "store") as store:
        connect(monkeypatch, {**store.owner, "AWS_MAX_ATTEMPTS": "1"})
        corpus = [plain_episode(index, num_steps=3) for index in range(2)]
        write_episodes(tmp_path / "a.parquet", CorpusFeatures.of(corpus[0]), corpus, "parquet")
        store_at("s3://bucket/a")[0].put_file(str(tmp_path / "a.parquet"), "bucket/corpus/a.parquet")
        opened = open_corpus("s3://bucket/corpus")
        [unit] = opened.units()
        folder = Folder("s3://bucket/corpus")
        with folder.open("a.parquet") as file:
            head = bytearray(4)
            assert (file.readinto(head), bytes(head), file.tell()) == (4, b"PAR1", 4)
            assert file.seek(-4, 2) == (tmp_path / "a.parquet").stat().st_size - 4
            assert file.read() == b"PAR1"
    with pytest.raises(
        ObjectStoreError, match=r"does not answer for s3://bucket/corpus/a.parquet: .*Check the network"
    ):
        list(opened.episodes(unit))
    forget_connections()


def test_what_is_not_there_and_what_was_explained_pass_through():
    for error in (FileNotFoundError("a"), FileExistsError("b"), ObjectStoreError("c")):
        with pytest.raises(type(error), match=f"^{error}$"), explaining_store_errors("s3://bucket"):
            raise error
