"""Corpora in WebDataset: tar files with one sample per episode; opens with `webdataset.WebDataset(...).decode("rgb8")`.

    <id>.json                    num_frames, cameras, instruction, achieved_goals, features, convention of time
    <id>.action.npy              [T] int64 or [T, A] float32
    <id>.reward.npy              [T] float32; <id>.terminated.npy and <id>.truncated.npy [T] bool
    <id>.state.npy               [F, S] float32
    <id>.<camera>.000000.png     one picture per frame, as it was recorded: png, jpg, webp or bmp

    <id> and <camera> are escaped as `schemas.formats.member_names` says; in tars of other tools <id> may lie in a folder

What an episode does not hold is absent. The order of a sample's members does not matter, and members of other names are
ignored. A tar is walked from front to end: the headers of a sample tell whether it is whole and where its pictures are, which
then stream from their places. So memory is bounded by one picture, and the episodes before a cut are still given.
"""

import dataclasses
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode, Frames, UnreadFrames
from vlm_rewards.schemas.files.digests import check_recorded
from vlm_rewards.schemas.formats.folder import File, Folder
from vlm_rewards.schemas.formats.interface import FIELDS, FoundEpisode, InvalidEpisodeError, Wanted
from vlm_rewards.schemas.formats.member_names import escape_name, unescape_name
from vlm_rewards.schemas.formats.units import file_ranges, file_stem, share_units
from vlm_rewards.schemas.formats.webdataset_corpus.frames import PicturePlaces, Source, TarFrames
from vlm_rewards.schemas.formats.webdataset_corpus.members import (
    BrokenTarError,
    check_size,
    parse_array,
    parse_record,
    read_member,
    split_name,
    walk,
)
from vlm_rewards.schemas.formats.webdataset_corpus.order import SamplePlaces
from vlm_rewards.schemas.formats.webdataset_corpus.writer import ARRAYS, FLAGS, TRUTH_GOALS
from vlm_rewards.schemas.manifests import Failure, Unit

MAX_JSON_BYTES = 256 * 2**20
MAX_ARRAY_BYTES = 1024 * 2**20
MAX_IMAGE_BYTES = 64 * 2**20

