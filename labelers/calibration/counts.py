"""Scores and truth of episodes counted in histograms that add up, and what fires at a threshold.

    scores, truth of episodes ──► CalibrationCounts ──merge──► Ranking of a goal or of several: bins, best first
          [F, G]                     G goals, B bins      └──► Outcomes at one threshold per goal

A threshold lies on the edge of a bin, so what a histogram says of it is exact: no frame is counted on the wrong side. Bins
are eight of those of `labelers.quality.rankings`: a 128th of the distance from 0 or 1 near these, 2^-13 between.

Beside its frames, a histogram counts losses. An episode's loss at a threshold is the share of its frames where the goal does
not hold that fire nevertheless; each of these frames adds 1/(their number) to it. The mean over episodes is the false-positive
rate of a frame that is drawn by drawing an episode, then one of its frames: `labelers.calibration.risk_bounds` bounds it,
because episodes are independent where the frames of one are not.

Shape letters: F frames of one episode, G goals, B occupied bins, P occupied bins of one ranking.
"""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from vlm_rewards.labelers.calibration.risk_bounds import LOSS_UNIT, whole_losses
from vlm_rewards.labelers.quality.rankings import largest_below, score_bins
from vlm_rewards.schemas.rules import NEVER

_NEVER_BIN = 1 << 40
_COARSE_BITS = 3
_OFFSET = 1 << 18
_STRIDE = 1 << 19  # bins a goal; a key is goal * _STRIDE + bin + _OFFSET


class EpisodeScores(NamedTuple):
    """One episode: scores [F, G] float32, truth [F, G] bool, and known [F, G] bool, where the truth is known; None: all of it."""

    scores: np.ndarray
    truth: np.ndarray
    known: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CalibrationCounts:
    """Frames of G goals by bins of their scores, with the losses of their episodes; adds up, exactly, in any order.

    Args:
        num_goals: G.
        keys: [B] int64, rising: goal and bin of each entry.
        positives: [B] int64, frames in which the goal holds.
        negatives: [B] int64, the others.
        losses: [B] int64, what the negatives of the entry add to the losses of their episodes, in 1/`LOSS_UNIT`.
        positive_episodes: [G] int64, episodes with a frame in which the goal holds.
        negative_episodes: [G] int64, episodes with a frame in which it does not.
    """

    num_goals: int
    keys: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray
    losses: np.ndarray
    positive_episodes: np.ndarray
    negative_episodes: np.ndarray

    @functools.cached_property
    def bins(self) -> np.ndarray:
        """[B] int64."""
        return self.keys % _STRIDE - _OFFSET

    @functools.cached_property
    def goals(self) -> np.ndarray:
        """[B] int64, indices of the goals."""
        return self.keys // _STRIDE

    def sum_by_goal(self, values: np.ndarray) -> np.ndarray:
        """[B] values of the entries to [G] int64 sums."""
        sums = np.zeros(self.num_goals, dtype=np.int64)
        np.add.at(sums, self.goals, values)
        return sums


def calibration_counts(episodes: Sequence[EpisodeScores], num_goals: int) -> CalibrationCounts:
    """Counts a block of episodes.

    Raises:
        ValueError: A score is not a finite number.
    """
    keys, truths, losses = [], [], []
    positive_episodes = np.zeros(num_goals, dtype=np.int64)
    negative_episodes = np.zeros(num_goals, dtype=np.int64)
    for episode in episodes:
        scores = np.asarray(episode.scores, dtype=np.float32)
        assert scores.shape == episode.truth.shape == (len(scores), num_goals), (scores.shape, episode.truth.shape)
        if not np.isfinite(scores).all():
            frame, goal = np.argwhere(~np.isfinite(scores))[0]
            raise ValueError(
                f"scores to calibrate with must be finite numbers, got {scores[frame, goal]} for goal {goal} in row {frame} of an "
                f"episode; label the corpus again, densely"
            )
        known = np.ones(scores.shape, dtype=bool) if episode.known is None else episode.known
        num_negatives = (known & ~episode.truth).sum(axis=0)
        positive_episodes += (known & episode.truth).any(axis=0)
        negative_episodes += num_negatives > 0
        frames, goals = np.nonzero(known)
        keys.append(coarse_bins(scores[frames, goals]) + goals * _STRIDE + _OFFSET)
        truth = episode.truth[frames, goals]
        truths.append(truth)
        losses.append(np.where(truth, 0, whole_losses(num_negatives)[goals]))
    if not keys:
        keys, truths, losses = [np.zeros(0, np.int64)], [np.zeros(0, bool)], [np.zeros(0, np.int64)]
    truth = np.concatenate(truths)
    columns = [truth.astype(np.int64), (~truth).astype(np.int64), np.concatenate(losses)]
    distinct, sums = _sum_by_key(np.concatenate(keys), columns)
    return CalibrationCounts(
        num_goals=num_goals,
        keys=distinct,
        positives=sums[0],
        negatives=sums[1],
        losses=sums[2],
        positive_episodes=positive_episodes,
        negative_episodes=negative_episodes,
    )


