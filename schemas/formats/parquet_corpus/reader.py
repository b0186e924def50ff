"""Corpora in Parquet: one row per frame, episodes one after another; opens in `datasets` with Image columns.

    row group 0                    row group 1                          row group 2
    episode a | a | a | b | b      episode c | c | c | c | c            d | d | d | d | d
                             cut here? a < b < c: yes           cut here? c < d: yes

A file of ours has whole episodes in a row group, unless one episode is larger than a row group should be. Files of other
writers may put an episode in several row groups, or thousands in one. Ids, frame indices and what else is small are read an
episode at a time and tell whether it is valid; its pictures then stream from a cursor of their own (`pictures.py`). So memory
is bounded by a batch of rows and the largest page of a file, not by an episode. For units, see
`planning.py`.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlm_rewards.schemas.episodes import METADATA_KEY, CorpusFeatures, Episode, Frames, UnreadFrames, image_column
from vlm_rewards.schemas.formats.common_options import COLUMNS
from vlm_rewards.schemas.formats.exports import own_labels
from vlm_rewards.schemas.formats.folder import File, Folder
from vlm_rewards.schemas.formats.interface import (
    SCATTERED,
    CorpusFormat,
    FoundEpisode,
    InvalidEpisodeError,
    Wanted,
)
from vlm_rewards.schemas.formats.parquet_corpus.columns import ParquetFiles, read_columns
from vlm_rewards.schemas.formats.parquet_corpus.episodes import assemble_episode
from vlm_rewards.schemas.formats.parquet_corpus.files import check_pages
from vlm_rewards.schemas.formats.parquet_corpus.layout import (
    BROKEN_FILE,
    MISSING_FILE,
    UnknownLayoutError,
    cameras_of,
    check_columns,
    check_widths,
    columns_to_read,
    picture_leaf,
    read_features,
)
from vlm_rewards.schemas.formats.parquet_corpus.pictures import OpenFile, OpenFiles, ParquetFrames, PictureCursor, Rows
from vlm_rewards.schemas.formats.parquet_corpus.planning import disjoint, id_bounds, id_column, plan_files
from vlm_rewards.schemas.formats.parquet_corpus.writer import write_parquet
from vlm_rewards.schemas.formats.units import file_ranges
from vlm_rewards.schemas.manifests import Failure, Unit

MAX_EPISODE_BYTES = 2**30
"""Most bytes of ids, actions, states and the like of one episode, which are held in memory; pictures stream."""


@dataclasses.dataclass(frozen=True)
class ParquetReader:
    """An open Parquet corpus; see the module's picture.

    Args:
        folder: Folder of the corpus.
        features: Features of its first readable file.
        columns: Name of the column in the file by our name, where the two differ.
    """

    folder: Folder
    features: CorpusFeatures
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def files(self) -> ParquetFiles:
        """The files, opened under our names."""
        return ParquetFiles(self.folder, self.columns)

    def units(self, max_bytes: int) -> list[Unit]:
        """Returns units of whole episodes, see `schemas.formats.parquet_corpus.planning`; ranges count rows."""
        return plan_files(self.files, parquet_files(self.folder), max_bytes)

    def own_files(self) -> list[str]:
        """Returns the names of the folder's files of this ending."""
        return [file.name for file in parquet_files(self.folder)]

    def labelled_by(self, _unit: Unit) -> dict[str, str]:
        """Returns what stands for the model where the column of rewards is one that an export added."""
        model = own_labels.model_of_name(self.columns.get("reward", ""))
        return {} if model is None else {own_labels.REWARDS: model}

    def episodes(self, unit: Unit, wanted: Wanted) -> Iterator[FoundEpisode | Failure]:
        """Yields the unit's episodes."""
        return _UnitPass(self.files, unit, wanted).episodes()

    def episode_ids(self, unit: Unit) -> list[str]:
        """Returns the ids of a unit's episodes in order, each once; up to the place where a file becomes unreadable."""
        ids: dict[str, None] = {}
        for name, start, stop in file_ranges(unit):
            try:
                opened = OpenFiles(self.folder, (), opener=self.files.open).open(name)
                if "episode_id" in opened.schema.names:
                    for _, batch, _ in _batches(opened, start, stop, ["episode_id"]):
                        ids.update(dict.fromkeys(pc.unique(_texts(batch.column(0))).to_pylist()))
            except MISSING_FILE:
                raise
            except (UnknownLayoutError, *BROKEN_FILE):
                pass  # reported as a Failure when the unit is read
        return [episode_id for episode_id in ids if episode_id is not None]


