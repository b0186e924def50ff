import math

import numpy as np
import pytest

from vlm_rewards.labelers.calibration.counts import EpisodeScores, Outcomes, calibration_counts, outcomes_at
from vlm_rewards.labelers.calibration.risk_bounds import LOSS_UNIT
from vlm_rewards.labelers.calibration.thresholds import CalibrationSettings, choose_thresholds
from vlm_rewards.labelers.calibration.worth import (
    LOG_LOSS_UNIT,
    NUM_FOLDS,
    calibration_quality,
    fold_of,
    hash_share,
    is_no_worse,
    log_losses,
    mean_log_loss,
    quality_of,
    refined_grid,
    temperature_grid,
)
from vlm_rewards.labelers.quality.agreement import UNDEFINED
from vlm_rewards.schemas.goals import Goal

GOALS = (Goal("a", "a", "first"), Goal("b", "b", "second"))


def outcomes(*columns: list[int]) -> Outcomes:
    return Outcomes(*(np.array(column) for column in columns))


def test_figures_by_hand() -> None:
    # "a": 3 of 4 positives fire, 1 of 6 negatives; "b" never holds, 1 of 5 negatives fires.
    figures = quality_of(outcomes([3, 0], [1, 1], [4, 0], [6, 5], [LOSS_UNIT // 2, LOSS_UNIT], [2, 4]), GOALS)
    assert figures == {
        "macro_f1": 2 * 3 / (4 + 4),
        "macro_f1_by_family": {"first": 0.75, "second": UNDEFINED},
        "precision": 3 / 5,
        "recall": 3 / 4,
        "false_positive_rate": 2 / 11,
        "false_positive_rate_by_episode": {"mean": 0.25, "highest": 0.25},
    }
    nothing = quality_of(outcomes([0, 0], [0, 0], [0, 0], [0, 0], [0, 0], [0, 0]), GOALS)
    assert nothing["macro_f1"] == UNDEFINED
    assert [nothing[name] for name in ("precision", "recall", "false_positive_rate_by_episode")] == [None] * 3


def test_held_out_figures_are_of_thresholds_from_the_other_half() -> None:
    # In each fold, "a" is told apart by its scores, but at a place that depends on the half: 0.6 against 0.4, 0.3 against 0.2.
    def part(high: float, low: float) -> list[EpisodeScores]:
        truth = np.array([[True, False], [False, True]])
        return [EpisodeScores(np.where(truth, high, low).astype(np.float32), truth)] * 6

    folds = [calibration_counts(part(*pair), 2) for pair in [(0.6, 0.4)] * 2 + [(0.3, 0.2)] * 2]
    settings = CalibrationSettings(min_examples=1)
    chosen = choose_thresholds(folds, GOALS, settings)
    quality = calibration_quality(folds, GOALS, settings, chosen)
    # At 0.5, from the first half, nothing of the second fires; at 0.25, from the second, all of the first does:
    # a goal has 12 of 24 positives right, and 12 of 24 negatives wrong: F1 = 2 * 12 / (24 + 24).
    for figures in quality["held_out"].values():
        assert figures["macro_f1"] == 0.5
        assert figures["recall"] == figures["false_positive_rate"] == 0.5
    whole = quality["on_calibration_data"]["a_threshold_a_goal"]
    assert whole["macro_f1"] == pytest.approx(outcomes_at_all(folds, chosen.thresholds))


def test_what_is_no_worse_has_neither_less_precision_nor_less_f1() -> None:
    before = outcomes([6, 0], [1, 1], [10, 0], [90, 100], [0, 0], [4, 4])  # precision 6/8, F1 12/18
    assert is_no_worse(before, before)
    assert is_no_worse(outcomes([6, 0], [1, 0], [10, 0], [90, 100], [0, 0], [4, 4]), before)
    # a false positive of a goal that never holds costs precision, too
    assert not is_no_worse(outcomes([9, 0], [1, 4], [10, 0], [90, 100], [0, 0], [4, 4]), before)
    assert not is_no_worse(outcomes([3, 0], [0, 0], [10, 0], [90, 100], [0, 0], [4, 4]), before)  # precise, but F1 6/13
    never = outcomes([0, 0], [0, 0], [10, 0], [90, 100], [0, 0], [4, 4])
    assert is_no_worse(before, never)  # labels that never fire have nothing to lose
    assert not is_no_worse(never, before)


def outcomes_at_all(folds: list, thresholds: list[float]) -> float:
    parts = [outcomes_at(fold, thresholds) for fold in folds]
    hits, false, positives = (sum(getattr(part, name) for part in parts) for name in Outcomes._fields[:3])
    return float((2 * hits / (hits + false + positives)).mean())


def test_folds_and_subsamples_depend_on_the_id_alone() -> None:
    ids = [f"episode-{number}" for number in range(2000)]
    sizes = np.bincount([fold_of(name) for name in ids], minlength=NUM_FOLDS)
    assert len(sizes) == NUM_FOLDS
    assert sizes.min() > 400
    shares = np.array([hash_share(name) for name in ids])
    assert 0 <= shares.min() < 0.01
    assert 0.99 < shares.max() < 1
    assert abs((shares < 0.3).mean() - 0.3) < 0.04
    assert (fold_of("episode-1"), hash_share("episode-1")) == (fold_of("episode-1"), hash_share("episode-1"))


def test_log_loss_by_hand() -> None:
    probability = np.array([[0.5, 1.0], [0.25, 0.0], [0.0, 0.5]], np.float32)
    truth = np.array([[True, True], [False, False], [True, True]])
    known = np.array([[True, True], [True, True], [True, False]])
    sums = log_losses(probability, truth, known) / LOG_LOSS_UNIT
    # a: -ln 0.5 and, at 2^-24 in place of 0, 24 ln 2; the other: -ln 0.75. b: certain and right.
    np.testing.assert_allclose(sums, [[25 * math.log(2), -math.log(0.75)], [0, 0]], atol=1e-6)
    frames = np.array([[2, 1], [1, 1]])
    (loss,) = mean_log_loss(log_losses(probability, truth, known)[None], frames)
    assert loss == pytest.approx((25 * math.log(2) - math.log(0.75)) / 5, abs=1e-6)  # over five known frames


def test_the_log_loss_is_lowest_at_the_true_probability() -> None:
    # A goal that holds in 2 of 100 frames which all look alike: 0.02 is the truth of each.
    truth = np.arange(100)[:, None] < 2
    tried = [0.01, 0.02, 0.04, 0.5]
    sums = np.stack([log_losses(np.full((100, 1), value, np.float32), truth) for value in tried])
    losses = mean_log_loss(sums, np.array([[2, 98]]))
    assert tried[int(np.argmin(losses))] == 0.02
    assert losses[3] == pytest.approx(math.log(2), abs=1e-6)


def test_grids_surround_the_temperature() -> None:
    grid = temperature_grid(0.01)
    assert grid[0] >= 0.001
    assert grid[-1] == pytest.approx(0.16)
    assert 0.01 in grid
    fine = refined_grid(0.01)
    assert len(fine) == 8
    assert 0.01 / math.sqrt(2) < min(fine) < 0.01 < max(fine) < 0.01 * math.sqrt(2)
    assert min(refined_grid(0.001)) >= 0.001
