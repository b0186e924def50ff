"""Small episodes that differ in what they hold, and how two are compared."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode, Frames, UnreadFrames
from vlm_rewards.schemas.formats.corpus import BrokenEpisodeError, Corpus
from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.parquet_corpus.reader import ParquetReader
from vlm_rewards.schemas.formats.webdataset_corpus.reader import WebDatasetReader
from vlm_rewards.schemas.manifests import Failure, Unit
from vlm_rewards.schemas.pictures import encode_png


def frame(seed: int, size: int = 8) -> np.ndarray:
    """A frame [size, size, 3] of noise."""
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def plain_episode(index: int = 0, num_steps: int = 5, **changes: object) -> Episode:
    """One camera, T+1 frames, discrete actions, rewards, an instruction and ground truth."""
    rng = np.random.default_rng(index)
    ends = np.arange(num_steps) == num_steps - 1
    fields: dict = {
        "episode_id": f"episode-{index:04d}",
        "images": {"front": [encode_png(frame(100 * index + t)) for t in range(num_steps + 1)]},
        "actions": rng.integers(0, 7, num_steps),
        "rewards": rng.random(num_steps, dtype=np.float32),
        "terminations": ends & (index % 2 == 0),
        "truncations": ends & (index % 2 == 1),
        "instruction": f"go to the ball {index}",
        "achieved_goals": [["find-ball"] * (t % 2) + ["lift-key"] * (t % 3 == 0) for t in range(num_steps + 1)],
    }
    return Episode(**{**fields, **changes})


def robot_episode(index: int = 0, num_steps: int = 5, *, final_frame: bool = False) -> Episode:
    """Two cameras, T (or T+1) frames for T actions, continuous actions, a state vector; no rewards, instruction or truth."""
    rng = np.random.default_rng(index)
    num_frames = num_steps + final_frame
    return Episode(
        episode_id=f"robot-{index:04d}",
        images={
            camera: [encode_png(frame(7 * index + t + offset)) for t in range(num_frames)]
            for camera, offset in (("front", 0), ("wrist", 1000))
        },
        actions=rng.standard_normal((num_steps, 3)).astype(np.float32),
        states=rng.standard_normal((num_frames, 4)).astype(np.float32),
    )


def assert_same(left: object, right: object) -> None:
    """Two episodes are equal to the byte, dtypes and all."""
    assert isinstance(left, Episode), left
    assert isinstance(right, Episode), right
    for field in dataclasses.fields(Episode):
        if field.name == "source":  # where it was read from
            continue
        a, b = getattr(left, field.name), getattr(right, field.name)
        if isinstance(a, np.ndarray):
            assert b is not None, field.name
            assert a.dtype == b.dtype, (field.name, a.dtype, b.dtype)
            np.testing.assert_array_equal(a, b, err_msg=field.name)
        elif field.name == "images":
            assert {camera: list(pictures) for camera, pictures in a.items()} == {k: list(v) for k, v in b.items()}
        elif field.name == "achieved_goals" and a is not None:
            assert b is not None
            assert [list(goals) for goals in a] == [list(goals) for goals in b]
        else:
            assert a == b, field.name


def opened(path: Path, features: CorpusFeatures | None = None) -> Corpus:
    """The corpus of a single file, also of one that cannot be read."""
    folder = Folder(str(path.parent), only=path.name)
    reader = (ParquetReader if path.suffix == ".parquet" else WebDatasetReader)(
        folder, features or CorpusFeatures(cameras=("front",))
    )
    return Corpus(folder=folder, format_name="any", options={}, reader=reader)


def whole_file(path: Path) -> Unit:
    """The unit that is a whole file."""
    return Unit(name=path.stem, files=(path.name,))


def read_file(path: Path, unit: Unit | None = None, **wanted: object) -> list[Episode | Failure]:
    """Reads a file, or a unit of it, with all its frames."""
    return read_whole(opened(path).episodes(unit or whole_file(path), **wanted))  # type: ignore[arg-type]


def read_whole(items: Iterable[Episode | Failure]) -> list[Episode | Failure]:
    """Reads the frames of episodes while they stream; one that breaks off becomes its failure."""
    read: list[Episode | Failure] = []
    for item in items:
        if isinstance(item, Failure):
            read.append(item)
            continue
        try:
            images = {
                camera: unread(frames) if isinstance(unread(frames), UnreadFrames) else list(frames)
                for camera, frames in item.images.items()
            }
            read.append(dataclasses.replace(item, images=images))
        except BrokenEpisodeError as error:
            read.append(error.failure)
    return read


def unread(frames: Frames) -> Frames:
    """The frames behind the guard that a corpus puts around them."""
    return getattr(frames, "_frames", frames)
