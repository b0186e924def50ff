"""Compares the quality of two folders of labels: the figures of A and of B on the same frames, and their difference."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vlm_rewards.labelers.quality.agreement import UNDEFINED
from vlm_rewards.labelers.quality.figures import threshold_figures
from vlm_rewards.labelers.quality.rankings import ScoreHistogram, average_precision_of_counts, ranked_counts
from vlm_rewards.schemas.goals import Goal

FIGURES = ("average_precision", "precision", "recall", "f1", "false_positive_rate")


def quality_change(quality: tuple[ScoreHistogram, ScoreHistogram], goals: Sequence[Goal]) -> dict[str, Any]:
    """Returns quality in A, in B and the difference B - A, per goal, per family and overall.

    Of a family, the average precision is the mean over its goals that occur, and the other figures are at the thresholds, its
    goals pooled.

    Args:
        quality: Histograms of A and B on the same frames.
        goals: Goals of the histograms.

    Returns:
        `overall`, `families` by name and `goals`, a list; each with `a`, `b` and `difference`, which hold `FIGURES`: numbers, or
        texts that begin with "undefined" and say why.
    """
    figures = [[_goal_figures(histogram, [index]) for index in range(len(goals))] for histogram in quality]

    def group(indices: list[int]) -> dict[str, Any]:
        sides = []
        for histogram, own in zip(quality, figures, strict=True):
            values = [own[index]["average_precision"] for index in indices]
            known = [value for value in values if not isinstance(value, str)]
            mean = float(np.mean(known)) if known else UNDEFINED
            sides.append({**_goal_figures(histogram, indices), "average_precision": mean})
        return {"num_goals": len(indices), **_with_difference(*sides)}

    families = dict.fromkeys(goal.family for goal in goals)
    return {
        "overall": group(list(range(len(goals)))),
        "families": {
            family: group([index for index, goal in enumerate(goals) if goal.family == family]) for family in families
        },
        "goals": [
            {"id": goal.id, "family": goal.family, **_with_difference(figures[0][index], figures[1][index])}
            for index, goal in enumerate(goals)
        ],
    }


def _goal_figures(histogram: ScoreHistogram, indices: list[int]) -> dict[str, Any]:
    counts = ranked_counts(histogram, indices)
    true_positives, false_positives = (int(count) for count in histogram.over_threshold[indices].sum(axis=0))
    average = average_precision_of_counts(counts) if counts.num_positives else UNDEFINED
    return {
        "positives": counts.num_positives,
        "average_precision": average,
        **threshold_figures(true_positives, false_positives, counts),
    }


def _with_difference(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    positives = a["positives"]
    a, b = ({name: side[name] for name in FIGURES} for side in (a, b))
    difference: dict[str, Any] = {}
    for name in FIGURES:
        values = (a[name], b[name])
        undefined = [value for value in values if isinstance(value, str)]
        difference[name] = undefined[0] if undefined else b[name] - a[name]
    return {"positives": positives, "a": a, "b": b, "difference": difference}
