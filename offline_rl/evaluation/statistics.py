"""The field's statistics of a few runs: interquartile mean, stratified bootstrap intervals, area under a curve, regret.

Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (rliable). Here with numpy alone
and all resamples at once; tests compare by hand and with SciPy.

Shapes: R runs (seeds) of K tasks, P points of a curve.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

NUM_RESAMPLES = 2000


class Estimate(NamedTuple):
    """A figure of several runs with its 95 % interval."""

    value: float
    low: float
    high: float


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """The mean of the middle half of all R x K scores: of [..., R, K] an array [...]."""
    ordered = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def bootstrap_estimate(
    scores: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray] = interquartile_mean,
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> Estimate:
    """A statistic with its stratified bootstrap interval: runs are drawn with replacement, of every task by itself.

    Args:
        scores: [R, K], or [R] of one task.
        statistic: Of [..., R, K] scores, an array [...].
        seed: Of the draws.
        num_resamples: How many.

    Returns:
        The statistic of the scores, and the 2.5 and 97.5 percentiles of it over the resamples.

    Raises:
        ValueError: There are no scores, or one is not a finite number.
    """
    scores = np.asarray(scores, dtype=np.float64)
    scores = scores[:, None] if scores.ndim == 1 else scores
    if not scores.size or not np.isfinite(scores).all():
        raise ValueError(
            f"scores must be finite numbers, at least one, got {scores.tolist()}; leave out runs that failed"
        )
    random = np.random.default_rng(seed)
    rows = random.integers(len(scores), size=(num_resamples, *scores.shape))
    drawn = statistic(np.take_along_axis(scores[None], rows, axis=1))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(float(statistic(scores)), float(low), float(high))


def area_under_curve(steps: np.ndarray, values: np.ndarray) -> float:
    """The mean height of a curve of [P] values over [P] rising steps, by trapezoids.

    Raises:
        ValueError: There are fewer than two points, or the steps do not rise.
    """
    steps, values = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if len(steps) < 2 or len(steps) != len(values) or not (np.diff(steps) > 0).all():
        raise ValueError(
            f"a curve must have two points or more with rising steps, got steps {steps.tolist()}; measure more often"
        )
    return float(np.trapezoid(values, steps) / (steps[-1] - steps[0]))


def correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    """Pearson's correlation of two [P] series; None where one is constant or there are fewer than two points."""
    one, other = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    assert one.shape == other.shape, (one.shape, other.shape)
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(np.corrcoef(one, other)[0, 1])
