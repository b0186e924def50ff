import numpy as np
import pytest
from scipy.stats import kendalltau, pearsonr, spearmanr
from sklearn.calibration import calibration_curve

from vlm_rewards.labelers.quality import agreement
from vlm_rewards.labelers.quality.rankings import RankedCounts, count_scores, ranked_counts, score_histogram


def _draw(rng: np.random.Generator, num_frames: int, share: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    truth = rng.random(num_frames) < share
    return (1 / (1 + np.exp(-rng.normal(-3, 2, num_frames) - 3 * truth))).astype(np.float32), truth


def _binned(scores: np.ndarray, truth: np.ndarray) -> RankedCounts:
    return ranked_counts(score_histogram(scores[:, None], truth[:, None], scores[:, None] > 0.5), [0])


def test_epic_distance_by_hand() -> None:
    # Truth 1 1 0 0. Scores that go with it: rho 1; against it: rho -1; 1 0 1 0: rho 0.
    truth = np.array([True, True, False, False])
    for scores, expected in [([0.75, 0.75, 0.25, 0.25], 0.0), ([0, 0, 1, 1], 1.0), ([1, 0, 1, 0], 0.5**0.5)]:
        counts = count_scores(np.array(scores, np.float32), truth)
        assert agreement.epic_distance(counts) == pytest.approx(expected, abs=1e-7)


def test_epic_distance_equals_scipy_and_does_not_see_scale_or_shift() -> None:
    rng = np.random.default_rng(0)
    for spread in (1.0, 0.01):  # a softmax, and a band as narrow as that of cosines
        scores, truth = _draw(rng, 4000)
        scores = (0.2 + spread * scores).astype(np.float32)
        expected = np.sqrt((1 - pearsonr(scores.astype(np.float64), truth.astype(np.float64)).statistic) / 2)
        assert agreement.epic_distance(count_scores(scores, truth)) == pytest.approx(expected, abs=1e-9)
        assert agreement.epic_distance(_binned(scores, truth)) == pytest.approx(expected, abs=2e-5)
    shifted = count_scores((3 + 2 * scores).astype(np.float32), truth)
    assert agreement.epic_distance(shifted) == pytest.approx(expected, abs=1e-6)


def test_epic_distance_of_successes_equals_scipy() -> None:
    scores, truth = _draw(np.random.default_rng(1), 2000)
    over = scores > 0.3
    found = agreement.success_epic_distance(
        int((over & truth).sum()), int((over & ~truth).sum()), _binned(scores, truth)
    )
    expected = np.sqrt((1 - pearsonr(over.astype(float), truth.astype(float)).statistic) / 2)
    assert found == pytest.approx(expected, abs=1e-12)


def test_epic_distance_of_successes_by_hand() -> None:
    counts = count_scores(np.arange(7, dtype=np.float32), np.arange(7) > 3)  # 3 positives, 4 negatives
    assert agreement.success_epic_distance(3, 0, counts) == 0
    assert agreement.success_epic_distance(0, 4, counts) == 1
    # Three of seven counted, one rightly: (1 * 4 - 2 * 3) / sqrt(3 * 4 * 3 * 4) = -1/6.
    assert agreement.success_epic_distance(1, 2, counts) == pytest.approx(((1 + 1 / 6) / 2) ** 0.5)


def test_undefined_epic_distances_say_why() -> None:
    def distances(scores: list[float], truth: list[bool], threshold: float = 0.5) -> tuple[object, object]:
        counts = count_scores(np.array(scores, np.float32), np.array(truth))
        over = np.array(scores) > threshold
        return (
            agreement.epic_distance(counts),
            agreement.success_epic_distance(int((over & truth).sum()), int((over & ~np.array(truth)).sum()), counts),
        )

    assert distances([0.1, 0.9], [False, False]) == ("undefined: no positives",) * 2
    assert distances([0.1, 0.9], [True, True]) == ("undefined: no negatives",) * 2
    constant = "undefined: constant scores"
    assert distances([0.1, 0.1], [True, False]) == (constant, "undefined: nothing over the threshold")
    assert distances([0.7, 0.7], [True, False]) == (constant, "undefined: everything over the threshold")
    # Sparse labels: the score under the threshold is not known, but that it is under is.
    assert distances([0.9, -np.inf], [True, False]) == ("undefined: sparse labels", 0.0)


def test_calibration_by_hand() -> None:
    # 16 bins of 1/16: the scores 0.25, 0.25 lie in one, 0.75, 0.75, 0.75 in another. Frequencies 1/2 and 2/3.
    scores = np.array([0.25, 0.25, 0.75, 0.75, 0.75], np.float32)
    truth = np.array([True, False, True, True, False])
    figures = agreement.calibration_figures(count_scores(scores, truth), "softmax")
    assert isinstance(figures, dict)
    assert figures["mean_score"] == [0.25, 0.75]
    assert figures["frequency"] == pytest.approx([1 / 2, 2 / 3], abs=1e-6)
    assert figures["frames"] == [2, 3]
    assert figures["expected_calibration_error"] == pytest.approx((2 * 0.25 + 3 * (0.75 - 2 / 3)) / 5)


def test_calibration_equals_scikit_learn() -> None:
    scores, truth = _draw(np.random.default_rng(2), 20_000, share=0.3)
    frequency, mean = calibration_curve(truth, scores, n_bins=16, strategy="uniform")
    for counts, tolerance in ((count_scores(scores, truth), 2e-6), (_binned(scores, truth), 2e-5)):
        figures = agreement.calibration_figures(counts, "sigmoid")
        assert isinstance(figures, dict)
        np.testing.assert_allclose(figures["frequency"], frequency, atol=tolerance)
        np.testing.assert_allclose(figures["mean_score"], mean, atol=tolerance)
        assert sum(figures["frames"]) == 20_000


def test_calibration_that_means_nothing_says_so() -> None:
    def figures(scores: list[float], formula: str) -> object:
        return agreement.calibration_figures(
            count_scores(np.array(scores, np.float32), np.array([True, False])), formula
        )

    assert figures([0.3, 0.2], "cosine") == "undefined: scores of cosine are not probabilities"
    assert figures([0.3, -np.inf], "softmax") == "undefined: sparse labels"
    assert figures([1.5, 0.2], "softmax") == figures([0.5, -0.2], "softmax") == "undefined: scores outside 0 to 1"
    assert isinstance(figures([1, 0], "softmax"), dict)


def test_bins_of_returns_are_exact_when_small_and_an_eighth_wide_at_most() -> None:
    returns = np.arange(100_000)
    bins = agreement.return_bins(returns)
    np.testing.assert_array_equal(bins[:16], np.arange(16))
    assert (np.diff(bins) >= 0).all()
    assert set(np.diff(bins).tolist()) == {0, 1}
    starts = np.flatnonzero(np.diff(bins, prepend=-1))
    assert (np.diff(starts)[16:] / starts[16:-1]).max() <= 1 / 8
    assert agreement.return_bins(np.array([2**31])) < 256


def test_tau_by_hand() -> None:
    # Episodes (label, truth): (0, 0), (1, 1), (1, 0). Pairs: 12 concordant, 13 tied in truth, 23 tied in label.
    # tau-b = 1 / sqrt((3 - 1) (3 - 1)).
    table = agreement.return_table(np.array([[0], [1], [1]]), np.array([[0], [1], [0]]))
    assert agreement.return_tau(table) == pytest.approx(1 / 2)


@pytest.mark.parametrize("highest", [2, 5, 15])
def test_tau_equals_scipy_for_small_returns(highest: int) -> None:
    rng = np.random.default_rng(highest)
    labels = rng.integers(0, highest + 1, (60, 3))
    truth = np.maximum(labels + rng.integers(-2, 3, (60, 3)), 0).clip(max=15)
    table = agreement.return_table(labels, truth)
    for goal in range(3):
        expected = kendalltau(labels[:, goal], truth[:, goal]).statistic
        assert agreement.return_tau(table[[goal]]) == pytest.approx(expected, abs=1e-12)
    # Pooled over goals: every episode counts once a goal.
    assert agreement.return_tau(table) == pytest.approx(kendalltau(labels.ravel(), truth.ravel()).statistic, abs=1e-12)


def test_tau_of_large_returns_is_that_of_their_bins_and_near_the_exact_one() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 500, (400, 1))
    labels = np.maximum(truth + rng.integers(-60, 60, truth.shape), 0)
    found = agreement.return_tau(agreement.return_table(labels, truth))
    binned = kendalltau(agreement.return_bins(labels)[:, 0], agreement.return_bins(truth)[:, 0]).statistic
    assert found == pytest.approx(binned, abs=1e-12)
    assert found == pytest.approx(kendalltau(labels[:, 0], truth[:, 0]).statistic, abs=0.03)


