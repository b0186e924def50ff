import itertools

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.metrics import precision_recall_curve as sklearn_curve

from labelers import quality
from schemas.goals import Goal


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


def _figures(scores: np.ndarray, truth: np.ndarray) -> quality.RankedCounts:
    return quality.ranked_counts(quality.score_histogram(scores[:, None], truth[:, None], scores[:, None] > 0.5), [0])


def test_curve_by_hand() -> None:
    # Ranked: 0.9 +, 0.8 -, 0.7 + and - (a tie), 0.1 -.
    scores = np.array([0.7, 0.9, 0.1, 0.8, 0.7], np.float32)
    truth = np.array([True, True, False, False, False])
    curve = quality.precision_recall_curve(scores, truth)
    np.testing.assert_allclose(curve.precision, [1, 1 / 2, 2 / 4, 2 / 5])
    np.testing.assert_allclose(curve.recall, [1 / 2, 1 / 2, 1, 1])
    for threshold, expected in zip(curve.thresholds, [1, 2, 4, 5], strict=True):
        assert (scores > threshold).sum() == expected
    assert quality.average_precision(scores, truth) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 4)


@pytest.mark.parametrize("decimals", [1, 2, 7])
def test_exact_equals_scikit_learn_with_and_without_ties(decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    for _ in range(20):
        scores = np.round(rng.random(200), decimals).astype(np.float32)
        truth = rng.random(200) < 0.2
        truth[0] = True
        assert quality.average_precision(scores, truth) == pytest.approx(
            average_precision_score(truth, scores), abs=1e-12
        )
        precision, recall, thresholds = sklearn_curve(truth, scores)
        curve = quality.precision_recall_curve(scores, truth)
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
        assert abs(quality.average_precision_of_counts(counts) - exact) < 1e-3
        lowest, highest = quality.average_precision_bounds(counts)
        assert lowest <= exact <= highest


def test_scores_of_one_bin_stay_within_the_bounds() -> None:
    # Scores that differ by less than a bin (2^-16) cannot be told apart: the bounds say what that may cost.
    scores = np.float32(0.25) + np.arange(8, dtype=np.float32) * np.float32(2**-20)
    for truth in itertools.product([False, True], repeat=8):
        if any(truth):
            counts = _figures(scores, np.array(truth))
            assert len(counts.thresholds) == 1
            lowest, highest = quality.average_precision_bounds(counts)
            assert lowest <= quality.average_precision(scores, np.array(truth)) <= highest
            assert lowest <= quality.average_precision_of_counts(counts) <= highest


def test_bins_rise_with_the_score_and_tell_scores_near_one_apart() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(0, 10.0**exponent, 4000) for exponent in range(-12, 7, 3)]
    parts += [1 - np.abs(rng.normal(0, 10.0**-exponent, 4000)) for exponent in (2, 4, 6)]
    scores = np.sort(np.concatenate([*parts, [0, -0.0, 0.5, 1, 2, -1, 2**-8, -3.4e38, 3.4e38]]).astype(np.float32))
    bins = quality.score_bins(scores)
    assert (np.diff(bins) >= 0).all()
    assert np.abs(bins).max() < 1 << 20
    one = np.float32(1)
    near_one = np.array([one - np.float32(2**-24), one - np.float32(2**-23), one], np.float32)
    assert len(set(quality.score_bins(near_one).tolist())) == 3
    assert quality.score_bins(np.array([-np.inf], np.float32)) < quality.score_bins(np.array([-3.4e38], np.float32))


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
    whole = quality.score_histogram(scores, truth, scores > 0.5)
    order = rng.permutation(1000)
    parts = [
        quality.score_histogram(scores[rows], truth[rows], scores[rows] > 0.5) for rows in np.array_split(order, 7)
    ]
    nested = quality.merge_histograms([quality.merge_histograms(parts[4:]), *parts[:4]])
    for merged in (quality.merge_histograms(parts), nested):
        for name in ("keys", "positives", "negatives", "over_threshold"):
            np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))
    assert whole.positives.sum() == truth.sum()
    assert whole.negatives.sum() == (~truth).sum()


