"""Writes corpora in Parquet: one row per frame, whole episodes in a row group; frames stream.

`schemas.formats.parquet_corpus.reader` reads them.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlm_rewards.schemas.episodes import IMAGE_PREFIX, IMAGE_TYPE, CorpusFeatures, Episode, corpus_schema
from vlm_rewards.schemas.pictures import encoded_frame

ROW_GROUP_BYTES = 32 * 2**20
ROW_GROUP_ROWS = 4096
_PAGE_ROWS = 64  # a page, the least that is read at once, is closed only after so many rows
STEP_COLUMNS = {"reward": "rewards", "terminated": "terminations", "truncated": "truncations"}
"""Columns with one value per step, and the parts of an Episode they hold."""


class _Piece(NamedTuple):
    """Rows `start` to `stop` of an episode, with their pictures by camera."""

    start: int
    stop: int
    num_bytes: int
    pictures: dict[str, list[bytes]]


def write_parquet(path: str | Path, features: CorpusFeatures, episodes: Iterable[Episode]) -> None:
    """Writes episodes to one Parquet file; the same episodes give the same bytes.

    Whole episodes share a row group up to ROW_GROUP_BYTES of pictures or ROW_GROUP_ROWS frames; only an episode larger
    than that is spread over several. Pictures are stored as they are, other columns compressed with zstd.

    Args:
        path: The file; replaced if it exists.
        features: Features that every episode has.
        episodes: The episodes, read one at a time.

    Raises:
        ValueError: An episode holds other things than `features` says.
    """
    schema = corpus_schema(features)
    plain = [field.name for field in schema if field.type != IMAGE_TYPE]
    with pq.ParquetWriter(
        path,
        schema,
        compression={leaf: "ZSTD" for name in plain for leaf in (name, f"{name}.list.element")},
        use_dictionary=["episode_id", "instruction", "achieved_goals.list.element"],
        write_statistics=["episode_id", "frame_index"],
        write_page_checksum=True,
        write_batch_size=_PAGE_ROWS,
    ) as writer:
        group: list[pa.RecordBatch] = []
        group_bytes = group_rows = 0
        for episode in episodes:
            features.check(episode)
            for piece in _pieces(episode):
                rows = piece.stop - piece.start
                if group and (group_bytes + piece.num_bytes > ROW_GROUP_BYTES or group_rows + rows > ROW_GROUP_ROWS):
                    writer.write_table(pa.Table.from_batches(group), row_group_size=group_rows)
                    group, group_bytes, group_rows = [], 0, 0
                group.append(_to_batch(schema, episode, piece))
                group_bytes += piece.num_bytes
                group_rows += rows
        if group:
            writer.write_table(pa.Table.from_batches(group), row_group_size=group_rows)


def _pieces(episode: Episode) -> Iterator[_Piece]:
    """Streams an episode in pieces of at most one row group: one piece, unless it is too large for that."""
    cameras = list(episode.images)
    start = num_bytes = 0
    rows: list[Sequence[bytes]] = []

    def piece() -> _Piece:
        pictures = dict(zip(cameras, map(list, zip(*rows, strict=True)), strict=True))
        return _Piece(start, start + len(rows), num_bytes, pictures)

    for frames in zip(*episode.images.values(), strict=True):
        row = [encoded_frame(frame) for frame in frames]
        row_bytes = sum(map(len, row))
        if rows and (num_bytes + row_bytes > ROW_GROUP_BYTES or len(rows) == ROW_GROUP_ROWS):
            yield piece()
            start, num_bytes, rows = start + len(rows), 0, []
        rows.append(row)
        num_bytes += row_bytes
    yield piece()


def _to_batch(schema: pa.Schema, episode: Episode, piece: _Piece) -> pa.RecordBatch:
    start, stop = piece.start, piece.stop
    rows = stop - start

    def steps(values: np.ndarray | None, dtype: pa.DataType) -> pa.Array:
        """Returns one value per step; null in the rows after the last step."""
        assert values is not None
        part = values[start:stop]
        if pa.types.is_fixed_size_list(dtype) or pa.types.is_list(dtype):
            flat = pa.array(np.ascontiguousarray(part, np.float32).reshape(-1))
            if pa.types.is_list(dtype):
                offsets = pa.array(np.arange(len(part) + 1, dtype=np.int32) * values.shape[1])
                present = pa.ListArray.from_arrays(offsets, flat, type=dtype)
            else:
                present = pa.FixedSizeListArray.from_arrays(flat, type=dtype)
        else:
            present = pa.array(np.asarray(part, dtype.to_pandas_dtype()), dtype)
        return pa.concat_arrays([present, pa.nulls(rows - len(part), dtype)])

    def column(field: pa.Field) -> pa.Array:
        if field.name == "episode_id":
            return pa.repeat(pa.scalar(episode.episode_id, pa.string()), rows)
        if field.name == "instruction":
            return pa.repeat(pa.scalar(episode.instruction, pa.string()), rows)
        if field.name == "frame_index":
            return pa.array(np.arange(start, stop, dtype=np.int32))
        if field.name == "achieved_goals":
            assert episode.achieved_goals is not None
            return pa.array([list(goals) for goals in episode.achieved_goals[start:stop]], field.type)
        if field.name == "observation.state":
            return steps(episode.states, field.type)
        if field.name == "action":
            return steps(episode.actions, field.type)
        if field.name in STEP_COLUMNS:
            return steps(getattr(episode, STEP_COLUMNS[field.name]), field.type)
        pictures = pa.array(piece.pictures[field.name.removeprefix(IMAGE_PREFIX)], pa.binary())
        return pa.StructArray.from_arrays([pictures, pa.nulls(rows, pa.string())], fields=list(IMAGE_TYPE))

    return pa.RecordBatch.from_arrays([column(field) for field in schema], schema=schema)
