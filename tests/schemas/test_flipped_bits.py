"""A bit that the disk has flipped is noticed: what is read back is what was written, or is refused."""

import dataclasses
import itertools
import json
import shutil
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_corpora import episode, holds, write_corpus, write_labels
from relabelled_folders import GOALS, one_camera, write_embeddings, write_relabelled

from vlm_rewards.offline_rl.interfaces import Spaces
from vlm_rewards.offline_rl.online.buffer import OnlineBuffer
from vlm_rewards.offline_rl.replay.builder import build_replay
from vlm_rewards.offline_rl.replay.replay import open_replay
from vlm_rewards.offline_rl.runs.folders import latest_checkpoint, save_checkpoint
from vlm_rewards.schemas.files.digests import digest_beside
from vlm_rewards.schemas.formats.label_parts.embeddings import read_embedding_rows
from vlm_rewards.schemas.formats.label_parts.reader import open_labels, read_labels
from vlm_rewards.schemas.formats.label_parts.rows import PartRows, locate_episodes
from vlm_rewards.schemas.formats.relabelled_parts.reader import read_relabelled


def flip_bits(path: Path, read: Callable[[], object], num_flips: int, *, changed_is_an_error: bool = True) -> int:
    """Flips single bits all over a file, one at a time: `read` must refuse by name, or give what it gives of the whole.

    The name is the file's, or of a marker or digest that of the file whose it is.

    Returns:
        How often it refused.
    """
    data = path.read_bytes()
    whole = read()
    refused = 0
    random = np.random.default_rng(0)
    for place in np.linspace(0, len(data) - 1, num_flips).astype(int).tolist():
        bit = int(random.integers(8))
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :])
        try:
            found = read()
        except ValueError as error:
            refused += 1
            said = [str(error), *getattr(error, "__notes__", [])]
            assert any(path.name.split(".")[0] in text for text in said), (said, f"bit {bit} of byte {place}")
        else:
            assert not changed_is_an_error or repr(found) == repr(whole), f"bit {bit} of byte {place} of {len(data)}"
    path.write_bytes(data)
    assert repr(read()) == repr(whole)
    return refused


