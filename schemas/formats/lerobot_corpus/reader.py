"""LeRobot data sets of versions 2.0, 2.1 and 3.0, read in place.

    frame       o_0   o_1   o_2   ...   o_(T-1)      T frames, a row each
    action        a_0   a_1   a_2   ...   a_(T-1)    the last has no frame after it: `missing_frame="last"`
    next.reward   r_0   r_1   r_2   ...   r_(T-1)    r_t is of action a_t and looks at frame o_(t+1); next.success likewise

    meta/info.json, meta/tasks...   what it holds         ──►  `info.py`, `episodes.py`
    data/...parquet                 rows; pictures, too   ──►  `rows.py`, and the cursors of the format Parquet
    videos/...mp4                   an episode each (2), or many episodes (3), found by their times  ──►  `frames.py`

What the rows say counts: meta/info.json may speak of more episodes than there are. A unit is a range of episodes, counted in
the order of their rows; those that share a video are in one, as far as its size allows.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode, Frames, UnreadFrames
from vlm_rewards.schemas.formats.exports import own_labels
from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.interface import (
    CorpusFormat,
    FoundEpisode,
    InvalidEpisodeError,
    SeveralInstructionsError,
    Wanted,
)
from vlm_rewards.schemas.formats.lerobot_corpus.episodes import (
    EpisodeTable,
    VideoPlace,
    VideoPlaces,
    read_episode_table,
    read_tasks,
    read_video_places,
)
from vlm_rewards.schemas.formats.lerobot_corpus.frames import EpisodeVideo
from vlm_rewards.schemas.formats.lerobot_corpus.info import INFO, Camera, Info, data_sets_below, is_data_set, read_info
from vlm_rewards.schemas.formats.lerobot_corpus.planning import plan_units
from vlm_rewards.schemas.formats.lerobot_corpus.rows import RowCursor, numbers, texts
from vlm_rewards.schemas.formats.parquet_corpus.layout import is_picture
from vlm_rewards.schemas.formats.parquet_corpus.pictures import OpenFiles, ParquetFrames, PictureCursor, Rows
from vlm_rewards.schemas.manifests import Failure, Unit
from vlm_rewards.schemas.videos import VideoCursor, decoder_versions

_REWARD, _SUCCESS = "next.reward", "next.success"
_FIELD_COLUMNS = {
    "actions": ("action",),
    "states": ("observation.state",),
    "rewards": (_REWARD, "next.done", "next.terminated", "next.truncated"),
    "success": (_SUCCESS,),
    "instruction": ("task_index",),
}


@dataclasses.dataclass(frozen=True, eq=False)
class LeRobotReader:
    """An open LeRobot data set; see the module's picture.

    Args:
        folder: Folder of the corpus.
        info: Contents of meta/info.json.
        table: Table of its episodes.
        tasks: Texts by task_index; None if there are none.
        places: Places of version 3's episodes in the videos, by camera.
        features: Features of its episodes.
        notes: Notes for the user on where its metadata disagrees with its rows.
    """

    folder: Folder
    info: Info
    table: EpisodeTable
    tasks: Mapping[int, str | None] | None
    places: Mapping[str, VideoPlaces]
    features: CorpusFeatures
    notes: tuple[str, ...]

    def units(self, max_bytes: int) -> list[Unit]:
        """Returns ranges of episodes, see `schemas.formats.lerobot_corpus.planning`."""
        return plan_units(self.folder, self.info, self.table, self.place, max_bytes)

    def own_files(self) -> list[str]:
        """Returns the metadata, the data files, and the videos of the cameras."""
        cameras = [camera for camera in self.info.cameras if camera.is_video]
        places = [self.place(camera, position) for camera in cameras for position in range(len(self.table))]
        return ["meta/", *self.table.files, *dict.fromkeys(place.name for place in places if place is not None)]

    def episodes(self, unit: Unit, wanted: Wanted) -> Iterator[FoundEpisode | Failure]:
        """Yields the unit's episodes."""
        for name in unit.files[:1]:
            if name in self.table.broken:
                detail = f"nothing of it is read: {self.table.broken[name]}"
                yield Failure(scope="shard", shard=name, reason="unreadable shard", detail=detail)
                return
        one = _UnitPass(self, wanted)
        try:
            for position in range(unit.start, unit.stop):
                if not one.is_cut_off(position):
                    yield one.found(position)
        finally:
            one.close()

    def episode_ids(self, unit: Unit) -> list[str]:
        """Returns the ids of the unit's episodes."""
        return [self.table.id(position) for position in range(unit.start, unit.stop)]

    def decoders(self, camera: str) -> dict[str, str]:
        """Returns the versions of what decodes a camera's videos; none for pictures."""
        return decoder_versions() if any(c.name == camera and c.is_video for c in self.info.cameras) else {}

    def labelled_by(self, _unit: Unit) -> dict[str, str]:
        """Returns the models whose labels the rewards and successes are, as info.json says."""
        marks = {
            field: own_labels.model_of(self.info.features.get(name, {}).get(own_labels.KEY))
            for field, name in ((own_labels.REWARDS, _REWARD), (own_labels.SUCCESS, _SUCCESS))
        }
        return {field: model for field, model in marks.items() if model is not None}

    def place(self, camera: Camera, position: int) -> VideoPlace | None:
        """Returns the place of an episode in the videos of a camera; None if meta/episodes does not state it."""
        index = int(self.table.indices[position])
        if not self.info.has_files_of_several_episodes:
            return VideoPlace(self.info.video_name(camera, index, 0, 0), 0.0, -1.0)
        places = self.places[camera.name]
        row = places.row(index)
        if row is None:
            return None
        chunk, file = places.files[row].tolist()
        return VideoPlace(self.info.video_name(camera, index, chunk, file), *places.times[row].tolist())


