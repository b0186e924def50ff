import json
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr
from sklearn.metrics import average_precision_score

from vlm_rewards.labelers.quality import figures as quality
from vlm_rewards.labelers.quality.agreement import NOTHING_OVER, UNDEFINED
from vlm_rewards.labelers.quality.confusion import GoalRelations
from vlm_rewards.labelers.quality.figures import LabelledEpisode, thinned_points
from vlm_rewards.labelers.quality.rankings import count_scores, precision_recall_curve
from vlm_rewards.schemas.goals import Goal

GOALS = (
    Goal("a", "text a", "one", attributes={"colour": "red"}),
    Goal("b", "text b", "one", attributes={"colour": "blue"}),
    Goal("c", "text c", "two"),
    Goal("d", "text d", "two"),
)


def _episode(scores: np.ndarray, truth: np.ndarray, own_goal: int | None = None) -> LabelledEpisode:
    scores = np.asarray(scores, np.float32)
    return LabelledEpisode(np.asarray(truth, bool), np.arange(len(scores)), scores, scores > 0.5, own_goal)


def _draw(num_episodes: int, seed: int = 0, num_goals: int = 4) -> list[LabelledEpisode]:
    rng = np.random.default_rng(seed)
    episodes = []
    for _ in range(num_episodes):
        truth = rng.random((int(rng.integers(5, 40)), num_goals)) < 0.08
        scores = 1 / (1 + np.exp(-rng.normal(-3, 3, truth.shape) - 5 * truth))
        episodes.append(_episode(scores, truth, own_goal=int(rng.integers(num_goals))))
    return episodes


def _table(episodes: Sequence[LabelledEpisode], goals: Sequence[Goal] = GOALS, formula: str = "softmax") -> dict:
    relations = GoalRelations(goals)
    counts, _ = quality.count_quality(episodes, relations)
    return quality.quality_table(counts, relations, thresholds=[0.5] * len(goals), formula=formula)


def test_best_threshold_by_hand() -> None:
    # F1: 0.9 -> 2*1/(1+2), 0.6 -> 2*1/(2+2), 0.5 -> 2*2/(3+2) = 0.8, 0.2 -> 2*2/(4+2).
    scores = np.array([0.9, 0.6, 0.5, 0.2], np.float32)
    best = quality.best_threshold(count_scores(scores, np.array([True, False, True, False])))
    assert isinstance(best, dict)
    assert (best["precision"], best["recall"], best["f1"]) == pytest.approx((2 / 3, 1, 0.8))
    assert best["false_positive_rate"] == pytest.approx(1 / 2)
    assert (scores > best["threshold"]).sum() == 3


def test_best_threshold_prefers_the_higher_of_two_that_are_equal() -> None:
    # F1 is 2*1/(1+2) at 0.9 and 2*2/(4+2) at 0.3: both 2/3.
    scores = np.array([0.9, 0.8, 0.7, 0.3], np.float32)
    best = quality.best_threshold(count_scores(scores, np.array([True, False, False, True])))
    assert isinstance(best, dict)
    assert best["threshold"] == np.nextafter(np.float32(0.9), np.float32(0))


def test_best_threshold_of_sparse_labels_counts_what_has_no_score() -> None:
    # Scores over 0.5 only: 0.9 +, 0.8 -, 0.7 +; one positive has none. F1 at 0.7: 2*2/(3+3).
    scores = np.array([0.9, 0.8, 0.7, -np.inf], np.float32)
    best = quality.best_threshold(count_scores(scores, np.array([True, False, True, True])))
    assert isinstance(best, dict)
    assert best["f1"] == pytest.approx(4 / 6)
    unknown = count_scores(np.array([0.9, -np.inf], np.float32), np.array([False, True]))
    assert quality.best_threshold(unknown) == "undefined: no positive has a score"


def test_best_threshold_without_positives_is_refused() -> None:
    with pytest.raises(ValueError, match="must have at least one positive, got none among 1 frames"):
        quality.best_threshold(count_scores(np.array([0.5], np.float32), np.array([False])))


