"""Reads Minari's HDF5 storage: one group per episode, with pictures as JPEG or pixels.

episode_0/observations/image   [T+1] JPEG, or [T+1, H, W, 3] uint8       episode_0/actions   [T, A]
"""

from typing import TYPE_CHECKING

import numpy as np

from vlm_rewards.schemas.formats.hdf5_corpus.files import (
    UnreadableFileError,
    dataset_at,
    datasets,
    find,
    group_at,
    plain_errors,
    summary_of,
    text_of,
)
from vlm_rewards.schemas.formats.hdf5_corpus.frames import Looks, Piece, SliceFrames, why_not_pictures
from vlm_rewards.schemas.formats.hdf5_corpus.recording import Layout, Recording, Told
from vlm_rewards.schemas.formats.interface import InvalidEpisodeError
from vlm_rewards.schemas.formats.minari_corpus.layout import INSTRUCTION, WHOLE

if TYPE_CHECKING:
    import h5py

_EPISODE = "episode_"
_JPEG = b"\xff\xd8\xff"


def _holds_episodes(file: "h5py.File") -> bool:
    return any(name.startswith(_EPISODE) for name in file)


def _keys(file: "h5py.File", told: Told) -> list[str]:
    numbers = sorted(int(name.removeprefix(_EPISODE)) for name in file if name.removeprefix(_EPISODE).isdecimal())
    if not numbers:
        raise UnreadableFileError(f"a Minari file must hold episodes: got {summary_of(file)}. Download it again")
    return [f"{_EPISODE}{number}" for number in numbers]


def minari_recording(file: "h5py.File", key: str, told: Told) -> Recording:
    """Finds the parts of an episode.

    Raises:
        ValueError: It has no pictures, or lacks an observation that people named.
    """
    import h5py

    episode = group_at(file, key)
    observed = None if episode is None else find(episode, "observations")
    if episode is None or observed is None:
        raise InvalidEpisodeError("invalid episode", f"{key} must hold observations: got none. Leave the episode out")
    found = (
        {WHOLE: observed} if isinstance(observed, h5py.Dataset) else {_name(path): d for path, d in datasets(observed)}
    )
    actions = find(episode, "actions")
    cameras = {}
    for name, dataset in found.items():
        encoded = _is_encoded(dataset)
        if encoded or not why_not_pictures(dataset):
            cameras[name] = SliceFrames([Piece(dataset, 0, len(dataset))], Looks(encoded=encoded))
    if not cameras:
        raise no_pictures({name: f"{list(dataset.shape)} {dataset.dtype}" for name, dataset in found.items()})
    for name in told.states:
        if name not in found or name in cameras:
            raise no_observation("states", name, [name for name in found if name not in cameras])
    return Recording(
        cameras=cameras,
        states=[[Piece(found[name], 0, len(found[name]))] for name in told.states],
        actions=actions if isinstance(actions, h5py.Dataset) else None,
        odd_actions=f"a tree of {summary_of(actions)}" if isinstance(actions, h5py.Group) else "",
        rewards=dataset_at(episode, "rewards"),
        dones=dataset_at(episode, "terminations"),
        truncations=dataset_at(episode, "truncations"),
        instruction=_instruction(found, told),
    )


def no_pictures(found: dict[str, str]) -> InvalidEpisodeError:
    """Returns the error for observations without pictures.

    Args:
        found: Description of each observation.
    """
    shown = ", ".join(f"{name} {what}" for name, what in found.items())
    detail = f"observations must hold pictures of at least 32 x 32 pixels, uint8: got {shown}. Choose a set with pixels"
    return InvalidEpisodeError("no pictures", detail)


def no_observation(option: str, name: str, others: list[str]) -> ValueError:
    """Returns the error for an option that names no observation."""
    return ValueError(
        f"the option {option} must name observations: got {name!r}, and they are {', '.join(others) or 'none'}. Correct it"
    )


def _instruction(found: dict[str, "h5py.Dataset"], told: Told) -> str | None:
    import h5py

    name = told.instruction or INSTRUCTION
    texts = [path for path, dataset in found.items() if h5py.check_string_dtype(dataset.dtype) is not None]
    if name not in texts:
        if told.instruction is not None:
            raise no_observation("instruction", name, texts)
        return None
    with plain_errors(f"the data set {found[name].name!r}"):
        return text_of(found[name][0]) if len(found[name]) else None


def _is_encoded(dataset: "h5py.Dataset") -> bool:
    """Returns whether each row is a JPEG: of its own length, or all of the same length."""
    import h5py

    if dataset.ndim == 1:
        return bool(h5py.check_vlen_dtype(dataset.dtype) == np.uint8)
    if dataset.ndim != 2 or dataset.dtype != np.uint8 or not len(dataset):
        return False
    with plain_errors(f"the data set {dataset.name!r}"):
        return bool(dataset[0, : len(_JPEG)].tobytes() == _JPEG)


def _name(path: str) -> str:
    return "/".join(part.removeprefix("_index_") for part in path.split("/"))


MINARI_HDF5 = Layout("Minari", "episode_0/observations", _holds_episodes, _keys, minari_recording)