class _UnitPass:
    """One pass over the episodes of a unit: every file is open once, and read forward."""

    def __init__(self, reader: LeRobotReader, wanted: Wanted) -> None:
        self._reader = reader
        self._wanted = wanted
        cameras = reader.info.cameras
        self._cameras = [camera for camera in cameras if wanted.cameras is None or camera.name in wanted.cameras]
        pictures = [camera for camera in self._cameras if wanted.frames and not camera.is_video]
        self._files = OpenFiles(
            reader.folder, [camera.name for camera in pictures], {camera.name: camera.key for camera in pictures}
        )
        self._pictures = {camera.name: PictureCursor(self._files, camera.name) for camera in pictures}
        self._videos = {camera.name: VideoCursor(reader.folder) for camera in self._cameras if camera.is_video}
        self._columns = ["frame_index", *(["timestamp"] if self._videos and wanted.frames else [])]
        self._columns += [column for field in sorted(wanted.fields) for column in _FIELD_COLUMNS.get(field, ())]
        self._rows = RowCursor(self._files, self._columns)

    def close(self) -> None:
        """Closes all files."""
        self._files.close()
        for cursor in self._videos.values():
            cursor.close()

    def is_cut_off(self, position: int) -> bool:
        """Returns whether an episode has rows in a file that broke off before, which was told."""
        return any(piece.file in self._files.broken for piece in self._reader.table.pieces(position))

    def found(self, position: int) -> FoundEpisode:
        """Returns an episode of the table."""
        table = self._reader.table
        num_frames = int(table.lengths[position])
        file = table.pieces(position)[0].file
        return FoundEpisode(table.id(position), num_frames, file, lambda: self._read(position))

    def _read(self, position: int) -> Episode:
        reader, fields = self._reader, self._wanted.fields
        episode_id, pieces = reader.table.id(position), reader.table.pieces(position)
        rows = self._rows.take(episode_id, pieces)
        frame_index = rows.column("frame_index").to_numpy()
        wrong = np.flatnonzero(frame_index != np.arange(len(frame_index)))
        if wrong.size:
            raise InvalidEpisodeError(
                "missing frames",
                f"frame_index must count 0, 1, 2, ... in each episode, got {frame_index[wrong[0]]} in place of {wrong[0]}. "
                "Leave the episode out",
            )
        values: dict[str, Any] = {}
        if "actions" in fields and reader.features.action_size is not None:
            values["actions"] = _vectors(rows, "action", reader.features.action_size)
        if "states" in fields and reader.features.state_size is not None:
            values["states"] = _vectors(rows, "observation.state", reader.features.state_size)
        if "rewards" in fields and reader.features.has_rewards:
            values.update(_outcomes(reader.info, rows, len(rows) if "actions" in values else len(rows) - 1))
        if "success" in fields and _SUCCESS in reader.info.features:
            num_steps = len(rows) if "actions" in values else len(rows) - 1
            values["successes"] = numbers(rows, _SUCCESS, np.bool_).reshape(-1)[:num_steps]
        if "instruction" in fields and reader.tasks is not None:
            values["instruction"] = _instruction(texts(rows, reader.tasks))
        images: dict[str, Frames] = {}
        for camera in self._cameras:
            if not self._wanted.frames:
                images[camera.name] = UnreadFrames(len(rows))
            elif camera.is_video:
                images[camera.name] = self._video(camera, position, rows)
            else:
                self._check_pictures(camera, pieces)
                images[camera.name] = ParquetFrames(self._pictures[camera.name], episode_id, pieces)
        return Episode(episode_id=episode_id, images=images, **values)

    def _check_pictures(self, camera: Camera, pieces: Sequence[Rows]) -> None:
        for piece in pieces:
            schema = self._files.open(piece.file).schema
            found = schema.field(camera.key).type if camera.key in schema.names else None
            if found is None or not is_picture(found):
                raise InvalidEpisodeError(
                    "unknown layout",
                    f"column {camera.key!r} must hold encoded pictures (bytes), got {found or 'no such column'} in {piece.file}. "
                    "Embed its pictures in the rows",
                )

    def _video(self, camera: Camera, position: int, rows: Any) -> EpisodeVideo:
        place = self._reader.place(camera, position)
        if place is None:
            raise InvalidEpisodeError(
                "missing video",
                f"meta/episodes must tell in which video of {camera.key} an episode is, got no episode_index "
                f"{self._reader.table.indices[position]}. Download meta again",
            )
        fps = self._reader.info.fps
        has_times = "timestamp" in rows.column_names
        times = numbers(rows, "timestamp", np.float64) if has_times else np.arange(len(rows)) / fps
        return EpisodeVideo(self._videos[camera.name], self._reader.folder, camera.key, place, times, fps)


