"""Finds the episodes of a LeRobot data set by its rows, since its metadata may be wrong.

data/chunk-000/file-000.parquet    episode_index  0 0 0 0 1 1 1 | 2 2        runs of rows, one or more per episode
data/chunk-000/file-001.parquet                   2 2 2 3 3
meta/episodes/...                  episode 2: videos/<camera>/chunk-000/file-000.mp4 from 0.7 s to 1.2 s
"""

import dataclasses
import functools
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlm_rewards.schemas.formats.folder import File, Folder
from vlm_rewards.schemas.formats.lerobot_corpus.info import Camera, Info
from vlm_rewards.schemas.formats.parquet_corpus.files import open_file
from vlm_rewards.schemas.formats.parquet_corpus.layout import BROKEN_FILE, MISSING_FILE
from vlm_rewards.schemas.formats.parquet_corpus.pictures import Rows

_ID_PREFIX = "episode_"
_KEY_COLUMNS = ("episode_index", "frame_index")
EPISODES_FOLDER = "meta/episodes/"
TASK_FILES = ("meta/tasks.parquet", "meta/tasks.jsonl")


def episode_id_of(episode_index: int) -> str:
    """Returns the id of an episode: "episode_000003", as version 2 names its files, so that ids sort like numbers."""
    return f"{_ID_PREFIX}{episode_index:06d}"


def episode_index_of(episode_id: str) -> int:
    """Returns the inverse of `episode_id_of`.

    Raises:
        ValueError: It is the id of no episode of a LeRobot data set.
    """
    number = episode_id.removeprefix(_ID_PREFIX)
    if number.isdecimal() and episode_id == episode_id_of(int(number)):
        return int(number)
    raise ValueError(
        f"an id must be of an episode of a LeRobot data set, as {episode_id_of(3)!r} is, got {episode_id!r}. Correct it"
    )


@dataclasses.dataclass(frozen=True, eq=False)
class EpisodeTable:
    """The episodes in the order of their rows; E of them, in R runs of rows.

    Args:
        files: Names of the data files, in order.
        broken: Reasons why data files cannot be read, by name.
        indices: [E] int64, episode_index of each.
        first_runs: [E+1] int64, the first run of each, and R.
        runs: [R, 3] int64: number of the file, first row, and row after the last.
    """

    files: tuple[str, ...]
    broken: Mapping[str, str]
    indices: np.ndarray
    first_runs: np.ndarray
    runs: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def id(self, position: int) -> str:
        """Returns the id of an episode."""
        return episode_id_of(int(self.indices[position]))

    def pieces(self, position: int) -> tuple[Rows, ...]:
        """Returns the places of an episode's rows, in order."""
        runs = self.runs[self.first_runs[position] : self.first_runs[position + 1]]
        return tuple(Rows(self.files[file], start, stop) for file, start, stop in runs.tolist())

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """[E] int64, rows of each episode."""
        return np.add.reduceat(self.runs[:, 2] - self.runs[:, 1], self.first_runs[:-1])


class VideoPlace(NamedTuple):
    """Place of an episode in a camera's videos: file name, and start and end in seconds, -1 for the file's end."""

    name: str
    start_s: float
    stop_s: float


@dataclasses.dataclass(frozen=True, eq=False)
class VideoPlaces:
    """Places of the N episodes of version 3 in the videos of a camera.

    Args:
        indices: [N] int64, episode_index, rising.
        files: [N, 2] int64: number of the chunk, and of the file in it.
        times: [N, 2] float64: start and end in seconds.
    """

    indices: np.ndarray
    files: np.ndarray
    times: np.ndarray

    def row(self, episode_index: int) -> int | None:
        """Returns the row of an episode; None where there is none."""
        row = int(np.searchsorted(self.indices, episode_index))
        return row if row < len(self.indices) and self.indices[row] == episode_index else None


def data_files(folder: Folder, info: Info) -> list[File]:
    """Returns the data files, in the order of the numbers in their names."""
    prefix = f"{info.data_folder}/" if info.data_folder else ""
    found = [file for file in folder.files_ending({".parquet"}) if file.name.startswith(prefix)]
    return sorted((file for file in found if not file.name.startswith("meta/")), key=lambda file: _natural(file.name))


def read_episode_table(folder: Folder, info: Info) -> EpisodeTable:
    """Finds the episodes by the rows of all data files.

    Raises:
        ValueError: There are no rows.
    """
    files = [file.name for file in data_files(folder, info)]
    broken: dict[str, str] = {}
    indices: list[int] = []
    first_runs: list[int] = []
    runs: list[tuple[int, int, int]] = []
    for number, name in enumerate(files):
        try:
            found = list(_runs(folder, name))
        except MISSING_FILE:
            raise
        except BROKEN_FILE as error:
            broken[name] = f"a Parquet file must be whole, got one that cannot be read ({error}). Download it again"
            continue
        except ValueError as error:
            broken[name] = str(error)
            continue
        for place, (index, begins, start, stop) in enumerate(found):
            if place or not indices or index != indices[-1] or begins:
                indices.append(index)
                first_runs.append(len(runs))
            runs.append((number, start, stop))
    if not indices:
        where = f"{len(files)} data files of {folder}"
        for name, why in broken.items():
            raise ValueError(
                f"a LeRobot data set must have episodes, got no row in {where}, the first unreadable being {name} ({why})"
            )
        raise ValueError(f"a LeRobot data set must have episodes, got no row in {where}. Download its data")
    return EpisodeTable(
        files=tuple(files),
        broken=broken,
        indices=np.array(indices, np.int64),
        first_runs=np.array([*first_runs, len(runs)], np.int64),
        runs=np.array(runs, np.int64),
    )


