"""Relabelled trajectories: what is written comes back, and what is not whole is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from labelled_corpora import episode, relabelled, write_corpus
from relabelled_folders import one_camera, write_relabelled

from vlm_rewards.schemas.episodes import CorpusFeatures, corpus_schema
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.formats.relabelled_parts.reader import read_relabelled
from vlm_rewards.schemas.formats.relabelled_parts.writer import open_writer
from vlm_rewards.schemas.relabelled import RelabelledEpisode

FINGERPRINT = Fingerprint({"hindsight": "test"})
SUFFIXES = {"parquet": "parquet", "webdataset": "tar"}


def write(path: Path, container: str, *episodes: RelabelledEpisode) -> Path:
    first = episodes[0]
    actions = first.actions
    features = CorpusFeatures(
        cameras=("main", "wrist"),
        action_size=None if actions is None else 0 if actions.ndim == 1 else actions.shape[1],
        state_size=None if first.states is None else first.states.shape[1],
    )
    writer = open_writer(container, path, features, FINGERPRINT)
    for item in episodes:
        writer.write(item)
    writer.close()
    return path


@pytest.mark.parametrize("container", ["parquet", "webdataset"])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"instruction": "go to the ball", "states": np.arange(18, dtype=np.float32).reshape(6, 3)},
        {"actions": np.linspace(0, 1, 10, dtype=np.float32).reshape(5, 2)},
        {"actions": np.linspace(0, 1, 5, dtype=np.float32).reshape(5, 1)},
        {"actions": None},
    ],
    ids=["discrete", "states", "continuous", "width one", "no actions"],
)
def test_what_is_written_comes_back(tmp_path: Path, container: str, given: dict) -> None:
    episodes = [relabelled("a", **given), relabelled("b", **given)]
    path = write(tmp_path / f"part.{SUFFIXES[container]}", container, *episodes)
    back = list(read_relabelled(path))
    assert len(back) == 2
    for before, after in zip(episodes, back, strict=True):
        for field in dataclasses.fields(RelabelledEpisode):
            one, other = getattr(before, field.name), getattr(after, field.name)
            if isinstance(one, np.ndarray):
                assert one.dtype == other.dtype, field.name
                assert np.array_equal(one, other), field.name
            else:
                assert one == other, field.name


def test_folders_are_read_part_by_part(tmp_path: Path) -> None:
    folder = write_relabelled(tmp_path / "relabelled", [[one_camera("b")], [one_camera("a")]], "webdataset")
    assert [item.episode_id for item in read_relabelled(folder)] == ["b", "a"]
    (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"relabelled must be finished, got .* without manifest.json"):
        list(read_relabelled(folder))
    with pytest.raises(FileNotFoundError, match=r"must be a folder or a part of it, got .*nothing"):
        list(read_relabelled(tmp_path / "nothing"))


@pytest.mark.parametrize("container", ["parquet", "webdataset"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.999])
def test_a_part_cut_short_is_refused(tmp_path: Path, container: str, share: float) -> None:
    path = write(tmp_path / f"part.{SUFFIXES[container]}", container, relabelled("a"), relabelled("b"))
    if container == "webdataset":  # the last 9 kB of a tar are zeros that mean nothing
        path.write_bytes(path.read_bytes().rstrip(b"\0"))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"must be a complete (Parquet|tar) file, got .*part"):
        list(read_relabelled(path))


def test_a_tar_with_a_broken_header_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "part.tar", "webdataset", relabelled("a"), relabelled("b"))
    data = bytearray(path.read_bytes())
    start = data.index(b"b.json")
    data[start : start + 512] = b"x" * 512
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"must be a complete tar file, .*it breaks at byte {start}"):
        list(read_relabelled(path))


def test_a_corpus_is_refused(tmp_path: Path) -> None:
    pq.write_table(corpus_schema(CorpusFeatures(cameras=("main",))).empty_table(), tmp_path / "corpus.parquet")
    with pytest.raises(
        ValueError, match="a table of relabelled must say so in its schema's metadata, got 'corpus'"
    ) as caught:
        list(read_relabelled(tmp_path / "corpus.parquet"))
    assert "corpus.parquet" in caught.value.__notes__[0]


def test_a_tar_of_a_corpus_is_refused(tmp_path: Path) -> None:
    write_corpus(tmp_path, [[episode("a", 2)]], "webdataset")
    with pytest.raises(
        ValueError, match="a sample of relabelled trajectories must say so in its JSON, got None in 'a'"
    ):
        list(read_relabelled(tmp_path / "shard-000.tar"))


@pytest.mark.parametrize("container", ["parquet", "webdataset"])
def test_one_camera_is_read(tmp_path: Path, container: str) -> None:
    path = write(tmp_path / f"part.{SUFFIXES[container]}", container, relabelled("a"))
    (only,) = read_relabelled(path, camera="wrist")
    assert only.images == {"wrist": relabelled("a").images["wrist"]}
    with pytest.raises(
        ValueError, match=r"the camera must be one of those recorded \(main, wrist\), got 'top'"
    ) as caught:
        list(read_relabelled(path, camera="top"))
    assert "part" in caught.value.__notes__[0]