def merge_counts(counts: Iterable[CalibrationCounts]) -> CalibrationCounts:
    """Adds counts of the same goals; whole numbers only, so that neither order nor grouping matters."""
    parts = list(counts)
    assert parts, "nothing to merge"
    assert len({part.num_goals for part in parts}) == 1, [part.num_goals for part in parts]
    names = ("positives", "negatives", "losses")
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in names]
    distinct, sums = _sum_by_key(np.concatenate([part.keys for part in parts]), columns)
    return CalibrationCounts(
        num_goals=parts[0].num_goals,
        keys=distinct,
        **dict(zip(names, sums, strict=True)),
        positive_episodes=np.sum([part.positive_episodes for part in parts], axis=0),
        negative_episodes=np.sum([part.negative_episodes for part in parts], axis=0),
    )


def _sum_by_key(keys: np.ndarray, columns: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    return keys[first], [np.add.reduceat(column[order], first) if len(first) else column[:0] for column in columns]


def coarse_bins(scores: np.ndarray) -> np.ndarray:
    """The bin of each finite score, int64, rising with it; eight bins of `labelers.quality.rankings.score_bins` make one."""
    return score_bins(scores) >> _COARSE_BITS


class Ranking(NamedTuple):
    """The entries of one goal, or of several pooled, from the highest bin to the lowest.

    Attributes:
        bins: [P] int64, falling.
        positives: [P] int64.
        negatives: [P] int64.
        losses: [P] int64, in 1/`LOSS_UNIT`.
    """

    bins: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray
    losses: np.ndarray


def threshold_at(bins: np.ndarray, depth: int, *, lowest: bool = False) -> float:
    """A threshold over which the first `depth` of the occupied bins lie, and no others.

    Args:
        bins: [P] int64, falling.
        depth: 0 gives `NEVER`.
        lowest: As low as it can be, just over the next bin, instead of half-way to it in bins. Half-way is near the middle for
            cosines, and near the middle of the log-odds for probabilities near 0 and 1.
    """
    if depth == 0:
        return NEVER
    if depth == len(bins):
        return _threshold_under(int(bins[-1]))
    return _threshold_under(int(bins[depth] + 1 if lowest else (bins[depth - 1] + bins[depth] + 1) // 2))


@functools.lru_cache(maxsize=1 << 16)
def _threshold_under(edge: int) -> float:
    return float(largest_below(np.array([edge << _COARSE_BITS]))[0])


def rank_counts(counts: CalibrationCounts, goals: Sequence[int]) -> Ranking:
    """The ranking of one goal, or of several pooled."""
    starts = np.searchsorted(counts.keys, np.asarray(goals) * _STRIDE)
    stops = np.searchsorted(counts.keys, (np.asarray(goals) + 1) * _STRIDE)
    entries = np.concatenate([np.arange(start, stop) for start, stop in zip(starts, stops, strict=True)])
    columns = [column[entries] for column in (counts.positives, counts.negatives, counts.losses)]
    bins, sums = _sum_by_key(counts.bins[entries] + _OFFSET, columns)
    return Ranking(bins[::-1] - _OFFSET, *(column[::-1] for column in sums))


class F1Curve(NamedTuple):
    """The F1 of several goals when a score is over a threshold under these bins: [P] int64, falling, and [P] float64; -1 where a
    threshold may not lie."""

    bins: np.ndarray
    f1: np.ndarray

    def threshold(self) -> float:
        """Returns the threshold of the highest F1, the higher one of two that are equal; `NEVER` where no F1 is above 0."""
        return threshold_at(self.bins, int(np.argmax(self.f1)) + 1) if (self.f1 > 0).any() else NEVER


def mean_f1_curve(counts: CalibrationCounts, goals: Sequence[int]) -> F1Curve:
    """The macro F1 of one threshold for these goals, wherever it lies: the mean over those of them that have positives.

    The F1 of a goal changes only at its own bins, so that the changes of all goals, in the order of the bins, add up to it:
    no matrix of goals by bins.
    """
    starts = np.searchsorted(counts.keys, np.asarray(goals) * _STRIDE)
    stops = np.searchsorted(counts.keys, (np.asarray(goals) + 1) * _STRIDE)
    bins, changes = [], []
    num_defined = 0
    for start, stop in zip(starts, stops, strict=True):
        own = slice(start, stop)
        bins.append(counts.bins[own])
        f1 = f1_by_depth(counts.positives[own][::-1], counts.negatives[own][::-1])
        changes.append(np.diff(f1, prepend=0.0)[::-1])
        num_defined += bool(counts.positives[own].any())
    distinct, inverse = np.unique(np.concatenate(bins), return_inverse=True)
    summed = np.cumsum(np.bincount(inverse, np.concatenate(changes), len(distinct))[::-1])
    return F1Curve(distinct[::-1], summed / max(num_defined, 1))


def pooled_f1_curve(counts: CalibrationCounts, goals: Sequence[int], min_precision: float = 0.0) -> F1Curve:
    """The F1 of all frames of these goals under one threshold, wherever it lies.

    Frames of goals that never hold in the data count, too: what fires there is false. The mean F1 over goals leaves them out, and
    chooses thresholds that are too low where many goals hold in few episodes.

    Args:
        counts: Counts of the frames.
        goals: Numbers of the pooled goals.
        min_precision: Precision under which a threshold may not lie; where none reaches it, the highest precision there is.
    """
    ranking = rank_counts(counts, goals)
    fired = np.cumsum(ranking.positives + ranking.negatives)
    precision = np.cumsum(ranking.positives) / np.maximum(fired, 1)
    f1 = f1_by_depth(ranking.positives, ranking.negatives)
    allowed = precision >= min(min_precision, float(precision.max(initial=0.0)))
    return F1Curve(ranking.bins, np.where(allowed, f1, -1.0))


def f1_by_depth(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """F1 when the first 1, 2, ... P bins fire, 2 TP / (fired + positives): [P] counts to [P] float64; 0 without positives."""
    true_positives = np.cumsum(positives)
    return 2 * true_positives / np.maximum(true_positives + np.cumsum(negatives) + positives.sum(), 1)


class Outcomes(NamedTuple):
    """Counts of what fires at one threshold per goal: [G] int64 each, and they add up.

    Attributes:
        true_positives: Frames that fire and in which the goal holds.
        false_positives: Frames that fire and in which it does not.
        positives: Frames in which it holds.
        negatives: Frames in which it does not.
        losses: Sum over episodes of the share of false positives among their negatives, in 1/`LOSS_UNIT`.
        negative_episodes: Episodes with negatives.
    """

    true_positives: np.ndarray
    false_positives: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray
    losses: np.ndarray
    negative_episodes: np.ndarray

    @property
    def f1(self) -> np.ndarray:
        """[G] float64; NaN without positives."""
        return _ratio(
            2 * self.true_positives, self.true_positives + self.false_positives + self.positives, self.positives
        )

    def of(self, goals: Sequence[int]) -> "Outcomes":
        """Returns the outcomes of some goals."""
        return Outcomes(*(column[list(goals)] for column in self))

    @property
    def precision(self) -> float | None:
        """Share of right frames among all that fire, of all goals together; None where none fires."""
        fired = int(self.true_positives.sum() + self.false_positives.sum())
        return int(self.true_positives.sum()) / fired if fired else None

    @property
    def pooled_f1(self) -> float:
        """F1 of the frames of all goals together; 0 without positives."""
        hits, false = int(self.true_positives.sum()), int(self.false_positives.sum())
        return 2 * hits / max(hits + false + int(self.positives.sum()), 1)

    @property
    def false_positive_rates(self) -> np.ndarray:
        """[G] float64, over frames; NaN without negatives."""
        return _ratio(self.false_positives, self.negatives, self.negatives)

    @property
    def mean_losses(self) -> np.ndarray:
        """[G] float64, over episodes: the rate that "fpr" bounds; NaN without episodes that have negatives."""
        return _ratio(self.losses / LOSS_UNIT, self.negative_episodes, self.negative_episodes)


def _ratio(numerator: np.ndarray, denominator: np.ndarray, defined: np.ndarray) -> np.ndarray:
    return np.where(defined > 0, numerator / np.maximum(denominator, 1), np.nan)


def outcomes_at(counts: CalibrationCounts, thresholds: Sequence[float]) -> Outcomes:
    """Returns what fires at these thresholds, one per goal; exact for thresholds on edges of bins."""
    cuts = np.full(counts.num_goals, _NEVER_BIN)
    fires = np.array(thresholds) < NEVER
    values = np.array(thresholds, dtype=np.float32)[fires]
    cuts[fires] = coarse_bins(np.nextafter(values, np.float32(np.inf)))
    fired = counts.bins >= cuts[counts.goals]
    return Outcomes(
        true_positives=counts.sum_by_goal(np.where(fired, counts.positives, 0)),
        false_positives=counts.sum_by_goal(np.where(fired, counts.negatives, 0)),
        positives=counts.sum_by_goal(counts.positives),
        negatives=counts.sum_by_goal(counts.negatives),
        losses=counts.sum_by_goal(np.where(fired, counts.losses, 0)),
        negative_episodes=counts.negative_episodes,
    )


def add_outcomes(parts: Sequence[Outcomes]) -> Outcomes:
    """Returns the sums."""
    return Outcomes(*(np.sum(columns, axis=0) for columns in zip(*parts, strict=True)))
