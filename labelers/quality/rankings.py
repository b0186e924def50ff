"""Rankings of scores against ground truth: how many positives and negatives lie over every threshold.

    scores, truth ──► ScoreHistogram ──merge──► RankedCounts of a goal or of several ──► curve, average precision, ...
      [N, G]            G goals, B bins           positives and negatives, best first

Two roads lead to `RankedCounts`: `count_scores` keeps every distinct score and is exact; a `ScoreHistogram` keeps one
count per bin, so that its size does not grow with the corpus, and parts of it add up in any order to the same counts.
Everything after `RankedCounts` is the same code, so a histogram's figures differ from the exact ones only by the ties
inside a bin, and `average_precision_bounds` says by how much at most.

Shapes: N frames, G goals, B occupied bins, P points of a curve.
"""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

_LINEAR_BITS = 16  # bins of width 2^-16 in the middle
_TAIL_SHIFT = 13  # towards 0 and 1, 10 bits of mantissa: relative width 2^-10
_FAR_SHIFT = 11  # beyond [-1, 2], 12 bits of mantissa: relative width 2^-12
_TAIL = np.float32(2.0**-8)
_OFFSET = 1 << 20
_STRIDE = 1 << 21  # bins per goal; a key is goal * _STRIDE + bin + _OFFSET
_MISSING = -_OFFSET  # the bin of scores that sparse labels do not hold


class RankedCounts(NamedTuple):
    """Numbers of frames with each score, from the highest score to the lowest.

    Attributes:
        thresholds: [P] float32, falling; the frames of entry i and of those before it are the ones with a score greater
            than `thresholds[i]`.
        scores: [P] float64, falling; the score of the entry's frames, or the middle of their bin.
        positives: [P] int64, frames in which the goal holds.
        negatives: [P] int64, the others.
        missing: Positives and negatives whose score is not known, only that it is lower than all others.
    """

    thresholds: np.ndarray
    scores: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray
    missing: tuple[int, int] = (0, 0)

    @property
    def num_positives(self) -> int:
        """Frames in which the goal holds."""
        return int(self.positives.sum()) + self.missing[0]

    @property
    def num_negatives(self) -> int:
        """Frames in which it does not."""
        return int(self.negatives.sum()) + self.missing[1]


class PrecisionRecall(NamedTuple):
    """A curve: [P] each, thresholds falling, so recall rising; a frame counts where its score > threshold."""

    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ScoreHistogram:
    """Positives and negatives of G goals by bins of their scores; a sufficient statistic that merges by adding.

        score   -1 ......... 0 . 2^-8 ............... 1-2^-8 . 1 ......... 2
        width      2^-16     |log|       2^-16         | log |    2^-16      beyond: relative, 2^-12

    A softmax piles its scores up at 0 and at 1, a cosine in a narrow band between, so the bins are of a width relative
    to the distance from 0 or 1 near these, and even elsewhere. Bins that are empty take no room. A goal occupies at
    most 2^16 bins in [2^-8, 1 - 2^-8] and 1024 per octave nearer to 0 and 1; 24 bytes each.

    Args:
        num_goals: G.
        keys: [B] int64, rising: goal and bin of each entry.
        positives: [B] int64, frames in which the goal holds.
        negatives: [B] int64, the others.
        over_threshold: [G, 2] int64, exact: positives and negatives where the labels say that the goal is achieved.
    """

    num_goals: int
    keys: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray
    over_threshold: np.ndarray

    @property
    def totals(self) -> np.ndarray:
        """[G, 2] int64: positives and negatives of each goal."""
        goals = self.keys // _STRIDE
        columns = [np.bincount(goals, counts, self.num_goals) for counts in (self.positives, self.negatives)]
        return np.stack(columns, axis=1).astype(np.int64)

    @functools.cached_property
    def bins(self) -> "_Bins":
        """The bins that any goal occupies."""
        bins = np.unique(self.keys % _STRIDE - _OFFSET)
        bins = bins[bins != _MISSING]
        below = largest_below(bins)
        smallest = np.nextafter(below, np.float32(np.inf)).astype(np.float64)
        return _Bins(bins, below, (smallest + largest_below(bins + 1)) / 2)


