"""Differences between two folders of labels in a group of episodes: sums that add up, and the most changed episodes."""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vlm_rewards.labelers.quality.comparison import COUNTS, ScoreChanges, compare_scores, merge_changes
from vlm_rewards.labelers.quality.rankings import ScoreHistogram, merge_histograms, score_histogram
from vlm_rewards.labelers.rewards.rewards import successes
from vlm_rewards.schemas.files import remote_paths
from vlm_rewards.schemas.formats.corpus import Corpus
from vlm_rewards.schemas.formats.label_parts.reader import EpisodeLabels
from vlm_rewards.schemas.formats.label_parts.rows import EpisodeRows, PartRows
from vlm_rewards.schemas.formats.truth import TruthGoals, goals_that_hold
from vlm_rewards.schemas.labels import LabelMetadata
from vlm_rewards.schemas.manifests import Failure, Unit

_MAX_EPISODES = 50
_MAX_LISTED = 20
_MAX_NAMED = 10
_BLOCK_SCORES = 1 << 20


class Location(NamedTuple):
    """Place of an episode: `side` is "a", "b" or "truth", `name` a part or unit, `start` and `stop` its rows in a part."""

    side: str
    name: str
    start: int
    stop: int


class EpisodeChange(NamedTuple):
    """An episode that changed.

    Attributes:
        episode_id: Id of the episode.
        gained_goals: Goals that it achieves in B alone; `gained` lists the first few.
        lost_goals: Goals that it achieves in A alone; `lost` lists the first few.
        flipped: Number of pairs of frame and goal that are a success in one alone.
        changed: Number of scores that changed.
        largest_change: Largest absolute change of a score.
        gained: Ids of the first gained goals.
        lost: Ids of the first lost goals.
    """

    episode_id: str
    gained_goals: int
    lost_goals: int
    flipped: int
    changed: int
    largest_change: float
    gained: tuple[str, ...]
    lost: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Difference:
    """Differences in some episodes; those of several groups add up.

    Args:
        changes: Changes of the common goals; None where no frame is in both.
        quality: Histograms of A and of B on frames with ground truth; None where there are none.
        counts: Numbers of episodes and frames, compared and not.
        episodes: Episodes that changed most.
        only_in: First episodes that the other side lacks, per side.
        refusals: Reasons why labels cannot be compared.
    """

    changes: ScoreChanges | None = None
    quality: tuple[ScoreHistogram, ScoreHistogram] | None = None
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    episodes: Sequence[EpisodeChange] = ()
    only_in: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    refusals: Sequence[str] = ()


COUNTED = (
    "episodes",
    "frames",
    "episodes_only_in_a",
    "episodes_only_in_b",
    "frames_only_in_a",
    "frames_only_in_b",
    "changed_episodes",
    "flipped_episodes",
    "episodes_with_other_goals",
    "frames_with_truth",
)
"""Episodes and frames that both label; those of one side alone; of the common episodes, those with a changed or unknown score,
those with a flipped success, and those that achieve other goals; frames that quality is compared on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two folders.

    Args:
        folder: The folder.
        metadata: Metadata of its labels.
        columns: Columns of the common goals, in their order.
        parts: Paths of its parts below the folder.
    """

    folder: remote_paths.Location
    metadata: LabelMetadata
    columns: tuple[int, ...]
    parts: tuple[str, ...]


