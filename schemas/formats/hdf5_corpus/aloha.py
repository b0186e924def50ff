"""The layout of ALOHA / ACT: one episode per file, images[i] seen before action i, and no frame after the last action.

/action [T, A]    /observations/qpos [T, A]    /observations/images/<camera> [T, H, W, 3] uint8
                                               or [T, L]: JPEG, padded with zeros to the longest of the file
"""

from typing import TYPE_CHECKING

import numpy as np

from vlm_rewards.schemas.formats.hdf5_corpus.files import dataset_at, datasets, group_at, summary_of
from vlm_rewards.schemas.formats.hdf5_corpus.frames import Looks, Piece, SliceFrames, why_not_pictures
from vlm_rewards.schemas.formats.hdf5_corpus.recording import Layout, Recording, Told
from vlm_rewards.schemas.formats.interface import InvalidEpisodeError

if TYPE_CHECKING:
    import h5py

_IMAGES = "observations/images"


def _holds_images(file: "h5py.File") -> bool:
    return group_at(file, _IMAGES) is not None


def _keys(file: "h5py.File", told: Told) -> list[str]:
    if told.filter is not None:
        raise ValueError(
            f"the option filter is for files of robomimic: got {told.filter!r} for a file of ALOHA. Leave it out"
        )
    return [""]


def aloha_recording(file: "h5py.File", key: str, told: Told) -> Recording:
    """Finds the parts of the file's episode.

    Raises:
        ValueError: The file has no pictures.
    """
    images = group_at(file, _IMAGES)
    assert images is not None
    found = dict(datasets(images))
    cameras = {}
    for name, dataset in found.items():
        encoded = _is_encoded(dataset)
        if encoded or not why_not_pictures(dataset):
            looks = Looks(encoded=encoded, upside_down=told.upside_down is True, bgr=told.bgr)
            cameras[name] = SliceFrames([Piece(dataset, 0, len(dataset))], looks)
    if not cameras:
        detail = f"{_IMAGES!r} must hold [T, H, W, 3] uint8 or encoded pictures: got {summary_of(images)}. Convert them"
        raise InvalidEpisodeError("no pictures", detail)
    observed = group_at(file, "observations")
    assert observed is not None
    states = []
    for name in told.states:
        dataset = dataset_at(observed, name)
        if dataset is None:
            raise ValueError(
                f"the option states must name observations: got {name!r}, and they are {summary_of(observed)}. Correct it"
            )
        states.append([Piece(dataset, 0, len(dataset))])
    return Recording(
        cameras=cameras,
        states=states,
        actions=dataset_at(file, "action"),
    )


def _is_encoded(dataset: "h5py.Dataset") -> bool:
    """Returns whether each row is one picture's bytes: padded, or of its own length."""
    if dataset.ndim == 2:
        return bool(dataset.dtype == np.uint8)
    return dataset.ndim == 1 and dataset.dtype.kind in "OS"


ALOHA = Layout("ALOHA", _IMAGES, _holds_images, _keys, aloha_recording)