def _vectors(rows: Any, name: str, width: int) -> np.ndarray:
    values = numbers(rows, name, np.float32 if width else np.int64)
    if not width:
        return values.reshape(-1)
    values = values[:, None] if values.ndim == 1 else values
    if values.shape[1] != width:
        raise ValueError(
            f"column {name!r} must have {width} values per row as {INFO} says, got {values.shape[1]}. Correct {INFO}"
        )
    return values


def _outcomes(info: Info, rows: Any, num_steps: int) -> dict[str, np.ndarray]:
    """Returns rewards and how the episode ended: by next.terminated, else next.done; otherwise its recording was cut off."""
    flags = {name: name in info.features for name in ("next.terminated", "next.done", "next.truncated")}
    ended = next((name for name in ("next.terminated", "next.done") if flags[name]), None)
    steps = {"rewards": numbers(rows, _REWARD, np.float32).reshape(-1)[:num_steps]}
    nothing = np.zeros(num_steps, np.bool_)
    steps["terminations"] = nothing if ended is None else numbers(rows, ended, np.bool_).reshape(-1)[:num_steps]
    if flags["next.truncated"]:
        steps["truncations"] = numbers(rows, "next.truncated", np.bool_).reshape(-1)[:num_steps]
    else:
        steps["truncations"] = nothing.copy()
        steps["truncations"][-1:] = ~steps["terminations"][-1:]
    return steps


def _instruction(found: list[str | None]) -> str | None:
    if len(found) > 1:
        raise SeveralInstructionsError(found)
    return found[0]


def open_lerobot(folder: Folder, options: Mapping[str, str]) -> LeRobotReader:
    """Opens a LeRobot data set.

    Raises:
        ValueError: It is of another version, its metadata is missing or broken, or it has no episodes.
    """
    info = read_info(folder)
    table = read_episode_table(folder, info)
    tasks = read_tasks(folder)
    videos = [camera for camera in info.cameras if camera.is_video]
    places = read_video_places(folder, videos) if videos and info.has_files_of_several_episodes else {}
    action_size = info.width("action")
    features = CorpusFeatures(
        cameras=tuple(camera.name for camera in info.cameras),
        action_size=action_size,
        state_size=info.width("observation.state") or None,
        has_rewards=_REWARD in info.features,
        has_instruction=tasks is not None,
        missing_frame=None if action_size is None else "last",
    )
    return LeRobotReader(folder, info, table, tasks, places, features, _notes(info, table, tasks is not None))


def _notes(info: Info, table: EpisodeTable, has_tasks: bool) -> tuple[str, ...]:
    notes = []
    found = {"episodes": len(table), "frames": int(table.lengths.sum())}
    wrong = [name for name, count in found.items() if info.totals.get(name, count) != count]
    if wrong:
        said, true = (" and ".join(f"{counts[name]:,} {name}" for name in wrong) for counts in (info.totals, found))
        notes.append(f"{INFO} speaks of {said}, but the data files hold {true}, which are read")
    if not has_tasks:
        notes.append("there is no file of tasks in meta/: episodes have no instruction")
    notes += [f"{key} is depth, and no camera" for key in info.depth]
    return tuple(notes)


LEROBOT = CorpusFormat(
    name="lerobot",
    recognizes=lambda folder: not folder.only and (is_data_set(folder) or bool(data_sets_below(folder))),
    open=open_lerobot,
)