class _Bins(NamedTuple):
    bins: np.ndarray  # rising
    below: np.ndarray  # float32, the largest below each
    middles: np.ndarray  # float64


def count_scores(scores: np.ndarray, truth: np.ndarray) -> RankedCounts:
    """Counts positives and negatives at every distinct score: exact, for one goal in memory.

    Args:
        scores: [N] float32; -inf where sparse labels hold no score.
        truth: [N] bool.

    Raises:
        ValueError: The shapes differ, or a score is NaN or +inf.
    """
    scores, truth = _checked(scores, truth, ndim=1)
    unknown = np.isneginf(scores)
    missing = (int((unknown & truth).sum()), int((unknown & ~truth).sum()))
    scores, truth = scores[~unknown], truth[~unknown]
    distinct, inverse = np.unique(scores, return_inverse=True)
    positives = np.bincount(inverse[truth], minlength=len(distinct))
    negatives = np.bincount(inverse[~truth], minlength=len(distinct))
    below = np.nextafter(distinct, np.float32(-np.inf))
    return RankedCounts(below[::-1], distinct[::-1].astype(np.float64), positives[::-1], negatives[::-1], missing)


def score_histogram(
    scores: np.ndarray, truth: np.ndarray, over: np.ndarray, known: np.ndarray | None = None
) -> ScoreHistogram:
    """Returns the histogram of a block of frames.

    Args:
        scores: [N, G] float32; -inf where sparse labels hold no score.
        truth: [N, G] bool.
        over: [N, G] bool, where the labels say that the goal is achieved.
        known: [N, G] bool, where the truth is known; other entries do not count. None for everywhere.

    Raises:
        ValueError: The shapes differ, or a score is NaN or +inf.
    """
    scores, truth = _checked(scores, truth, ndim=2)
    num_goals = scores.shape[1]
    keys = score_bins(scores) + (np.arange(num_goals) * _STRIDE + _OFFSET)
    true, false = (truth, ~truth) if known is None else (truth & known, ~truth & known)
    distinct, counts = np.unique(keys if known is None else keys[known], return_counts=True)
    true_keys, true_counts = np.unique(keys[true], return_counts=True)
    positives = np.zeros(len(distinct), dtype=np.int64)
    positives[np.searchsorted(distinct, true_keys)] = true_counts
    return ScoreHistogram(
        num_goals=num_goals,
        keys=distinct,
        positives=positives,
        negatives=counts - positives,
        over_threshold=np.stack([(over & true).sum(axis=0), (over & false).sum(axis=0)], axis=1),
    )


def merge_histograms(histograms: Iterable[ScoreHistogram]) -> ScoreHistogram:
    """Adds histograms of the same goals; the result does not depend on their order or grouping.

    Raises:
        ValueError: There are none, or they are of different numbers of goals.
    """
    merged: ScoreHistogram | None = None
    for histogram in histograms:
        if merged is not None and merged.num_goals != histogram.num_goals:
            raise ValueError(
                f"histograms to merge must be of one list of goals, got {merged.num_goals} and {histogram.num_goals} goals; "
                f"evaluate labels of one run"
            )
        merged = histogram if merged is None else _sum_of_two(merged, histogram)
    if merged is None:
        raise ValueError("histograms to merge must be at least one, got none; evaluate at least one frame")
    return merged


def _sum_of_two(one: ScoreHistogram, other: ScoreHistogram) -> ScoreHistogram:
    keys = np.concatenate([one.keys, other.keys])
    order = np.argsort(keys, kind="stable")  # two sorted runs: a merge, in linear time
    keys = keys[order]
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    return ScoreHistogram(
        num_goals=one.num_goals,
        keys=keys[first],
        positives=np.add.reduceat(np.concatenate([one.positives, other.positives])[order], first),
        negatives=np.add.reduceat(np.concatenate([one.negatives, other.negatives])[order], first),
        over_threshold=one.over_threshold + other.over_threshold,
    )


