"""Corpora in HDF5: files of robomimic (MimicGen, RoboCasa), LIBERO, and ALOHA / ACT, distinguished by their content.

    folder/a.hdf5   data/demo_0, demo_1, ...     episodes "a/demo_0", "a/demo_1", ...
    folder/b.hdf5   data/demo_0                  episode  "b/demo_0"
    folder/episode_0.hdf5  action, observations  episode  "episode_0"

Ids hold the file's name also where a corpus is one file, so that they stay when files are added. A unit is a range of episodes
of one file, or several small files. Pictures are read in slices, see `frames.py`; nothing outside a file is followed.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.formats.exports import own_labels
from vlm_rewards.schemas.formats.folder import File, Folder
from vlm_rewards.schemas.formats.hdf5_corpus.aloha import ALOHA
from vlm_rewards.schemas.formats.hdf5_corpus.demos import DEMOS
from vlm_rewards.schemas.formats.hdf5_corpus.files import (
    UnreadableFileError,
    group_at,
    hdf5_files,
    open_hdf5,
    plain_errors,
    summary_of,
)
from vlm_rewards.schemas.formats.hdf5_corpus.recording import Layout, Recording, Told
from vlm_rewards.schemas.formats.interface import CorpusFormat, FoundEpisode, InvalidEpisodeError, Wanted
from vlm_rewards.schemas.formats.units import file_ranges, file_stem, share_units
from vlm_rewards.schemas.manifests import Failure, Unit

if TYPE_CHECKING:
    import h5py

LAYOUTS: tuple[Layout, ...] = (DEMOS, ALOHA)


@dataclasses.dataclass(frozen=True)
class Hdf5Reader:
    """An open HDF5 corpus.

    Args:
        folder: Folder of the corpus.
        features: Features of the first readable episode.
        told: Options that the user gave.
        layouts: Layouts that its files may have.
        only: Name of the only file to read, whose episodes are named by their keys alone; None for all HDF5 files.
        metadata: Name of the file beside it that describes it; "" for none.
        notes: Notes for the user on how it is read.
    """

    folder: Folder
    features: CorpusFeatures
    told: Told
    layouts: tuple[Layout, ...] = LAYOUTS
    only: str | None = None
    metadata: str = ""
    notes: tuple[str, ...] = ()

    def units(self, max_bytes: int) -> list[Unit]:
        """Returns units of whole episodes; ranges count episodes."""
        only = self.only
        files = hdf5_files(self.folder) if only is None else [File(only, self.folder.size(only))]
        planned = [unit for file in files for unit in self._plan(file, max_bytes)]
        return share_units(self.folder, planned, max_bytes)

    def own_files(self) -> list[str]:
        """Returns the names of the HDF5 files, and of what describes them."""
        if self.only is None:
            return [file.name for file in hdf5_files(self.folder)]
        return [name for name in (self.only, self.metadata) if name]

    def episodes(self, unit: Unit, wanted: Wanted) -> Iterator[FoundEpisode | Failure]:
        """Yields the unit's episodes."""
        for name, start, stop in file_ranges(unit):
            try:
                file, layout, keys = open_recordings(self.folder, name, self.told, self.layouts)
            except ValueError as error:
                yield Failure(scope="shard", shard=name, reason="unreadable shard", detail=str(error))
                continue
            for key in keys[start : len(keys) if stop < 0 else stop]:
                yield self._found(file, layout, key, name, wanted)

    def episode_ids(self, unit: Unit) -> list[str]:
        """Returns the ids of a unit's episodes in order, without those of files that cannot be read."""
        ids = []
        for name, start, stop in file_ranges(unit):
            try:
                _, _, keys = open_recordings(self.folder, name, self.told, self.layouts)
            except ValueError:
                continue  # reported as a Failure when the unit is read
            ids += [self._id(name, key) for key in keys[start : len(keys) if stop < 0 else stop]]
        return ids

    def labelled_by(self, unit: Unit) -> dict[str, str]:
        """Returns the model whose labels the rewards of any of the unit's episodes are."""
        for name, start, stop in file_ranges(unit):
            try:
                file, layout, keys = open_recordings(self.folder, name, self.told, self.layouts)
            except ValueError:
                continue  # reported as a Failure when the unit is read
            for key in keys[start : len(keys) if stop < 0 else stop]:
                model = _labels_of(file, layout, key, self.told)
                if model is not None:
                    return {own_labels.REWARDS: model}
        return {}

    def _id(self, name: str, key: str) -> str:
        stem = name.rpartition(".")[0]
        return key if self.only is not None else f"{stem}/{key}" if key else stem

    def _found(self, file: "h5py.File", layout: Layout, key: str, name: str, wanted: Wanted) -> FoundEpisode:
        found_id = self._id(name, key)
        try:
            recording = _recording(file, layout, key, self.told)
        except ValueError as error:
            return FoundEpisode(found_id, 0, name, _raising(error), wanted.cameras or ())
        return FoundEpisode(
            found_id,
            recording.num_frames,
            name,
            lambda: recording.episode(found_id, wanted),
            tuple(recording.cameras),
        )

    def _plan(self, file: File, max_bytes: int) -> list[Unit]:
        whole = Unit(name=file_stem(file.name), files=(file.name,), num_bytes=file.num_bytes)
        try:
            opened, layout, keys = open_recordings(self.folder, file.name, self.told, self.layouts)
        except ValueError:
            return [whole]  # reported as a Failure when the unit is read
        frames = []
        for key in keys:
            try:
                frames.append(_recording(opened, layout, key, self.told).num_frames)
            except ValueError:
                frames.append(0)
        whole = dataclasses.replace(whole, num_episodes=len(keys), num_frames=sum(frames))
        if file.num_bytes <= max_bytes or len(keys) < 2:
            return [whole]
        per_frame = file.num_bytes / max(1, sum(frames))
        starts = [0]
        waiting = 0.0
        for index, count in enumerate(frames):
            if waiting and waiting + count * per_frame > max_bytes:
                starts.append(index)
                waiting = 0.0
            waiting += count * per_frame
        return [
            dataclasses.replace(
                whole,
                name=f"{whole.name}-e{start:06d}",
                start=start,
                stop=stop if stop < len(keys) else -1,
                num_episodes=stop - start,
                num_frames=sum(frames[start:stop]),
                num_bytes=round(sum(frames[start:stop]) * per_frame),
            )
            for start, stop in zip(starts, [*starts[1:], len(keys)], strict=True)
        ]


