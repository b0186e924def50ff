"""Quality of thresholds and temperatures: figures at thresholds, one threshold for all, held-out figures, log loss.

Shape letters: F frames of one episode, G goals, T temperatures.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from vlm_rewards.labelers.calibration.counts import (
    CalibrationCounts,
    Outcomes,
    add_outcomes,
    mean_f1_curve,
    merge_counts,
    outcomes_at,
)
from vlm_rewards.labelers.calibration.settings import CalibrationSettings
from vlm_rewards.labelers.calibration.thresholds import (
    USEFUL_F1_SHARE,
    ChosenThresholds,
    OperatingPoint,
    choose_thresholds,
)
from vlm_rewards.labelers.quality.agreement import UNDEFINED
from vlm_rewards.labelers.scoring.formulas import MIN_TEMPERATURE
from vlm_rewards.schemas.goals import Goal

LOG_LOSS_UNIT = 1 << 20
"""A log loss of 1 (nat) in whole numbers, so that sums are exact whatever their order."""

NUM_FOLDS = 4
"""Two halves, to judge thresholds by the half they were not chosen from, and two parts of each half to choose them with."""

_SMALLEST = 2.0**-24  # a probability in float32 cannot be nearer to 1 than this, unless it is 1


def best_global_threshold(counts: CalibrationCounts) -> float:
    """The one threshold for all goals with the highest macro F1; `NEVER` without positives."""
    return mean_f1_curve(counts, range(counts.num_goals)).threshold()


def macro_f1(f1: np.ndarray, members: Sequence[int] | None = None) -> float | str:
    """The mean over the goals where F1 is defined, of all or of these members; `UNDEFINED` where it is nowhere."""
    values = f1 if members is None else f1[members]
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else UNDEFINED


def quality_of(outcomes: Outcomes, goals: Sequence[Goal]) -> dict[str, object]:
    """Figures of thresholds as JSON values.

    Returns:
        macro_f1 and macro_f1_by_family; precision, recall and false_positive_rate of all goals' frames pooled; and
        false_positive_rate_by_episode, the mean and the highest over goals of the rate that "fpr" bounds. None where a figure
        is undefined.
    """
    families = list(dict.fromkeys(goal.family for goal in goals))
    f1, losses = outcomes.f1, outcomes.mean_losses
    hits, false = int(outcomes.true_positives.sum()), int(outcomes.false_positives.sum())
    positives, negatives = int(outcomes.positives.sum()), int(outcomes.negatives.sum())
    known = losses[~np.isnan(losses)]
    return {
        "macro_f1": macro_f1(f1),
        "macro_f1_by_family": {
            family: macro_f1(f1, [index for index, goal in enumerate(goals) if goal.family == family])
            for family in families
        },
        "precision": hits / (hits + false) if hits + false else None,
        "recall": hits / positives if positives else None,
        "false_positive_rate": false / negatives if negatives else None,
        "false_positive_rate_by_episode": {"mean": float(known.mean()), "highest": float(known.max())}
        if len(known)
        else None,
    }


def fold_of(episode_id: str) -> int:
    """0 to `NUM_FOLDS` - 1, by the id alone: the part of the calibration data that the episode belongs to."""
    return hashlib.sha256(f"fold\0{episode_id}".encode()).digest()[0] % NUM_FOLDS


def hash_share(episode_id: str) -> float:
    """0..1, even over ids: an episode is in a subsample of share s where this is less than s."""
    digest = hashlib.sha256(f"subsample\0{episode_id}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def held_out_outcomes(
    folds: Sequence[CalibrationCounts],
    goals: Sequence[Goal],
    settings: CalibrationSettings,
    before: OperatingPoint | None = None,
) -> Outcomes:
    """What fires on each half of the data at thresholds that the other half alone chose; both halves counted together."""
    middle = len(folds) // 2
    parts = []
    for first in (True, False):
        seen, unseen = (folds[:middle], folds[middle:]) if first else (folds[middle:], folds[:middle])
        chosen = choose_thresholds(seen, goals, settings, None if before is None else before.half(first))
        parts.append(outcomes_at(merge_counts(unseen), chosen.thresholds))
    return add_outcomes(parts)


def is_no_worse(calibrated: Outcomes, before: Outcomes) -> bool:
    """Returns whether neither precision nor F1 of all goals' frames has fallen; what never fires has no precision to lose.

    Precision does not count where the F1 of before is under `USEFUL_F1_SHARE` of the calibrated one: labels that hardly fire are
    right by chance.
    """
    if before.pooled_f1 < USEFUL_F1_SHARE * calibrated.pooled_f1:
        return True
    precision = 1.0 if calibrated.precision is None else calibrated.precision
    return precision >= (before.precision or 0.0) and calibrated.pooled_f1 >= before.pooled_f1


def calibration_quality(
    folds: Sequence[CalibrationCounts],
    goals: Sequence[Goal],
    settings: CalibrationSettings,
    chosen: ChosenThresholds,
    before: OperatingPoint | None = None,
) -> dict[str, object]:
    """Compares thresholds with one threshold for all goals: the one of highest macro F1.

    Args:
        folds: The calibration data in `NUM_FOLDS` parts that share no episode.
        goals: G goals.
        settings: Objective of the calibration.
        chosen: Those chosen from all parts together.
        before: Thresholds of the labels; None leaves their figures out.

    Returns:
        on_calibration_data and held_out, each with a_threshold_a_goal and one_threshold, see `quality_of`, and before. Held out:
        each half of the data is judged by thresholds that the other half alone chose, and the frames of both are counted together.
    """
    whole = merge_counts(folds)
    middle = len(folds) // 2
    own = held_out_outcomes(folds, goals, settings, before)
    one: list[Outcomes] = []
    for seen, unseen in ((folds[:middle], folds[middle:]), (folds[middle:], folds[:middle])):
        one.append(outcomes_at(merge_counts(unseen), [best_global_threshold(merge_counts(seen))] * len(goals)))
    labels = {} if before is None else {"before": quality_of(before.outcomes(), goals)}
    threshold = best_global_threshold(whole)
    return {
        "on_calibration_data": {
            "a_threshold_a_goal": quality_of(outcomes_at(whole, chosen.thresholds), goals),
            "one_threshold": {
                "threshold": threshold,
                **quality_of(outcomes_at(whole, [threshold] * len(goals)), goals),
            },
            **labels,
        },
        "held_out": {
            "a_threshold_a_goal": quality_of(own, goals),
            "one_threshold": quality_of(add_outcomes(one), goals),
            **labels,
        },
    }


def log_losses(probability: np.ndarray, truth: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
    """How surprising the truth is, summed over frames: -ln p where the goal holds, -ln(1 - p) where it does not.

    Args:
        probability: [F, G] float32, 0..1; taken to be at least 2^-24 from 0 and from 1.
        truth: [F, G] bool.
        known: [F, G] bool, where the truth is known; None: all of it.

    Returns:
        [G, 2] int64, of frames in which the goal holds and of the others, in 1/`LOG_LOSS_UNIT`.
    """
    of_truth = np.where(truth, probability, 1 - probability.astype(np.float64))
    losses = np.rint(-np.log(np.maximum(of_truth, _SMALLEST)) * LOG_LOSS_UNIT).astype(np.int64)
    known = np.ones(truth.shape, dtype=bool) if known is None else known
    return np.stack([np.where(known & holds, losses, 0).sum(axis=0) for holds in (truth, ~truth)], axis=1)


def mean_log_loss(sums: np.ndarray, num_frames: np.ndarray) -> np.ndarray:
    """The mean log loss of each temperature, over all frames of all goals.

    A proper score: its lowest value is that of the true probabilities. With frames in which a goal holds weighing as much as the
    many others, as before version 0.3.0, it is lowest at scores that are too high, and the error of calibration grows.

    Args:
        sums: [T, G, 2] int64, of `log_losses`.
        num_frames: [G, 2] int64, frames in which the goal holds, and the others.

    Returns:
        [T] float64, in nats.
    """
    return sums.sum(axis=(1, 2)) / (max(int(num_frames.sum()), 1) * LOG_LOSS_UNIT)


def temperature_grid(temperature: float) -> list[float]:
    """A 16th to 16 times the temperature in steps of sqrt(2), none under the lowest allowed."""
    grid = [temperature * math.sqrt(2.0) ** step for step in range(-8, 9)]
    return [value for value in grid if value >= MIN_TEMPERATURE]


def refined_grid(temperature: float) -> list[float]:
    """Eight more temperatures around the best of a grid, in steps of 2^(1/10) between its neighbours' halves."""
    grid = [temperature * 2.0 ** (step / 10) for step in range(-4, 5) if step]
    return [value for value in grid if value >= MIN_TEMPERATURE]
