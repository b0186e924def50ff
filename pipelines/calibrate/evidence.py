"""Gathers the evidence of a unit for a calibration: scores at any temperature, joined with the known truth.

    labels of a unit, or its kept embeddings scored again ──► episodes ──┬─► CalibrationCounts of four folds
    ground truth of its corpus, or marks of a person ────────────────────┴─► log losses of several temperatures

Only whole numbers are added up, so that nothing depends on order or sharding.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vlm_rewards.labelers.calibration.counts import CalibrationCounts, EpisodeScores, calibration_counts, merge_counts
from vlm_rewards.labelers.calibration.worth import NUM_FOLDS, fold_of, hash_share, log_losses
from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.provenance import Provenance
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.engine.outputs import OutputFolder, PartWriter
from vlm_rewards.pipelines.evaluate.known_truth import KnownTruth, TruthSource
from vlm_rewards.pipelines.evaluate.recorded_success import REWARDS
from vlm_rewards.pipelines.label.shared_labelers import shared_labeler
from vlm_rewards.pipelines.label.units import read_embeddings
from vlm_rewards.schemas.formats.corpus import Corpus
from vlm_rewards.schemas.formats.label_parts.reader import (
    EpisodeLabels,
    Labels,
    episode_labels,
    part_of_unit,
    read_labels,
)
from vlm_rewards.schemas.formats.label_parts.writer import Rows
from vlm_rewards.schemas.formats.truth import TruthGoals, goals_that_hold
from vlm_rewards.schemas.manifests import Failure, Unit

EPISODES_BY_REWARDS, REWARDED_EPISODES = "episodes_by_rewards", "episodes_with_a_reward"
_BLOCK_SCORES = 1 << 20
_MAX_LISTED = 20


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """Evidence of one or several units; evidence adds up.

    Args:
        folds: Counts in `NUM_FOLDS` folds; None where nothing was counted.
        counts: Numbers of frames and episodes, and of unreadable episodes of the corpus; of recorded success also those that
            rewards tell of, and how many of these have one over 0.
        unknown: Numbers of episodes of which nothing is known, by reason.
        losses: [2, T, G, 2] int64, log losses of two halves of the episodes at T temperatures, see
            `labelers.calibration.worth.log_losses`; None without.
        loss_frames: [2, G, 2] int64, frames they are summed over.
        found_episodes: Marked episodes that have labels.
        found_lines: Lines of marks whose frames have labels.
        refusals: Reasons why units cannot be used.
    """

    folds: Sequence[CalibrationCounts] | None = None
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    unknown: Mapping[str, int] = dataclasses.field(default_factory=dict)
    losses: np.ndarray | None = None
    loss_frames: np.ndarray | None = None
    found_episodes: frozenset[str] = frozenset()
    found_lines: frozenset[int] = frozenset()
    refusals: Sequence[str] = ()


def merge_evidence(evidence: Iterable[Evidence]) -> Evidence:
    """Adds evidence; the result does not depend on its order or grouping."""
    parts = list(evidence)
    folds = [part.folds for part in parts if part.folds is not None]
    losses = [part.losses for part in parts if part.losses is not None]
    loss_frames = [part.loss_frames for part in parts if part.loss_frames is not None]
    counts: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    for part in parts:
        counts.update(part.counts)
        unknown.update(part.unknown)
    return Evidence(
        folds=[merge_counts(column) for column in zip(*folds, strict=True)] if folds else None,
        counts=dict(sorted(counts.items())),
        unknown=dict(sorted(unknown.items())),
        losses=np.sum(losses, axis=0) if losses else None,
        loss_frames=np.sum(loss_frames, axis=0) if loss_frames else None,
        found_episodes=frozenset().union(*(part.found_episodes for part in parts)),
        found_lines=frozenset().union(*(part.found_lines for part in parts)),
        refusals=sorted(refusal for part in parts for refusal in part.refusals)[:_MAX_LISTED],
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingScores:
    """Scores a unit's kept embeddings again.

    Args:
        folder: Folder of the embeddings.
        labeler: Settings of the labeler that scores them.
        provenance: What the driver's labeler is made of; a worker whose own differs refuses the unit.
    """

    folder: OutputFolder
    labeler: LabelerSettings
    provenance: Provenance

    def embeddings(self, unit: Unit) -> Iterator[Rows]:
        """Yields the unit's embeddings, one episode at a time; memory is bounded by one episode and one batch of rows."""
        scratch = PartWriter(Path("unused"), Path("unused"))
        held: list[Rows] = []
        for rows in read_embeddings(self.folder, unit, scratch):
            ids = np.array(rows.episode_ids)
            starts = np.flatnonzero(np.append(True, ids[1:] != ids[:-1])).tolist()
            for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True):
                piece = Rows(rows.episode_ids[start:stop], rows.frame_indices[start:stop], rows.embeddings[start:stop])
                if held and held[0].episode_ids[0] != piece.episode_ids[0]:
                    yield _joined(held)
                    held = []
                held.append(piece)
        if held:
            yield _joined(held)

    def at_own_temperature(self) -> Labeler:
        """Returns this process's labeler, at the model's own temperature.

        Raises:
            ValueError: It is not the driver's.
        """
        labeler = shared_labeler(dataclasses.replace(self.labeler, temperature=None)).labeler
        self.provenance.check(labeler)
        return labeler

    def __call__(self, unit: Unit) -> Iterator[EpisodeLabels]:
        """Yields the unit's scores per episode, as `vlm-rewards label` would write them."""
        labeler = self.at_own_temperature()
        if self.labeler.temperature is not None:
            labeler = labeler.at_temperature(self.labeler.temperature)
        for rows in self.embeddings(unit):
            scores = labeler.episodes().push(rows.episode_ids, rows.embeddings)
            yield episode_labels(rows.episode_ids[0], [(np.array(rows.frame_indices), scores)])


