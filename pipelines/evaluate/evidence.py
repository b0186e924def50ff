"""Gathers the evidence of a unit: joins labels with the ground truth, counts, and keeps the few frames worth looking at.

    labels of a unit ──┐ by (episode_id,   blocks of
                       ├─ frame_index) ──► episodes ──► count_quality ──► Evidence ──► merge_evidence
    its ground truth ──┘                                examples

Merging does not depend on order or grouping.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vlm_rewards.labelers.quality.confusion import GoalRelations
from vlm_rewards.labelers.quality.figures import LabelledEpisode, QualityCounts, count_quality
from vlm_rewards.labelers.rewards.hindsight import original_goals
from vlm_rewards.labelers.rewards.rewards import successes
from vlm_rewards.schemas.formats.corpus import Corpus
from vlm_rewards.schemas.formats.label_parts.reader import Labels, open_labels, part_of_unit, read_labels
from vlm_rewards.schemas.formats.truth import TruthGoals, goals_that_hold
from vlm_rewards.schemas.goals import Goal, normalize_instruction
from vlm_rewards.schemas.manifests import Failure, Unit

EXAMPLES_PER_GOAL = {"true_positives": 3, "false_positives": 6, "false_negatives": 3}
_STRIPS_PER_FAMILY = 2
_BLOCK_SCORES = 1 << 20
_MAX_LISTED = 20


class Example(NamedTuple):
    """A frame worth looking at for one goal; of a false positive, with its cause."""

    score: float
    episode_id: str
    frame_index: int
    unit: str
    cause: str | None = None


class StripCandidate(NamedTuple):
    """An episode in which `num_goals` goals of a family become true or cease to be."""

    num_goals: int
    episode_id: str
    unit: str


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """Evidence of one or several units about the labels; evidence adds up.

    Args:
        quality: Histograms of the evaluated goals; None where no frame was joined.
        counts: frames and episodes joined, and unlabelled_frames of the corpus.
        failures: Numbers of unreadable items of the corpus, by reason.
        examples: At most `EXAMPLES_PER_GOAL` frames per kind and goal column: highest scores, or lowest of false negatives, one
            per episode.
        strips: Episodes with the most goals that change, by family.
        refusals: Why units cannot be evaluated.
    """

    quality: QualityCounts | None = None
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    failures: Mapping[str, int] = dataclasses.field(default_factory=dict)
    examples: Mapping[tuple[str, int], Sequence[Example]] = dataclasses.field(default_factory=dict)
    strips: Mapping[str, Sequence[StripCandidate]] = dataclasses.field(default_factory=dict)
    refusals: Sequence[str] = ()


class _EpisodeTruth(NamedTuple):
    num_frames: int
    frames: np.ndarray  # [K] frame and column of every goal that holds
    columns: np.ndarray
    own_goal: int | None


class _Joined(NamedTuple):
    episode_id: str
    episode: LabelledEpisode


class UnitEvidence:
    """Joins a unit's labels with its ground truth.

    Pickled as the path of the labels: Beam compresses what it sends to workers, and thousands of goals would take it seconds.

    Args:
        corpus: The corpus.
        labels: Labels of the corpus.
        goals: Those of their goals that the ground truth covers.
        covered: All goals that it covers.
    """

    def __init__(self, corpus: Corpus, labels: Labels, goals: Sequence[Goal], covered: TruthGoals) -> None:
        self.labels = labels
        self.relations = GoalRelations(goals)
        self._corpus = corpus
        self._covered = covered
        self._column = {goal.id: column for column, goal in enumerate(goals)}
        self._original = original_goals(goals)
        labelled = {goal.id: index for index, goal in enumerate(labels.metadata.goals)}
        self._selected = np.array([labelled[goal.id] for goal in goals])
        self.rule = labels.metadata.rule.select(self._selected.tolist())

    def __reduce__(self) -> tuple[Callable, tuple]:
        return _open_evidence, (self._corpus, self.labels.folder, self._selected, self._covered)

    def __call__(self, unit: Unit) -> Evidence:
        """Returns the unit's evidence; memory is bounded by its ground truth and a block of episodes.

        Raises:
            ValueError: The corpus has no ground truth or it names unknown goals, or labels are of frames that it does not hold.
        """
        truths, failures = self._read_truths(unit)
        parts = [
            Evidence(
                counts={"unlabelled_frames": sum(truth.num_frames for truth in truths.values())}, failures=failures
            )
        ]
        block: list[_Joined] = []
        for episode in read_labels(part_of_unit(self.labels, unit)):
            known = truths.get(episode.episode_id)
            if known is None or episode.frame_indices[-1] >= known.num_frames:
                frame = episode.frame_indices[0 if known is None else -1]
                raise ValueError(
                    f"labels must be of frames that the corpus holds, got frame {frame} of episode {episode.episode_id!r} in "
                    f"{part_of_unit(self.labels, unit)}, which is not in {self._corpus.place(unit)}; give the corpus that was "
                    f"labelled, or label it again"
                )
            truth = np.zeros((known.num_frames, len(self._selected)), dtype=bool)
            truth[known.frames, known.columns] = True
            scores = episode.scores[:, self._selected]
            joined = LabelledEpisode(
                truth=truth,
                frames=episode.frame_indices,
                scores=scores,
                successes=successes(scores, self.rule),
                own_goal=known.own_goal,
                episode_id=episode.episode_id,
            )
            block.append(_Joined(episode.episode_id, joined))
            if sum(entry.episode.scores.size for entry in block) >= _BLOCK_SCORES:
                parts = [merge_evidence([*parts, self._block_evidence(block, unit.name)])]
                block = []
        if block:
            parts.append(self._block_evidence(block, unit.name))
        return merge_evidence(parts)

    def _read_truths(self, unit: Unit) -> tuple[dict[str, _EpisodeTruth], Counter[str]]:
        truths: dict[str, _EpisodeTruth] = {}
        failures: Counter[str] = Counter()
        camera = self.labels.metadata.fingerprint.parts.get("camera")
        cameras = None if camera is None else [str(camera)]
        for episode in self._corpus.episodes(unit, cameras, frames=False, fields=("achieved_goals", "instruction")):
            if isinstance(episode, Failure):
                failures[episode.reason] += 1
                continue
            if episode.achieved_goals is None:
                raise ValueError(
                    f"a corpus to evaluate with must have ground truth (the column achieved_goals), got episode "
                    f"{episode.episode_id!r} of {episode.source} without; record one with vlm-rewards record, or add the column"
                )
            frames, columns = goals_that_hold(episode, self._covered, self._column).T
            own_goal = self._original.get(normalize_instruction(episode.instruction or ""))
            truths[episode.episode_id] = _EpisodeTruth(episode.num_frames, frames, columns, own_goal)
        return truths, failures

    def _block_evidence(self, block: Sequence[_Joined], unit_name: str) -> Evidence:
        episodes = [joined.episode for joined in block]
        counts, causes = count_quality(episodes, self.relations)
        num_frames = sum(len(episode.frames) for episode in episodes)
        strips: dict[str, list[StripCandidate]] = {}
        for episode_id, episode in block:
            holds = episode.truth[episode.frames]
            changing = np.bincount(
                self.relations.family[holds.any(axis=0) & ~holds.all(axis=0)], minlength=len(self.relations.families)
            )
            for number in np.flatnonzero(changing).tolist():
                candidate = StripCandidate(int(changing[number]), episode_id, unit_name)
                strips.setdefault(self.relations.families[number], []).append(candidate)
        return Evidence(
            quality=counts,
            counts={"frames": num_frames, "episodes": len(block), "unlabelled_frames": -num_frames},
            examples=self._examples(block, causes, unit_name),
            strips=strips,
        )

    def _examples(
        self, block: Sequence[_Joined], causes: np.ndarray, unit_name: str
    ) -> dict[tuple[str, int], list[Example]]:
        scores, over = (np.concatenate([getattr(j.episode, name) for j in block]) for name in ("scores", "successes"))
        truth = np.concatenate([joined.episode.truth[joined.episode.frames] for joined in block])
        frame_indices = np.concatenate([joined.episode.frames for joined in block])
        episode_of = np.repeat(np.arange(len(block)), [len(joined.episode.frames) for joined in block])
        place = np.argsort(np.argsort([joined.episode_id for joined in block]))  # of an episode in the order of the ids
        examples: dict[tuple[str, int], list[Example]] = {}
        for kind, mask in zip(EXAMPLES_PER_GOAL, (over & truth, over & ~truth, ~over & truth), strict=True):
            rows, columns = np.nonzero(mask)
            for pair in _extreme_pairs(
                kind, scores[rows, columns], columns, place[episode_of[rows]], frame_indices[rows]
            ):
                row, column = int(rows[pair]), int(columns[pair])
                example = Example(
                    score=float(scores[row, column]),
                    episode_id=block[episode_of[row]].episode_id,
                    frame_index=int(frame_indices[row]),
                    unit=unit_name,
                    cause=self.relations.causes[causes[pair]] if kind == "false_positives" else None,
                )
                examples.setdefault((kind, column), []).append(example)
        return examples


def _open_evidence(corpus: Corpus, folder: Path, columns: np.ndarray, covered: TruthGoals) -> UnitEvidence:
    labels = open_labels(folder)
    return UnitEvidence(corpus, labels, [labels.metadata.goals[column] for column in columns.tolist()], covered)


def _extreme_pairs(
    kind: str, scores: np.ndarray, goals: np.ndarray, episodes: np.ndarray, frames: np.ndarray
) -> np.ndarray:
    """Returns which of [K] pairs of frame and goal to show: the most extreme ones per goal, at most one per episode."""
    order = np.lexsort([frames, episodes, scores if kind == "false_negatives" else -scores, goals])
    _, first = np.unique(np.stack([goals[order], episodes[order]]), axis=1, return_index=True)
    order = order[np.sort(first)]  # of each goal and episode the best, still in order
    starts = np.searchsorted(goals[order], goals[order])
    return order[np.arange(len(order)) - starts < EXAMPLES_PER_GOAL[kind]]


def _best_examples(kind: str, examples: Iterable[Example]) -> list[Example]:
    sign = 1 if kind == "false_negatives" else -1
    ranked = sorted(examples, key=lambda example: (sign * example.score, example.episode_id, example.frame_index))
    return ranked[: EXAMPLES_PER_GOAL[kind]]


def merge_evidence(evidence: Iterable[Evidence]) -> Evidence:
    """Adds evidence; the result does not depend on its order or grouping."""
    quality: QualityCounts | None = None
    counts: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    examples: dict[tuple[str, int], list[Example]] = {}
    strips: dict[str, list[StripCandidate]] = {}
    refusals: list[str] = []
    for part in evidence:
        if part.quality is not None:
            quality = part.quality if quality is None else quality + part.quality
        refusals.extend(part.refusals)
        counts.update(part.counts)
        failures.update(part.failures)
        for key, found in part.examples.items():
            examples.setdefault(key, []).extend(found)
        for family, candidates in part.strips.items():
            strips.setdefault(family, []).extend(candidates)
    return Evidence(
        quality=quality,
        counts=dict(sorted(counts.items())),
        failures=dict(sorted(failures.items())),
        examples={key: _best_examples(key[0], examples[key]) for key in sorted(examples)},
        strips={
            family: sorted(strips[family], key=lambda strip: (-strip.num_goals, strip.episode_id))[:_STRIPS_PER_FAMILY]
            for family in sorted(strips)
        },
        refusals=sorted(refusals)[:_MAX_LISTED],
    )