def parquet_files(folder: Folder) -> list[File]:
    """Returns the Parquet files of a folder, in order."""
    return folder.files_ending({".parquet"})


def open_parquet(folder: Folder, options: Mapping[str, str]) -> ParquetReader:
    """Opens a folder of Parquet files; what is wrong with single files is told when they are read.

    Raises:
        ValueError: No file can be read; the message says what is wrong with the first.
    """
    first: ValueError | None = None
    files = parquet_files(folder)
    columns = read_columns(options[COLUMNS]) if COLUMNS in options else {}
    for file in files:
        try:
            return ParquetReader(folder, read_file_features(ParquetFiles(folder, columns), file.name), columns)
        except ValueError as error:
            first = first or error
    raise ValueError(
        f"a corpus must have a readable shard, got {len(files)} that are not, the first being "
        f"{folder.path(files[0].name)} ({first})"
    ) from first


def read_file_features(source: ParquetFiles, name: str) -> CorpusFeatures:
    """Returns the features of a file.

    Raises:
        ValueError: The file is not Parquet, or a column that every corpus has is missing or of another type.
    """
    try:
        with source.open(name) as file:
            return read_features(file)
    except UnknownLayoutError as error:
        error.add_note(f"in {source.folder.path(name)}")
        raise
    except MISSING_FILE:
        raise
    except BROKEN_FILE as error:
        detail = (
            f"a Parquet file must be whole, got {source.folder.path(name)} ({error}). Copy it again from its source"
        )
        raise ValueError(detail) from error


def _batches(opened: OpenFile, start: int, stop: int, columns: list[str]) -> Iterator[tuple[int, pa.RecordBatch, bool]]:
    """Streams some columns of a range of rows.

    Yields:
        Number of a batch's first row, the batch, and whether the row group that ends with it shares no episode with the next.
    """
    last_group = len(opened.bounds) - 2
    column = id_column(opened.file) if last_group > 0 else -1
    for group, (row, end) in enumerate(itertools.pairwise(opened.bounds)):
        if end <= start or 0 <= stop <= row:
            continue
        closed = group < last_group and disjoint(
            *(id_bounds(opened.metadata.row_group(index), column) for index in (group, group + 1))
        )
        for batch in opened.file.iter_batches(
            opened.batch_rows, row_groups=[group], columns=columns, use_threads=False
        ):
            first, last = max(row, start), row + batch.num_rows if stop < 0 else min(row + batch.num_rows, stop)
            if first < last:
                whole = last - first == batch.num_rows
                yield first, batch if whole else batch.slice(first - row, last - first), closed and last == end
            row += batch.num_rows


def _texts(ids: pa.Array) -> pa.Array:
    return ids if pa.types.is_string(ids.type) else ids.cast(pa.string())


@dataclasses.dataclass
class _Run:
    """Successive rows of one episode: where they are, their columns apart from pictures, and whether others can follow."""

    episode_id: str | None
    rows: Rows
    batch: pa.RecordBatch
    starts_episode: bool
    ends_episode: bool


