"""Writes corpora in Parquet: a row a frame, whole episodes in a row group; `schemas.formats.parquet_corpus.reader` reads them."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlm_rewards.schemas.episodes import IMAGE_PREFIX, IMAGE_TYPE, CorpusFeatures, Episode, corpus_schema

ROW_GROUP_BYTES = 32 * 2**20
ROW_GROUP_ROWS = 4096
_PAGE_ROWS = 64  # a page, the least that is read at once, is closed only after so many rows
STEP_COLUMNS = {"reward": "rewards", "terminated": "terminations", "truncated": "truncations"}
"""Columns with a value a step, and the parts of an Episode they hold."""


def write_parquet(path: str | Path, features: CorpusFeatures, episodes: Iterable[Episode]) -> None:
    """Writes episodes to one Parquet file; the same episodes give the same bytes.

    Whole episodes share a row group up to ROW_GROUP_BYTES of pictures or ROW_GROUP_ROWS frames; only an episode larger
    than that is spread over several. Pictures are stored as they are, other columns compressed with zstd.

    Args:
        path: The file; replaced if it exists.
        features: What every episode holds.
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
            for start, stop, num_bytes in _row_ranges(episode):
                rows = stop - start
                if group and (group_bytes + num_bytes > ROW_GROUP_BYTES or group_rows + rows > ROW_GROUP_ROWS):
                    writer.write_table(pa.Table.from_batches(group), row_group_size=group_rows)
                    group, group_bytes, group_rows = [], 0, 0
                group.append(_to_batch(schema, episode, start, stop))
                group_bytes += num_bytes
                group_rows += rows
        if group:
            writer.write_table(pa.Table.from_batches(group), row_group_size=group_rows)


def _row_ranges(episode: Episode) -> Iterator[tuple[int, int, int]]:
    """Cuts an episode that is too large for a row group; yields start, stop and bytes of pictures."""
    start = num_bytes = 0
    for row in range(episode.num_frames):
        row_bytes = sum(len(pictures[row]) for pictures in episode.images.values())
        if row > start and (num_bytes + row_bytes > ROW_GROUP_BYTES or row - start == ROW_GROUP_ROWS):
            yield start, row, num_bytes
            start, num_bytes = row, 0
        num_bytes += row_bytes
    yield start, episode.num_frames, num_bytes


def _to_batch(schema: pa.Schema, episode: Episode, start: int, stop: int) -> pa.RecordBatch:
    rows = stop - start

    def steps(values: np.ndarray | None, dtype: pa.DataType) -> pa.Array:
        """A value a step; null in the rows after the last step."""
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
        pictures = pa.array(episode.images[field.name.removeprefix(IMAGE_PREFIX)][start:stop], pa.binary())
        return pa.StructArray.from_arrays([pictures, pa.nulls(rows, pa.string())], fields=list(IMAGE_TYPE))

    return pa.RecordBatch.from_arrays([column(field) for field in schema], schema=schema)
