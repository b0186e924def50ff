"""Writes rows of labels and embeddings as Parquet, with bytes that depend on the rows alone."""

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlm_rewards.schemas.folders import replacing
from vlm_rewards.schemas.labels import LabelMetadata

_ROW_GROUP_BYTES = 8 << 20


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of a part: N keys and embeddings, in the order of the corpus.

    Args:
        episode_ids: N texts.
        frame_indices: N numbers.
        embeddings: [N, D] float32 of unit length.
    """

    episode_ids: list[str]
    frame_indices: list[int]
    embeddings: np.ndarray


class RowGroupWriter:
    """Writes a Parquet part in row groups whose bounds depend on row numbers alone, so that bytes do not depend on timing.

    Args:
        path: File to write.
        schema: Schema of the file.
        row_bytes: Rough size of a row, from which the rows of a group follow.
    """

    def __init__(self, path: Path, schema: pa.Schema, row_bytes: int) -> None:
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=["episode_id"])
        self._schema = schema
        self._group_rows = max(64, min(8192, _ROW_GROUP_BYTES // row_bytes))
        self._waiting: list[pa.RecordBatch] = []
        self._num_waiting = 0

    def write(self, columns: Sequence[pa.Array]) -> None:
        """Adds rows, given as the schema's columns."""
        batch = pa.RecordBatch.from_arrays(list(columns), schema=self._schema)
        while self._num_waiting + batch.num_rows >= self._group_rows:
            take = self._group_rows - self._num_waiting
            self._waiting.append(batch.slice(0, take))
            batch = batch.slice(take)
            self._flush()
        if batch.num_rows:
            self._waiting.append(batch)
            self._num_waiting += batch.num_rows

    def close(self) -> None:
        """Writes what is left and the footer."""
        if self._num_waiting:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        table = pa.Table.from_batches(self._waiting, schema=self._schema)
        self._writer.write_table(table, row_group_size=self._group_rows)
        self._waiting, self._num_waiting = [], 0


def key_columns(rows: Rows) -> list[pa.Array]:
    """Returns the key columns of labels and embeddings."""
    return [pa.array(rows.episode_ids, pa.string()), pa.array(rows.frame_indices, pa.int32())]


def vector_column(values: np.ndarray) -> pa.Array:
    """Returns [N, D] float32 as a column of fixed-size lists."""
    item = pa.field("item", pa.float32(), nullable=False)
    return pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(values, dtype=np.float32).ravel()), type=pa.list_(item, values.shape[1])
    )


def score_columns(scores: np.ndarray, metadata: LabelMetadata) -> list[pa.Array]:
    """Returns [N, G] scores as the dense or sparse columns of labels."""
    if not metadata.sparse:
        return [vector_column(scores)]
    row, goal = np.nonzero(scores > metadata.rule.release_array)
    offsets = np.searchsorted(row, np.arange(len(scores) + 1)).astype(np.int32)
    return [
        pa.ListArray.from_arrays(offsets, pa.array(goal.astype(np.int32))),
        pa.ListArray.from_arrays(offsets, pa.array(scores[row, goal])),
    ]


def drop_episodes(path: Path, episode_ids: Collection[str], schema: pa.Schema, row_bytes: int) -> int:
    """Rewrites a finished part without some episodes, with the bytes it would have if they had never been written.

    Args:
        path: A part of labels or embeddings.
        episode_ids: Episodes to leave out.
        schema: Schema given to its `RowGroupWriter`; the one read back from Parquet is equal but has other bytes.
        row_bytes: Row size given to its `RowGroupWriter`.

    Returns:
        Number of rows left out.
    """
    dropped = 0
    left_out = pa.array(sorted(episode_ids), pa.string())
    with pq.ParquetFile(path) as file, replacing(path) as temporary:
        writer = RowGroupWriter(temporary, schema, row_bytes)
        for group in range(file.num_row_groups):
            batch = file.read_row_group(group).combine_chunks().to_batches()[0]
            kept = batch.filter(pc.invert(pc.is_in(batch.column("episode_id"), value_set=left_out)))
            dropped += batch.num_rows - kept.num_rows
            if kept.num_rows:
                writer.write(kept.columns)
        writer.close()
    return dropped