def test_pooled_goals_are_one_ranking() -> None:
    rng = np.random.default_rng(2)
    scores, truth = _cosine_like(rng, (2000, 4), 0.1)
    counts = quality.ranked_counts(quality.score_histogram(scores, truth, scores > 0.25), [0, 2])
    pooled = _figures(scores[:, [0, 2]].ravel(), truth[:, [0, 2]].ravel())
    for ours, expected in zip(counts, pooled, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_missing_scores_give_a_lower_bound() -> None:
    # Sparse labels hold scores over 0.5 only: 0.9 +, 0.8 -, 0.7 +; one positive and two negatives have no score.
    scores = np.array([0.9, 0.8, 0.7, -np.inf, -np.inf, -np.inf], np.float32)
    truth = np.array([True, False, True, True, False, False])
    for counts in (_figures(scores, truth), quality.count_scores(scores, truth)):
        assert counts.missing == (1, 2)
        assert quality.curve_of_counts(counts).recall[-1] == pytest.approx(2 / 3)
        assert quality.average_precision_of_counts(counts) == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3)
        lowest, highest = quality.average_precision_bounds(counts)
        # At best the missing positive comes next, at the precision 3/4.
        assert highest == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
        assert lowest <= quality.average_precision_of_counts(counts)
        best = quality.best_threshold(counts)
        assert best is not None
        assert best["f1"] == pytest.approx(4 / 6)


def test_best_threshold_by_hand() -> None:
    # F1: 0.9 -> 2*1/(1+2), 0.6 -> 2*1/(2+2), 0.5 -> 2*2/(3+2) = 0.8, 0.2 -> 2*2/(4+2).
    scores = np.array([0.9, 0.6, 0.5, 0.2], np.float32)
    truth = np.array([True, False, True, False])
    best = quality.best_threshold(quality.count_scores(scores, truth))
    assert best is not None
    assert (best["precision"], best["recall"], best["f1"]) == pytest.approx((2 / 3, 1, 0.8))
    assert best["false_positive_rate"] == pytest.approx(1 / 2)
    assert (scores > best["threshold"]).sum() == 3


def test_best_threshold_prefers_the_higher_of_two_that_are_equal() -> None:
    # F1 is 2*1/(1+2) at 0.9 and 2*2/(4+2) at 0.3: both 2/3.
    scores = np.array([0.9, 0.8, 0.7, 0.3], np.float32)
    truth = np.array([True, False, False, True])
    best = quality.best_threshold(quality.count_scores(scores, truth))
    assert best is not None
    assert best["threshold"] == np.nextafter(np.float32(0.9), np.float32(0))


def test_no_positive_over_a_missing_score_has_no_best_threshold() -> None:
    counts = quality.count_scores(np.array([0.9, -np.inf], np.float32), np.array([False, True]))
    assert quality.best_threshold(counts) is None
    assert quality.average_precision_of_counts(counts) == 0


