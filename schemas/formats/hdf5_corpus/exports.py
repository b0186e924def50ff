"""Writes labels into files of robomimic and LIBERO: rewards, and the list of demos that succeeded.

    data/demo_0/rewards     [T], one per action, of the frame after it; as it was stored if that was floating-point, else float32
    data/demo_0/vlm_scores  [F, G] float32, the scores of the frames for all goals, where asked for
    mask/vlm_success        names of the demos in which the goal was achieved: a filter key of robomimic

Each file is copied byte for byte and then changed in these places alone, so pictures stay as they are. `dones` stay, too.
"""

import shutil
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vlm_rewards.schemas.formats.exports import own_labels
from vlm_rewards.schemas.formats.exports.interface import (
    EpisodeValues,
    ExportEpisode,
    ExportFormat,
    ExportSettings,
    LabelledCorpus,
    local_folder,
    require_all,
    require_all_scores,
    smoothed,
)
from vlm_rewards.schemas.formats.exports.publishing import Changes
from vlm_rewards.schemas.formats.hdf5_corpus.demos import DEMOS
from vlm_rewards.schemas.formats.hdf5_corpus.files import group_at
from vlm_rewards.schemas.formats.hdf5_corpus.reader import HDF5

if TYPE_CHECKING:
    import h5py

MASK = "mask/vlm_success"
SCORES = "vlm_scores"
_NAME = "robomimic"


def write_robomimic(labelled: LabelledCorpus, changes: Changes, settings: ExportSettings) -> list[str]:
    """Rewrites the files with rewards and the list of successes; see the module's picture."""
    require_all(labelled, _NAME)
    if settings.all_scores:
        require_all_scores(labelled, _NAME)
    folder = local_folder(labelled.corpus)
    by_file: dict[str, list[ExportEpisode]] = defaultdict(list)
    for episode in labelled.episodes:
        by_file[episode.file].append(episode)
    rewarded = succeeded = others = 0
    for name, episodes in by_file.items():
        path = changes.file(name)
        shutil.copyfile(folder / name, path)
        num_successes, num_others = _write_file(path, name, episodes, labelled, settings)
        rewarded, succeeded, others = rewarded + len(episodes), succeeded + num_successes, others + num_others
    lines = [f"{rewarded:,} demos have new rewards; {succeeded:,} of them succeeded and are listed in {MASK}"]
    if others:
        lines.append(f"{others:,} demos were not labelled and keep their rewards: train with the filter of the labels")
    return lines


def _write_file(
    path: Path, name: str, episodes: list[ExportEpisode], labelled: LabelledCorpus, settings: ExportSettings
) -> tuple[int, int]:
    """Returns the number of demos that succeeded, and that of demos that were not labelled."""
    import h5py

    stem = name.rpartition(".")[0]
    with h5py.File(path, "r+") as file:
        if not DEMOS.holds(file):
            raise ValueError(
                f"the export {_NAME!r} takes files of {DEMOS.name}: got {name} of another layout. Export verdicts, which takes all"
            )
        data = group_at(file, "data")
        assert data is not None
        successful = []
        for episode in episodes:
            key = episode.episode_id.removeprefix(f"{stem}/")
            demo = group_at(data, key)
            assert demo is not None, key
            values = labelled.values(episode)
            replace_rewards(demo, values, episode, labelled.model)
            if settings.all_scores:
                demo.pop(SCORES, None)
                demo[SCORES] = smoothed(values.all_scores, settings.smooth)
                demo[SCORES].attrs["goals"] = [goal.id for goal in labelled.goals]
            if values.successes.any():
                successful.append(key)
        if MASK in file:
            del file[MASK]
        file[MASK] = np.array([key.encode() for key in successful], dtype=None if successful else "S1")
        return len(successful), len(data) - len(episodes)


def replace_rewards(group: "h5py.Group", values: EpisodeValues, episode: ExportEpisode, model: str) -> None:
    """Writes an episode's rewards into its group, in the place and type of those that are there where these can hold them.

    An attribute of them says that they are labels of the model.

    Raises:
        ValueError: The file has another number of actions than the labels.
    """
    rewards = values.rewards
    stored = group.get("rewards")
    if stored is not None and len(stored) != len(rewards):
        raise ValueError(
            f"an episode must have as many rewards as labelled actions: got {len(stored)} and {len(rewards)} for "
            f"{episode.episode_id!r}. Label the corpus again"
        )
    if stored is not None and stored.dtype.kind == "f":
        stored[...] = rewards.reshape(stored.shape)
    else:
        if stored is not None:  # whole numbers would truncate rewards
            del group["rewards"]
        group["rewards"] = rewards.astype(np.float32)
    group["rewards"].attrs[own_labels.KEY] = own_labels.mark_text(model)


ROBOMIMIC = ExportFormat(
    name=_NAME,
    write=write_robomimic,
    corpus_formats=(HDF5.name,),
    takes=("smooth", "all_scores"),
    place="copy",
)
