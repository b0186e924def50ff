"""Reads the labels of a folder that `vlm-rewards label` has finished, part by part and episode by episode.

    labels/settings.json  markers/<unit>.json  parts/<unit>.parquet  manifest.json (written last)

Parts of labels and units of the corpus have the same names: the labels of unit u are in `parts/<u.name>.parquet`.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from vlm_rewards.schemas.files.json_records import OBJECT, POSITIVE, optional
from vlm_rewards.schemas.files.remote_paths import Location, location_of
from vlm_rewards.schemas.files.unit_files import unit_states
from vlm_rewards.schemas.folders import open_finished, read_settings
from vlm_rewards.schemas.formats.corpus import Corpus, open_corpus
from vlm_rewards.schemas.formats.part_files import open_part
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.labels import LabelMetadata, read_label_metadata
from vlm_rewards.schemas.manifests import PartStatistics, Unit

if TYPE_CHECKING:
    import pandas

READ_WITH = {"max_unit_bytes": POSITIVE, "corpus_options": optional(OBJECT)}
"""Settings of labels and kept embeddings on how the corpus was read."""
_BATCH_BYTES = 16 << 20


class EpisodeLabels(NamedTuple):
    """The labels of one episode: `frame_indices` [N] int32 and `scores` [N, G] float32, one row per labelled frame."""

    episode_id: str
    frame_indices: np.ndarray
    scores: np.ndarray

    def __repr__(self) -> str:
        return f"EpisodeLabels({self.episode_id!r}: {self.scores.shape[0]} frames, {self.scores.shape[1]} goals)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labels:
    """A finished folder of labels.

    Args:
        folder: The folder.
        metadata: Goals, threshold, formula and fingerprint, the same in every part.
        digest: Digest of the names and contents of all parts.
        max_unit_bytes: Size in bytes of the ranges in which large shards were labelled.
        corpus_options: Options of the corpus's format.

    Example:
        >>> import vlm_rewards as vr
        >>> labels = vr.open_labels("labels/")
        >>> episode = next(labels.episodes())
        >>> episode.scores.shape == (len(episode.frame_indices), len(labels.goals))
        True
        >>> bool((labels.to_pandas()["find-red-ball"] > 0.5).any())
        True
    """

    folder: Location
    metadata: LabelMetadata
    digest: str
    max_unit_bytes: int
    corpus_options: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        kind = "sparse, " if self.metadata.sparse else ""
        return f"Labels({str(self.folder)!r}: {len(self.goals)} goals, {kind}{self.metadata.formula})"

    @property
    def goals(self) -> tuple[Goal, ...]:
        """The G goals, in the order of the scores."""
        return self.metadata.goals

    def episodes(self) -> Iterator[EpisodeLabels]:
        """Yields the labels of all episodes, one at a time, in the order of the parts' names and of each part."""
        for part in open_finished(self.folder, "labels").parts:
            yield from read_labels(part)

    def to_pandas(self) -> "pandas.DataFrame":
        """Returns all scores as a table with one row per labelled frame.

        Returns:
            Columns: the ids of the goals, float32; -inf where sparse labels hold no score. Index: episode_id and frame_index.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("a table of labels needs pandas. Install it with: pip install pandas") from error
        found = list(self.episodes())
        rows = [(labels.episode_id, index) for labels in found for index in labels.frame_indices.tolist()]
        scores = (
            np.concatenate([labels.scores for labels in found]) if found else np.zeros((0, len(self.goals)), np.float32)
        )
        index = pandas.MultiIndex.from_tuples(rows, names=["episode_id", "frame_index"])
        return pandas.DataFrame(scores, index=index, columns=[goal.id for goal in self.goals])

    def open_corpus(self, source: str | Path) -> tuple[Corpus, list[Unit]]:
        """Opens the corpus with the options of the labels.

        Returns:
            The corpus and its units.

        Raises:
            ValueError: As in `schemas.formats.corpus.open_corpus` and `Corpus.units`.
        """
        corpus = open_corpus(source, self.corpus_options)
        return corpus, corpus.units(self.max_unit_bytes)


def open_labels(folder: str | Path) -> Labels:
    """Opens a finished folder of labels, on a disk or behind a URL.

    Raises:
        ValueError: The folder is not there, does not hold labels, or is not finished.

    Example:
        >>> import vlm_rewards as vr
        >>> labels = vr.open_labels("labels/")
        >>> labels
        Labels('labels': 342 goals, softmax)
        >>> labels.goals[0]
        Goal(id='find-red-key', ...)
    """
    finished = open_finished(folder, "labels")
    settings = read_settings(finished.path, READ_WITH)["settings"]
    return Labels(
        folder=finished.path,
        metadata=_part_metadata(finished.parts[0]),
        digest=finished.digest,
        max_unit_bytes=settings["max_unit_bytes"],
        corpus_options=settings.get("corpus_options") or {},
    )


def part_of_unit(labels: Labels, unit: Unit) -> Location:
    """Returns the part that holds the labels of a unit of their corpus."""
    return labels.folder / "parts" / f"{unit.name}.parquet"


def check_units(labels: Labels, corpus: Corpus, units: Sequence[Unit]) -> int:
    """Refuses a corpus that labels were not made from.

    Returns:
        The number of labelled episodes in these units.

    Raises:
        ValueError: A unit has no part, its shard is not the one that was labelled, or the part was cut short since.
    """
    num_episodes = 0
    states = unit_states(labels.folder, [unit.name for unit in units], "parquet")
    for unit, (marker, num_bytes) in zip(units, states, strict=True):
        if marker is None or num_bytes is None:
            raise ValueError(
                f"labels must have a part for every unit of the corpus, got none for unit {unit.name!r} "
                f"({unit.shard}) in {labels.folder}; give the labels of this corpus, or label it again"
            )
        statistics = PartStatistics.from_json(marker.decode())
        if not corpus.has_content(unit, statistics.unit.content):
            raise ValueError(
                f"labels must be of the shard they are used with, got other contents in {unit.shard} than in the "
                f"labelled {statistics.unit.shard} (unit {unit.name!r}); give the labels of this corpus, or label "
                "it again"
            )
        if num_bytes != statistics.num_bytes:
            raise ValueError(
                f"a part of labels must be as it was written, got {part_of_unit(labels, unit)} with "
                f"{num_bytes} bytes instead of {statistics.num_bytes}; remove it and run "
                "vlm-rewards label again with the same settings"
            )
        num_episodes += statistics.episodes
    return num_episodes


def read_labels(path: str | Location) -> Iterator[EpisodeLabels]:
    """Reads one part, an episode at a time; memory is bounded by one episode and one batch of rows.

    In sparse labels a goal that is not listed is at or under the threshold; its score is -inf here, which no threshold
    lies below.

    Args:
        path: A part of dense or sparse labels, rows of one episode together and in the order of the frames.

    Yields:
        The episodes in the order of the part; frames that could not be labelled have no row.

    Raises:
        ValueError: The file is not Parquet or not labels, a score is NaN, a goal index is out of range, or the rows of
            an episode are not together and in order; the note names the file.
    """
    path = location_of(path)
    seen: set[str] = set()
    current: str | None = None
    pieces: list[tuple[np.ndarray, np.ndarray]] = []
    try:
        with open_part(path, "labels") as file:
            metadata = read_label_metadata(file.schema_arrow)
            num_goals = len(metadata.goals)
            for batch in file.iter_batches(batch_size=max(1, _BATCH_BYTES // (4 * num_goals))):
                scores = batch_scores(batch, metadata)
                for episode_id, rows in episode_runs(batch.column("episode_id").to_pylist()):
                    if episode_id != current:
                        if current is not None:
                            yield episode_labels(current, pieces)
                        if episode_id in seen:
                            raise ValueError(
                                f"the labels of an episode must be in successive rows, got {episode_id!r} in two "
                                "places; label the corpus again"
                            )
                        seen.add(episode_id)
                        current, pieces = episode_id, []
                    pieces.append((batch.column("frame_index").to_numpy(zero_copy_only=False)[rows], scores[rows]))
        if current is not None:
            yield episode_labels(current, pieces)
    except ValueError as error:
        error.add_note(f"in the labels {path}")
        raise


def _part_metadata(path: Location) -> LabelMetadata:
    try:
        with open_part(path, "labels") as file:
            return read_label_metadata(file.schema_arrow)
    except ValueError as error:
        error.add_note(f"in the labels {path}")
        raise


def batch_scores(batch: pa.RecordBatch, metadata: LabelMetadata) -> np.ndarray:
    """Returns the scores of some rows of a part: `[N, G]` float32, -inf where sparse labels hold none.

    Raises:
        ValueError: A goal index is out of range.
    """
    num_goals = len(metadata.goals)
    return _sparse_scores(batch, num_goals) if metadata.sparse else _dense_scores(batch, num_goals)


def _dense_scores(batch: pa.RecordBatch, num_goals: int) -> np.ndarray:
    column = batch.column("scores")
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), num_goals)


def _sparse_scores(batch: pa.RecordBatch, num_goals: int) -> np.ndarray:
    indices = batch.column("goal_indices")
    goals = indices.flatten().to_numpy(zero_copy_only=False)
    if len(goals) and not 0 <= goals.min() <= goals.max() < num_goals:
        raise ValueError(
            f"goal_indices must lie between 0 and {num_goals - 1}, got {goals.min()} to {goals.max()}; "
            "label the corpus again"
        )
    rows = np.repeat(np.arange(len(indices)), indices.value_lengths().to_numpy(zero_copy_only=False))
    scores = np.full((len(indices), num_goals), -np.inf, dtype=np.float32)
    scores[rows, goals] = batch.column("goal_scores").flatten().to_numpy(zero_copy_only=False)
    return scores


def episode_runs(episode_ids: Sequence[str]) -> Iterator[tuple[str, slice]]:
    """Yields runs of successive rows of one episode: its id and the rows."""
    start = 0
    for stop in range(1, len(episode_ids) + 1):
        if stop == len(episode_ids) or episode_ids[stop] != episode_ids[start]:
            yield episode_ids[start], slice(start, stop)
            start = stop


def episode_labels(episode_id: str, pieces: Sequence[tuple[np.ndarray, np.ndarray]]) -> EpisodeLabels:
    """Assembles and checks an episode from frame indices [N] and scores [N, G] of successive rows.

    Raises:
        ValueError: A score is NaN, or the frames are not in order.
    """
    frame_indices = np.concatenate([indices for indices, _ in pieces])
    scores = np.concatenate([scores for _, scores in pieces])
    if (np.diff(frame_indices) <= 0).any() or frame_indices[0] < 0:
        raise ValueError(
            f"the labels of an episode must be in the order of its frames, got frames {frame_indices.tolist()[:20]} in "
            f"episode {episode_id!r}; label the corpus again"
        )
    if np.isnan(scores).any():
        frame, goal = np.argwhere(np.isnan(scores))[0]
        raise ValueError(
            f"scores must be numbers, got NaN for goal {goal} in frame {frame_indices[frame]} of episode "
            f"{episode_id!r}; label the corpus again"
        )
    return EpisodeLabels(episode_id, frame_indices, scores)
