"""Cuts Parquet corpora into units: ranges of rows that hold whole episodes, also where an episode continues in the next file.

    a.parquet                     b.parquet                     c.parquet
    e1 e1 e1 e1 e2 e2 e2 e2  ──►  e2 e2 e3 e3 e3 e3 e3 e3  ──►  e3 e3 e4 e4 e4          as `datasets` cuts, anywhere
    unit a: a, and b up to row 2  unit b: b from row 2, and c up to row 2
                                                                unit c: c from row 2

Only footers are read, and where their statistics leave it open, ids and frame indices at the edges of files.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from vlm_rewards.schemas.formats.folder import File
from vlm_rewards.schemas.formats.parquet_corpus.columns import ParquetFiles
from vlm_rewards.schemas.formats.parquet_corpus.layout import (
    BROKEN_FILE,
    MISSING_FILE,
    UnknownLayoutError,
    check_columns,
    leaf_paths,
)
from vlm_rewards.schemas.formats.units import file_stem, joined_bounds, share_units
from vlm_rewards.schemas.manifests import Unit

_EDGE_ROWS = 1024


class _Group(NamedTuple):
    """A row group: its rows, its bytes, and the least and greatest id in it, where the footer says."""

    num_rows: int
    num_bytes: int
    bounds: tuple[str | int, str | int] | None


class _Outline(NamedTuple):
    """A file's row groups, as described by its footer."""

    groups: list[_Group]

    @property
    def num_rows(self) -> int:
        return sum(group.num_rows for group in self.groups)


class _Edge(NamedTuple):
    """The last row of a file."""

    episode_id: str | None
    frame_index: int | None


def plan_files(source: ParquetFiles, files: Sequence[File], max_bytes: int) -> list[Unit]:
    """Cuts files into units of about `max_bytes` at most; an episode is in one unit, and small files share one.

    A file that cannot be read is a unit of its own: its reader says what is wrong.
    """
    units: list[Unit] = []
    before: tuple[File, _Outline] | None = None
    for file in files:
        outline = _read_outline(source, file)
        planned = _cut(file, outline, max_bytes)
        if outline is not None and before is not None and _may_go_on(before[1], outline):
            rows = _rows_of_last_episode(source, before[0], file)
            if rows:
                units[-1] = _extended(units[-1], file, outline.num_rows, rows)
                planned = _without_head(planned, file, outline.num_rows, rows)
        units += planned
        before = None if outline is None or not outline.num_rows else (file, outline)
    return share_units(source.folder, units, max_bytes)


def _read_outline(source: ParquetFiles, file: File) -> _Outline | None:
    try:
        with source.open(file.name) as opened:
            metadata = opened.metadata
            column = id_column(opened)
            row_groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
            return _Outline(
                [_Group(group.num_rows, group.total_byte_size, id_bounds(group, column)) for group in row_groups]
            )
    except MISSING_FILE:
        raise
    except (UnknownLayoutError, *BROKEN_FILE):
        return None


def _cut(file: File, outline: _Outline | None, max_bytes: int) -> list[Unit]:
    stem = file_stem(file.name)
    whole = Unit(name=stem, files=(file.name,), num_bytes=file.num_bytes)
    if outline is None:
        return [whole]
    bounds = [group.bounds for group in outline.groups]
    whole = dataclasses.replace(whole, num_frames=outline.num_rows, id_bounds=joined_bounds(bounds))
    if file.num_bytes <= max_bytes:
        return [whole]
    units = []
    start = start_row = row = num_bytes = 0
    for index, group in enumerate(outline.groups):
        num_bytes += group.num_bytes
        row += group.num_rows
        last = index + 1 == len(outline.groups)
        if last or (num_bytes >= max_bytes and disjoint(group.bounds, outline.groups[index + 1].bounds)):
            units.append(
                dataclasses.replace(
                    whole,
                    name=f"{stem}-g{start:05d}-{index + 1:05d}",
                    start=start_row,
                    stop=-1 if last else row,
                    num_bytes=num_bytes,
                    num_frames=row - start_row,
                    id_bounds=joined_bounds(bounds[start : index + 1]),
                )
            )
            start, start_row, num_bytes = index + 1, row, 0
    return units if len(units) > 1 else [whole]


