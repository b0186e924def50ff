"""Corpora in Parquet: one row per frame, episodes one after another; opens in `datasets` with Image columns.

    row group 0                    row group 1                          row group 2
    episode a | a | a | b | b      episode c | c | c | c | c            d | d | d | d | d
                             cut here? a < b < c: yes           cut here? c < d: yes

A file of ours has whole episodes in a row group, unless one episode is larger than a row group should be. Files of other
writers may put an episode in several row groups, or thousands in one. Ids, frame indices and what else is small are read an
episode at a time and tell whether it is valid; its pictures then stream from a cursor of their own (`pictures.py`). So memory
is bounded by a batch of rows and the largest page of a file, not by an episode. A unit of work is cut only between row groups
whose ranges of episode ids, by the statistics in the file's footer, have nothing in common, so that no episode is ever in two
units.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode, Frames, UnreadFrames
from vlm_rewards.schemas.formats.folder import File, Folder
from vlm_rewards.schemas.formats.interface import CorpusFormat, FoundEpisode, InvalidEpisodeError, Wanted
from vlm_rewards.schemas.formats.parquet_corpus.layout import (
    BROKEN_FILE,
    MISSING_FILE,
    UnknownLayoutError,
    cameras_of,
    check_columns,
    check_widths,
    columns_to_read,
    is_list,
    open_file,
    read_features,
)
from vlm_rewards.schemas.formats.parquet_corpus.pictures import ParquetFrames, PictureCursor, Rows
from vlm_rewards.schemas.formats.parquet_corpus.writer import STEP_COLUMNS, write_parquet
from vlm_rewards.schemas.formats.units import file_stem
from vlm_rewards.schemas.manifests import Failure, Unit

BATCH_ROWS = 4096


@dataclasses.dataclass(frozen=True)
class ParquetReader:
    """An open Parquet corpus; see the module's picture.

    Args:
        folder: Its folder.
        features: What its first readable file holds.
    """

    folder: Folder
    features: CorpusFeatures

    def units(self, max_bytes: int) -> list[Unit]:
        """One unit per file, or several of about `max_bytes` for a larger file; only footers are read."""
        return [unit for file in parquet_files(self.folder) for unit in plan_file(self.folder, file, max_bytes)]

    def episodes(self, unit: Unit, wanted: Wanted) -> Iterator[FoundEpisode | Failure]:
        """Streams the unit's episodes."""
        for name in unit.files:
            try:
                yield from _FilePass(self.folder, name, unit, wanted).episodes()
            except Exception as error:
                error.add_note(f"while reading {self.folder.path(name)}")
                raise

    def episode_ids(self, unit: Unit) -> list[str]:
        """The ids of a unit's episodes in order, each once; up to the place where a file becomes unreadable."""
        ids: dict[str, None] = {}
        for name in unit.files:
            try:
                with open_file(self.folder, name) as file:
                    if "episode_id" not in file.schema_arrow.names:
                        continue
                    groups = _row_groups(file, unit)
                    for batch in file.iter_batches(row_groups=groups, columns=["episode_id"], use_threads=False):
                        ids.update(dict.fromkeys(pc.unique(batch.column(0).cast(pa.string())).to_pylist()))
            except MISSING_FILE:
                raise
            except BROKEN_FILE:
                pass  # the read of the unit says so, as a Failure
        return [episode_id for episode_id in ids if episode_id is not None]


def parquet_files(folder: Folder) -> list[File]:
    """The Parquet files of a folder, in order."""
    return [file for file in folder.files if file.suffix == ".parquet"]


def open_parquet(folder: Folder, options: Mapping[str, str]) -> ParquetReader:
    """Opens a folder of Parquet files; what is wrong with single files is told when they are read.

    Raises:
        ValueError: No file can be read; the message says what is wrong with the first.
    """
    first: ValueError | None = None
    files = parquet_files(folder)
    for file in files:
        try:
            return ParquetReader(folder, read_file_features(folder, file.name))
        except ValueError as error:
            first = first or error
    raise ValueError(
        f"a corpus must have a readable shard, got {len(files)} that are not, the first being "
        f"{folder.path(files[0].name)} ({first})"
    ) from first


def read_file_features(folder: Folder, name: str) -> CorpusFeatures:
    """What a file holds.

    Raises:
        ValueError: The file is not Parquet, or a column that every corpus has is missing or of another type.
    """
    try:
        with open_file(folder, name) as file:
            return read_features(file)
    except UnknownLayoutError as error:
        error.add_note(f"in {folder.path(name)}")
        raise
    except MISSING_FILE:
        raise
    except BROKEN_FILE as error:
        detail = f"a Parquet file must be whole, got {folder.path(name)} ({error}); copy or record it again"
        raise ValueError(detail) from error


