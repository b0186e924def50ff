"""Relabelled trajectories are written while their frames stream: in bounded memory, whole or not at all."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from labelled_corpora import picture, relabelled

from vlm_rewards.schemas.episodes import CorpusFeatures, Frame
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.formats.relabelled_parts import spool as spool_module
from vlm_rewards.schemas.formats.relabelled_parts.reader import read_relabelled
from vlm_rewards.schemas.formats.relabelled_parts.spool import PictureSpool
from vlm_rewards.schemas.formats.relabelled_parts.writer import open_writer
from vlm_rewards.schemas.pictures import decode_image, encode_png
from vlm_rewards.schemas.relabelled import RelabelledEpisode

CONTAINERS = ("parquet", "webdataset")
FEATURES = CorpusFeatures(cameras=("main", "wrist"), action_size=0)


def write(path: Path, container: str, *episodes: RelabelledEpisode) -> bytes:
    with contextlib.closing(open_writer(container, path, FEATURES, Fingerprint({"hindsight": "test"}))) as writer:
        for episode in episodes:
            writer.write(episode)
    return path.read_bytes()


class Breaking:
    """Frames that break off after three of six."""

    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Iterator[Frame]:
        yield from (picture(0), picture(1), picture(2))
        raise ConnectionError("gone")


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("camera", ["main", "wrist"])
def test_an_episode_whose_frames_break_off_leaves_nothing(tmp_path: Path, container: str, camera: str) -> None:
    whole = [relabelled("a"), relabelled("c")]
    broken = relabelled("b", images={**relabelled("b").images, camera: Breaking()})
    features, fingerprint = FEATURES, Fingerprint({"hindsight": "test"})
    with contextlib.closing(open_writer(container, tmp_path / "part", features, fingerprint)) as writer:
        writer.write(whole[0])
        with pytest.raises(ConnectionError, match="gone"):
            writer.write(broken)
        writer.write(whole[1])
    assert (tmp_path / "part").read_bytes() == write(tmp_path / "other", container, *whole)


@pytest.mark.parametrize("container", CONTAINERS)
def test_frames_that_are_arrays_are_encoded_without_loss(tmp_path: Path, container: str) -> None:
    frames = [np.full((8, 8, 3), t, np.uint8) for t in range(6)]
    encoded = relabelled(
        "a", images={"main": [encode_png(frame) for frame in frames], "wrist": relabelled().images["wrist"]}
    )
    arrays = relabelled("a", images={**encoded.images, "main": frames})
    assert write(tmp_path / "one", container, encoded) == write(tmp_path / "two", container, arrays)
    name = tmp_path / ("x.parquet" if container == "parquet" else "x.tar")
    (tmp_path / "one").rename(name)
    (read,) = read_relabelled(name)
    assert [decode_image(data)[0, 0, 0] for data in read.images["main"]] == list(range(6))  # type: ignore[arg-type]


def test_pictures_on_disk_give_the_bytes_of_pictures_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = relabelled(
        "long",
        images={name: [picture(t % 250) for t in range(2001)] for name in ("main", "wrist")},
        actions=np.arange(2000),
        rewards=np.zeros((2, 2000), np.float32),
        states=np.arange(4002, dtype=np.float32).reshape(2001, 2),
    )
    in_memory = write(tmp_path / "one", "parquet", relabelled("a"), long, relabelled("b"))
    let_go = []
    monkeypatch.setattr(spool_module, "SPOOL_BYTES", 1000)
    monkeypatch.setattr(PictureSpool, "let_go", lambda self: let_go.append(self.num_bytes))
    assert write(tmp_path / "two", "parquet", relabelled("a"), long, relabelled("b")) == in_memory
    assert max(let_go) > 100_000
    monkeypatch.undo()
    monkeypatch.setattr(spool_module, "SPOOL_BYTES", 1000)
    assert write(tmp_path / "three", "parquet", relabelled("a"), long, relabelled("b")) == in_memory
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "three", "two"]
    images = pq.read_table(tmp_path / "three").column("observation.images.wrist")[1].as_py()
    assert [image["bytes"] for image in images] == long.images["wrist"]


def test_more_pictures_than_a_value_of_parquet_holds_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "MAX_BYTES", sum(len(picture(t)) for t in range(4)) + 3)
    with pytest.raises(
        ValueError, match="at most .* bytes per camera in Parquet: got more in 5 frames. Write WebDataset"
    ):
        write(tmp_path / "one", "parquet", relabelled("a"))
    write(tmp_path / "two", "webdataset", relabelled("a"))