def plain(value: object) -> object:
    """With arrays as bytes, which repr shows in full."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    corpus = write_corpus(tmp_path / "corpus", [[episode("a", 40), episode("b", 60)]])
    truth = [("a", holds(*["X." * 20] * 4)), ("b", holds(*[".X." * 20] * 4))]
    return write_labels(tmp_path / "labels", corpus, [truth])


@pytest.mark.parametrize("sparse", [False, True])
def test_labels(tmp_path: Path, sparse: bool) -> None:
    corpus = write_corpus(tmp_path / "corpus", [[episode("a", 40), episode("b", 60)]])
    truth = [("a", holds(*["X." * 20] * 4)), ("b", holds(*[".X." * 20] * 4))]
    folder = write_labels(tmp_path / "labels", corpus, [truth], sparse=sparse)
    (part,) = (folder / "parts").iterdir()
    assert flip_bits(part, lambda: plain(list(read_labels(part))), 100) == 100
    assert flip_bits(part, lambda: open_labels(folder).metadata, 20) == 20

    def read_by_rows() -> object:
        rows = PartRows(part, open_labels(folder).metadata)
        return plain([rows.read(found) for found in locate_episodes(part)])

    assert flip_bits(part, read_by_rows, 20) == 20


def test_manifests_and_markers_of_labels(labels: Path) -> None:
    (part,) = (labels / "parts").iterdir()

    def read() -> object:
        opened = open_labels(labels)
        return opened.digest, opened.metadata, plain(list(read_labels(part)))

    assert flip_bits(labels / "manifest.json", read, 100) > 90  # not where a bit makes one space of another
    (marker,) = (labels / "markers").iterdir()
    assert flip_bits(marker, read, 100) > 10  # most of it says nothing of the rows


def test_embeddings(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    folder = write_embeddings(tmp_path / "embeddings", [[("a", vectors), ("b", vectors + 1)]])
    (part,) = (folder / "parts").iterdir()
    assert flip_bits(part, lambda: plain(list(read_embedding_rows(part))), 100) == 100


@pytest.mark.parametrize("container", ["parquet", "webdataset"])
def test_relabelled_parts(tmp_path: Path, container: str) -> None:
    folder = write_relabelled(tmp_path / "relabelled", [[one_camera("a"), one_camera("b")]], container)
    (part,) = (folder / "parts").iterdir()
    for source in (part, folder):
        assert flip_bits(part, lambda source=source: plain(list(read_relabelled(source))), 60) == 60  # type: ignore[misc]


def test_replays(tmp_path: Path) -> None:
    source = write_relabelled(tmp_path / "relabelled", [[one_camera("a"), one_camera("b")]])
    replay = tmp_path / "replay"
    build_replay(source, replay, goals=GOALS)

    def read() -> object:
        opened = open_replay(replay)
        return [plain(np.asarray(array)) for array in opened.gather(np.arange(len(opened))) if array is not None]

    read()
    names = sorted(path.name for path in replay.iterdir())
    assert names == [
        "actions.npy",
        "episodes.jsonl",
        "goals.npy",
        "meta.json",
        "observations.npy",
        "returns-0.99.npy",
        "returns-0.99.npy.sha256",
        "rewards.npy",
        "rows.npy",
        "segments.npy",
    ]
    for name in names:
        assert flip_bits(replay / name, read, 20) >= 15, name
        if name.startswith(("meta", "returns")):
            continue
        with pytest.raises(ValueError, match="must be as it was written, got|must have the file"):
            data = (replay / name).read_bytes()
            (replay / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
            try:
                build_replay(source, replay, goals=GOALS)
            finally:
                (replay / name).write_bytes(data)


def test_checkpoints(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 3, {"weights": torch.arange(50.0), "random": {"state": 3}})
    path = save_checkpoint(tmp_path, 7, {"weights": torch.arange(50.0), "random": {"state": 7}})
    assert flip_bits(path, lambda: latest_checkpoint(tmp_path), 60) == 60
    data = path.read_bytes()
    path.write_bytes(data[:100] + b"x" + data[101:])
    with pytest.raises(ValueError, match="Remove it: the run resumes from the one before"):
        latest_checkpoint(tmp_path)
    path.unlink()
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found[0] == 3
    assert json.loads(json.dumps(found[1]["random"])) == {"state": 3}


def test_online_buffers(tmp_path: Path) -> None:
    spaces = Spaces(observation="frames", observation_shape=(4, 4, 3), goal_size=2, num_actions=3)

    def empty() -> OnlineBuffer:
        return OnlineBuffer(spaces, np.eye(2, dtype=np.float32), num_environments=1, capacity=8)

    ring = empty()
    frames = np.arange(6, dtype=np.uint8)[:, None, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    for before, after in itertools.pairwise(frames):
        ends = np.array([after[0, 0, 0, 0] == 5])
        one, no = np.array([1]), np.array([False])
        ring.add(before, one, after, one, np.array([0.5]), terminations=ends, truncations=no)
    path = tmp_path / "buffer-000000005.npz"
    ring.save(path)

    def read() -> object:
        loaded = empty()
        loaded.load(path)
        return plain([loaded.state_dict()[name] for name in sorted(loaded.state_dict())])

    assert flip_bits(path, read, 200) == 200
    assert flip_bits(digest_beside(path), read, 60) == 60
    with pytest.raises(
        ValueError, match="other contents .* Remove it and the checkpoint of the same step, and the run resumes"
    ):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        read()


@pytest.mark.parametrize("kind", ["labels", "embeddings", "parquet", "webdataset"])
def test_a_part_outside_of_its_folder_is_refused_or_said_to_be_unchecked(
    tmp_path: Path, labels: Path, kind: str
) -> None:
    vectors = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    read: Callable[[Path], Iterable[object]]
    if kind == "labels":
        folder, read = labels, read_labels
    elif kind == "embeddings":
        folder, read = write_embeddings(tmp_path / "out", [[("a", vectors), ("b", vectors + 1)]]), read_embedding_rows
    else:
        folder, read = write_relabelled(tmp_path / "out", [[one_camera("a"), one_camera("b")]], kind), read_relabelled
    (part,) = (folder / "parts").iterdir()
    copy = tmp_path / f"copy-{part.name}"
    shutil.copy(part, copy)

    def read_copy() -> object:
        with pytest.warns(UserWarning, match=f"checked for changes only in the folder .* got .*{copy.name} without"):
            return plain(list(read(copy)))

    assert repr(read_copy()) == repr(plain(list(read(part))))
    # Whatever changed, the warning was given, which read_copy demands, or the refusal names the file, which flip_bits does.
    refused = flip_bits(copy, read_copy, 150, changed_is_an_error=False)
    assert refused >= 40  # by the checksums of pages, of zlib and of tar headers
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(read(part))  # in its folder there is nothing to warn of