class _UnitPass:
    """One pass over the rows of a unit, from file to file: an episode may continue in the next."""

    def __init__(self, source: ParquetFiles, unit: Unit, wanted: Wanted) -> None:
        self._folder = source.folder
        self._unit = unit
        self._wanted = wanted
        self._files = OpenFiles(source.folder, wanted.cameras if wanted.frames else (), opener=source.open)
        self._cursors: dict[str, PictureCursor] = {}
        self._num_frames: dict[str, int] = {}  # of the episodes so far, as long as no failure has counted them
        self._pending: list[_Run] = []  # rows of the episode that is being read
        self._pending_bytes = 0  # of their columns apart from pictures
        self._layout: _Layout | None = None  # of the file before
        self._begun: _Layout | None = None  # of the file that the episode begins in
        self._previous: tuple[str | None, int] = (None, -1)  # id and frame index of the row before

    def episodes(self) -> Iterator[FoundEpisode | Failure]:
        """Yields the episodes of the rows, and a Failure for each file that cannot be read to its end."""
        with contextlib.closing(self._files):
            for name, start, stop in file_ranges(self._unit):
                try:
                    yield from self._file(name, start, stop)
                except UnknownLayoutError as error:
                    yield from self._flush()
                    yield Failure(scope="shard", shard=name, reason="unknown layout", detail=str(error))
                except MISSING_FILE as error:
                    error.add_note(f"while reading {self._folder.path(name)}")
                    raise
                except BROKEN_FILE as error:
                    yield from self._break_off(name, error)
                except Exception as error:
                    error.add_note(f"while reading {self._folder.path(name)}")
                    raise
            yield from self._flush()

    def _file(self, name: str, start: int, stop: int) -> Iterator[FoundEpisode | Failure]:
        opened = self._files.open(name)
        layout = self._layout = _Layout.of(opened, self._wanted, self._layout)
        if not opened.file.sizes.is_small:
            check_pages(opened.file, [*layout.names, *layout.leaves.values()])
        for camera in layout.cameras:
            if camera not in self._cursors:
                self._cursors[camera] = PictureCursor(self._files, camera)
        for run in self._runs(opened, layout, name, start, stop):
            if run.starts_episode:
                yield from self._flush()
            if name in self._files.broken:
                self._pending, self._pending_bytes = [], 0
                return
            if not self._pending:
                self._begun = layout
            elif self._begun != layout:
                raise UnknownLayoutError(
                    f"an episode that continues in another file must have the same columns there, got others in {name}. "
                    "Write the shards anew with one schema"
                )
            self._pending_bytes += run.batch.nbytes
            if self._pending and self._pending_bytes > MAX_EPISODE_BYTES:  # only counted, and refused at its end
                run.batch = run.batch.slice(0, 0)
            self._pending.append(run)
            if run.ends_episode:
                yield from self._flush()

    def _flush(self) -> Iterator[FoundEpisode | Failure]:
        if self._pending:
            assert self._begun is not None
            pending, self._pending = self._pending, []
            oversized, self._pending_bytes = self._pending_bytes > MAX_EPISODE_BYTES, 0
            found = self._found(pending, self._begun, oversized)
            index = pending[0].batch.column("frame_index")[0].as_py()
            if found.episode_id in self._num_frames and index != 0:
                yield _scattered(found, index, self._num_frames[found.episode_id])
                self._num_frames[found.episode_id] = 0
                return
            self._num_frames[found.episode_id] = found.num_frames
            yield found

    def _break_off(self, name: str, error: Exception) -> Iterator[FoundEpisode | Failure]:
        after = ""
        if self._pending and self._pending[-1].rows.file != name:
            yield from self._flush()  # the file before was read to its end
        elif self._pending:
            after = f" after the start of episode {self._pending[0].episode_id}"
            self._pending, self._pending_bytes = [], 0
        detail = (
            f"a Parquet file must be whole, got one that cannot be read{after} ({error}); the rest of it is not read. "
            "Copy it again from its source"
        )
        yield Failure(scope="shard", shard=name, reason="unreadable shard", detail=detail)

    def _runs(self, opened: OpenFile, layout: "_Layout", name: str, start: int, stop: int) -> Iterator[_Run]:
        """Streams rows in pieces that each belong to one episode.

        An episode starts where the id changes, or where the frames count from 0 again: a duplicate that follows at once. It
        ends for sure with a row group that shares no episode with the next.
        """
        leaves = layout.leaves if opened.is_small else {}
        for row, batch, closed in _batches(opened, start, stop, [*layout.names, *leaves.values()]):
            if leaves:  # a file so small is read in one go
                for camera in leaves:
                    self._cursors[camera].offer(name, row, batch.column(image_column(camera)))
                batch = batch.select(layout.names)
            ids = _texts(batch.column("episode_id")).to_numpy(zero_copy_only=False)
            indices = batch.column("frame_index").to_numpy(zero_copy_only=False)
            ends = np.ones(len(ids), np.bool_)
            ends[:-1] = (ids[1:] != ids[:-1]) | ((indices[1:] == 0) & (indices[:-1] > 0))
            begin = 0
            previous_id, previous_index = self._previous
            for end in (np.flatnonzero(ends) + 1).tolist():
                first = begin > 0 or ids[0] != previous_id or (indices[0] == 0 and previous_index > 0)
                yield _Run(
                    episode_id=ids[begin],
                    rows=Rows(name, row + begin, row + end),
                    batch=batch if end - begin == len(ids) else batch.slice(begin, end - begin),
                    starts_episode=bool(first),
                    ends_episode=closed and end == batch.num_rows,
                )
                begin = end
            self._previous = (ids[-1], indices[-1])

    def _found(self, runs: Sequence[_Run], layout: "_Layout", oversized: bool) -> FoundEpisode:
        first_id = runs[0].episode_id
        episode_id = "" if first_id is None else first_id
        table = pa.Table.from_batches([run.batch for run in runs])
        pieces = tuple(run.rows for run in runs)
        chosen = layout.cameras if self._wanted.cameras is None else self._wanted.cameras
        num_frames = sum(rows.stop - rows.start for rows in pieces)

        def read() -> Episode:
            if oversized:
                raise InvalidEpisodeError(
                    "oversized episode",
                    f"an episode must have at most {MAX_EPISODE_BYTES:,} bytes beside its pictures, got more in {num_frames:,} "
                    "frames. Split it into shorter episodes",
                )
            images: dict[str, Frames] = {}
            for camera in chosen:
                frames = ParquetFrames(self._cursors[camera], episode_id, pieces)
                images[camera] = frames if self._wanted.frames else UnreadFrames(len(frames))
            return assemble_episode(episode_id, table, layout.features, images)

        return FoundEpisode(episode_id, num_frames, runs[0].rows.file, read, layout.cameras)


