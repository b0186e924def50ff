import numpy as np
import pytest
from scipy.stats import pearsonr, trim_mean

from vlm_rewards.offline_rl.evaluation.statistics import (
    area_under_curve,
    bootstrap_estimate,
    correlation,
    interquartile_mean,
)


def test_the_interquartile_mean_leaves_out_a_quarter_at_either_end() -> None:
    # Sorted 0, 1, 2, 3, 4, 5, 6, 100: the middle half is 2, 3, 4, 5, whose mean is 3.5.
    assert interquartile_mean(np.array([[100, 0], [1, 6], [5, 2], [4, 3]])) == 3.5
    many = np.random.default_rng(0).random((3, 4, 7, 5))
    for runs in (1, 2, 3, 5, 7):
        means = interquartile_mean(many[..., :runs, :])
        assert means.shape == (3, 4)
        assert means[2, 1] == pytest.approx(trim_mean(many[2, 1, :runs], 0.25, axis=None), rel=1e-12)


def test_scores_that_are_all_equal_have_no_spread() -> None:
    assert tuple(bootstrap_estimate(np.full((5, 3), 0.25))) == (0.25, 0.25, 0.25)


def test_tasks_are_resampled_by_themselves() -> None:
    # The runs of each task agree: however they are drawn, the mean over tasks is (0 + 1) / 2.
    scores = np.array([[0.0, 1.0]] * 5)
    assert tuple(bootstrap_estimate(scores, lambda drawn: drawn.mean(axis=(-2, -1)))) == (0.5, 0.5, 0.5)


def test_the_interval_of_a_mean_is_that_of_the_central_limit() -> None:
    # 400 runs of standard deviation 1: the mean's interval is about +-1.96 / sqrt(400) = +-0.098.
    scores = np.random.default_rng(0).normal(size=400)
    estimate = bootstrap_estimate(scores, lambda drawn: drawn.mean(axis=(-2, -1)), num_resamples=4000)
    assert estimate.value == pytest.approx(scores.mean())
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * scores.std() / 20, rel=0.1)
    assert bootstrap_estimate(scores, seed=1) == bootstrap_estimate(scores, seed=1)


@pytest.mark.parametrize("scores", [np.zeros((0, 2)), np.array([0.5, np.nan])])
def test_scores_must_be_numbers(scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match="scores must be finite numbers, at least one, got"):
        bootstrap_estimate(scores)


def test_the_area_under_a_curve_by_hand() -> None:
    # 0 to 1 over the first 10 steps (area 5), then 1 for 30 steps (area 30): 35 / 40.
    assert area_under_curve(np.array([0, 10, 40]), np.array([0, 1, 1])) == pytest.approx(35 / 40)
    with pytest.raises(ValueError, match="a curve must have two points or more with rising steps"):
        area_under_curve(np.array([0, 0]), np.array([1, 1]))


def test_correlation_is_pearsons_and_undefined_for_a_constant() -> None:
    random = np.random.default_rng(2)
    one, other = random.random(20), random.random(20)
    assert correlation(one, other) == pytest.approx(pearsonr(one, other).statistic)
    assert correlation(one, np.ones(20)) is None
    assert correlation(one[:1], other[:1]) is None
