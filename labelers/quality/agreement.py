"""Measures how scores and rewards agree with ground truth beyond a threshold: EPIC distance, calibration, returns, time.

Every figure is a function of integer counts that add up in any order: of rankings (`labelers.quality.rankings`), of a
contingency table
of returns, of sums in units of 2^-32. A figure that the counts do not define is a text that begins with "undefined" and says why.

Shapes: N frames, G goals, E episodes, A and B occupied bins of returns.
"""

import math

import numpy as np
from scipy import sparse

from vlm_rewards.labelers.quality.rankings import RankedCounts
from vlm_rewards.labelers.scoring.formulas import claims_probability

Figure = float | str
"""A number, or a text that begins with "undefined" and says why there is none."""

UNDEFINED = "undefined: no positives"
"""Text in place of a figure that needs a frame in which the goal holds."""

NO_NEGATIVES = "undefined: no negatives"
CONSTANT = "undefined: constant scores"
SPARSE = "undefined: sparse labels"
NOTHING_OVER = "undefined: nothing over the threshold"
EVERYTHING_OVER = "undefined: everything over the threshold"
NO_GOALS = "undefined: no goal defines it"

CALIBRATION_BINS = 16
VALUE_ORDER_COUNTS = ("sum", "episodes", "constant", "sparse", "short")
_EXACT_RETURNS = 16
_RETURN_BITS = 8
_UNIT = 2.0**32
_MIN_FRAMES = 3


def epic_distance(counts: RankedCounts) -> Figure:
    """Returns the EPIC distance between scores and ground truth as rewards, up to affine functions.

        distance = sqrt((1 - rho) / 2)          rho: Pearson's correlation of score and truth, over frames

    0 is perfect, 1 perfectly wrong, sqrt(1/2) what uncorrelated scores have. From a histogram, scores are the middles of
    their bins: 2^-17 off at most in the middle of 0..1, far less near 0 and 1.

    Returns:
        In [0, 1]; undefined without positives or negatives, for constant scores and where sparse labels lack scores.

    Source: Gleave et al. 2020, "Quantifying differences in reward functions"; used on VLM rewards by Rocamonde et al. 2024
    (VLM-RM). There rewards are first put into canonical form. A reward that looks at the frame after the action alone, as ours,
    changes in that by a constant only, if frames are drawn independently of each other; a correlation does not see it, so
    there is no canonical form here, and no discount. Our frames are those of the corpus, as it visits them.
    """
    if counts.num_positives == 0:
        return UNDEFINED
    if counts.num_negatives == 0:
        return NO_NEGATIVES
    if any(counts.missing):
        return SPARSE
    if len(counts.scores) == 1:
        return CONSTANT
    frames = counts.positives + counts.negatives
    deviation = counts.scores - (frames * counts.scores).sum() / frames.sum()
    spread = math.sqrt((frames * deviation**2).sum() / frames.sum())
    shift = (counts.positives * deviation).sum() / counts.num_positives
    return _distance(shift / spread * math.sqrt(counts.num_positives / counts.num_negatives))


def success_epic_distance(true_positives: int, false_positives: int, counts: RankedCounts) -> Figure:
    """Returns `epic_distance` of the rewarded success, 1 or 0, in place of the score; exact, of sparse labels, too."""
    positives, negatives = counts.num_positives, counts.num_negatives
    over, under = true_positives + false_positives, positives + negatives - true_positives - false_positives
    if positives == 0:
        return UNDEFINED
    if negatives == 0:
        return NO_NEGATIVES
    if over == 0:
        return NOTHING_OVER
    if under == 0:
        return EVERYTHING_OVER
    agreement, scale = true_positives * negatives - false_positives * positives, positives * negatives * over * under
    if agreement <= 0:
        return _distance(agreement / math.sqrt(scale))
    # 1 - rho by 1 - rho^2, which is exact: a success that is always right has the distance 0, not the root of a rounding.
    return math.sqrt((scale - agreement**2) / scale / (1 + agreement / math.sqrt(scale)) / 2)


def _distance(correlation: float) -> float:
    return math.sqrt((1 - min(max(float(correlation), -1.0), 1.0)) / 2)


