"""A bit that the disk has flipped is noticed: what is read back is what was written, or is refused."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_corpora import episode, holds, write_corpus, write_labels
from relabelled_folders import GOALS, one_camera, write_embeddings, write_relabelled

from vlm_rewards.offline_rl.replay.builder import build_replay
from vlm_rewards.offline_rl.replay.replay import open_replay
from vlm_rewards.offline_rl.runs.folders import latest_checkpoint, save_checkpoint
from vlm_rewards.schemas.formats.label_parts.embeddings import read_embedding_rows
from vlm_rewards.schemas.formats.label_parts.reader import open_labels, read_labels
from vlm_rewards.schemas.formats.label_parts.rows import PartRows, locate_episodes
from vlm_rewards.schemas.formats.relabelled_parts.reader import read_relabelled


def flip_bits(path: Path, read: Callable[[], object], num_flips: int, *, changed_is_an_error: bool = True) -> int:
    """Flips single bits all over a file, one at a time: `read` must refuse or give what it gives of the whole file.

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
        except ValueError:
            refused += 1
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