def _labels_of(file: "h5py.File", layout: Layout, key: str, told: Told) -> str | None:
    try:
        rewards = _recording(file, layout, key, told).rewards
    except ValueError:
        return None  # an episode that cannot be read says nothing
    return None if rewards is None else own_labels.model_of(rewards.attrs.get(own_labels.KEY))


def _recording(file: "h5py.File", layout: Layout, key: str, told: Told) -> Recording:
    with plain_errors(f"the episode {key!r}"):
        return layout.recording(file, key, told)


def open_recordings(
    folder: Folder, name: str, told: Told, layouts: Sequence[Layout]
) -> tuple["h5py.File", Layout, Sequence[str]]:
    """Opens a file and lists the keys of its episodes.

    Raises:
        UnreadableFileError: It is no HDF5, of another kind, or without episodes.
    """
    file = open_hdf5(folder, name)
    with plain_errors(f"the file {name}"):
        for layout in layouts:
            if layout.holds(file):
                return file, layout, layout.keys(file, told)
        groups = ((key, group_at(file, key)) for key in file)
        inner = "; ".join(f"{key}/ holds {summary_of(group)}" for key, group in groups if group is not None)
        found = f"{summary_of(file)}{f'; {inner}' if inner else ''}"
    expected = ", or of ".join(f"{layout.name} ({layout.path})" for layout in layouts)
    raise UnreadableFileError(
        f"an HDF5 corpus must be of {expected}: got the keys {found}. Convert it, or leave it out"
    )


def open_hdf5_corpus(folder: Folder, options: Mapping[str, str]) -> Hdf5Reader:
    """Opens a folder of HDF5 files; errors of single files are reported when they are read.

    Raises:
        ValueError: No episode can be read, or an option has an invalid value.
    """
    told = Told.of(options)
    features, notes = first_look(folder, [file.name for file in hdf5_files(folder)], told, LAYOUTS)
    return Hdf5Reader(folder, features, told, notes=notes)


def first_look(
    folder: Folder, names: Sequence[str], told: Told, layouts: Sequence[Layout]
) -> tuple[CorpusFeatures, tuple[str, ...]]:
    """Returns the features of the first readable episode, and notes for the user.

    Raises:
        ValueError: There is none; the message says what is wrong with the first.
    """
    first = ""  # a text, since the error would keep its file open
    for name in names:
        try:
            opened, layout, keys = open_recordings(folder, name, told, layouts)
        except ValueError as error:
            first = first or str(error)
            continue
        for key in keys:
            try:
                recording = _recording(opened, layout, key, told)
            except ValueError as error:
                first = first or str(error)
                continue
            return _features(recording), recording.notes
    raise ValueError(
        f"a corpus must have an episode that can be read: got none in {len(names)} HDF5 file{'s' * (len(names) != 1)}, the "
        f"first being {folder.path(names[0])} ({first or 'it holds no episode'})"
    )


def _features(recording: Recording) -> CorpusFeatures:
    return CorpusFeatures(
        cameras=tuple(recording.cameras),
        action_size=recording.action_size,
        state_size=recording.state_size,
        has_rewards=recording.rewards is not None,
        has_instruction=recording.instruction is not None,
        missing_frame=recording.missing_frame,
    )


def _raising(error: ValueError) -> Callable[[], Episode]:
    reason = error.reason if isinstance(error, InvalidEpisodeError) else "invalid episode"
    detail = str(error)

    def read() -> Episode:
        raise InvalidEpisodeError(reason, detail)  # another one: with its traceback, the first would keep the file open

    return read


HDF5 = CorpusFormat(
    name="hdf5",
    recognizes=lambda folder: bool(hdf5_files(folder)),
    open=open_hdf5_corpus,
    extension="hdf5",
    options={
        "filter": "name of a list of demos in the group mask of a robomimic file, such as train; only these are read",
        "states": "names of observations that make up the state vector, with commas between them",
        "channels": "rgb or bgr: order of the channels of the pictures; rgb by default",
        "upside-down": "yes or no: whether the pictures are upside down; LIBERO's files say so themselves",
    },
)
