"""Minari data sets, written by Minari itself, with the number of steps so far in the pixels of each frame."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from hdf5_recordings import numbered_actions, numbered_frames
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

STORAGES = ("hdf5", "arrow", "parquet")
PICTURE = spaces.Box(0, 255, (32, 32, 3), np.uint8)
VECTOR = spaces.Box(-100, 100, (2,), np.float64)
OBSERVATIONS = spaces.Dict({"image": PICTURE, "pose": VECTOR, "mission": spaces.Text(40)})


def write_minari(
    folder: Path,
    data_format: str,
    lengths: Sequence[int] = (3, 2),
    *,
    jpeg: bool = True,
    space: spaces.Space = OBSERVATIONS,
    actions: tuple[spaces.Space, Any] | None = None,
) -> Path:
    """Writes episodes of so many steps into `folder/data`.

    Args:
        folder: The data set's folder.
        data_format: The storage.
        lengths: Steps per episode.
        jpeg: Whether pictures are JPEG.
        space: The observations; its pictures and vectors are filled.
        actions: Space and values of the actions of every episode; numbered vectors by default.
    """
    (folder / "data").mkdir(parents=True, exist_ok=True)
    action_space = VECTOR if actions is None else actions[0]
    storage = MinariStorage.new(folder / "data", space, action_space, data_format=data_format, jpeg_encoding=jpeg)
    storage.update_episodes(
        EpisodeBuffer(
            id=index,
            observations=_filled(space, length + 1, index),
            actions=numbered_actions(length) if actions is None else actions[1],
            rewards=[t / 4 for t in range(length)],
            terminations=[t == length - 1 and index % 2 == 0 for t in range(length)],
            truncations=[t == length - 1 and index % 2 == 1 for t in range(length)],
            infos={},
        )
        for index, length in enumerate(lengths)
    )
    return folder


def _filled(space: spaces.Space, num_frames: int, index: int) -> Any:
    if isinstance(space, spaces.Dict):
        return {name: _filled(inner, num_frames, index) for name, inner in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_filled(inner, num_frames, index) for inner in space.spaces)
    if isinstance(space, spaces.Text):
        return [f"get the ball {index}"] * num_frames
    if space == PICTURE:
        return numbered_frames(range(num_frames))
    return np.stack([np.full(space.shape, t, space.dtype) for t in range(num_frames)])