def _runs(folder: Folder, name: str) -> Iterator[tuple[int, bool, int, int]]:
    """Yields the episodes of a data file: index, whether the episode starts here, start and stop."""
    with open_file(folder, name) as file:
        missing = [column for column in _KEY_COLUMNS if column not in file.schema_arrow.names]
        if missing:
            raise ValueError(
                f"rows must have the columns {' and '.join(_KEY_COLUMNS)}, got no {missing[0]}. Download the file again"
            )
        row = 0
        pending: tuple[int, bool, int, int] | None = None
        for batch in file.iter_batches(columns=list(_KEY_COLUMNS), use_threads=False):
            if any(column.null_count for column in batch.columns):
                raise ValueError(
                    f"{' and '.join(_KEY_COLUMNS)} must be numbers in every row, got null. Download the file again"
                )
            values, frames = (batch.column(column).to_numpy() for column in _KEY_COLUMNS)
            edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
            for start, stop in itertools.pairwise(edges):
                if pending is not None and values[start] == pending[0]:
                    pending = (*pending[:3], row + stop)
                    continue
                if pending is not None:
                    yield pending
                pending = (int(values[start]), frames[start] == 0, row + start, row + stop)
            row += len(values)
        if pending is not None:
            yield pending


def read_video_places(folder: Folder, cameras: Sequence[Camera]) -> dict[str, VideoPlaces]:
    """Reads the places of version 3's episodes in the videos, from these columns of meta/episodes alone.

    Raises:
        ValueError: meta/episodes is missing or broken, or lacks a camera.
    """
    names = sorted((file.name for file in folder.files if file.name.startswith(EPISODES_FOLDER)), key=_natural)
    names = [name for name in names if name.endswith(".parquet")]
    if not names:
        raise ValueError(
            f"a LeRobot data set with videos must tell in {EPISODES_FOLDER} where its episodes are, got no file there in {folder}. "
            "Download it too"
        )
    fields = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
    columns = {camera.name: [f"videos/{camera.key}/{field}" for field in fields] for camera in cameras}
    wanted = ["episode_index", *(column for several in columns.values() for column in several)]
    table = pa.concat_tables([_read_columns(folder, name, wanted) for name in names])
    indices = table.column("episode_index").to_numpy().astype(np.int64)
    order = np.argsort(indices, kind="stable")
    places = {}
    for name, (chunk, file, start, stop) in columns.items():
        files, times = (
            np.stack([table.column(c).to_numpy() for c in two], 1) for two in ((chunk, file), (start, stop))
        )
        places[name] = VideoPlaces(indices[order], files[order].astype(np.int64), times[order].astype(np.float64))
    return places


def _read_columns(folder: Folder, name: str, columns: list[str]) -> pa.Table:
    try:
        with open_file(folder, name) as file:
            missing = [column for column in columns if column not in file.schema_arrow.names]
            if missing:
                raise ValueError(f"{folder.path(name)} must have a column {missing[0]!r}, got none. Download it again")
            table = file.read(columns=columns, use_threads=False)
    except MISSING_FILE:
        raise
    except BROKEN_FILE as error:
        raise ValueError(f"{folder.path(name)} must be a whole Parquet file, got {error}. Download it again") from error
    nulls = [column for column in columns if table.column(column).null_count]
    if nulls:
        raise ValueError(
            f"{folder.path(name)} must have a value of {nulls[0]!r} in every row, got null. Download it again"
        )
    return table


def read_tasks(folder: Folder) -> dict[int, str | None] | None:
    """Reads the texts of the tasks by task_index; None if the data set has no file of tasks.

    Raises:
        ValueError: The file is broken.
    """
    for name in TASK_FILES:
        if folder.has_file(name):
            try:
                rows = (
                    _tasks_of_table(folder, name) if name.endswith(".parquet") else _tasks_of_lines(folder.read(name))
                )
                return {int(index): text for index, text in rows}
            except (*BROKEN_FILE, ValueError, KeyError, TypeError, RecursionError) as error:
                raise ValueError(
                    f"{folder.path(name)} must give a task_index and a text in every row, got {error!r}. Download it again"
                ) from error
    return None


def _tasks_of_table(folder: Folder, name: str) -> list[tuple[int, str | None]]:
    with folder.open(name) as source:
        table = pq.read_table(source, use_threads=False)
    texts = [column for column in table.column_names if column != "task_index"]  # "task", or the index of a data frame
    return list(zip(table.column("task_index").to_pylist(), table.column(texts[0]).to_pylist(), strict=True))


def _tasks_of_lines(data: bytes) -> list[tuple[int, str | None]]:
    records = [json.loads(line) for line in data.decode().splitlines() if line.strip()]
    return [(record["task_index"], record["task"]) for record in records]


def _natural(name: str) -> list[tuple[int, str]]:
    """Returns a sort key of a name that compares numbers in it as numbers."""
    return [(int(part) if part.isdigit() else -1, part) for part in re.split(r"(\d+)", name)]