def test_figures_at_a_threshold_by_hand() -> None:
    counts = count_scores(np.array([0.9, 0.8, 0.2, 0.1], np.float32), np.array([True, False, True, False]))
    figures = quality.threshold_figures(1, 1, counts)
    assert figures == {"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "false_positive_rate": 1 / 2}
    assert quality.threshold_figures(0, 0, counts)["precision"] == NOTHING_OVER
    all_true = count_scores(np.array([0.9], np.float32), np.array([True]))
    assert quality.threshold_figures(1, 0, all_true)["false_positive_rate"] == "undefined: no negatives"


def test_a_thinned_curve_keeps_its_ends_and_its_area() -> None:
    rng = np.random.default_rng(4)
    truth = rng.random(20_000) < 0.05
    scores = (rng.normal(0, 1, 20_000) + 2 * truth).astype(np.float32)
    curve = precision_recall_curve(scores, truth)
    points = thinned_points(curve.recall, 200)
    assert len(points) <= 200
    assert (curve.recall[points[0]], curve.recall[points[-1]]) == (curve.recall[0], 1)
    area = (np.diff(curve.recall[points], prepend=0) * curve.precision[points]).sum()
    assert area == pytest.approx(average_precision_score(truth, scores), abs=0.01)
    assert len(thinned_points(np.zeros(0), 10)) == 0


def test_table_of_goals_families_and_all() -> None:
    episodes = _draw(150)
    for episode in episodes:
        episode.truth[:, 3] = False
    scores, truth = (np.concatenate([getattr(e, name) for e in episodes]) for name in ("scores", "truth"))
    table = _table(episodes)
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
    assert missing["average_precision"] == missing["curve"] == missing["epic_distance"]["score"] == UNDEFINED
    assert missing["episodes"]["average_precision"] == UNDEFINED
    assert missing["at_threshold"]["precision"] == 0
    assert missing["at_threshold"]["recall"] == UNDEFINED
    assert table["families"]["two"]["goals_without_positives"] == ["d"]
    assert table["families"]["two"]["num_goals_with_positives"] == 1
    # At the labels' own threshold the figures are exact.
    over, row = scores[:, 0] > 0.5, table["goals"][0]
    assert row["threshold"] == 0.5
    assert row["at_threshold"]["precision"] == (over & truth[:, 0]).sum() / over.sum()
    assert row["at_threshold"]["recall"] == (over & truth[:, 0]).sum() / truth[:, 0].sum()


def test_macro_figures_are_means_over_the_goals_that_define_them() -> None:
    episodes = _draw(60)
    for episode in episodes:
        episode.truth[:, 3] = False
        episode.successes[:, 2] = False
    table = _table(episodes)
    macro, rows = table["overall"]["macro"], [row["at_threshold"] for row in table["goals"]]
    assert macro["num_goals"] == {
        "precision": 3,  # nothing of c lies over the threshold
        "recall": 3,  # d never holds
        "f1": 3,
        "false_positive_rate": 4,
        "epic_distance": {"score": 3, "success": 2},
        "expected_calibration_error": 4,
    }
    assert macro["f1"] == pytest.approx(np.mean([rows[goal]["f1"] for goal in (0, 1, 2)]))
    assert macro["precision"] == pytest.approx(np.mean([rows[goal]["precision"] for goal in (0, 1, 3)]))
    assert macro["false_positive_rate"] == pytest.approx(np.mean([row["false_positive_rate"] for row in rows]))
    success = [table["goals"][goal]["epic_distance"]["success"] for goal in (0, 1)]
    assert macro["epic_distance"]["success"] == pytest.approx(np.mean(success))


def test_a_corpus_without_positives_says_so_everywhere() -> None:
    table = _table([_episode(np.full((5, 4), 0.25), np.zeros((5, 4)))])
    for group in (table["families"]["one"], table["overall"]):
        assert group["mean_average_precision"] == group["macro"]["f1"] == UNDEFINED
        assert group["pooled"]["best_threshold"] == group["pooled"]["epic_distance"]["success"] == UNDEFINED
        assert group["episodes"]["mean_average_precision"] == UNDEFINED
        assert group["episodes"]["mean_kendall_tau"] == "undefined: all episodes have one true return"
        assert group["value_order"]["difference"] == "undefined: no successes"
    assert table["goals"][0]["at_threshold"]["precision"] == NOTHING_OVER
    json.dumps(table, allow_nan=False)


def test_constant_scores_are_undefined_where_they_define_nothing() -> None:
    truth = np.zeros((10, 4))
    truth[5:, 0] = 1
    table = _table([_episode(np.full((10, 4), 0.25), truth, own_goal=0), _episode(np.full((10, 4), 0.25), truth * 0)])
    row = table["goals"][0]
    assert row["epic_distance"] == {"score": "undefined: constant scores", "success": NOTHING_OVER}
    assert row["average_precision"] == pytest.approx(5 / 20)  # chance
    assert row["value_order"]["successes"] == {
        "mean": "undefined: constant scores", "episodes": 0, "constant": 1, "sparse": 0, "short": 0,
    }  # fmt: skip
    assert row["episodes"]["kendall_tau"] == "undefined: the labels give all episodes one return"
    # Different reasons of different goals have no common one.
    nothing = "undefined: no goal defines it"
    assert table["overall"]["macro"]["epic_distance"] == {"score": nothing, "success": nothing}
    json.dumps(table, allow_nan=False)


def test_episodes_equal_scikit_learn_and_scipy() -> None:
    episodes = _draw(80)
    table = _table(episodes)
    highest = np.stack([episode.scores.max(axis=0) for episode in episodes])
    achieved = np.stack([episode.truth.any(axis=0) for episode in episodes])
    returns = np.stack([episode.successes.sum(axis=0) for episode in episodes])
    truths = np.stack([episode.truth.sum(axis=0) for episode in episodes])
    assert max(returns.max(), truths.max()) < 16  # so that bins are exact
    for goal, row in enumerate(table["goals"]):
        found = row["episodes"]
        exact = average_precision_score(achieved[:, goal], highest[:, goal])
        low, high = found["average_precision_bounds"]
        assert low - 1e-12 <= exact <= high + 1e-12
        assert found["average_precision"] == pytest.approx(exact, abs=1e-3)
        assert found["kendall_tau"] == pytest.approx(kendalltau(returns[:, goal], truths[:, goal]).statistic, abs=1e-12)
        assert (found["num_episodes"], found["achieved"]) == (80, achieved[:, goal].sum())
    two = table["families"]["two"]["episodes"]
    assert two["pooled"]["kendall_tau"] == pytest.approx(
        kendalltau(returns[:, 2:].ravel(), truths[:, 2:].ravel()).statistic, abs=1e-12
    )
    assert two["mean_kendall_tau"] == pytest.approx(
        np.mean([row["episodes"]["kendall_tau"] for row in table["goals"][2:]])
    )
    assert two["num_goals"] == {"average_precision": 2, "kendall_tau": 2}


def test_value_order_is_of_the_own_goal_up_to_its_success() -> None:
    scores, truth = np.zeros((6, 4)), np.zeros((6, 4))
    scores[:, 0] = [0.1, 0.3, 0.2, 0.4, 0.0, 0.0]
    truth[3:, 0] = 1  # frames 0 to 3 count: what comes after the success does not
    success = _episode(scores, truth, own_goal=0)
    failure = _episode(scores, truth * 0, own_goal=0)
    row = _table([success, failure])["goals"][0]["value_order"]
    assert row["successes"]["mean"] == pytest.approx(spearmanr(scores[:4, 0], range(4)).statistic)
    assert row["failures"]["mean"] == pytest.approx(spearmanr(scores[:, 0], range(6)).statistic)
    assert row["difference"] == pytest.approx(row["successes"]["mean"] - row["failures"]["mean"])


def test_without_an_instruction_value_order_is_of_the_goals_that_are_achieved() -> None:
    goals = (Goal("a", "text a", group="g"), Goal("b", "text b", group="g"), Goal("c", "text c"), Goal("d", "text d"))
    scores, truth = np.linspace(0, 0.4, 6)[:, None].repeat(4, axis=1), np.zeros((6, 4))
    truth[4, :3] = 1
    overall = _table([_episode(scores, truth)], goals)["overall"]["value_order"]
    assert overall["successes"]["episodes"] == 2  # a speaks for its group, and c
    assert overall["difference"] == "undefined: no failures"


def test_sparse_labels_say_what_they_do_not_know() -> None:
    episodes = [
        episode._replace(scores=np.where(episode.successes, episode.scores, np.float32(-np.inf)))
        for episode in _draw(40)
    ]
    table, dense = _table(episodes), _table(_draw(40))
    for row, known in zip(table["goals"], dense["goals"], strict=True):
        assert row["epic_distance"]["score"] == row["calibration"] == "undefined: sparse labels"
        # What needs successes only is the same.
        assert row["epic_distance"]["success"] == known["epic_distance"]["success"]
        for name in ("at_threshold", "false_positives", "confused_with"):
            assert row[name] == known[name]
        assert row["episodes"]["kendall_tau"] == known["episodes"]["kendall_tau"]
        low, high = row["average_precision_bounds"]
        assert low <= row["average_precision"] <= known["average_precision"] <= high
    assert table["overall"]["value_order"]["failures"]["sparse"] > 0


def test_false_positives_are_told_by_cause() -> None:
    scores, truth = np.zeros((12, 4)), np.zeros((12, 4))
    truth[0, 0] = truth[6, 1] = 1
    scores[[1, 6, 11], 0] = 0.9  # near in time; while b, another colour, holds; nothing
    episode = _episode(scores, truth)
    relations = GoalRelations(GOALS)
    counts, causes = quality.count_quality([episode, episode], relations)
    assert [relations.causes[cause] for cause in causes] == ["near in time", "another colour", "none of these"] * 2
    table = quality.quality_table(counts, relations, thresholds=[0.5] * 4, formula="softmax")
    assert table["goals"][0]["false_positives"]["total"] == 6
    assert table["goals"][0]["false_positives"]["causes"]["another colour"] == 2
    assert table["goals"][0]["confused_with"] == [{"goal": "b", "frames": 2, "share": 1 / 3}]
    assert table["confusion"]["attributes"]["colour"] == {"values": ["blue", "red"], "holds": [[0, 0], [2, 0]]}
    assert table["families"]["one"]["false_positives"] == table["overall"]["false_positives"]


def test_frames_without_labels_count_for_nearness_alone() -> None:
    truth = np.zeros((10, 4), bool)
    truth[5, 0] = True
    scores = np.zeros((2, 4), np.float32)
    scores[:, 0] = 0.9
    episode = LabelledEpisode(truth, np.array([4, 9]), scores, scores > 0.5)
    relations = GoalRelations(GOALS)
    counts, causes = quality.count_quality([episode], relations)
    assert [relations.causes[cause] for cause in causes] == ["near in time", "none of these"]
    row = quality.quality_table(counts, relations, thresholds=[0.5] * 4, formula="softmax")["goals"][0]
    assert (row["positives"], row["negatives"], row["episodes"]["achieved"]) == (0, 2, 0)


def test_counts_add_up_to_the_same_table_whatever_the_parts() -> None:
    episodes = _draw(70)
    relations = GoalRelations(GOALS)

    def table(parts: list[list[LabelledEpisode]]) -> dict:
        total = quality.count_quality(parts[0], relations)[0]
        for part in parts[1:]:
            total = quality.count_quality(part, relations)[0] + total
        return quality.quality_table(total, relations, thresholds=[0.5] * 4, formula="softmax")

    order = np.random.default_rng(0).permutation(70)
    shuffled = [[episodes[number] for number in numbers] for numbers in np.array_split(order, 7)]
    assert table([episodes]) == table(shuffled) == table([[episode] for episode in episodes])


def test_worst_goals_come_first_one_a_group() -> None:
    goals = (*(Goal(name, f"text {name}", group="g" if name in "ab" else None) for name in "abcd"),)
    rows = [
        {"average_precision": precision, "at_threshold": {"f1": f1}, "positives": positives}
        for precision, f1, positives in [(0.5, 0.1, 3), (0.4, 0.1, 3), (0.5, 0.0, 3), (UNDEFINED, UNDEFINED, 0)]
    ]
    # b is worst; c beats a by its lower F1, and a is of b's group; d never holds.
    assert quality.worst_goals(rows, GoalRelations(goals)) == [1, 2]


def test_other_formulas_have_no_calibration() -> None:
    table = _table(_draw(10), formula="cosine")
    reason = "undefined: scores of cosine are not probabilities"
    assert table["overall"]["pooled"]["calibration"] == table["goals"][0]["calibration"] == reason
    assert table["overall"]["macro"]["expected_calibration_error"] == reason


def test_ten_thousand_sparse_goals_stay_bounded() -> None:
    num_goals = 10_000
    goals = [
        Goal(f"g{n}", f"text {n}", f"family {n % 10}", attributes={"colour": str(n % 7)}) for n in range(num_goals)
    ]
    relations = GoalRelations(goals)
    rng = np.random.default_rng(0)
    total = None
    for _ in range(4):
        scores = np.full((50, num_goals), -np.inf, np.float32)
        rows = np.repeat(np.arange(50), 20)
        scores[rows, rng.integers(0, num_goals, 1000)] = rng.random(1000) / 2 + 0.5
        truth = np.zeros((50, num_goals), bool)
        truth[rows, rng.integers(0, num_goals, 1000)] = True
        counts, _ = quality.count_quality([LabelledEpisode(truth, np.arange(50), scores, scores > 0.5)], relations)
        total = counts if total is None else total + counts
    assert total is not None
    assert total.false_positives.goals.nnz <= 4 * 1000 * 20
    assert len(total.frames.keys) <= num_goals + 4 * 1000
    assert total.returns.nnz <= 4 * num_goals


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(value: float) -> None:
    episode = _draw(1)[0]
    episode.scores[2, 1] = value
    with pytest.raises(ValueError, match=rf"scores must be finite numbers, got {value} at index \[2, 1\]"):
        _table([episode])