def id_column(file: pq.ParquetFile) -> int:
    """Returns the number of the column of ids; -1 where there is none."""
    paths = leaf_paths(file)
    return paths.index("episode_id") if "episode_id" in paths else -1


def id_bounds(group: pq.RowGroupMetaData, column: int) -> tuple[str | int, str | int] | None:
    """Returns the bounds of a row group's ids; truncated statistics of other writers are still bounds. None if unknown."""
    statistics = None if column < 0 else group.column(column).statistics
    return (statistics.min, statistics.max) if statistics is not None and statistics.has_min_max else None


def disjoint(left: tuple[str | int, str | int] | None, right: tuple[str | int, str | int] | None) -> bool:
    """Returns whether two row groups certainly share no episode."""
    if left is None or right is None or type(left[0]) is not type(right[0]):
        return False
    return bool(left[1] < right[0] or right[1] < left[0])  # type: ignore[operator]


def _may_go_on(before: _Outline, outline: _Outline) -> bool:
    """Returns whether the last episode of a file may continue in the next, by the footers of both."""
    return outline.num_rows > 0 and not disjoint(before.groups[-1].bounds, outline.groups[0].bounds)


def _rows_of_last_episode(source: ParquetFiles, before: File, file: File) -> int:
    """Returns rows at the head of a file that belong to the last episode of the file before.

    They continue its id, and do not count the frames from 0 again: that would be a second episode of the same id.
    """
    try:
        if not (_has_keys(source, before) and _has_keys(source, file)):
            return 0
        edge = _last_row(source, before)
        count = 0
        for episode_id, frame_index in _edge_rows(source, file):
            if episode_id != edge.episode_id or (frame_index == 0 and (edge.frame_index or 0) > 0):
                break
            edge = _Edge(episode_id, frame_index)
            count += 1
        return count
    except MISSING_FILE:
        raise
    except BROKEN_FILE:
        return 0  # the reader of the file says what is wrong


def _has_keys(source: ParquetFiles, file: File) -> bool:
    """Returns whether a file has ids and frame indices; the reader of one that has none says so."""
    try:
        check_columns(source.open(file.name).schema_arrow, cameras=(), fields=())
    except UnknownLayoutError:
        return False
    return True


def _last_row(source: ParquetFiles, file: File) -> _Edge:
    with source.open(file.name) as opened:
        last = opened.num_row_groups - 1
        row: _Edge = _Edge(None, None)
        for batch in opened.iter_batches(row_groups=[last], columns=["episode_id", "frame_index"], use_threads=False):
            if batch.num_rows:
                row = _Edge(*(column[-1].as_py() for column in _keys(batch)))
        return row


def _edge_rows(source: ParquetFiles, file: File) -> Iterator[_Edge]:
    with source.open(file.name) as opened:
        for batch in opened.iter_batches(_EDGE_ROWS, columns=["episode_id", "frame_index"], use_threads=False):
            yield from map(_Edge, *(column.to_pylist() for column in _keys(batch)))


def _keys(batch: pa.RecordBatch) -> list[pa.Array]:
    return [batch.column("episode_id").cast(pa.string()), batch.column("frame_index")]


def _extended(unit: Unit, file: File, total: int, rows: int) -> Unit:
    """Returns the unit with `rows` of the `total` rows of the next file."""
    return dataclasses.replace(
        unit,
        files=(*unit.files, file.name),
        stop=-1 if rows == total else rows,
        num_frames=(unit.num_frames or 0) + rows,
        num_bytes=unit.num_bytes + file.num_bytes * rows // total,
        id_bounds=None,
    )


def _without_head(units: Sequence[Unit], file: File, total: int, rows: int) -> list[Unit]:
    """Returns the units of a file of `total` rows without its first `rows`."""
    kept = []
    for unit in units:
        stop = total if unit.stop < 0 else unit.stop
        if stop <= rows:
            continue
        cut = max(0, rows - unit.start)
        kept.append(
            dataclasses.replace(
                unit,
                start=unit.start + cut,
                num_frames=stop - unit.start - cut,
                num_bytes=unit.num_bytes - file.num_bytes * cut // total,
            )
        )
    return kept