class _Truth(NamedTuple):
    num_frames: int
    frames: np.ndarray  # frame and column of every goal that holds
    columns: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupComparison:
    """Compares the episodes that one part of A and one of B share; picklable, since workers get a copy.

    Args:
        a: The first labels.
        b: The second labels.
        goals: Ids of the common goals.
        truth_goals: Common goals that the ground truth covers.
        covered: All goals that the ground truth covers; None without a corpus.
        corpus: Corpus with ground truth; None to compare the labels alone.
        units: Units of the corpus by name.
        tolerance: See `labelers.quality.comparison.compare_scores`.
    """

    a: Side
    b: Side
    goals: tuple[str, ...]
    truth_goals: tuple[str, ...]
    covered: TruthGoals | None
    corpus: Corpus | None
    units: Mapping[str, Unit]
    tolerance: float

    def __call__(
        self, part_a: str | None, part_b: str | None, unit: str | None, entries: Sequence[tuple[str, Any, Any]]
    ) -> Difference:
        """Returns the differences in the group.

        Args:
            part_a: Part of A that holds the episodes; None if A lacks them.
            part_b: Part of B; None if B lacks them.
            unit: Unit of the corpus; None if it lacks them, or there is none.
            entries: Episodes: id, and first row and last row + 1 in A and in B.

        Raises:
            ValueError: Labels or ground truth cannot be read, or do not fit each other; the truth names unknown goals.
        """
        ordered = sorted(entries, key=lambda entry: (entry[1] or entry[2])[0])
        if part_a is None or part_b is None:
            side = "b" if part_a is None else "a"
            frames = sum(stop - start for start, stop in (in_a or in_b for _, in_a, in_b in ordered))
            counts = {f"episodes_only_in_{side}": len(ordered), f"frames_only_in_{side}": frames}
            return merge_differences([Difference(counts=counts, only_in={side: [entry[0] for entry in ordered]})])
        truths = {} if unit is None else self._read_truths(self.units[unit], {entry[0] for entry in ordered})
        found = _Gathering(self)
        with (
            contextlib.closing(PartRows(self.a.folder / part_a, self.a.metadata)) as rows_of_a,
            contextlib.closing(PartRows(self.b.folder / part_b, self.b.metadata)) as rows_of_b,
        ):
            for episode_id, in_a, in_b in ordered:
                pair = (
                    rows_of_a.read(EpisodeRows(episode_id, *in_a)),
                    rows_of_b.read(EpisodeRows(episode_id, *in_b)),
                )
                found.add(pair, truths.get(episode_id))
        return found.difference()

    def _read_truths(self, unit: Unit, wanted: set[str]) -> dict[str, _Truth]:
        truths: dict[str, _Truth] = {}
        column = {goal: index for index, goal in enumerate(self.truth_goals)}
        assert self.corpus is not None
        assert self.covered is not None
        for episode in self.corpus.episodes(unit, frames=False, fields=("achieved_goals",)):
            if isinstance(episode, Failure):  # its frames count as frames without truth
                continue
            if episode.episode_id in wanted and episode.achieved_goals is not None:
                frames, columns = goals_that_hold(episode, self.covered, column).T
                truths[episode.episode_id] = _Truth(episode.num_frames, frames, columns)
        return truths


