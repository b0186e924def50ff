"""Rewrites Parquet files with columns of labels, row group by row group; everything else stays unchanged.

file of the corpus   episode a a a | a b b b          Piece(start 0, stop 4, frame 0, a)  Piece(4, 7, 0, b)
                             │                                  │ values of the labels, per episode
                             ▼                                  ▼
new file             episode a a a | a b b b     +     next.reward ...
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlm_rewards.schemas.formats.exports.interface import EpisodeValues, ExportEpisode, LabelledCorpus


class Piece(NamedTuple):
    """Successive rows of one episode in a file, `start` to `stop`; the first holds the episode's frame `frame`."""

    start: int
    stop: int
    frame: int
    episode: ExportEpisode


class Column(NamedTuple):
    """A column that is added.

    Attributes:
        name: Name of the column; an existing column of that name is replaced.
        type: Arrow type of the column.
        values: Function that returns the values of a range of an episode's frames.
    """

    name: str
    type: pa.DataType
    values: Callable[[EpisodeValues, slice], pa.Array]


def check_rows(episode: ExportEpisode, num_rows: int) -> None:
    """Refuses an episode whose numbers of rows and labels differ.

    Raises:
        ValueError: The numbers differ.
    """
    if episode.num_frames != num_rows:
        raise ValueError(
            f"an episode must have as many rows as labels: got {num_rows} rows and {episode.num_frames} labels for "
            f"{episode.episode_id!r}. Label the corpus again"
        )


def write_with_columns(
    labelled: LabelledCorpus, source: Path, target: Path, pieces: Sequence[Piece], columns: Sequence[Column]
) -> int:
    """Rewrites a file with more columns.

    Args:
        labelled: Source of the values.
        source: The file.
        target: Path of the new one.
        pieces: Rows of each episode, in order, without gaps.
        columns: The columns.

    Returns:
        Number of rows.

    Raises:
        ValueError: The file has other rows than the pieces say.
    """
    names = {column.name for column in columns}
    rows = _Rows(labelled, pieces)
    with pq.ParquetFile(source) as file:
        num_rows = file.metadata.num_rows
        if num_rows != (pieces[-1].stop if pieces else 0):
            raise ValueError(
                f"a data file must have the rows that were labelled: got {num_rows} rows in {source}. Label the corpus again"
            )
        kept = [name for name in file.schema_arrow.names if name not in names]
        own = pa.schema([file.schema_arrow.field(name) for name in kept], file.schema_arrow.metadata)
        schema = _extended(own, columns)
        row = 0
        with pq.ParquetWriter(target, schema, compression=_compression(file)) as writer:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=kept, use_threads=False).select(kept)
                stop = row + table.num_rows
                found = list(rows.between(row, stop))
                added = [
                    pa.chunked_array([column.values(values, frames) for values, frames in found], type=column.type)
                    for column in columns
                ]
                new = pa.Table.from_arrays([*table.columns, *added], schema=schema)
                writer.write_table(new, row_group_size=max(table.num_rows, 1))
                row = stop
    return row


def write_with_values(
    source: Path, target: Path, changes: Mapping[str, Callable[[int, pa.ChunkedArray], pa.Array]]
) -> None:
    """Rewrites a file with new values of some columns; row groups, other columns and metadata stay.

    Args:
        source: The file.
        target: Path of the new one.
        changes: By column, function from the number of the first row and the old values of some rows to their new values.
    """
    with pq.ParquetFile(source) as file:
        schema = file.schema_arrow
        row = 0
        with pq.ParquetWriter(target, schema, compression=_compression(file)) as writer:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, use_threads=False)
                new = table
                for name, change in changes.items():
                    place = schema.get_field_index(name)
                    new = new.set_column(place, schema.field(name), change(row, table.column(name)))
                writer.write_table(new, row_group_size=max(table.num_rows, 1))
                row += table.num_rows


def _compression(file: pq.ParquetFile) -> str:
    """Returns the codec of the first column, under the name that writers take."""
    codec = file.metadata.row_group(0).column(0).compression.lower() if file.num_row_groups else "snappy"
    return "none" if codec == "uncompressed" else codec


class _Rows:
    """Reads the values of a file's rows, forward; holds those of one episode."""

    def __init__(self, labelled: LabelledCorpus, pieces: Sequence[Piece]) -> None:
        self._labelled = labelled
        self._pieces = pieces
        self._next = 0
        self._held: tuple[str, EpisodeValues] | None = None

    def between(self, start: int, stop: int) -> Iterator[tuple[EpisodeValues, slice]]:
        """Yields the values of rows `start` to `stop`: per episode, its values and the range of its frames."""
        while start < stop:
            while self._pieces[self._next].stop <= start:
                self._next += 1
            piece = self._pieces[self._next]
            end = min(stop, piece.stop)
            first = piece.frame + start - piece.start
            if self._held is None or self._held[0] != piece.episode.episode_id:
                self._held = (piece.episode.episode_id, self._labelled.values(piece.episode))
            yield self._held[1], slice(first, first + end - start)
            start = end


def _extended(schema: pa.Schema, columns: Sequence[Column]) -> pa.Schema:
    """Returns the schema with the new columns, also in the metadata of `datasets`, which must name every column."""
    metadata = dict(schema.metadata or {})
    if b"huggingface" in metadata:
        # `datasets` before 4.0 knows no "List", later ones do not write "Sequence": the file's own lists tell which it is.
        list_type = "Sequence" if b'"Sequence"' in metadata[b"huggingface"] else "List"
        record = json.loads(metadata[b"huggingface"])
        kept = {name: value for name, value in record["info"]["features"].items() if name in schema.names}
        record["info"]["features"] = kept | {column.name: _feature(column.type, list_type) for column in columns}
        metadata[b"huggingface"] = json.dumps(record).encode()
    return pa.schema([*schema, *(pa.field(column.name, column.type) for column in columns)], metadata=metadata)


def _feature(kind: pa.DataType, list_type: str) -> dict[str, object]:
    if pa.types.is_fixed_size_list(kind):
        return {"feature": _feature(kind.value_type, list_type), "length": kind.list_size, "_type": list_type}
    names = {pa.float32(): "float32", pa.bool_(): "bool", pa.string(): "string"}
    return {"dtype": names[kind], "_type": "Value"}


def scores_column(name: str, num_goals: int, scores: Callable[[EpisodeValues], np.ndarray]) -> Column:
    """Returns a column of the scores of all goals, a vector per frame.

    Args:
        name: Name of the column.
        num_goals: G.
        scores: Function that returns [F, G] float32 of an episode.
    """
    kind = pa.list_(pa.float32(), num_goals)

    def values(episode: EpisodeValues, frames: slice) -> pa.Array:
        part = scores(episode)[frames]
        return pa.FixedSizeListArray.from_arrays(pa.array(part.ravel(), pa.float32()), type=kind)

    return Column(name, kind, values)
