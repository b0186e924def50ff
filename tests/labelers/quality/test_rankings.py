import itertools

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.metrics import precision_recall_curve as sklearn_curve

from vlm_rewards.labelers.quality import rankings


def _logits_to_probabilities(logits: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def _softmax_like(rng: np.random.Generator, shape: tuple[int, ...], share: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores that pile up at 0 and at 1, in float32 with ties at exactly 1, as a sharp softmax gives."""
    truth = rng.random(shape) < share
    return _logits_to_probabilities(rng.normal(-8, 6, shape) + truth * rng.normal(12, 6, shape)), truth


def _cosine_like(rng: np.random.Generator, shape: tuple[int, ...], share: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores in a narrow band, as the cosines of CLIP are."""
    truth = rng.random(shape) < share
    return (rng.normal(0.24, 0.02, shape) + 0.03 * truth).astype(np.float32), truth


def _figures(scores: np.ndarray, truth: np.ndarray) -> rankings.RankedCounts:
    return rankings.ranked_counts(rankings.score_histogram(scores[:, None], truth[:, None], scores[:, None] > 0.5), [0])


def test_curve_by_hand() -> None:
    # Ranked: 0.9 +, 0.8 -, 0.7 + and - (a tie), 0.1 -.
    scores = np.array([0.7, 0.9, 0.1, 0.8, 0.7], np.float32)
    truth = np.array([True, True, False, False, False])
    curve = rankings.precision_recall_curve(scores, truth)
    np.testing.assert_allclose(curve.precision, [1, 1 / 2, 2 / 4, 2 / 5])
    np.testing.assert_allclose(curve.recall, [1 / 2, 1 / 2, 1, 1])
    for threshold, expected in zip(curve.thresholds, [1, 2, 4, 5], strict=True):
        assert (scores > threshold).sum() == expected
    assert rankings.average_precision(scores, truth) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 4)


@pytest.mark.parametrize("decimals", [1, 2, 7])
def test_exact_equals_scikit_learn_with_and_without_ties(decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    for _ in range(20):
        scores = np.round(rng.random(200), decimals).astype(np.float32)
        truth = rng.random(200) < 0.2
        truth[0] = True
        assert rankings.average_precision(scores, truth) == pytest.approx(
            average_precision_score(truth, scores), abs=1e-12
        )
        precision, recall, thresholds = sklearn_curve(truth, scores)
        curve = rankings.precision_recall_curve(scores, truth)
        # scikit-learn lists thresholds rising and says "score >= threshold"; its last point has no threshold.
        np.testing.assert_array_equal(np.nextafter(curve.thresholds, np.float32(np.inf)), thresholds[::-1])
        np.testing.assert_allclose(curve.precision, precision[:-1][::-1])
        np.testing.assert_allclose(curve.recall, recall[:-1][::-1])


@pytest.mark.parametrize("draw", [_softmax_like, _cosine_like])
@pytest.mark.parametrize("share", [0.003, 0.05])
def test_histogram_differs_from_exact_by_less_than_a_thousandth(draw, share: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        scores, truth = draw(rng, (20_000,), share)
        exact = average_precision_score(truth, scores)
        counts = _figures(scores, truth)
        assert abs(rankings.average_precision_of_counts(counts) - exact) < 1e-3
        lowest, highest = rankings.average_precision_bounds(counts)
        assert lowest <= exact <= highest


def test_scores_of_one_bin_stay_within_the_bounds() -> None:
    # Scores that differ by less than a bin (2^-16) cannot be told apart: the bounds say what that may cost.
    scores = np.float32(0.25) + np.arange(8, dtype=np.float32) * np.float32(2**-20)
    for truth in itertools.product([False, True], repeat=8):
        if any(truth):
            counts = _figures(scores, np.array(truth))
            assert len(counts.thresholds) == 1
            lowest, highest = rankings.average_precision_bounds(counts)
            assert lowest <= rankings.average_precision(scores, np.array(truth)) <= highest
            assert lowest <= rankings.average_precision_of_counts(counts) <= highest


def test_bins_rise_with_the_score_and_tell_scores_near_one_apart() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(0, 10.0**exponent, 4000) for exponent in range(-12, 7, 3)]
    parts += [1 - np.abs(rng.normal(0, 10.0**-exponent, 4000)) for exponent in (2, 4, 6)]
    scores = np.sort(np.concatenate([*parts, [0, -0.0, 0.5, 1, 2, -1, 2**-8, -3.4e38, 3.4e38]]).astype(np.float32))
    bins = rankings.score_bins(scores)
    assert (np.diff(bins) >= 0).all()
    assert np.abs(bins).max() < 1 << 20
    one = np.float32(1)
    near_one = np.array([one - np.float32(2**-24), one - np.float32(2**-23), one], np.float32)
    assert len(set(rankings.score_bins(near_one).tolist())) == 3
    assert rankings.score_bins(np.array([-np.inf], np.float32)) < rankings.score_bins(np.array([-3.4e38], np.float32))


def test_thresholds_of_a_histogram_split_the_scores_where_they_say() -> None:
    rng = np.random.default_rng(0)
    scores, truth = _softmax_like(rng, (3000,), 0.1)
    scores[:6] = [0, 1, 0.5, -0.25, 1.75, 12]
    counts = _figures(scores, truth)
    ranked = np.cumsum(counts.positives + counts.negatives)
    np.testing.assert_array_equal((scores[:, None] > counts.thresholds).sum(axis=0), ranked)


def test_merging_does_not_depend_on_the_sharding() -> None:
    rng = np.random.default_rng(1)
    scores, truth = _softmax_like(rng, (1000, 5), 0.1)
    whole = rankings.score_histogram(scores, truth, scores > 0.5)
    order = rng.permutation(1000)
    parts = [
        rankings.score_histogram(scores[rows], truth[rows], scores[rows] > 0.5) for rows in np.array_split(order, 7)
    ]
    nested = rankings.merge_histograms([rankings.merge_histograms(parts[4:]), *parts[:4]])
    for merged in (rankings.merge_histograms(parts), nested):
        for name in ("keys", "positives", "negatives", "over_threshold"):
            np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))
    assert whole.positives.sum() == truth.sum()
    assert whole.negatives.sum() == (~truth).sum()


