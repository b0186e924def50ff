"""Measures labels against ground truth: all figures per goal, per family and overall.

    episodes ──► QualityCounts ──add──► quality_table: rows of goals, families, overall, confusion
    scores,        integers            rankings:  precision-recall, average precision       agreement: EPIC, tau, calibration, order
    truth                              confusion: where false positives fall

Everything that a corpus says is in `QualityCounts`, whose size does not grow with the corpus, and which adds up in any order to
the same counts to the last bit.

Shapes: N labelled frames and F frames of an episode, G goals, K false positives.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from vlm_rewards.labelers.quality.agreement import (
    NO_GOALS,
    NO_NEGATIVES,
    NOTHING_OVER,
    UNDEFINED,
    VALUE_ORDER_COUNTS,
    calibration_figures,
    epic_distance,
    return_table,
    return_tau,
    success_epic_distance,
    value_order_counts,
    value_order_figures,
)
from vlm_rewards.labelers.quality.confusion import (
    NEAR_FRAMES,
    FalsePositiveCounts,
    GoalRelations,
    Pairs,
    cause_figures,
    confused_goals,
    confusion_tables,
    count_false_positives,
)
from vlm_rewards.labelers.quality.frame_samples import frame_keys
from vlm_rewards.labelers.quality.rankings import (
    RankedCounts,
    ScoreHistogram,
    average_precision_bounds,
    average_precision_of_counts,
    check_positives,
    curve_of_counts,
    merge_histograms,
    ranked_counts,
    score_histogram,
)

_THRESHOLD_FIGURES = ("precision", "recall", "f1", "false_positive_rate")
_NUM_WORST = 12

WORST_RULE = (
    "lowest average precision first, of equals the lowest F1 at the threshold; goals without positives are left out, and of a "
    "group all but its worst goal"
)
"""Order of `worst_goals`, in words."""

DEFINITIONS = {
    "average_precision": "Step-wise area under the precision-recall curve, sum of (R_n - R_(n-1)) P_n, as scikit-learn defines "
    "it; the bounds hold whatever the order of the scores inside a bin.",
    "macro": "Means over the goals that define the figure; num_goals says how many they are.",
    "epic_distance": "sqrt((1 - rho) / 2), rho Pearson's correlation with ground truth over frames, of the score and of the "
    "success (Gleave et al. 2020; VLM-RM): 0 perfect, 0.71 uncorrelated, 1 reversed. Without canonical shaping, which adds a "
    "constant to rewards of the successor frame alone, and without discount.",
    "calibration": "Frequency of the goal against the mean score in 16 even bins of the score, and the expected calibration "
    "error, their absolute difference averaged over frames (Guo et al. 2017); for scores that are probabilities.",
    "episodes": "Average precision of 'the goal holds in some frame of the episode' by the episode's highest score; Kendall's "
    "tau-b over episodes between the number of frames labelled a success and the number in which the goal holds, numbers from "
    "16 on in bins of an eighth.",
    "value_order": "Spearman's correlation of score and time in an episode, up to the first frame in which its goal holds (GVL): "
    "the goal of its instruction or, without one, every goal it achieves. A score that only rises with time is as good for "
    "failures: look at the difference.",
    "false_positives": f"Each false positive has the first cause that is so. Near in time: at most {NEAR_FRAMES} frames from one "
    "in which the goal holds. Another colour (or whatever attribute): a goal of the family that differs in this attribute alone "
    "holds in the frame. The same attributes in another family: a goal holds whose attributes are the goal's, or part of them, "
    "or these and more.",
    "confused_with": "Goals that hold where this goal fires falsely, and in what share of its false positives.",
    "undefined": "A figure that the data do not define is a text that says why, never 0.",
}
"""Definitions of the figures, one text each, for readers of quality.json or its report."""


class LabelledEpisode(NamedTuple):
    """Labels and ground truth of one episode.

    Attributes:
        truth: [F, G] bool, of every frame.
        frames: [N] integers, rising: the frames that have labels.
        scores: [N, G] float32, -inf where sparse labels hold none.
        successes: [N, G] bool, where the labels say that the goal is achieved.
        own_goal: Index of the goal that the instruction asks for; None without one.
        episode_id: Identity of the episode, for samples of frames.
    """

    truth: np.ndarray
    frames: np.ndarray
    scores: np.ndarray
    successes: np.ndarray
    own_goal: int | None = None
    episode_id: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class QualityCounts:
    """Counts of episodes on the labels of G goals; parts add up.

    Args:
        frames: Scores of frames.
        episodes: Highest scores of episodes; positive where the goal holds in some labelled frame.
        returns: [G, 2^16], from `labelers.quality.agreement.return_table`.
        value_order: [G, 2, 5] int64, of failures and successes, from `labelers.quality.agreement.value_order_counts`.
        false_positives: Counts of false positives by cause.
    """

    frames: ScoreHistogram
    episodes: ScoreHistogram
    returns: sparse.csr_array
    value_order: np.ndarray
    false_positives: FalsePositiveCounts

    def __add__(self, other: "QualityCounts") -> "QualityCounts":
        return QualityCounts(
            frames=merge_histograms([self.frames, other.frames]),
            episodes=merge_histograms([self.episodes, other.episodes]),
            returns=self.returns + other.returns,
            value_order=self.value_order + other.value_order,
            false_positives=self.false_positives + other.false_positives,
        )


def count_quality(episodes: Sequence[LabelledEpisode], relations: GoalRelations) -> tuple[QualityCounts, np.ndarray]:
    """Counts the evidence of episodes on the labels, all in memory at once.

    Args:
        episodes: At least one.
        relations: Relations of the G goals.

    Returns:
        The counts; and [K] int64, for every false positive in the order of `numpy.nonzero` over the labelled frames of all
        episodes, its cause's index in `GoalRelations.causes`.

    Raises:
        ValueError: A score is NaN or +inf.
    """
    scores, successes = (np.concatenate([getattr(e, name) for e in episodes]) for name in ("scores", "successes"))
    labelled = [episode.truth[episode.frames] for episode in episodes]
    truth = np.concatenate(labelled)
    best = np.stack([episode.scores.max(axis=0) for episode in episodes])
    label_returns = np.stack([episode.successes.sum(axis=0) for episode in episodes])
    true_returns = np.stack([holds.sum(axis=0) for holds in labelled])

    starts = np.cumsum([0] + [len(episode.truth) + NEAR_FRAMES for episode in episodes[:-1]])
    numbers = np.concatenate([start + episode.frames for start, episode in zip(starts, episodes, strict=True)])
    rows, goals = np.nonzero(successes & ~truth)
    false = Pairs(numbers[rows], goals)
    held = [np.nonzero(episode.truth) for episode in episodes]
    true = Pairs(
        np.concatenate([start + frames for start, (frames, _) in zip(starts, held, strict=True)]),
        np.concatenate([goals for _, goals in held]),
    )
    causes = relations.causes_of(false, true)
    keys = np.zeros(starts[-1] + len(episodes[-1].truth), dtype=np.uint64)
    for start, episode in zip(starts, episodes, strict=True):
        keys[start : start + len(episode.truth)] = frame_keys(episode.episode_id, np.arange(len(episode.truth)))
    counts = QualityCounts(
        frames=score_histogram(scores, truth, successes),
        episodes=score_histogram(best, true_returns > 0, label_returns > 0),
        returns=return_table(label_returns, true_returns),
        value_order=_count_value_order(episodes, relations),
        false_positives=count_false_positives(false, true, causes, relations, keys),
    )
    return counts, causes


def _count_value_order(episodes: Sequence[LabelledEpisode], relations: GoalRelations) -> np.ndarray:
    num_goals = len(relations.goals)
    counts = np.zeros((num_goals, 2, len(VALUE_ORDER_COUNTS)), dtype=np.int64)
    for episode in episodes:
        holds = episode.truth[episode.frames]
        is_achieved = holds.any(axis=0)
        if episode.own_goal is None:
            goals = np.flatnonzero(is_achieved)
            # Of a group the first goal speaks for all, whether or not all are in the ground truth.
            goals = goals[np.unique(relations.groups[goals], return_index=True)[1]]
        else:
            goals = np.array([episode.own_goal])
        # A group holds from the first frame in which one of its goals does.
        first = np.full(num_goals, len(holds))
        np.minimum.at(first, relations.groups, np.where(is_achieved, holds.argmax(axis=0), len(holds)))
        for goal in goals.tolist():
            group_first = int(first[relations.groups[goal]])
            counts[goal, int(group_first < len(holds))] += value_order_counts(episode.scores[: group_first + 1, goal])
    return counts


def threshold_figures(true_positives: int, false_positives: int, counts: RankedCounts) -> dict[str, float | str]:
    """Returns precision, recall, F1 and false-positive rate at a threshold.

    Precision is undefined where nothing lies over the threshold, recall and F1 where there are no positives, the
    false-positive rate where there are no negatives; the text then says so.
    """
    predicted, positives, negatives = true_positives + false_positives, counts.num_positives, counts.num_negatives
    return {
        "precision": true_positives / predicted if predicted else NOTHING_OVER,
        "recall": true_positives / positives if positives else UNDEFINED,
        "f1": 2 * true_positives / (predicted + positives) if positives else UNDEFINED,
        "false_positive_rate": false_positives / negatives if negatives else NO_NEGATIVES,
    }


def best_threshold(counts: RankedCounts) -> dict[str, float | str] | str:
    """Returns the threshold of highest F1, the higher one of two that are equal, and the figures there.

    Returns:
        `threshold` and `threshold_figures`; undefined where no positive has a score.

    Raises:
        ValueError: There are no positives.
    """
    check_positives(counts)
    if not counts.positives.any():
        return "undefined: no positive has a score"
    true_positives, false_positives = np.cumsum(counts.positives), np.cumsum(counts.negatives)
    best = int(np.argmax(true_positives / (true_positives + false_positives + counts.num_positives)))
    figures = threshold_figures(int(true_positives[best]), int(false_positives[best]), counts)
    return {"threshold": float(counts.thresholds[best]), **figures}


def quality_figures(
    counts: RankedCounts, over_threshold: np.ndarray, *, num_points: int, formula: str
) -> dict[str, object]:
    """Returns all figures of one ranking of frames as JSON values.

    Args:
        counts: Counts of one goal, or of several pooled.
        over_threshold: [2] positives and negatives that the labels call a success.
        num_points: Points to which the curve is thinned.
        formula: Formula of the scores.

    Returns:
        positives, negatives, at_threshold; average_precision with its bounds, best_threshold and curve, which are
        `UNDEFINED` without positives; epic_distance of score and success, and calibration.
    """
    true_positives, false_positives = (int(count) for count in over_threshold)
    figures: dict[str, object] = {
        "positives": counts.num_positives,
        "negatives": counts.num_negatives,
        "at_threshold": {
            "true_positives": true_positives,
            "false_positives": false_positives,
            **threshold_figures(true_positives, false_positives, counts),
        },
    }
    if counts.num_positives == 0:
        figures |= dict.fromkeys(
            ("average_precision", "average_precision_bounds", "best_threshold", "curve"), UNDEFINED
        )
    else:
        curve = curve_of_counts(counts)
        points = thinned_points(curve.recall, num_points)
        figures |= {
            "average_precision": average_precision_of_counts(counts),
            "average_precision_bounds": average_precision_bounds(counts),
            "best_threshold": best_threshold(counts),
            "curve": {name: [float(f"{x:.6g}") for x in column[points]] for name, column in curve._asdict().items()},
        }
    return figures | {
        "epic_distance": {
            "score": epic_distance(counts),
            "success": success_epic_distance(true_positives, false_positives, counts),
        },
        "calibration": calibration_figures(counts, formula),
    }


def thinned_points(recall: np.ndarray, num_points: int) -> np.ndarray:
    """Returns the indices of at most `num_points` points of a curve, even in recall; each is the first with its recall."""
    if not len(recall):
        return np.zeros(0, dtype=np.int64)
    targets = np.linspace(recall[0], recall[-1], num_points)
    return np.unique(np.searchsorted(recall, targets))


def episode_figures(counts: QualityCounts, goals: Sequence[int]) -> dict[str, object]:
    """Returns rewards against the success of episodes, of one goal or of several pooled.

    Returns:
        num_episodes (of every goal), achieved, average_precision with its bounds, kendall_tau.
    """
    ranked = ranked_counts(counts.episodes, goals)
    is_defined = ranked.num_positives > 0
    return {
        "num_episodes": ranked.num_positives + ranked.num_negatives,
        "achieved": ranked.num_positives,
        "average_precision": average_precision_of_counts(ranked) if is_defined else UNDEFINED,
        "average_precision_bounds": average_precision_bounds(ranked) if is_defined else UNDEFINED,
        "kendall_tau": return_tau(_rows(counts.returns, goals)),
    }


def _rows(table: sparse.csr_array, rows: Sequence[int]) -> sparse.csr_array:
    """Returns the rows of a matrix; one row by a slice, which takes a fraction of the time."""
    return table[rows[0] : rows[0] + 1] if len(rows) == 1 else table[list(rows)]


def quality_table(
    counts: QualityCounts, relations: GoalRelations, *, thresholds: Sequence[float], formula: str
) -> dict:
    """Returns the figures of every goal, of every family and of all goals.

    The mean average precision is over the goals that have at least one positive; the others are named. Pooled figures are of
    every score of every goal in one ranking; macro figures are means over the goals that define them.

    Args:
        counts: Counts of these goals.
        relations: Relations of the G goals, in the order of the counts.
        thresholds: [G], over which a score is a success.
        formula: Formula of the scores.

    Returns:
        `overall`, `families` by name, `goals`, a list in the order of the goals, `confusion`, and `definitions`.
    """
    goals = relations.goals
    assert len(goals) == counts.frames.num_goals == len(thresholds), (len(goals), counts.frames.num_goals)
    causes = counts.false_positives.causes
    rows: list[dict] = []
    confused = confused_goals(counts.false_positives, relations)
    for index, (goal, threshold, others) in enumerate(zip(goals, thresholds, confused, strict=True)):
        ranked, over = ranked_counts(counts.frames, [index]), counts.frames.over_threshold[index]
        rows.append(
            {
                "id": goal.id,
                "text": goal.text,
                "family": goal.family,
                "threshold": threshold,
                **quality_figures(ranked, over, num_points=32, formula=formula),
                "episodes": episode_figures(counts, [index]),
                "value_order": value_order_figures(counts.value_order[index]),
                "false_positives": cause_figures(causes[index], relations),
                "confused_with": others,
            }
        )

    def group(indices: np.ndarray) -> dict[str, object]:
        members = [rows[index] for index in indices]
        over = counts.frames.over_threshold[indices].sum(axis=0)
        ranked = ranked_counts(counts.frames, indices.tolist())
        return {
            "mean_average_precision": _mean([row["average_precision"] for row in members])[0],
            "mean_average_precision_bounds": _mean([row["average_precision_bounds"] for row in members])[0],
            "num_goals": len(members),
            "num_goals_with_positives": sum(row["positives"] > 0 for row in members),
            "goals_without_positives": [row["id"] for row in members if not row["positives"]],
            "macro": _macro(members),
            "pooled": quality_figures(ranked, over, num_points=200, formula=formula),
            "episodes": _episodes_of_goals(members, counts, indices),
            "value_order": value_order_figures(counts.value_order[indices].sum(axis=0)),
            "false_positives": cause_figures(causes[indices].sum(axis=0), relations),
        }

    return {
        "overall": group(np.arange(len(goals))),
        "families": {
            name: group(np.flatnonzero(relations.family == number)) for number, name in enumerate(relations.families)
        },
        "goals": rows,
        "confusion": confusion_tables(counts.false_positives, relations),
        "definitions": DEFINITIONS,
    }


def worst_goals(rows: Sequence[dict], relations: GoalRelations) -> list[int]:
    """Returns the indices of at most 12 goals by `WORST_RULE`.

    Args:
        rows: The `goals` of `quality_table`.
        relations: Relations of the same goals.
    """
    ranked = sorted(
        (row["average_precision"], row["at_threshold"]["f1"], index)
        for index, row in enumerate(rows)
        if row["positives"]
    )
    first: dict[int, int] = {}
    for *_, index in ranked:
        first.setdefault(int(relations.groups[index]), index)
    return list(first.values())[:_NUM_WORST]


def _mean(values: Sequence) -> tuple[object, int]:
    """Returns the mean of the figures that are defined and their number; where there is none, the reason that all share."""
    defined = [value for value in values if not isinstance(value, str)]
    if defined:
        return np.mean(np.array(defined), axis=0).tolist(), len(defined)
    return (values[0] if len(set(values)) == 1 else NO_GOALS), 0


def _macro(rows: Sequence[dict]) -> dict[str, object]:
    pairs = {name: _mean([row["at_threshold"][name] for row in rows]) for name in _THRESHOLD_FIGURES}
    pairs["expected_calibration_error"] = _mean([_error_of(row["calibration"]) for row in rows])
    distances = {kind: _mean([row["epic_distance"][kind] for row in rows]) for kind in ("score", "success")}
    means, numbers = (
        {name: pair[part] for name, pair in pairs.items()}
        | {"epic_distance": {kind: pair[part] for kind, pair in distances.items()}}
        for part in (0, 1)
    )
    return {**means, "num_goals": numbers}


def _error_of(calibration: dict | str) -> float | str:
    return calibration if isinstance(calibration, str) else calibration["expected_calibration_error"]


def _episodes_of_goals(rows: Sequence[dict], counts: QualityCounts, indices: np.ndarray) -> dict[str, object]:
    precision, num_precisions = _mean([row["episodes"]["average_precision"] for row in rows])
    tau, num_taus = _mean([row["episodes"]["kendall_tau"] for row in rows])
    return {
        "pooled": episode_figures(counts, indices.tolist()),
        "mean_average_precision": precision,
        "mean_kendall_tau": tau,
        "num_goals": {"average_precision": num_precisions, "kendall_tau": num_taus},
    }