def calibration_figures(counts: RankedCounts, formula: str) -> dict[str, object] | str:
    """Returns calibration figures: whether frames with the score p show the goal in a share p of them.

    Scores are put into 16 even bins, each with its upper end and without its lower one.

        expected_calibration_error = sum over bins of (frames of the bin / all frames) |frequency - mean score|

    Args:
        counts: Counts of one goal, or of several pooled.
        formula: Formula of the scores; a cosine is not a probability and has no calibration.

    Returns:
        `expected_calibration_error` and, of the bins that hold frames, `mean_score`, `frequency` of the goal, and `frames`.

    Source: Guo et al. 2017, "On calibration of modern neural networks"; the curve is
    `sklearn.metrics.calibration_curve(strategy="uniform")`. A histogram's mean scores are as exact as its bins.
    """
    if not claims_probability(formula):
        return f"undefined: scores of {formula} are not probabilities"
    if any(counts.missing):
        return SPARSE
    if counts.scores[0] > 1 or counts.scores[-1] < 0:
        return "undefined: scores outside 0 to 1"
    bins = np.maximum(np.ceil(counts.scores * CALIBRATION_BINS).astype(np.int64) - 1, 0)
    frames = counts.positives + counts.negatives
    totals = np.bincount(bins, frames, CALIBRATION_BINS)
    occupied = np.flatnonzero(totals)
    totals = totals[occupied]
    means = np.bincount(bins, frames * counts.scores, CALIBRATION_BINS)[occupied] / totals
    frequencies = np.bincount(bins, counts.positives, CALIBRATION_BINS)[occupied] / totals
    return {
        "expected_calibration_error": float((totals * np.abs(frequencies - means)).sum() / totals.sum()),
        "mean_score": [float(f"{mean:.6g}") for mean in means],
        "frequency": [float(f"{frequency:.6g}") for frequency in frequencies],
        "frames": totals.astype(np.int64).tolist(),
    }