def test_tables_of_returns_add_up() -> None:
    rng = np.random.default_rng(4)
    labels, truth = rng.integers(0, 40, (2, 50, 4))
    whole = agreement.return_table(labels, truth)
    parts = agreement.return_table(labels[20:], truth[20:]) + agreement.return_table(labels[:20], truth[:20])
    assert (whole != parts).nnz == 0


def test_undefined_taus_say_why() -> None:
    zeros, rising = np.zeros((3, 1), int), np.arange(3)[:, None]
    assert agreement.return_tau(agreement.return_table(rising, zeros)) == "undefined: all episodes have one true return"
    assert (
        agreement.return_tau(agreement.return_table(zeros, rising))
        == "undefined: the labels give all episodes one return"
    )


def test_value_order_equals_scipy() -> None:
    rng = np.random.default_rng(5)
    for decimals in (1, 6):  # with and without ties
        scores = np.round(rng.random(30) + np.linspace(0, 0.5, 30), decimals).astype(np.float32)
        counts = agreement.value_order_counts(scores)
        assert counts[0] / 2**32 == pytest.approx(spearmanr(scores, np.arange(30)).statistic, abs=1e-9)
        assert counts[1:].tolist() == [1, 0, 0, 0]


def test_value_order_without_a_figure_is_counted_by_its_reason() -> None:
    def counts(*scores: float) -> list[int]:
        return agreement.value_order_counts(np.array(scores, np.float32)).tolist()

    assert counts(0.1, 0.2, 0.3) == [2**32, 1, 0, 0, 0]
    assert counts(0.2, 0.2, 0.2) == [0, 0, 1, 0, 0]
    assert counts(0.2, -np.inf, 0.3) == [0, 0, 0, 1, 0]
    assert counts(0.1, 0.2) == [0, 0, 0, 0, 1]