def test_pooled_goals_are_one_ranking() -> None:
    rng = np.random.default_rng(2)
    scores, truth = _cosine_like(rng, (2000, 4), 0.1)
    counts = rankings.ranked_counts(rankings.score_histogram(scores, truth, scores > 0.25), [0, 2])
    pooled = _figures(scores[:, [0, 2]].ravel(), truth[:, [0, 2]].ravel())
    for ours, expected in zip(counts, pooled, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_missing_scores_give_a_lower_bound() -> None:
    # Sparse labels hold scores over 0.5 only: 0.9 +, 0.8 -, 0.7 +; one positive and two negatives have no score.
    scores = np.array([0.9, 0.8, 0.7, -np.inf, -np.inf, -np.inf], np.float32)
    truth = np.array([True, False, True, True, False, False])
    for counts in (_figures(scores, truth), rankings.count_scores(scores, truth)):
        assert counts.missing == (1, 2)
        assert rankings.curve_of_counts(counts).recall[-1] == pytest.approx(2 / 3)
        assert rankings.average_precision_of_counts(counts) == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3)
        lowest, highest = rankings.average_precision_bounds(counts)
        # At best the missing positive comes next, at the precision 3/4.
        assert highest == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
        assert lowest <= rankings.average_precision_of_counts(counts)


def test_constant_scores_have_the_precision_of_chance() -> None:
    truth = np.arange(100) < 7
    counts = _figures(np.full(100, 0.3, np.float32), truth)
    assert rankings.average_precision_of_counts(counts) == pytest.approx(0.07)


def test_no_positives_is_refused() -> None:
    counts = rankings.count_scores(np.array([0.1, 0.2], np.float32), np.array([False, False]))
    for figure in (rankings.curve_of_counts, rankings.average_precision_bounds):
        with pytest.raises(ValueError, match="must have at least one positive, got none among 2 frames"):
            figure(counts)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=rf"scores must be finite numbers, got {value} at index \[1\]"):
        rankings.count_scores(np.array([0.1, value], np.float32), np.array([False, True]))


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"of 2 dimensions and of one shape, got \[3, 2\] and \[3, 1\]"):
        rankings.score_histogram(np.zeros((3, 2), np.float32), np.zeros((3, 1), bool), np.zeros((3, 1), bool))


def test_histograms_of_other_goals_do_not_merge() -> None:
    one, two = (
        rankings.score_histogram(np.zeros((1, size), np.float32), np.ones((1, size), bool), np.ones((1, size), bool))
        for size in (1, 2)
    )
    with pytest.raises(ValueError, match="must be of one list of goals, got 1 and 2 goals"):
        rankings.merge_histograms([one, two])
    with pytest.raises(ValueError, match="must be at least one, got none"):
        rankings.merge_histograms([])


def test_the_middle_of_a_bin_is_near_its_scores() -> None:
    rng = np.random.default_rng(5)
    for draw in (_softmax_like, _cosine_like):
        scores, truth = draw(rng, (3000,), 0.1)
        counts = _figures(scores, truth)
        middles = np.repeat(counts.scores, counts.positives + counts.negatives)
        assert np.abs(middles - np.sort(scores)[::-1]).max() <= 2.0**-17
    exact = rankings.count_scores(scores, truth)
    np.testing.assert_array_equal(exact.scores, np.unique(scores)[::-1].astype(np.float64))
    # Only the float32 1.0 itself lies in the bin of 1.
    assert _figures(np.ones(1, np.float32), np.ones(1, bool)).scores.tolist() == [1]