def plan_file(folder: Folder, file: File, max_bytes: int) -> list[Unit]:
    """Cuts a file into units of about `max_bytes`: ranges of row groups that share no episode.

    Only the footer is read. A file that cannot be read, or has no statistics to cut by, is one unit.
    """
    stem = file_stem(file.name)
    whole = Unit(name=stem, files=(file.name,), num_bytes=file.num_bytes)
    try:
        with open_file(folder, file.name) as opened:
            metadata = opened.metadata
    except MISSING_FILE:
        raise
    except BROKEN_FILE:
        return [whole]
    whole = dataclasses.replace(whole, num_frames=metadata.num_rows)
    column = _id_column(metadata)
    if file.num_bytes <= max_bytes or column < 0:
        return [whole]
    units = []
    start = num_bytes = num_frames = 0
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        num_bytes += group.total_byte_size
        num_frames += group.num_rows
        last = index + 1 == metadata.num_row_groups
        if last or (num_bytes >= max_bytes and _disjoint(metadata, column, index)):
            name = f"{stem}-g{start:05d}-{index + 1:05d}"
            units.append(
                dataclasses.replace(
                    whole, name=name, start=start, stop=index + 1, num_bytes=num_bytes, num_frames=num_frames
                )
            )
            start, num_bytes, num_frames = index + 1, 0, 0
    return units if len(units) > 1 else [whole]


def _row_groups(file: pq.ParquetFile, unit: Unit) -> list[int]:
    return list(range(unit.start, file.num_row_groups if unit.stop < 0 else unit.stop))


def _id_column(metadata: pq.FileMetaData) -> int:
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    return paths.index("episode_id") if "episode_id" in paths else -1


def _disjoint(metadata: pq.FileMetaData, column: int, index: int) -> bool:
    """Whether row groups index and index + 1 share no episode; statistics that other writers cut short stay bounds."""
    left, right = (metadata.row_group(i).column(column).statistics for i in (index, index + 1))
    if left is None or right is None or not (left.has_min_max and right.has_min_max):
        return False
    return left.max < right.min or right.max < left.min


@dataclasses.dataclass
class _Run:
    """Successive rows of one episode: where they are, their columns apart from pictures, and whether others can follow."""

    rows: Rows
    batch: pa.RecordBatch
    starts_episode: bool
    ends_episode: bool


class _FilePass:
    """One pass over a unit's rows of one file."""

    def __init__(self, folder: Folder, name: str, unit: Unit, wanted: Wanted) -> None:
        self._folder = folder
        self._name = name
        self._unit = unit
        self._wanted = wanted
        self._cursors: dict[str, PictureCursor] = {}

    def episodes(self) -> Iterator[FoundEpisode | Failure]:
        """The episodes of the rows, and at last a Failure if the file cannot be read to its end."""
        pending: list[_Run] = []
        try:
            with open_file(self._folder, self._name) as file, contextlib.ExitStack() as stack:
                features = read_features(file)
                cameras = cameras_of(file.schema_arrow)
                chosen = cameras if self._wanted.cameras is None else self._wanted.cameras
                check_columns(file.schema_arrow, [c for c in chosen if c in cameras], self._wanted.fields)
                check_widths(file, features, self._wanted.fields)
                for camera in cameras:
                    self._cursors[camera] = PictureCursor(self._folder, camera)
                    stack.callback(self._cursors[camera].close)
                for run in self._runs(file):
                    if run.starts_episode and pending:
                        yield self._found(pending, features, cameras)
                        pending = []
                    if any(cursor.broken for cursor in self._cursors.values()):
                        return
                    pending.append(run)
                    if run.ends_episode:
                        yield self._found(pending, features, cameras)
                        pending = []
                if pending:
                    yield self._found(pending, features, cameras)
        except UnknownLayoutError as error:
            yield Failure(scope="shard", shard=self._name, reason="unknown layout", detail=str(error))
        except MISSING_FILE:
            raise
        except BROKEN_FILE as error:
            episode_id = pending[0].batch.column("episode_id")[0].as_py() if pending else None
            after = f" after the start of episode {episode_id}" if pending else ""
            detail = (
                f"a Parquet file must be whole, got one that cannot be read{after} ({error}); the rest of it is not read: "
                "copy or record it again"
            )
            yield Failure(scope="shard", shard=self._name, reason="unreadable shard", detail=detail)

    def _runs(self, file: pq.ParquetFile) -> Iterator[_Run]:
        """Streams rows in pieces that each belong to one episode.

        An episode starts where the id changes, or where the frames count from 0 again: a duplicate that follows at once. It
        ends for sure with a row group that shares no episode with the next.
        """
        columns = columns_to_read(file.schema_arrow, self._wanted.fields)
        id_column = _id_column(file.metadata)
        previous_id, previous_index = None, -1
        row = sum(file.metadata.row_group(group).num_rows for group in range(self._unit.start))
        for group in _row_groups(file, self._unit):
            stop = row + file.metadata.row_group(group).num_rows
            closed = group + 1 < file.num_row_groups and _disjoint(file.metadata, id_column, group)
            for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False):
                if batch.num_rows == 0:
                    continue
                ids = batch.column("episode_id").cast(pa.string()).to_numpy(zero_copy_only=False)
                indices = batch.column("frame_index").to_numpy(zero_copy_only=False)
                ends = np.append(ids[1:] != ids[:-1], True)
                ends[:-1] |= (indices[1:] == 0) & (indices[:-1] > 0)
                begin = 0
                for end in (np.flatnonzero(ends) + 1).tolist():
                    first = begin > 0 or ids[0] != previous_id or (indices[0] == 0 and previous_index > 0)
                    yield _Run(
                        rows=Rows(self._name, row + begin, row + end),
                        batch=batch.slice(begin, end - begin),
                        starts_episode=bool(first),
                        ends_episode=closed and row + end == stop,
                    )
                    begin = end
                previous_id, previous_index = ids[-1], indices[-1]
                row += batch.num_rows

    def _found(self, runs: Sequence[_Run], features: CorpusFeatures, cameras: tuple[str, ...]) -> FoundEpisode:
        first_id = runs[0].batch.column("episode_id").cast(pa.string())[0].as_py()
        episode_id = "" if first_id is None else first_id
        table = pa.Table.from_batches([run.batch for run in runs])
        pieces = tuple(run.rows for run in runs)
        chosen = cameras if self._wanted.cameras is None else self._wanted.cameras

        def read() -> Episode:
            images: dict[str, Frames] = {}
            for camera in chosen:
                frames = ParquetFrames(self._cursors[camera], episode_id, pieces)
                images[camera] = frames if self._wanted.frames else UnreadFrames(len(frames))
            return _assemble(episode_id, table, features, images)

        return FoundEpisode(episode_id, table.num_rows, self._name, read, cameras)