def test_value_order_figures_show_what_rises_whatever_happens() -> None:
    # Rows: failures, successes. A score that only rises has the mean 1 for both, and no difference.
    rising = np.array([[3 * 2**32, 3, 0, 0, 0], [2 * 2**32, 2, 1, 0, 0]])
    figures = agreement.value_order_figures(rising)
    assert figures["successes"] == {"mean": 1.0, "episodes": 2, "constant": 1, "sparse": 0, "short": 0}
    assert figures["difference"] == 0
    assert agreement.value_order_figures(rising * [[-1, 1, 1, 1, 1], [1, 1, 1, 1, 1]])["difference"] == 2

    def why(failures: list[int], successes: list[int]) -> list[object]:
        found = agreement.value_order_figures(np.array([failures, successes]))
        return [found["failures"]["mean"], found["successes"]["mean"], found["difference"]]  # type: ignore[index]

    no_failures, constant = "undefined: no failures", "undefined: constant scores"
    assert why([0] * 5, [2**32, 1, 0, 0, 0]) == [no_failures, 1.0, no_failures]
    assert why([0, 0, 0, 1, 0], [0, 0, 2, 0, 1]) == ["undefined: sparse labels", constant, constant]
    assert why([0, 0, 0, 0, 1], [0] * 5) == ["undefined: fewer than 3 frames", *["undefined: no successes"] * 2]
