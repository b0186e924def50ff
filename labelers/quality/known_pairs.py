"""Measures labels where the truth is known for some pairs of frame and goal only: by marks, or by the recording.

    scores, truth, known ──► KnownCounts ──merge──► figures of a goal, or of several pooled
         [N, G]               of G goals

A pair that is not known counts nowhere, in particular not as one in which the goal does not hold. So the figures are of the known
pairs, and are those of all frames only as far as the known pairs are like all others. All counts are whole numbers that add up in
any order.

Shapes: N frames, G goals.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from vlm_rewards.labelers.quality.agreement import NO_NEGATIVES, NOTHING_OVER, UNDEFINED, Figure
from vlm_rewards.labelers.quality.rankings import (
    ScoreHistogram,
    average_precision_of_counts,
    merge_histograms,
    ranked_counts,
    score_histogram,
)

NO_VERDICTS = "undefined: no episode is known as a whole"
DEFINITIONS = {
    "known_positives": "pairs of a frame and a goal of which it is known that the goal holds; unknown pairs count nowhere",
    "known_negatives": "pairs of which it is known that the goal does not hold",
    "true_positives": "known positives whose label is a success at the labels' threshold",
    "false_positives": "known negatives whose label is a success",
    "precision": "true positives / (true positives + false positives)",
    "recall": "true positives / known positives",
    "average_precision": "how well scores rank the known pairs, whatever the threshold: area under the precision-recall curve",
    "episodes": "an episode is a success by the labels where they say that its goal is achieved in any of its frames; "
    "accuracy is the share of the known episodes in which that agrees with what is known",
}
"""Definitions of the figures, one text each."""


class KnownEpisode(NamedTuple):
    """Labels of an episode and what is known of it.

    Attributes:
        scores: [F, G] float32; -inf where sparse labels hold no score.
        successes: [F, G] bool, where the labels say that the goal is achieved.
        truth: [F, G] bool.
        known: [F, G] bool, where the truth is known.
        verdict: Number of its goal, whether it is known to be achieved, and whether it is by the labels; None for no verdict.
    """

    scores: np.ndarray
    successes: np.ndarray
    truth: np.ndarray
    known: np.ndarray
    verdict: tuple[int, bool, bool] | None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class KnownCounts:
    """Counts of known pairs and episodes; they add up.

    Args:
        histogram: Histogram of the known pairs.
        verdicts: [G, 2, 2] int64, episodes by goal, by what is known and by the labels, failures first.
    """

    histogram: ScoreHistogram
    verdicts: np.ndarray


def count_known(episodes: Sequence[KnownEpisode]) -> KnownCounts:
    """Counts a block of at least one episode."""
    scores, successes, truth, known = (
        np.concatenate([getattr(episode, name) for episode in episodes])
        for name in ("scores", "successes", "truth", "known")
    )
    verdicts = np.zeros((scores.shape[1], 2, 2), dtype=np.int64)
    for episode in episodes:
        if episode.verdict is not None:
            goal, achieved, labelled = episode.verdict
            verdicts[goal, int(achieved), int(labelled)] += 1
    return KnownCounts(histogram=score_histogram(scores, truth, successes, known), verdicts=verdicts)


def merge_known(counts: Iterable[KnownCounts]) -> KnownCounts:
    """Adds counts of the same goals, at least one."""
    parts = list(counts)
    return KnownCounts(
        histogram=merge_histograms(part.histogram for part in parts),
        verdicts=np.sum([part.verdicts for part in parts], axis=0),
    )


def known_figures(counts: KnownCounts, goals: Sequence[int]) -> dict[str, object]:
    """Returns the figures of one goal, or of several pooled.

    Args:
        counts: The counts.
        goals: Numbers of the goals.

    Returns:
        What `DEFINITIONS` names. A figure is a number, or a text that begins with "undefined" and says why: none is defined without
        both a known positive and a known negative, since a constant label would then have the best one.
    """
    ranked = ranked_counts(counts.histogram, goals)
    true_positives, false_positives = counts.histogram.over_threshold[list(goals)].sum(axis=0).tolist()
    positives, negatives = ranked.num_positives, ranked.num_negatives
    missing = UNDEFINED if positives == 0 else NO_NEGATIVES if negatives == 0 else None
    over = true_positives + false_positives
    figures: dict[str, object] = {
        "known_positives": positives,
        "known_negatives": negatives,
        "true_positives": true_positives,
        "false_positives": false_positives,
        "precision": missing or (true_positives / over if over else NOTHING_OVER),
        "recall": missing or true_positives / positives,
        "average_precision": missing or average_precision_of_counts(ranked),
    }
    figures["episodes"] = _episode_figures(counts.verdicts[list(goals)].sum(axis=0))
    return figures


def _episode_figures(table: np.ndarray) -> dict[str, int | Figure]:
    (true_negatives, false_positives), (false_negatives, true_positives) = table.tolist()
    total = int(table.sum())
    return {
        "known": total,
        "true_positives": true_positives,
        "false_positives": false_positives,
        "false_negatives": false_negatives,
        "true_negatives": true_negatives,
        "accuracy": (true_positives + true_negatives) / total if total else NO_VERDICTS,
    }