def _joined(pieces: Sequence[Rows]) -> Rows:
    return Rows(
        [episode_id for piece in pieces for episode_id in piece.episode_ids],
        [frame for piece in pieces for frame in piece.frame_indices],
        np.concatenate([piece.embeddings for piece in pieces]),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelScores:
    """Reads a unit's labels."""

    labels: Labels

    def __call__(self, unit: Unit) -> Iterator[EpisodeLabels]:
        """Yields the unit's scores per episode."""
        return read_labels(part_of_unit(self.labels, unit))


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoTruth:
    """No truth at all, for quantiles: every frame counts as one in which no goal is known to hold.

    Args:
        num_goals: G.
    """

    num_goals: int

    def of_unit(self, unit: Unit) -> "NoTruth":
        """Itself."""
        return self

    def of_episode(self, episode_id: str, frame_indices: np.ndarray) -> KnownTruth:
        """Returns all frames as known and without goals."""
        shape = (len(frame_indices), self.num_goals)
        return KnownTruth(np.zeros(shape, dtype=bool), np.ones(shape, dtype=bool))


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusTruth:
    """Ground truth of the corpus.

    Args:
        corpus: The corpus.
        columns: Number of each goal by its id, for the goals that the ground truth covers.
        covered: Ids of all goals that the ground truth covers.
        num_goals: G.
        camera: Camera of the labels.
    """

    corpus: Corpus
    columns: Mapping[str, int]
    covered: TruthGoals
    num_goals: int
    camera: str | None

    def of_unit(self, unit: Unit) -> "_UnitGroundTruth":
        """Reads the truth of a unit, without its pictures.

        Raises:
            ValueError: An episode has no ground truth, or it names unknown goals.
        """
        held: dict[str, tuple[int, np.ndarray]] = {}
        cameras = None if self.camera is None else [self.camera]
        for episode in self.corpus.episodes(unit, cameras, frames=False, fields=("achieved_goals",)):
            if isinstance(episode, Failure):  # without labels, too
                continue
            if episode.achieved_goals is None:
                raise ValueError(
                    f"a corpus to calibrate with must have ground truth (the column achieved_goals), got episode "
                    f"{episode.episode_id!r} of {episode.source} without; mark some frames and give --marks"
                )
            held[episode.episode_id] = (episode.num_frames, goals_that_hold(episode, self.covered, self.columns))
        return _UnitGroundTruth(self.corpus.place(unit), held, sorted(self.columns.values()), self.num_goals)


class _UnitGroundTruth(NamedTuple):
    shard: str
    held: dict[
        str, tuple[int, np.ndarray]
    ]  # by episode, its number of frames and [K, 2] frame and goal of all that holds
    covered: list[int]
    num_goals: int

    def of_episode(self, episode_id: str, frame_indices: np.ndarray) -> KnownTruth:
        num_frames, pairs = self.held.get(episode_id, (0, np.zeros((0, 2), np.int32)))
        if frame_indices[-1] >= num_frames:
            raise ValueError(
                f"labels must be of frames that the corpus holds, got frame {frame_indices[-1]} of episode {episode_id!r}, which "
                f"is not in {self.shard}; give the corpus that was labelled, or label it again"
            )
        truth = np.zeros((num_frames, self.num_goals), dtype=bool)
        truth[pairs[:, 0], pairs[:, 1]] = True
        known = np.zeros((len(frame_indices), self.num_goals), dtype=bool)
        known[:, self.covered] = True
        return KnownTruth(truth[frame_indices], known)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CountUnit:
    """Counts a unit's scores against the truth; memory is bounded by its truth and a block of episodes.

    Args:
        scores: Source of scores.
        truth: Source of truth.
        num_goals: G.
        held_back: Share of episodes, by their ids, that are not counted: those of `LossUnit`.
    """

    scores: EmbeddingScores | LabelScores
    truth: TruthSource
    num_goals: int
    held_back: float = 0.0

    def __call__(self, unit: Unit) -> Evidence:
        """The unit's evidence."""
        truth = self.truth.of_unit(unit)
        parts = [Evidence()]
        block: list[list[EpisodeScores]] = [[] for _ in range(NUM_FOLDS)]
        size = 0
        for episode in self.scores(unit):
            known = truth.of_episode(episode.episode_id, episode.frame_indices)
            if known is None:
                continue
            if known.lines is not None:
                parts.append(Evidence(found_episodes=frozenset([episode.episode_id]), found_lines=known.lines))
            if known.unknown_because:
                parts.append(Evidence(unknown={known.unknown_because: 1}))
                continue
            if known.source == REWARDS:
                rewarded = int((known.known & known.truth).any())
                parts.append(Evidence(counts={EPISODES_BY_REWARDS: 1, REWARDED_EPISODES: rewarded}))
            if hash_share(episode.episode_id) < self.held_back:
                continue
            block[fold_of(episode.episode_id)].append(EpisodeScores(episode.scores, known.truth, known.known))
            parts.append(Evidence(counts={"episodes": 1, "frames": int(known.known.any(axis=1).sum())}))
            size += episode.scores.size
            if size >= _BLOCK_SCORES:
                parts = [merge_evidence([*parts, self._count(block)])]
                block, size = [[] for _ in range(NUM_FOLDS)], 0
        return merge_evidence([*parts, self._count(block)])

    def _count(self, block: Sequence[Sequence[EpisodeScores]]) -> Evidence:
        return Evidence(folds=[calibration_counts(episodes, self.num_goals) for episodes in block])


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossUnit:
    """Sums a unit's log losses at several temperatures, over a subsample of episodes in two halves.

    Args:
        scores: Kept embeddings, with a labeler whose scores are probabilities.
        truth: Where truth comes from.
        temperatures: T temperatures.
        share: Share of episodes in the subsample, by their ids.
    """

    scores: EmbeddingScores
    truth: TruthSource
    temperatures: tuple[float, ...]
    share: float

    def __call__(self, unit: Unit) -> Evidence:
        """The unit's evidence."""
        base = self.scores.at_own_temperature()
        labelers = [base.at_temperature(temperature) for temperature in self.temperatures]
        truth = self.truth.of_unit(unit)
        losses = np.zeros((2, len(labelers), len(base.goals), 2), dtype=np.int64)
        frames = np.zeros((2, len(base.goals), 2), dtype=np.int64)
        counts: Counter[str] = Counter()
        for rows in self.scores.embeddings(unit):
            episode_id = rows.episode_ids[0]
            known = truth.of_episode(episode_id, np.array(rows.frame_indices))
            if known is None or known.unknown_because or hash_share(episode_id) >= self.share:
                continue
            half = 2 * fold_of(episode_id) // NUM_FOLDS
            for row, labeler in zip(losses[half], labelers, strict=True):
                row += log_losses(labeler.episodes().push(rows.episode_ids, rows.embeddings), known.truth, known.known)
            frames[half, :, 0] += (known.known & known.truth).sum(axis=0)
            frames[half, :, 1] += (known.known & ~known.truth).sum(axis=0)
            shown = int((known.known & known.truth).any())
            counts.update(episodes=1, frames=int(known.known.any(axis=1).sum()), episodes_with_a_goal=shown)
        return Evidence(counts=counts, losses=losses, loss_frames=frames)