def test_table_of_goals_families_and_all() -> None:
    goals = [
        Goal("a", "text a", "one"),
        Goal("b", "text b", "one"),
        Goal("c", "text c", "two"),
        Goal("d", "text d", "two"),
    ]
    rng = np.random.default_rng(3)
    scores, truth = _softmax_like(rng, (4000, 4), 0.05)
    truth[:, 3] = False
    table = quality.quality_table(quality.score_histogram(scores, truth, scores > 0.5), goals)
    exact = [average_precision_score(truth[:, goal], scores[:, goal]) for goal in range(3)]
    assert [row["id"] for row in table["goals"]] == ["a", "b", "c", "d"]
    assert [row["average_precision"] for row in table["goals"][:3]] == pytest.approx(exact, abs=1e-3)
    assert table["families"]["one"]["mean_average_precision"] == pytest.approx(np.mean(exact[:2]), abs=1e-3)
    assert table["overall"]["mean_average_precision"] == pytest.approx(np.mean(exact), abs=1e-3)
    low, high = table["overall"]["mean_average_precision_bounds"]
    assert low <= np.mean(exact) <= high
    assert high - low < 0.02
    pooled = average_precision_score(truth.ravel(), scores.ravel())
    assert table["overall"]["pooled"]["average_precision"] == pytest.approx(pooled, abs=1e-3)
    # A goal that never holds has no recall; what lies over the threshold is false.
    missing = table["goals"][3]
    assert missing["average_precision"] == missing["curve"] == "undefined: no positives"
    assert missing["at_threshold"]["precision"] == 0
    assert missing["at_threshold"]["recall"] is None
    assert table["families"]["two"]["goals_without_positives"] == ["d"]
    assert table["families"]["two"]["num_goals_with_positives"] == 1
    # At the labels' own threshold the figures are exact.
    over, row = scores[:, 0] > 0.5, table["goals"][0]["at_threshold"]
    assert row["precision"] == pytest.approx((over & truth[:, 0]).sum() / over.sum(), abs=0)
    assert row["recall"] == pytest.approx((over & truth[:, 0]).sum() / truth[:, 0].sum(), abs=0)


def test_a_family_without_positives_says_so() -> None:
    histogram = quality.score_histogram(np.zeros((3, 1), np.float32), np.zeros((3, 1), bool), np.zeros((3, 1), bool))
    table = quality.quality_table(histogram, [Goal("a", "text a", "one")])
    assert table["families"]["one"]["mean_average_precision"] == "undefined: no positives"
    assert table["overall"]["pooled"]["best_threshold"] == "undefined: no positives"
    assert table["goals"][0]["at_threshold"]["precision"] is None  # nothing lies over the threshold


def test_constant_scores_have_the_precision_of_chance() -> None:
    truth = np.arange(100) < 7
    counts = _figures(np.full(100, 0.3, np.float32), truth)
    assert quality.average_precision_of_counts(counts) == pytest.approx(0.07)


def test_a_thinned_curve_keeps_its_ends_and_its_area() -> None:
    rng = np.random.default_rng(4)
    scores, truth = _softmax_like(rng, (20_000,), 0.05)
    curve = quality.precision_recall_curve(scores, truth)
    points = quality.thinned_points(curve.recall, 200)
    assert len(points) <= 200
    assert (curve.recall[points[0]], curve.recall[points[-1]]) == (curve.recall[0], 1)
    area = (np.diff(curve.recall[points], prepend=0) * curve.precision[points]).sum()
    assert area == pytest.approx(quality.average_precision(scores, truth), abs=0.01)
    assert len(quality.thinned_points(np.zeros(0), 10)) == 0


def test_no_positives_is_refused() -> None:
    counts = quality.count_scores(np.array([0.1, 0.2], np.float32), np.array([False, False]))
    for figure in (quality.curve_of_counts, quality.average_precision_bounds, quality.best_threshold):
        with pytest.raises(ValueError, match="must have at least one positive, got none among 2 frames"):
            figure(counts)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=rf"scores must be finite numbers, got {value} at index \[1\]"):
        quality.count_scores(np.array([0.1, value], np.float32), np.array([False, True]))


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"of 2 dimensions and of one shape, got \[3, 2\] and \[3, 1\]"):
        quality.score_histogram(np.zeros((3, 2), np.float32), np.zeros((3, 1), bool), np.zeros((3, 1), bool))


def test_histograms_of_other_goals_do_not_merge() -> None:
    one, two = (
        quality.score_histogram(np.zeros((1, size), np.float32), np.ones((1, size), bool), np.ones((1, size), bool))
        for size in (1, 2)
    )
    with pytest.raises(ValueError, match="must be of one list of goals, got 1 and 2 goals"):
        quality.merge_histograms([one, two])
    with pytest.raises(ValueError, match="must be at least one, got none"):
        quality.merge_histograms([])