def return_bins(returns: np.ndarray) -> np.ndarray:
    """Returns bins of returns: one bin per number up to 15, then eight bins per octave.

    Args:
        returns: Integers of any shape, 0 to 2^31: the frames of an episode that count as a success.

    Returns:
        int64 of the same shape, rising with the return, below 256.
    """
    returns = np.asarray(returns, dtype=np.int64)
    shift = np.maximum(np.frexp(returns)[1] - 4, 0)
    return shift * (_EXACT_RETURNS // 2) + (returns >> shift)


def return_table(label_returns: np.ndarray, true_returns: np.ndarray) -> sparse.csr_array:
    """Counts episodes by both returns.

    Args:
        label_returns: [E, G] integers, frames of each episode in which the labels say that the goal is achieved.
        true_returns: [E, G] integers, frames in which it holds.

    Returns:
        [G, 2^16] int64: episodes, by goal and (bin of the label's return) * 256 + bin of the true one; tables add up.
    """
    num_goals = label_returns.shape[1]
    cells = (return_bins(label_returns) << _RETURN_BITS) | return_bins(true_returns)
    goals = np.broadcast_to(np.arange(num_goals), cells.shape)
    ones = np.ones(cells.size, dtype=np.int64)
    return sparse.coo_array((ones, (goals.ravel(), cells.ravel())), shape=(num_goals, 1 << 2 * _RETURN_BITS)).tocsr()


def return_tau(table: sparse.csr_array) -> Figure:
    """Returns Kendall's tau-b between the labels' returns and the true ones, over all episodes (and goals) of a table.

    The return is the number of frames with a success, not discounted. Returns in one bin count as ties, so that tau is exact
    where returns are 15 at most, and above blind to differences within an eighth.

    Returns:
        In [-1, 1]; undefined where either return is the same everywhere.
    """
    cells = table.tocoo()
    rows, row = np.unique(cells.col >> _RETURN_BITS, return_inverse=True)
    columns, column = np.unique(cells.col & ((1 << _RETURN_BITS) - 1), return_inverse=True)
    if len(columns) <= 1:
        return "undefined: all episodes have one true return"
    if len(rows) <= 1:
        return "undefined: the labels give all episodes one return"
    dense = np.zeros((len(rows), len(columns)))
    np.add.at(dense, (row, column), cells.data)
    return kendall_tau(dense)


def kendall_tau(table: np.ndarray) -> float:
    """Returns Kendall's tau-b of a contingency table.

        tau_b = (concordant - discordant) / sqrt((pairs - ties in rows) (pairs - ties in columns))

    Args:
        table: [A, B] counts; rows and columns in rising order, at least two of each occupied.

    Returns:
        In [-1, 1].

    Source: Kendall 1945; equal to scipy.stats.kendalltau(variant="b") of the observations that the table counts.
    """
    total = table.sum()
    beyond = np.zeros((table.shape[0] + 1, table.shape[1] + 1))  # [a, b]: rows from a on, columns before b
    beyond[:-1, 1:] = np.cumsum(np.cumsum(table[::-1], axis=0)[::-1], axis=1)
    later = beyond[1:]
    discordant = (table * later[:, :-1]).sum()
    concordant = (table * (later[:, -1:] - later[:, 1:])).sum()
    untied = [(total**2 - (table.sum(axis=axis) ** 2).sum()) / 2 for axis in (0, 1)]
    return float((concordant - discordant) / (math.sqrt(untied[0]) * math.sqrt(untied[1])))


def value_order_counts(scores: np.ndarray) -> np.ndarray:
    """Returns how one episode's scores for its goal correlate with time: Spearman's correlation of score and frame.

    Args:
        scores: [N] float32, of the frames in order, up to the first in which the goal holds; -inf where sparse labels hold none.

    Returns:
        [5] int64 in the order of `VALUE_ORDER_COUNTS`: the correlation in units of 2^-32 and 1 for an episode that has one;
        else 1 for why not: constant scores, scores that sparse labels lack, or fewer than three frames. Counts add up.

    Source: the value-order correlation of GVL (Ma et al. 2024), there of whole expert videos. Here an episode ends where its goal
    holds, as it does for training; and failures are counted as well, because any output that rises has the best figure among
    successes alone.
    """
    counts = np.zeros(len(VALUE_ORDER_COUNTS), dtype=np.int64)
    if len(scores) < _MIN_FRAMES:
        counts[VALUE_ORDER_COUNTS.index("short")] = 1
    elif np.isneginf(scores).any():
        counts[VALUE_ORDER_COUNTS.index("sparse")] = 1
    elif scores.min() == scores.max():
        counts[VALUE_ORDER_COUNTS.index("constant")] = 1
    else:
        _, inverse, sizes = np.unique(scores, return_inverse=True, return_counts=True)
        ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[inverse] - (
            len(scores) + 1
        ) / 2  # equal scores share their mean rank
        time = np.arange(len(scores)) - (len(scores) - 1) / 2
        correlation = (ranks * time).sum() / math.sqrt((ranks**2).sum() * (time**2).sum())
        counts[:2] = round(correlation * _UNIT), 1
    return counts


def value_order_figures(counts: np.ndarray) -> dict[str, object]:
    """Returns the figures of summed `value_order_counts`.

    Args:
        counts: [2, 5]: of failures, and of successes.

    Returns:
        `successes` and `failures`, each with the mean correlation and the numbers of episodes, and the `difference` of means:
        what a score that only rises with time does not have.
    """
    sides: dict[str, dict[str, Figure]] = {}
    for name, row in zip(("failures", "successes"), counts.tolist(), strict=True):
        numbers = dict(zip(VALUE_ORDER_COUNTS[1:], row[1:], strict=True))
        sides[name] = {"mean": row[0] / _UNIT / row[1] if row[1] else _why_no_order(name, numbers), **numbers}
    success, failure = sides["successes"]["mean"], sides["failures"]["mean"]
    difference = success if isinstance(success, str) else failure if isinstance(failure, str) else success - failure
    return {"successes": sides["successes"], "failures": sides["failures"], "difference": difference}


def _why_no_order(name: str, numbers: dict[str, int]) -> str:
    if not any(numbers.values()):
        return f"undefined: no {name}"
    reasons = {"constant": CONSTANT, "sparse": SPARSE, "short": f"undefined: fewer than {_MIN_FRAMES} frames"}
    return reasons[max(reasons, key=lambda reason: numbers[reason])]