_FIELD_OF = {"actions": "actions", "states": "states", **dict.fromkeys(("rewards", *FLAGS), "rewards")}
_PICTURE = re.compile(r"(?P<camera>[^/]+)\.(?P<frame>\d{1,9})\.(?:png|jpe?g|webp|bmp)", re.ASCII | re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class WebDatasetReader:
    """An open WebDataset corpus; see the module's picture.

    Args:
        folder: Folder of the corpus.
        features: Features of its first readable episode.
    """

    folder: Folder
    features: CorpusFeatures

    def units(self, max_bytes: int) -> list[Unit]:
        """Returns one unit per file, or several of about `max_bytes` for a larger file, which is walked from header to header.

        Small files share a unit; ranges count bytes.
        """
        units = [unit for file in tar_files(self.folder) for unit in plan_file(self.folder, file, max_bytes)]
        return share_units(self.folder, units, max_bytes)

    def own_files(self) -> list[str]:
        """Returns the names of the folder's files of this ending."""
        return [file.name for file in tar_files(self.folder)]

    def episodes(self, unit: Unit, wanted: Wanted) -> Iterator[FoundEpisode | Failure]:
        """Yields the unit's episodes."""
        for name, start, stop in file_ranges(unit):
            try:
                changed = _change(self.folder, name)
                yield from _read_samples(self.folder, name, start, stop, wanted) if changed is None else [changed]
            except Exception as error:
                error.add_note(f"while reading {self.folder.path(name)}")
                raise

    def episode_ids(self, unit: Unit) -> list[str]:
        """Returns the ids of a unit's episodes in order, each once; up to the place where a file becomes unreadable."""
        ids: dict[str, None] = {}
        for name, start, stop in file_ranges(unit):
            with self.folder.open(name) as file:
                try:
                    for member in walk(file, start, stop):
                        ids[unescape_name(split_name(member.name)[0])] = None
                except BrokenTarError:
                    pass  # reported as a Failure when the unit is read
        return list(ids)


def _change(folder: Folder, name: str) -> Failure | None:
    """Returns the failure of a local file of `record` that has changed since; of a tar nothing else tells it."""
    if folder.is_local:
        try:
            check_recorded(Path(folder.path(name)))
        except ValueError as error:
            return Failure(scope="shard", shard=name, reason="changed shard", detail=str(error))
    return None


def tar_files(folder: Folder) -> list[File]:
    """Returns the tar files of a folder, in order."""
    return folder.files_ending({".tar"})


def open_webdataset(folder: Folder, options: Mapping[str, str]) -> WebDatasetReader:
    """Opens a folder of tar files; what is wrong with single files is told when they are read.

    Raises:
        ValueError: No file can be read; the message says what is wrong with the first.
    """
    first: ValueError | None = None
    files = tar_files(folder)
    for file in files:
        try:
            return WebDatasetReader(folder, read_file_features(folder, file.name))
        except ValueError as error:
            first = first or error
    raise ValueError(
        f"a corpus must have a readable shard, got {len(files)} that are not, the first being "
        f"{folder.path(files[0].name)} ({first})"
    ) from first


def read_file_features(folder: Folder, name: str) -> CorpusFeatures:
    """Returns the features of a file: from its first sample's JSON, or from the sample itself if another tool wrote it.

    Raises:
        ValueError: The tar has no episode that can be read, or its features are none.
    """
    failure = "it is empty"
    for fields in (
        FIELDS,
        frozenset[str](),
    ):  # a sample that is broken in what labels do not need still tells its cameras
        for found in _read_samples(folder, name, 0, -1, Wanted(None, False, fields)):
            if isinstance(found, Failure):
                failure = str(found)
                continue
            try:
                return _sample_features(folder, name, found.read())
            except InvalidEpisodeError as error:
                failure = f"{name}, episode {found.episode_id}: {error.reason}: {error}"
            except _FeaturesError:
                raise
            except ValueError as error:
                failure = f"{name}, episode {found.episode_id}: invalid episode: {error}"
    raise ValueError(f"a tar file must hold a readable episode, got none in {folder.path(name)} ({failure})")


class _FeaturesError(ValueError):
    """Raised for a sample whose stated features are invalid."""


def _sample_features(folder: Folder, name: str, episode: Episode) -> CorpusFeatures:
    with folder.open(name) as file:
        names = {(key, "json") for key in (episode.episode_id, escape_name(episode.episode_id))}
        member = next(m for m in walk(file) if split_name(m.name) in names)
        record = json.loads(read_member(file, member, MAX_JSON_BYTES))
    covered = member.pax_headers.get(TRUTH_GOALS)  # of the file: a global header holds for every member after it
    try:
        features = CorpusFeatures(**record["features"]) if "features" in record else CorpusFeatures.of(episode)
        return features if covered is None else dataclasses.replace(features, truth_goals=json.loads(covered))
    except (TypeError, ValueError) as error:
        detail = f"features must say what the corpus holds, got {record.get('features', covered)!r} ({error})"
        raise _FeaturesError(f"{detail}. Remove them from {member.name!r} in {folder.path(name)}") from error


def plan_file(folder: Folder, file: File, max_bytes: int) -> list[Unit]:
    """Cuts a file into units of about `max_bytes`: ranges of bytes that begin with a sample.

    A small file is one unit at once; a large one is walked from header to header. From the place where it becomes
    unreadable it stays uncut: the reader of that unit says what is wrong.
    """
    stem = file_stem(file.name)
    whole = Unit(name=stem, files=(file.name,), num_bytes=file.num_bytes)
    if file.num_bytes <= max_bytes:
        return [whole]
    starts: list[int] = []
    counts: list[int] = []
    with folder.open(file.name) as opened:
        previous = None
        try:
            for member in walk(opened):
                key = split_name(member.name)[0]
                if key != previous:
                    if not starts or member.offset - starts[-1] >= max_bytes:
                        starts.append(member.offset)
                        counts.append(0)
                    counts[-1] += 1
                    previous = key
        except BrokenTarError:
            pass
    if len(starts) < 2:
        return [dataclasses.replace(whole, num_episodes=counts[0] if counts else None)]
    starts[0] = 0
    return [
        dataclasses.replace(
            whole,
            name=f"{stem}-b{start:012d}",
            start=start,
            stop=stop if stop < file.num_bytes else -1,
            num_bytes=stop - start,
            num_episodes=count,
        )
        for start, stop, count in zip(starts, [*starts[1:], file.num_bytes], counts, strict=True)
    ]


def _read_samples(folder: Folder, name: str, start: int, stop: int, wanted: Wanted) -> Iterator[FoundEpisode | Failure]:
    sample: _Sample | None = None
    with folder.open(name) as file, folder.open(name) as pictures:
        source = Source(folder, name, pictures)
        places = SamplePlaces(folder, name, _PICTURE)
        try:
            for member in walk(file, start, stop):
                key, suffix = split_name(member.name)
                if sample is None or sample.key != key:
                    if sample is not None:
                        done, sample = sample, None
                        yield from _found(done, places)
                    sample = _Sample(key, source, wanted)
                sample.add(member, suffix, file)
            if sample is not None:
                yield from _found(sample, places)
        except BrokenTarError as error:
            within = "" if sample is None else f", in episode {sample.episode_id!r}"
            # Our own samples end with their pictures: one with all of them is whole.
            if sample is not None and sample.is_whole_one_of_ours:
                yield sample.found()
                within = f", after episode {sample.episode_id!r}"
            detail = (
                f"a tar file must be whole, got one that {error}{within}; the rest of it is not read. Copy it again from its "
                "source"
            )
            yield Failure(scope="shard", shard=name, reason="unreadable shard", detail=detail)


def _found(sample: "_Sample", places: SamplePlaces) -> Iterator[FoundEpisode | Failure]:
    """Yields the sample, or once for all its pieces that it lies in several places of the tar."""
    if places.is_told(sample.key):
        return
    failure = None if sample.is_whole else places.failure(sample.key, sample.episode_id)
    yield failure or sample.found()


class _Sample:
    """The members of one episode, as they arrive; the first thing wrong is kept and the rest skipped."""

    def __init__(self, key: str, source: Source, wanted: Wanted) -> None:
        self.key = key
        self.episode_id = unescape_name(key)
        self._dotted: list[str] = []  # "b" where a member is named "<key>.b.json"
        self._source = source
        self._wanted = wanted
        self._record: dict | None = None
        self._arrays: dict[str, np.ndarray] = {}
        self._pictures: dict[str, PicturePlaces] = {}
        self._problem: InvalidEpisodeError | None = None

    def add(self, member: tarfile.TarInfo, suffix: str, file: BinaryIO) -> None:
        """Adds a member."""
        match = _PICTURE.fullmatch(suffix)
        if self._problem is None:
            try:
                self._take(member, suffix, match, file)
            except InvalidEpisodeError as problem:
                self._problem = problem
        if self._problem is not None and match:  # lost with the rest, but counted
            self._pictures_of(match).add(int(match["frame"]), 0, 0)

    @property
    def is_whole_one_of_ours(self) -> bool:
        """Whether all that its JSON promises is there, and we wrote it."""
        return self.is_whole and self._record is not None and "features" in self._record

    @property
    def is_whole(self) -> bool:
        """Whether all pictures that its JSON promises are there."""
        if self._problem is not None or self._record is None:
            return False
        cameras = self._record["cameras"] if self._wanted.cameras is None else self._wanted.cameras
        counts = [len(self._pictures.get(camera, ())) for camera in cameras if camera in self._record["cameras"]]
        return all(count == self._record["num_frames"] for count in counts)

    def found(self) -> FoundEpisode:
        """Returns the episode, to be put together."""
        recorded = 0 if self._record is None else self._record["num_frames"]
        num_frames = max([recorded, *map(len, self._pictures.values())])
        # What is wrong with a sample goes before a camera that it lacks.
        cameras = self._wanted.cameras if self._problem is not None or self._record is None else None
        if cameras is None:
            cameras = () if self._record is None else tuple(self._record["cameras"])
        return FoundEpisode(self.episode_id, num_frames, self._source.name, self._assemble, cameras)

    def _take(self, member: tarfile.TarInfo, suffix: str, match: re.Match[str] | None, file: BinaryIO) -> None:
        if not member.isreg() or member.sparse is not None:
            kind = f"a link, device or other (tar type {member.type!r})"
            detail = f"a member must be a plain file, got {member.name!r}, {kind}. Pack plain files, without folders"
            raise InvalidEpisodeError("odd member", detail)
        if suffix == "json":
            self._record = parse_record(read_member(file, member, MAX_JSON_BYTES), member.name)
        elif suffix in ARRAYS:
            if _FIELD_OF[ARRAYS[suffix]] in self._wanted.fields:
                self._arrays[ARRAYS[suffix]] = parse_array(read_member(file, member, MAX_ARRAY_BYTES), member.name)
        elif match:
            camera = unescape_name(match["camera"])
            if self._wanted.frames and (self._wanted.cameras is None or camera in self._wanted.cameras):
                check_size(member, MAX_IMAGE_BYTES)
            pictures = self._pictures_of(match)
            if not pictures.add(int(match["frame"]), member.offset_data, member.size):
                raise InvalidEpisodeError(
                    "duplicate frame", f"a frame must occur once, got {member.name!r} again. Remove one"
                )
        elif suffix.endswith(".json"):
            self._dotted.append(suffix.removesuffix(".json"))

    def _assemble(self) -> Episode:
        if self._problem is not None:
            raise self._problem
        record = self._record
        self._check_key()
        if record is None:
            detail = f"an episode must have the member '{self.key}.json', got none. Add it"
            raise InvalidEpisodeError("missing member", detail)
        chosen = record["cameras"] if self._wanted.cameras is None else self._wanted.cameras
        images: dict[str, Frames] = {}
        for camera in chosen:
            places = self._pictures.get(camera, PicturePlaces()).places()
            self._check_frames(camera, places[:, 0], record["num_frames"])
            images[camera] = TarFrames(self._source, places) if self._wanted.frames else UnreadFrames(len(places))
        features = record.get("features")
        first = isinstance(features, dict) and features.get("missing_frame") == "first"
        arrays: dict[str, Any] = {name: as_recorded(name, values) for name, values in self._arrays.items()}
        return Episode(
            episode_id=self.episode_id,
            images=images,
            instruction=self._instruction(record) if "instruction" in self._wanted.fields else None,
            achieved_goals=self._achieved_goals(record) if "achieved_goals" in self._wanted.fields else None,
            lacks_first_frame=first,
            **arrays,
        )

    def _pictures_of(self, match: re.Match[str]) -> PicturePlaces:
        return self._pictures.setdefault(unescape_name(match["camera"]), PicturePlaces())

    def _check_key(self) -> None:
        """Refuses members of which another tool meant "<key>.b" to be the key: those of several episodes are mixed."""
        for dotted in self._dotted:
            if self._record is None or any(camera.startswith(f"{dotted}.") for camera in self._pictures):
                raise InvalidEpisodeError(
                    "key with dots",
                    f"a key must hold no dots, since all after the first is the ending: got '{self.key}.{dotted}.json' and "
                    f"others in the sample {self.key!r}. Write the dots of the key as %2E",
                )

    def _check_frames(self, camera: str, frames: np.ndarray, num_frames: int) -> None:
        gaps = np.flatnonzero(frames[:num_frames] != np.arange(min(num_frames, len(frames))))
        missing = int(gaps[0]) if len(gaps) else len(frames) if len(frames) < num_frames else None
        if missing is not None or len(frames) != num_frames:
            what = f"no frame {missing}" if missing is not None else f"{len(frames)} frames"
            detail = (
                f"camera {camera!r} must have frames 0 to {num_frames - 1}, got {what}. Add what is missing, or correct "
                "num_frames in its JSON"
            )
            raise InvalidEpisodeError("missing frames", detail)

    def _instruction(self, record: dict) -> str | None:
        instruction = record.get("instruction")
        if instruction is not None and not isinstance(instruction, str):
            detail = f"an instruction must be a text, got {str(instruction)[:60]} in {self.key}.json. Correct it"
            raise InvalidEpisodeError("broken member", detail)
        return instruction

    def _achieved_goals(self, record: dict) -> list[list[str]] | None:
        achieved = record.get("achieved_goals")
        if achieved is not None and not (
            isinstance(achieved, list)
            and all(isinstance(goals, list) and all(isinstance(goal, str) for goal in goals) for goals in achieved)
        ):
            detail = f"achieved_goals must be a list a frame, got {str(achieved)[:60]}. Correct it in {self.key}.json"
            raise InvalidEpisodeError("broken member", detail)
        return achieved


def as_recorded(name: str, values: np.ndarray) -> np.ndarray:
    """Turns an array into the dtype and rank of its part of an Episode.

    Args:
        name: Name of that part, such as "actions".
        values: The array.

    Raises:
        InvalidEpisodeError: It has another number of axes.
    """
    if name == "actions" and values.ndim == 1 and values.dtype.kind in "iu":
        dtype: type = np.int64
    else:
        dtype = np.bool_ if name in FLAGS else np.float32
    rank = 2 if name == "states" or (name == "actions" and dtype is np.float32) else 1
    if values.ndim != rank and not (rank == 2 and values.ndim == 1):
        detail = f"{name} must have {rank} axes, got {list(values.shape)}. Write it again in that shape"
        raise InvalidEpisodeError("invalid episode", detail)
    return (values if values.ndim == rank else values[:, None]).astype(dtype)