def ranked_counts(histogram: ScoreHistogram, goals: Sequence[int]) -> RankedCounts:
    """Returns the counts of one goal, or of several pooled, from the highest bin to the lowest."""
    starts = np.searchsorted(histogram.keys, np.asarray(goals) * _STRIDE)
    stops = np.searchsorted(histogram.keys, (np.asarray(goals) + 1) * _STRIDE)
    if len(goals) == 1:
        own = slice(starts[0], stops[0])
        bins = histogram.keys[own] % _STRIDE - _OFFSET
        positives, negatives = histogram.positives[own], histogram.negatives[own]
    else:
        entries = np.concatenate([np.arange(start, stop) for start, stop in zip(starts, stops, strict=True)])
        bins, inverse = np.unique(histogram.keys[entries] % _STRIDE - _OFFSET, return_inverse=True)
        positives = np.bincount(inverse, histogram.positives[entries], len(bins)).astype(np.int64)
        negatives = np.bincount(inverse, histogram.negatives[entries], len(bins)).astype(np.int64)
    bins, positives, negatives = bins[::-1], positives[::-1], negatives[::-1]
    missing = (0, 0)
    if len(bins) and bins[-1] == _MISSING:
        missing = (int(positives[-1]), int(negatives[-1]))
        bins, positives, negatives = bins[:-1], positives[:-1], negatives[:-1]
    rows = np.searchsorted(histogram.bins.bins, bins)
    return RankedCounts(histogram.bins.below[rows], histogram.bins.middles[rows], positives, negatives, missing)


def score_bins(scores: np.ndarray) -> np.ndarray:
    """Returns the bin of each score: rising with the score, fine near 0 and 1; see `ScoreHistogram`.

    Args:
        scores: float32 of any shape, -inf for a score that is not known.

    Returns:
        int64 of the same shape, in [-2^20, 2^20).
    """
    scores = np.asarray(scores, dtype=np.float32)
    upper = scores > 0.5
    # 1 - s is exact in [0.5, 2], so no two scores near 1 fall together before binning.
    distance = np.where(upper, np.float32(1) - scores, scores)
    bins = np.where(distance < 0, -1, 1) * _bins_from_zero(np.abs(distance))
    bins = np.where(upper, 2 * int(_bins_from_zero(np.array(0.5, np.float32))) - bins, bins)
    return np.where(np.isneginf(scores), _MISSING, bins)


def _bins_from_zero(distance: np.ndarray) -> np.ndarray:
    bits = distance.view(np.int32).astype(np.int64)
    tail = int(_TAIL.view(np.int32)) >> _TAIL_SHIFT
    linear = 1 << _LINEAR_BITS
    first = int(_TAIL * linear)
    middle = np.minimum(distance, 1) * np.float32(linear)
    far = (bits - int(np.float32(1).view(np.int32))) >> _FAR_SHIFT
    return np.where(
        distance < _TAIL,
        bits >> _TAIL_SHIFT,
        tail - first + np.where(distance < 1, middle.astype(np.int64), linear + far),
    )


def largest_below(bins: np.ndarray) -> np.ndarray:
    """Returns the largest float32 that lies in a lower bin, by bisection over all finite float32 in their order."""
    low = np.full(bins.shape, _order(np.finfo(np.float32).min))
    high = np.full(bins.shape, _order(np.finfo(np.float32).max))
    while (high - low > 1).any():
        middle = (low + high) // 2
        below = score_bins(_float_at(middle)) < bins
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return _float_at(low)


def _order(value: np.float32) -> int:
    bits = int(np.float32(value).view(np.int32))
    return bits if bits >= 0 else -(bits & 0x7FFFFFFF)


def _float_at(order: np.ndarray) -> np.ndarray:
    values = np.abs(order).astype(np.int32).view(np.float32)
    return np.where(order < 0, -values, values)


