"""What people read when a corpus cannot be opened or read: through all wrappers one cause, and one remedy that belongs to it."""

import io
import json
import random
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_corpora import plain_episode, read_whole

from vlm_rewards.schemas.episodes import IMAGE_TYPE, CorpusFeatures, Episode
from vlm_rewards.schemas.formats.corpus import open_corpus, write_episodes
from vlm_rewards.schemas.manifests import Failure
from vlm_rewards.schemas.pictures import encode_png

REMEDY = r"(?:[;.] )(add|copy|correct|embed|fill|give|leave|number|pack|remove|rename|save|sort|split|take|write)\b"
PICTURE = encode_png(np.zeros((4, 4, 3), np.uint8))


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def sample(key: str, num_frames: int = 3) -> list[tuple[str, bytes]]:
    record = json.dumps({"num_frames": num_frames, "cameras": ["cam"]}).encode()
    return [(f"{key}.json", record), *((f"{key}.cam.{i:06d}.png", PICTURE) for i in range(num_frames))]


def write_rows(path: Path, rows: list[tuple[str, int]]) -> None:
    schema = pa.schema(
        [("episode_id", pa.string()), ("frame_index", pa.int32()), ("observation.images.cam", IMAGE_TYPE)]
    )
    table = [{"episode_id": e, "frame_index": i, "observation.images.cam": {"bytes": PICTURE}} for e, i in rows]
    pq.write_table(pa.Table.from_pylist(table, schema=schema), path)


def shuffled_tar(folder: Path) -> None:
    members = [member for key in ("x1", "x2", "x3") for member in sample(key)]
    random.Random(0).shuffle(members)
    write_tar(folder / "a.tar", members)


def cut_parquet(folder: Path) -> None:
    write_episodes(folder / "a.parquet", CorpusFeatures.of(plain_episode()), [plain_episode()], "parquet")
    data = (folder / "a.parquet").read_bytes()
    (folder / "a.parquet").write_bytes(data[: len(data) // 2])


def cut_tar(folder: Path) -> None:
    write_tar(folder / "a.tar", sample("x"))
    (folder / "a.tar").write_bytes((folder / "a.tar").read_bytes()[:1700])


def open_and_read(folder: Path) -> list[Episode | Failure]:
    corpus = open_corpus(folder)
    return [item for unit in corpus.units() for item in read_whole(corpus.episodes(unit))]


@pytest.mark.parametrize(
    ("make", "cause", "remedy"),
    [
        (
            shuffled_tar,
            "must be side by side in its tar, got 'x",
            "Pack its folder again in order, with tar --sort=name",
        ),
        (cut_parquet, "must be whole", "Copy it again from its source"),
        (cut_tar, "must be whole, got one that breaks at byte 2048", "Copy it again from its source"),
        (
            lambda folder: (folder / "a.tar").write_bytes(b""),
            "must be whole, got one that has no readable",
            "Copy it again",
        ),
        (lambda folder: (folder / "a.parquet").write_bytes(b""), "must be whole", "Copy it again from its source"),
        (
            lambda folder: write_tar(folder / "a.tar", sample("x")[:2]),
            "must have frames 0 to 2, got no frame 1",
            "Add what",
        ),
        (
            lambda folder: pq.write_table(pa.table({"a": [1]}), folder / "a.parquet"),
            "must have the columns episode_id",
            "Say which they are, as --column episode_id=NAME",
        ),
        (lambda folder: (folder / "a.txt").write_text("x"), "must hold shards", "Check the path"),
    ],
)
def test_a_corpus_that_cannot_be_opened_says_one_cause_and_its_remedy(
    tmp_path: Path, make: Callable[[Path], object], cause: str, remedy: str
) -> None:
    make(tmp_path)
    with pytest.raises(ValueError, match="a corpus must|a Parquet") as caught:
        open_corpus(tmp_path)
    message = str(caught.value)
    assert cause in message
    assert remedy in message
    assert len(re.findall(REMEDY, message, re.IGNORECASE)) <= 1, message
    assert "again" not in message.replace(remedy, "").replace("again from its source", "")


def test_an_unsorted_tar_is_told_once_per_episode_and_whole_episodes_in_it_are_read(tmp_path: Path) -> None:
    one, two = sample("one"), sample("two", 2)
    write_tar(tmp_path / "a.tar", [*sample("zero"), *one[:2], *two[:1], *one[2:], *two[1:], *sample("three")])
    read = open_and_read(tmp_path)
    assert [item.episode_id for item in read] == ["zero", "one", "two", "three"]
    assert [isinstance(item, Failure) for item in read] == [False, True, True, False]
    for failure, num_frames in zip(read[1:3], (3, 2), strict=True):
        assert isinstance(failure, Failure)
        assert (failure.reason, failure.num_frames) == ("scattered episode", num_frames)
        assert f"got {failure.episode_id!r} in 2 places. Pack its folder again in order, with tar" in failure.detail


def test_an_array_apart_from_its_episode_is_told(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(2, np.int64))
    write_tar(tmp_path / "a.tar", [*sample("one"), *sample("two"), ("one.action.npy", buffer.getvalue())])
    read = open_and_read(tmp_path)
    assert [getattr(item, "reason", "read") for item in read] == ["read", "read", "scattered episode"]


def test_an_episode_that_occurs_twice_is_no_scattered_one(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [*sample("one"), *sample("two"), *sample("one")])
    *_, failure = open_and_read(tmp_path)
    assert isinstance(failure, Failure)
    assert failure.reason == "duplicate episode"
    write_rows(tmp_path / "a.parquet", [("a", 0), ("a", 1), ("b", 0), ("a", 0), ("a", 1)])
    (tmp_path / "a.tar").unlink()
    *_, failure = open_and_read(tmp_path)
    assert isinstance(failure, Failure)
    assert failure.reason == "duplicate episode"


def test_rows_out_of_order_are_told_with_how_to_sort_them(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", [("a", 0), ("b", 0), ("a", 1), ("a", 2), ("c", 0), ("c", 2), ("c", 1)])
    first, second, third, fourth = open_and_read(tmp_path)
    assert isinstance(first, Episode)
    assert isinstance(second, Episode)
    assert isinstance(third, Failure)
    assert (third.reason, third.episode_id, third.num_frames) == ("scattered episode", "a", 3)
    assert "got 'a' again from frame_index 1 on. Sort the rows by episode_id and frame_index" in third.detail
    assert isinstance(fourth, Failure)
    assert fourth.reason == "frames out of order"
    assert "got 2 in place of 1. Sort the rows by episode_id and frame_index" in fourth.detail


def test_the_end_of_an_episode_that_begins_in_another_unit_is_told(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", [("a", 0), ("a", 1), ("b", 0)])
    write_rows(tmp_path / "b.parquet", [("a", 2), ("a", 3), ("c", 0)])
    corpus = open_corpus(tmp_path)
    first, second = corpus.units(1)
    assert [type(item) for item in corpus.episodes(first)] == [Episode, Episode]
    failure, _ = corpus.episodes(second)
    assert isinstance(failure, Failure)
    assert (failure.episode_id, failure.reason, failure.num_frames) == ("a", "missing frames", 2)
    assert "got 2 in place of 0. Sort the rows of all files by episode_id and frame_index" in failure.detail
