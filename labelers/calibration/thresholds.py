"""Chooses one threshold per goal from counts: for the best F1, a precision, a bound on false positives, or a quantile.

    CalibrationCounts of folds ──► Ranking of a goal, or of its family ──► depth: how many of its bins fire ──► threshold

Shape letters: G goals, M goals of one family, K strengths, P occupied bins of one ranking.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vlm_rewards.labelers.calibration.counts import (
    NEVER,
    CalibrationCounts,
    F1Curve,
    Outcomes,
    Ranking,
    add_outcomes,
    f1_by_depth,
    merge_counts,
    outcomes_at,
    pooled_f1_curve,
    rank_counts,
    threshold_at,
)
from vlm_rewards.labelers.calibration.risk_bounds import num_episodes_needed, risk_p_value
from vlm_rewards.labelers.calibration.settings import CalibrationSettings
from vlm_rewards.labelers.quality.agreement import UNDEFINED
from vlm_rewards.schemas.goals import Goal

USEFUL_F1_SHARE = 0.1
"""Labels whose F1 is under this share of what other thresholds reach have no precision worth keeping: 2 frames that fire out of
50,000, both rightly, have a precision of 1."""

STRENGTHS = (0.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, math.inf)
"""How much a family may count beside one of its goals, in episodes in which the goal holds; 0: not at all, inf: alone."""


def best_f1_depth(ranking: Ranking) -> int:
    """How many entries must fire for the highest F1; the fewest of those that are equal. 0 without positives."""
    if not ranking.positives.any():
        return 0
    return int(np.argmax(f1_by_depth(ranking.positives, ranking.negatives))) + 1


def precise_depth(ranking: Ranking, precision: float) -> int:
    """The most entries that may fire for the precision to be reached on this data, TP / fired; 0 if it is nowhere."""
    true_positives, false_positives = np.cumsum(ranking.positives), np.cumsum(ranking.negatives)
    reached = np.flatnonzero(true_positives >= precision * (true_positives + false_positives))
    return int(reached[-1]) + 1 if len(reached) else 0


def bounded_depth(ranking: Ranking, num_episodes: int, level: float, confidence: float) -> int:
    """The most entries that may fire for the false-positive rate of one goal to be bounded.

    Draw an episode from where the n calibration episodes come from, among those with a frame in which the goal does not
    hold, then one such frame of it. If the n episodes were drawn independently, then with probability `confidence` over their draw
    the goal fires in that frame with probability at most `level` at the chosen threshold:

        P( E[loss at the chosen threshold] <= level ) >= confidence

    For this goal: with G goals, a share 1 - confidence of them may be over the level. For any distribution of scores, any n
    and any dependence between the frames of an episode. Thresholds are tested from the highest down, each at the full
    1 - confidence, until one fails; as the expected loss only rises on the way, the lowest that passes can be over the level
    only if the first that truly is has passed: nothing to correct for the number of thresholds (fixed sequence testing).

    Args:
        ranking: Ranking of one goal.
        num_episodes: Number n of episodes with a frame in which the goal does not hold.
        level: Highest rate.
        confidence: Probability with which it holds.

    Returns:
        0 where not even the highest entry may fire, as with fewer than `num_episodes_needed` episodes.

    Source: Angelopoulos et al. 2021, "Learn then Test"; Bates et al. 2021 for monotone losses. See
    `labelers.calibration.risk_bounds`. Where
    every episode has one such frame (marks of single frames, say), its loss is 0 or 1 and the binomial itself is used.
    """
    losses = np.cumsum(ranking.losses)
    binary = int(ranking.negatives.sum()) == num_episodes
    passing, failing = 0, len(losses) + 1  # entries that may fire, and that may not; the p-value rises with the loss
    while failing - passing > 1:
        middle = (passing + failing) // 2
        if risk_p_value(int(losses[middle - 1]), num_episodes, level, binary=binary) <= 1 - confidence:
            passing = middle
        else:
            failing = middle
    return passing


def quantile_depth(ranking: Ranking, quantile: float) -> int:
    """The most entries that may fire for at least a share `quantile` of all frames not to."""
    fired = np.cumsum(ranking.positives + ranking.negatives)
    allowed = np.flatnonzero(fired[-1] - fired >= quantile * fired[-1]) if len(fired) else np.zeros(0, np.int64)
    return int(allowed[-1]) + 1 if len(allowed) else 0


class GoalThreshold(NamedTuple):
    """A goal's threshold, whose frames it was chosen from ("goal", "family", "all goals", "goal and family", ...), and a reason
    where these are not its own or it never fires."""

    threshold: float
    chosen_from: str = "goal"
    reason: str | None = None


class ChosenThresholds(NamedTuple):
    """The thresholds of G goals, and the strength with which families take part in those of "f1", else None."""

    goals: list[GoalThreshold]
    strength: float | None

    @property
    def thresholds(self) -> list[float]:
        """G numbers."""
        return [goal.threshold for goal in self.goals]


class OperatingPoint(NamedTuple):
    """Thresholds of the labels before calibration, on the same episodes.

    Attributes:
        folds: Counts of their scores, in the same folds as those that thresholds are chosen from.
        thresholds: G numbers.
    """

    folds: Sequence[CalibrationCounts]
    thresholds: Sequence[float]

    def outcomes(self) -> Outcomes:
        """Returns what fires, over all folds."""
        return outcomes_at(merge_counts(self.folds), self.thresholds)

    def half(self, first: bool) -> "OperatingPoint":
        """Returns the operating point on the first half of the folds, or on the second."""
        middle = len(self.folds) // 2
        return self._replace(folds=self.folds[:middle] if first else self.folds[middle:])


def choose_thresholds(
    folds: Sequence[CalibrationCounts],
    goals: Sequence[Goal],
    settings: CalibrationSettings,
    before: OperatingPoint | None = None,
) -> ChosenThresholds:
    """Chooses every goal's threshold from all folds together.

    "fpr" and "quantile" take each goal by itself: what its family does bounds nothing of it. "f1" and "precision" give a goal
    with too few examples the threshold of its family's frames pooled, or of all goals' where the family has too few.

    For "f1" a goal with enough examples still borrows: its threshold maximises

        n F1(threshold) + strength * (F1 of its family's frames at this threshold),    n the episodes in which it holds,

    so that the family decides where the goal's own frames do not. The best threshold of a handful of frames is mostly chance: taken
    alone it does worse on new episodes than one threshold for all goals. A family's frames are all of them, those of goals that
    never hold in the data included. Where `before` is given, its precision must not fall, since a false reward costs an agent more
    than a missed one, unless its F1 is under `USEFUL_F1_SHARE` of the best. The strength is one of `STRENGTHS`: every fold is
    judged by thresholds chosen from the others. The family decides alone unless the strength with the best macro F1 beats that by
    more than three standard errors over goals: seven are compared, and goals part ways only where the data show that they differ.

    Args:
        folds: The calibration data in parts that share no episode, at least two for "f1".
        goals: G goals, in the order of the counts.
        settings: Objective of the calibration.
        before: Thresholds of the labels, for "f1"; None to choose without regard to them.

    Returns:
        G thresholds. A goal whose scores are constant never fires, since no threshold tells its frames apart.
    """
    whole = merge_counts(folds)
    assert whole.num_goals == len(goals), (whole.num_goals, len(goals))
    if settings.objective in ("fpr", "quantile"):
        return ChosenThresholds([_own_threshold(whole, goal, settings) for goal in range(len(goals))], None)
    if settings.objective == "precision":
        return ChosenThresholds(_shared_thresholds(whole, goals, settings, (0.0,), None)[0], None)
    assert len(folds) >= 2, len(folds)
    least = None if before is None else before.outcomes()
    judged = []
    for index, fold in enumerate(folds):
        others = merge_counts([part for number, part in enumerate(folds) if number != index])
        chosen = _shared_thresholds(others, goals, settings, STRENGTHS, least)
        judged.append([outcomes_at(fold, [goal.threshold for goal in row]) for row in chosen])
    f1 = np.array([add_outcomes(parts).f1 for parts in zip(*judged, strict=True)])
    strength = STRENGTHS[_proven_best(f1[:, ~np.isnan(f1).any(axis=0)])]
    return ChosenThresholds(_shared_thresholds(whole, goals, settings, (strength,), least)[0], strength)


def _proven_best(f1: np.ndarray) -> int:
    """Of K rows [K, G], the one of highest mean where it is three standard errors above the last one, else the last."""
    if not f1.size:
        return len(f1) - 1
    best = int(np.argmax(f1.mean(axis=1)))
    gain = f1[best] - f1[-1]
    return best if gain.mean() > 3 * gain.std() / math.sqrt(len(gain)) else len(f1) - 1


def _shared_thresholds(
    counts: CalibrationCounts,
    goals: Sequence[Goal],
    settings: CalibrationSettings,
    strengths: Sequence[float],
    before: Outcomes | None,
) -> list[list[GoalThreshold]]:
    """For each strength, the thresholds of all goals; see `choose_thresholds`."""
    families: dict[str, list[int]] = {}
    for index, goal in enumerate(goals):
        families.setdefault(goal.family, []).append(index)
    chosen = [[GoalThreshold(NEVER)] * len(goals) for _ in strengths]
    for members in families.values():
        of_family = _shortage(counts, members, settings) is None
        pool = members if of_family else list(range(len(goals)))
        source = "family" if of_family else "all goals"
        curve = pooled_f1_curve(counts, pool)
        if before is not None and before.of(pool).pooled_f1 >= USEFUL_F1_SHARE * curve.f1.max(initial=0.0):
            curve = pooled_f1_curve(counts, pool, before.of(pool).precision or 0.0)
        shared = curve.threshold() if settings.objective == "f1" else _pooled_threshold(counts, pool, settings)
        for index in members:
            shortage = _shortage(counts, [index], settings)
            own = None if shortage is not None else _own_threshold(counts, index, settings)
            f1 = None if own is None or own.reason is not None else _f1_at(counts, index, curve.bins)
            for row, strength in zip(chosen, strengths, strict=True):
                if own is None:
                    row[index] = GoalThreshold(shared, source, shortage)
                elif f1 is None or (strength == 0 and before is None):
                    row[index] = own
                elif strength == math.inf:
                    row[index] = GoalThreshold(shared, source)
                else:
                    weighted = int(counts.positive_episodes[index]) * f1
                    row[index] = GoalThreshold(_blended_threshold(weighted, curve, strength), f"goal and {source}")
    return chosen


def _pooled_threshold(counts: CalibrationCounts, pool: Sequence[int], settings: CalibrationSettings) -> float:
    ranking = rank_counts(counts, pool)
    return threshold_at(ranking.bins, _depth(ranking, settings, 0))


def _f1_at(counts: CalibrationCounts, goal: int, bins: np.ndarray) -> np.ndarray:
    """The F1 of a goal when its scores in these bins, which hold all of its own, and higher ones fire: [P] float64."""
    own = rank_counts(counts, [goal])
    f1 = np.append(0.0, f1_by_depth(own.positives, own.negatives))
    return f1[np.searchsorted(-own.bins, -bins, side="right")]


def _blended_threshold(weighted_f1: np.ndarray, curve: F1Curve, strength: float) -> float:
    blended = weighted_f1 + strength * curve.f1
    blended[curve.f1 < 0] = -1
    return threshold_at(curve.bins, int(np.argmax(blended)) + 1)


def _shortage(counts: CalibrationCounts, members: Sequence[int], settings: CalibrationSettings) -> str | None:
    """What there is too little of; a family is judged by its goals' episodes together."""
    positive = int(counts.positive_episodes[members].sum())
    negative = int(counts.negative_episodes[members].sum())
    if positive == 0:
        return UNDEFINED
    if positive < settings.min_examples:
        return f"holds in {positive} episodes, fewer than {settings.min_examples}"
    if negative < settings.min_examples:
        return f"fails to hold in {negative} episodes, fewer than {settings.min_examples}"
    return None


def _depth(ranking: Ranking, settings: CalibrationSettings, num_episodes: int) -> int:
    if settings.objective == "f1":
        return best_f1_depth(ranking)
    if settings.objective == "precision":
        assert settings.precision is not None
        return precise_depth(ranking, settings.precision)
    if settings.objective == "quantile":
        assert settings.quantile is not None
        return quantile_depth(ranking, settings.quantile)
    assert settings.level is not None
    assert settings.confidence is not None
    return bounded_depth(ranking, num_episodes, settings.level, settings.confidence)


def _own_threshold(counts: CalibrationCounts, goal: int, settings: CalibrationSettings) -> GoalThreshold:
    ranking = rank_counts(counts, [goal])
    num_episodes = int(counts.negative_episodes[goal])
    if settings.objective == "fpr":
        assert settings.level is not None
        assert settings.confidence is not None
        needed = num_episodes_needed(settings.level, settings.confidence)
        if num_episodes < needed:
            return GoalThreshold(
                NEVER,
                reason=f"needs at least {needed} episodes with a frame in which it does not hold, got {num_episodes}",
            )
    if not len(ranking.bins):
        return GoalThreshold(NEVER, reason="no scores")
    if len(ranking.bins) == 1:
        return GoalThreshold(NEVER, reason="constant scores: no threshold tells its frames apart")
    depth = _depth(ranking, settings, num_episodes)
    if depth == 0:
        value = getattr(settings, {"fpr": "level"}.get(settings.objective, settings.objective))
        return GoalThreshold(NEVER, reason=f"a {settings.objective} of {value:g} is reached at no threshold")
    return GoalThreshold(threshold_at(ranking.bins, depth, lowest=settings.objective == "fpr"))