def _assemble(episode_id: str, table: pa.Table, features: CorpusFeatures, images: Mapping[str, Frames]) -> Episode:
    num_frames = table.num_rows
    indices = table.column("frame_index").to_numpy()
    wrong = np.flatnonzero(indices != np.arange(num_frames))
    if wrong.size:
        raise InvalidEpisodeError(
            "missing frames",
            f"frame_index must count 0, 1, 2, ... in each episode, got {indices[wrong[0]]} in place of {wrong[0]}; "
            "record the episode again or leave it out",
        )
    values: dict[str, Any] = {}
    lacks_first_frame = features.missing_frame == "first"
    num_steps = num_frames if lacks_first_frame else num_frames - 1
    if "action" in table.column_names:
        column = table.column("action")
        num_steps = num_frames - (1 if not column[-1].is_valid else 0)
        dtype: type = np.int64 if pa.types.is_integer(column.type) else np.float32
        values["actions"] = _numbers("action", column.slice(0, num_steps), dtype)
        if num_steps == 0 and features.action_size:  # no row tells the width
            values["actions"] = np.zeros((0, features.action_size), np.float32)
    if "observation.state" in table.column_names:
        values["states"] = _numbers("observation.state", table.column("observation.state"), np.float32)
    for name, attribute in STEP_COLUMNS.items():
        if name in table.column_names:
            dtype = np.float32 if name == "reward" else np.bool_
            values[attribute] = _numbers(name, table.column(name).slice(0, num_steps), dtype)
    if "achieved_goals" in table.column_names:
        values["achieved_goals"] = _lists(table.column("achieved_goals"))
    if "instruction" in table.column_names:
        values["instruction"] = _instruction(table.column("instruction"))
    return Episode(episode_id=episode_id, images=images, lacks_first_frame=lacks_first_frame, **values)


def _numbers(name: str, column: pa.ChunkedArray, dtype: type) -> np.ndarray:
    """A column without nulls as [N], or [N, width] where it holds lists."""
    flat = pc.list_flatten(column) if is_list(column.type) else column
    if column.null_count or flat.null_count:
        index = pc.index(column.is_null(), True).as_py()
        where = f" in row {index}" if index >= 0 else ""
        raise ValueError(
            f"column {name!r} must have a value in every row of a step, got null{where}; mend the recording"
        )
    values: np.ndarray = np.asarray(flat.to_numpy()).astype(dtype, copy=False)
    if not is_list(column.type):
        return values[:, None] if name in ("action", "observation.state") and dtype is np.float32 else values
    widths = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(widths) > 1:
        raise ValueError(f"column {name!r} must have as many values in every row, got {sorted(widths)}; mend them")
    return values.reshape(len(column), widths[0] if widths else 0)


def _lists(column: pa.ChunkedArray) -> list[list[str]]:
    flat = pc.list_flatten(column).cast(pa.string())
    if column.null_count or flat.null_count:
        raise ValueError("column 'achieved_goals' must have a list in every row, got null; write [] for no goal")
    texts = flat.to_numpy().tolist()
    ends = np.cumsum(pc.list_value_length(column).to_numpy()).tolist()
    return [texts[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _instruction(column: pa.ChunkedArray) -> str | None:
    texts = pc.unique(column).to_pylist()
    if len(texts) > 1:
        raise ValueError(f"an episode must have one instruction, got {texts[0]!r} and {texts[1]!r}; split the episode")
    return texts[0]


PARQUET = CorpusFormat(
    name="parquet",
    recognizes=lambda folder: bool(parquet_files(folder)),
    open=open_parquet,
    write=write_parquet,
    extension="parquet",
)
