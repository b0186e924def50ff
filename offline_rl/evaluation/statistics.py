"""Statistics of a few runs: interquartile mean, stratified bootstrap intervals, area under a curve, correlation.

Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (rliable). Implemented here in
NumPy with all resamples at once; tests compare with results by hand and with SciPy.

Shapes: R runs (seeds) of K tasks, P points of a curve.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

NUM_RESAMPLES = 2000


class Estimate(NamedTuple):
    """A statistic of several runs with its 95 % interval."""

    value: float
    low: float
    high: float


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Returns the mean of the middle half of all R x K scores, [..., R, K] to [...]."""
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
    """Returns a statistic with its stratified bootstrap interval: runs are drawn with replacement, separately for every task.

    Args:
        scores: [R, K], or [R] for one task.
        statistic: Function from scores [..., R, K] to [...].
        seed: Seed of the draws.
        num_resamples: Number of resamples.

    Returns:
        The statistic of the scores, and its 2.5 and 97.5 percentiles over the resamples.

    Raises:
        ValueError: There are no scores, or one is not a finite number.
    """
    scores = np.asarray(scores, dtype=np.float64)
    scores = scores[:, None] if scores.ndim == 1 else scores
    if not scores.size or not np.isfinite(scores).all():
        raise ValueError(
            f"scores must be finite numbers, at least one, got {scores.tolist()}. Leave out runs that failed."
        )
    random = np.random.default_rng(seed)
    rows = random.integers(len(scores), size=(num_resamples, *scores.shape))
    drawn = statistic(np.take_along_axis(scores[None], rows, axis=1))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(float(statistic(scores)), float(low), float(high))


def area_under_curve(steps: np.ndarray, values: np.ndarray) -> float:
    """Returns the mean height of a curve of [P] values over [P] rising steps, by trapezoids.

    Raises:
        ValueError: There are fewer than two points, or the steps do not rise.
    """
    steps, values = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if len(steps) < 2 or len(steps) != len(values) or not (np.diff(steps) > 0).all():
        raise ValueError(
            f"a curve must have two points or more with rising steps, got steps {steps.tolist()}. Measure more often."
        )
    return float(np.trapezoid(values, steps) / (steps[-1] - steps[0]))


def correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    """Returns Pearson's correlation of two [P] series; None if one is constant or there are fewer than two points."""
    one, other = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    assert one.shape == other.shape, (one.shape, other.shape)
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(np.corrcoef(one, other)[0, 1])