class _Gathering:
    """Adds up the episodes of a group, in bounded memory."""

    def __init__(self, work: GroupComparison) -> None:
        self._work = work
        self._rules = [side.metadata.rule.select(side.columns) for side in (work.a, work.b)]
        self._counts: Counter[str] = Counter()
        self._changes: list[ScoreChanges] = []
        self._episodes: list[EpisodeChange] = []
        self._blocks: list[tuple[np.ndarray, ...]] = []  # truth, then scores and successes of A and of B
        self._quality: list[tuple[ScoreHistogram, ScoreHistogram]] = []
        covered = {goal: index for index, goal in enumerate(work.goals)}
        self._covered = [covered[goal] for goal in work.truth_goals]

    def add(self, pair: tuple[EpisodeLabels, EpisodeLabels], truth: _Truth | None) -> None:
        """Adds one episode, as A and B label it."""
        a, b = pair
        frames, *rows = np.intersect1d(a.frame_indices, b.frame_indices, assume_unique=True, return_indices=True)
        for name, labels in zip("ab", pair, strict=True):
            self._counts[f"frames_only_in_{name}"] += len(labels.frame_indices) - len(frames)
        if not len(frames):
            return
        scores, achieved = [], []
        for side, rule, labels, own in zip((self._work.a, self._work.b), self._rules, pair, rows, strict=True):
            chosen = labels.scores[:, side.columns]
            scores.append(chosen[own])
            achieved.append(successes(chosen, rule)[own])
        changes = compare_scores((scores[0], scores[1]), (achieved[0], achieved[1]), self._work.tolerance)
        self._counts.update(episodes=1, frames=len(frames))
        self._add_episode(a.episode_id, changes)
        self._changes.append(changes)
        if sum(len(part.cells) for part in self._changes) > _BLOCK_SCORES:
            self._changes = [merge_changes(self._changes)]
        if truth is not None:
            self._add_truth(a.episode_id, frames, truth, scores, achieved)

    def _add_episode(self, episode_id: str, changes: ScoreChanges) -> None:
        columns = {name: changes.counts[:, index] for index, name in enumerate(COUNTS)}
        gained, lost = (np.flatnonzero(columns[f"{way}_episodes"]) for way in ("gained", "lost"))
        flipped = int(columns["gained_frames"].sum() + columns["lost_frames"].sum())
        changed = int(columns["changed"].sum())
        unknown = int(columns["only_in_a"].sum() + columns["only_in_b"].sum())
        self._counts["changed_episodes"] += bool(changed or unknown)
        self._counts["flipped_episodes"] += bool(flipped)
        self._counts["episodes_with_other_goals"] += bool(len(gained) or len(lost))
        if changed or flipped or unknown:
            named = [tuple(self._work.goals[goal] for goal in goals[:_MAX_NAMED]) for goals in (gained, lost)]
            largest = float(changes.largest.max())
            self._episodes.append(
                EpisodeChange(episode_id, len(gained), len(lost), flipped, changed, largest, named[0], named[1])
            )
            if len(self._episodes) > 8 * _MAX_EPISODES:
                self._episodes = _most_changed(self._episodes)

    def _add_truth(
        self,
        episode_id: str,
        frames: np.ndarray,
        truth: _Truth,
        scores: Sequence[np.ndarray],
        achieved: Sequence[np.ndarray],
    ) -> None:
        if frames[-1] >= truth.num_frames:
            raise ValueError(
                f"labels must be of frames that the corpus holds, got frame {frames[-1]} of episode {episode_id!r}, which has "
                f"{truth.num_frames} there; give the corpus that was labelled, or leave --input out"
            )
        holds = np.zeros((truth.num_frames, len(self._covered)), dtype=bool)
        holds[truth.frames, truth.columns] = True
        parts = [scores[0], achieved[0], scores[1], achieved[1]]
        self._counts["frames_with_truth"] += len(frames)
        self._blocks.append((holds[frames], *(part[:, self._covered] for part in parts)))
        if sum(block[0].size for block in self._blocks) > _BLOCK_SCORES:
            self._close_block()

    def _close_block(self) -> None:
        truth, *parts = (np.concatenate(columns) for columns in zip(*self._blocks, strict=True))
        self._quality.append((score_histogram(parts[0], truth, parts[1]), score_histogram(parts[2], truth, parts[3])))
        self._blocks = []

    def difference(self) -> Difference:
        """Returns the sums."""
        if self._blocks:
            self._close_block()
        return merge_differences(
            [
                Difference(
                    changes=merge_changes(self._changes) if self._changes else None,
                    quality=_merge_quality(self._quality),
                    counts=self._counts,
                    episodes=self._episodes,
                )
            ]
        )


def _most_changed(episodes: Iterable[EpisodeChange]) -> list[EpisodeChange]:
    def rank(episode: EpisodeChange) -> tuple:
        return (
            -(episode.gained_goals + episode.lost_goals),
            -episode.flipped,
            -episode.changed,
            -episode.largest_change,
            episode.episode_id,
        )

    return sorted(episodes, key=rank)[:_MAX_EPISODES]


def _merge_quality(
    pairs: Sequence[tuple[ScoreHistogram, ScoreHistogram]],
) -> tuple[ScoreHistogram, ScoreHistogram] | None:
    if not pairs:
        return None
    of_a, of_b = zip(*pairs, strict=True)
    return merge_histograms(of_a), merge_histograms(of_b)


def merge_differences(differences: Iterable[Difference]) -> Difference:
    """Adds differences; the result does not depend on their order or grouping."""
    parts = list(differences)
    counts: Counter[str] = Counter(dict.fromkeys(COUNTED, 0))
    for part in parts:
        counts.update(part.counts)
    changes = [part.changes for part in parts if part.changes is not None]
    return Difference(
        changes=merge_changes(changes) if changes else None,
        quality=_merge_quality([part.quality for part in parts if part.quality is not None]),
        counts={name: counts[name] for name in COUNTED},
        episodes=_most_changed(episode for part in parts for episode in part.episodes),
        only_in={
            side: sorted(name for part in parts for name in part.only_in.get(side, ()))[:_MAX_LISTED] for side in "ab"
        },
        refusals=sorted(refusal for part in parts for refusal in part.refusals)[:_MAX_LISTED],
    )