def _scattered(found: FoundEpisode, index: int | None, num_frames_before: int) -> Failure:
    detail = (
        f"the rows of an episode must be side by side, got {found.episode_id!r} again from frame_index {index} on. "
        "Sort the rows by episode_id and frame_index"
    )
    return Failure(
        scope="episode",
        shard=found.file,
        episode_id=found.episode_id,
        reason=SCATTERED,
        detail=detail,
        num_frames=num_frames_before + found.num_frames,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Layout:
    """The columns of a file that are read, by type and name, and the leaves of its picture columns by camera.

    `is_told` says whether the schema alone tells all of it, so that no file of the same schema differs.
    """

    schema: pa.Schema
    features: CorpusFeatures
    cameras: tuple[str, ...]
    columns: pa.Schema
    names: list[str]
    leaves: dict[str, str]
    is_told: bool

    @classmethod
    def of(cls, opened: OpenFile, wanted: Wanted, before: "_Layout | None") -> "_Layout":
        """Returns the layout of a file; that of the file before where the two have one schema and nothing else tells."""
        schema = opened.schema
        if before is not None and before.is_told and schema.equals(before.schema, check_metadata=True):
            return before
        features = read_features(opened.file)
        cameras = cameras_of(schema)
        chosen = cameras if wanted.cameras is None else wanted.cameras
        check_columns(schema, [camera for camera in chosen if camera in cameras], wanted.fields)
        check_widths(opened.file, features, wanted.fields)
        columns = pa.schema([schema.field(name) for name in columns_to_read(schema, wanted.fields)])
        leaves = {
            camera: picture_leaf(schema, image_column(camera))
            for camera in chosen
            if camera in cameras and wanted.frames
        }
        is_told = METADATA_KEY in (schema.metadata or {}) or not wanted.fields & {"actions", "states"}
        return cls(schema, features, cameras, columns, columns.names, leaves, is_told)

    def __eq__(self, other: object) -> bool:
        """Returns whether an episode may continue from a file of the one layout to one of the other."""
        if not isinstance(other, _Layout):
            return NotImplemented
        return self is other or (self.cameras == other.cameras and self.columns.equals(other.columns))


PARQUET = CorpusFormat(
    name="parquet",
    recognizes=lambda folder: bool(parquet_files(folder)),
    open=open_parquet,
    write=write_parquet,
    extension="parquet",
    options={COLUMNS: "names of columns that have others than ours, as --column gives them"},
)