def _checked(scores: np.ndarray, truth: np.ndarray, ndim: int) -> tuple[np.ndarray, np.ndarray]:
    scores, truth = np.asarray(scores, dtype=np.float32), np.asarray(truth, dtype=bool)
    if scores.ndim != ndim or scores.shape != truth.shape:
        raise ValueError(
            f"scores and truth must both be of {ndim} dimensions and of one shape, got {list(scores.shape)} and "
            f"{list(truth.shape)}; give a truth for every score"
        )
    if not (scores < np.inf).all():
        index = np.argwhere(~(scores < np.inf))[0].tolist()
        raise ValueError(
            f"scores must be finite numbers, got {scores[tuple(index)]} at index {index}; label the frames again"
        )
    return scores, truth


def curve_of_counts(counts: RankedCounts) -> PrecisionRecall:
    """Returns precision and recall of "score > threshold" for every threshold of the counts.

        precision = TP / (TP + FP)          recall = TP / positives

    Raises:
        ValueError: There are no positives, so that recall is undefined.
    """
    check_positives(counts)
    true_positives = np.cumsum(counts.positives)
    predicted = true_positives + np.cumsum(counts.negatives)
    return PrecisionRecall(counts.thresholds, true_positives / predicted, true_positives / counts.num_positives)


def average_precision_of_counts(counts: RankedCounts) -> float:
    """Returns the step-wise area under the precision-recall curve, frames of one score taken together.

        AP = sum over n of (R_n - R_(n-1)) P_n

    Positives whose score is missing add nothing: then this is the average precision over the threshold only, a lower
    bound.

    Returns:
        In [0, 1].

    Raises:
        ValueError: There are no positives.

    Source: sklearn.metrics.average_precision_score; equal to it for counts of every distinct score.
    """
    curve = curve_of_counts(counts)
    return float((counts.positives * curve.precision).sum() / counts.num_positives)


def average_precision_bounds(counts: RankedCounts) -> tuple[float, float]:
    """Returns bounds of the average precision if the frames of every entry were ranked in any order.

    With a positives and b frames before an entry of p positives and n negatives: at most all p come first together,
    with precision (a + p) / (b + p) each; at least they come last one by one,

        sum over i = 1..p of (a + i) / c_i  =  p - (b + n - a) (1 / c_1 + ... + 1 / c_p),    c_i = b + n + i,

    where the terms after the first add up to at most ln((c_p + 1/2) / (c_1 + 1/2)).

    Returns:
        The lowest and the highest value.

    Raises:
        ValueError: There are no positives.
    """
    check_positives(counts)
    positives, negatives = (
        np.append(part, missing).astype(np.float64)
        for part, missing in zip((counts.positives, counts.negatives), counts.missing, strict=True)
    )
    before = np.cumsum(positives) - positives
    ranked = before + np.cumsum(negatives) - negatives
    behind = ranked + negatives
    inverses = 1 / (behind + 1) + np.log1p(np.maximum(positives - 1, 0) / (behind + 1.5))
    lowest = np.where(positives > 0, np.maximum(positives - (behind - before) * inverses, 0), 0)
    lowest[-1] = 0  # what is missing may lie below everything
    highest = positives * (before + positives) / np.maximum(ranked + positives, 1)
    average = average_precision_of_counts(counts)  # between the two; rounding must not say otherwise
    return min(float(lowest.sum() / positives.sum()), average), max(float(highest.sum() / positives.sum()), average)


def precision_recall_curve(scores: np.ndarray, truth: np.ndarray) -> PrecisionRecall:
    """Returns the exact curve of one goal: [N] float32 scores, [N] bool; see `curve_of_counts`."""
    return curve_of_counts(count_scores(scores, truth))


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Returns the exact average precision of one goal: [N] float32 scores, [N] bool; see `average_precision_of_counts`."""
    return average_precision_of_counts(count_scores(scores, truth))


def check_positives(counts: RankedCounts) -> None:
    """Refuses counts without a positive, of which no recall is defined.

    Raises:
        ValueError: There is none.
    """
    if counts.num_positives == 0:
        raise ValueError(
            f"precision and recall must have at least one positive, got none among {counts.num_negatives} frames; "
            f"leave the goal out, or record episodes that achieve it"
        )
