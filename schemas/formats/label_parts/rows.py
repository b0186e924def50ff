"""Finds and reads single episodes in parts of labels, so that folders with different sharding can be joined.

part ──► locate_episodes: (episode_id, first row, last row + 1), ... ──► PartRows.read(episode), in any order
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vlm_rewards.schemas.files.remote_paths import Location
from vlm_rewards.schemas.formats.label_parts.reader import EpisodeLabels, batch_scores, episode_labels, episode_runs
from vlm_rewards.schemas.formats.part_files import open_part
from vlm_rewards.schemas.labels import LabelMetadata, read_label_metadata

_ID_ROWS = 1 << 16


class EpisodeRows(NamedTuple):
    """Rows of an episode's labels in a part: `start` to `stop`, exclusive."""

    episode_id: str
    start: int
    stop: int


def locate_episodes(path: Location) -> Iterator[EpisodeRows]:
    """Yields the episodes of a part; reads only their ids.

    Raises:
        ValueError: The file has changed since it was written, is not Parquet or does not hold labels.
    """
    with open_part(path, "labels") as file:
        read_label_metadata(file.schema_arrow)
        start, stop, current = 0, 0, None
        for batch in file.iter_batches(batch_size=_ID_ROWS, columns=["episode_id"]):
            for episode_id, rows in episode_runs(batch.column("episode_id").to_pylist()):
                if episode_id != current and current is not None:
                    yield EpisodeRows(current, start, stop)
                    start = stop
                current = episode_id
                stop += rows.stop - rows.start
        if current is not None:
            yield EpisodeRows(current, start, stop)


class PartRows:
    """Reads episodes of one part by their rows; holds one row group, so episodes in the part's order are read once.

    Args:
        path: Path of the part.
        metadata: Metadata of the labels.
    """

    def __init__(self, path: Location, metadata: LabelMetadata) -> None:
        self._path = path
        self._metadata = metadata
        self._stack = contextlib.ExitStack()
        self._file = self._stack.enter_context(open_part(path, "labels"))
        sizes = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self._bounds = np.concatenate([[0], np.cumsum(sizes)])
        self._held: tuple[int, np.ndarray, np.ndarray] | None = None

    def read(self, rows: EpisodeRows) -> EpisodeLabels:
        """Returns the labels of one episode.

        Raises:
            ValueError: A score is NaN, a goal index is out of range, or the frames are not in order; the note names the file.
        """
        try:
            first, last = np.searchsorted(self._bounds, [rows.start, rows.stop - 1], side="right") - 1
            pieces = []
            for group in range(first, last + 1):
                frames, scores = self._group(group)
                start = self._bounds[group]
                own = slice(max(rows.start - start, 0), rows.stop - start)
                pieces.append((frames[own], scores[own]))
            return episode_labels(rows.episode_id, pieces)
        except OSError as error:
            raise ValueError(
                f"a part of labels must be a complete Parquet file, got {self._path} ({error}). Label the corpus again"
            ) from error
        except ValueError as error:
            error.add_note(f"in the labels {self._path}")
            raise

    def close(self) -> None:
        """Closes the file."""
        self._stack.close()

    def _group(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        if self._held is None or self._held[0] != group:
            self._held = None  # not two at a time
            batch = self._file.read_row_group(group).combine_chunks().to_batches()[0]
            frames = batch.column("frame_index").to_numpy(zero_copy_only=False)
            self._held = (group, frames, batch_scores(batch, self._metadata))
        return self._held[1:]
