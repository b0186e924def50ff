"""Assembles an episode of a Parquet corpus from its rows: columns become checked arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode, Frames
from vlm_rewards.schemas.formats.interface import InvalidEpisodeError, SeveralInstructionsError
from vlm_rewards.schemas.formats.parquet_corpus.layout import is_list
from vlm_rewards.schemas.formats.parquet_corpus.writer import STEP_COLUMNS


def assemble_episode(
    episode_id: str, table: pa.Table, features: CorpusFeatures, images: Mapping[str, Frames]
) -> Episode:
    """Assembles an episode.

    Args:
        episode_id: Id of the episode.
        table: Rows of the episode with the wanted columns, in the order of reading.
        features: Features of its file.
        images: Frames of the episode by camera.

    Raises:
        ValueError: Frames are missing, or a column lacks a value or holds lists of several lengths.
    """
    num_frames = table.num_rows
    indices = table.column("frame_index").to_numpy()
    wrong = np.flatnonzero(indices != np.arange(num_frames))
    if wrong.size and np.array_equal(np.sort(indices), np.arange(num_frames)):
        raise InvalidEpisodeError(
            "frames out of order",
            f"the rows of an episode must be in the order of frame_index, got {indices[wrong[0]]} in place of {wrong[0]}. "
            "Sort the rows by episode_id and frame_index",
        )
    if wrong.size:
        raise InvalidEpisodeError(
            "missing frames",
            f"frame_index must count 0, 1, 2, ... in each episode, got {indices[wrong[0]]} in place of {wrong[0]}. "
            f"{_remedy(indices)}",
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


def _remedy(indices: np.ndarray) -> str:
    """Returns what helps where frame indices are not those of an episode; the end of one may lie apart from its beginning."""
    if indices[0] > 0 and np.array_equal(indices, np.arange(indices[0], indices[0] + len(indices))):
        return "Sort the rows of all files by episode_id and frame_index if those before are elsewhere, or leave it out"
    return "Number its frames in order, or leave it out"


def _numbers(name: str, column: pa.ChunkedArray, dtype: type) -> np.ndarray:
    """Returns a column without nulls as [N], or [N, width] where it holds lists."""
    flat = pc.list_flatten(column) if is_list(column.type) else column
    if column.null_count or flat.null_count:
        index = pc.index(column.is_null(), True).as_py()
        where = f" in row {index}" if index >= 0 else ""
        raise ValueError(
            f"column {name!r} must have a value in every row of a step, got null{where}. Fill it, or leave the episode out"
        )
    values: np.ndarray = np.asarray(flat.to_numpy()).astype(dtype, copy=False)
    if not is_list(column.type):
        return values[:, None] if name in ("action", "observation.state") and dtype is np.float32 else values
    widths = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(widths) > 1:
        raise ValueError(
            f"column {name!r} must have as many values in every row, got {sorted(widths)}. Give all rows one length"
        )
    return values.reshape(len(column), widths[0] if widths else 0)


def _lists(column: pa.ChunkedArray) -> list[list[str]]:
    flat = pc.list_flatten(column).cast(pa.string())
    if column.null_count or flat.null_count:
        raise ValueError("column 'achieved_goals' must have a list in every row, got null. Write [] for no goal")
    texts = flat.to_numpy().tolist()
    ends = np.cumsum(pc.list_value_length(column).to_numpy()).tolist()
    return [texts[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _instruction(column: pa.ChunkedArray) -> str | None:
    texts = pc.unique(column).to_pylist()
    if len(texts) > 1:
        raise SeveralInstructionsError(texts)
    return texts[0]
