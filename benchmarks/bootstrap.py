"""Average precision of many goals with bootstrap intervals over episodes.

Frames of one episode are alike, so what is drawn again and again is episodes, with replacement: a resample gives every episode a
weight 0, 1, 2, ..., and the average precision of the weighted frames follows from one sorting of the scores.

Shape letters: N frames, G goals, E episodes, R resamples, K distinct scores of a goal's positives.
"""

import numpy as np

INTERVAL = 0.95
"""Share of the resamples that an interval holds; its bounds are percentiles."""


def episode_weights(num_episodes: int, num_resamples: int, seed: int) -> np.ndarray:
    """How often each episode is drawn: `[E, 1 + R]` float32; column 0 is the corpus itself, every episode once."""
    random = np.random.default_rng(seed)
    drawn = random.multinomial(num_episodes, np.full(num_episodes, 1 / num_episodes), size=num_resamples)
    return np.concatenate([np.ones((1, num_episodes)), drawn]).T.astype(np.float32)


def weighted_average_precision(
    scores: np.ndarray, truth: np.ndarray, episode: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Average precision of one goal, a value a column of weights.

    With the distinct scores of positives u_1 > ... > u_K, p_k the weight of the positives at u_k and c_k that of all frames in
    [u_k, u_(k-1)),

        AP = sum over k of  p_k (p_1 + ... + p_k) / (c_1 + ... + c_k)  /  (p_1 + ... + p_K)

    which is scikit-learn's average_precision_score with sample weights.

    Args:
        scores: `[N]` float32.
        truth: `[N]` bool.
        episode: `[N]` int64, 0..E-1.
        weights: `[E, C]` float32, whole numbers.

    Returns:
        `[C]` float64, NaN where no positive has a weight.
    """
    num_episodes, num_columns = weights.shape
    if not truth.any():
        return np.full(num_columns, np.nan)
    levels, level = np.unique(-scores[truth], return_inverse=True)
    over = -scores <= levels[-1]
    rank = np.searchsorted(levels, -scores[over])

    def weigh(entry: np.ndarray, of_episode: np.ndarray) -> np.ndarray:
        counts = np.bincount(entry * num_episodes + of_episode, minlength=len(levels) * num_episodes)
        return (counts.reshape(len(levels), num_episodes).astype(np.float32) @ weights).astype(np.float64)

    positives = weigh(level, episode[truth])
    true_positives, predicted = np.cumsum(positives, axis=0), np.cumsum(weigh(rank, episode[over]), axis=0)
    total = true_positives[-1]
    summed = (positives * true_positives / np.maximum(predicted, 1)).sum(axis=0)
    return np.where(total > 0, summed / np.maximum(total, 1), np.nan)


def average_precisions(scores: np.ndarray, truth: np.ndarray, episode: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`weighted_average_precision` of every goal: `[N, G]` scores and truth to `[G, C]`."""
    columns = zip(np.ascontiguousarray(scores.T), np.ascontiguousarray(truth.T), strict=True)
    return np.stack([weighted_average_precision(own, holds, episode, weights) for own, holds in columns])


def mean_with_interval(values: np.ndarray) -> dict[str, object]:
    """The mean over goals, with the percentile interval of its resamples.

    Args:
        values: `[G, 1 + R]` of `average_precisions`, column 0 the corpus itself. Goals without a positive in a resample are left
            out of that resample's mean.

    Returns:
        `mean`, and `interval` (lowest, highest), None without resamples.
    """
    means = np.nanmean(values, axis=0)
    return {"mean": float(means[0]), "interval": interval_of(means[1:])}


def interval_of(samples: np.ndarray) -> list[float] | None:
    """The percentile interval of `[R]` resampled values, None where there are none."""
    if not len(samples):
        return None
    return np.percentile(samples, [50 * (1 - INTERVAL), 50 * (1 + INTERVAL)]).tolist()
