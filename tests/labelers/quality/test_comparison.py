import numpy as np
import pytest
from scipy.stats import spearmanr

from vlm_rewards.labelers.quality.comparison import (
    COUNTS,
    change_table,
    compare_scores,
    merge_changes,
    rank_correlation,
)
from vlm_rewards.schemas.goals import Goal

GOALS = (Goal("ball", "a ball"), Goal("box", "a box"))
A = np.array([[0.25, 0.75], [0.5, 0.75], [0.875, 0.75]], np.float32)
B = np.array([[0.25, 0.25], [0.75, 0.75], [0.375, 0.75]], np.float32)


def _rows(a: np.ndarray, b: np.ndarray, tolerance: float = 0.0, threshold: float = 0.6) -> list[dict]:
    achieved = (a > threshold, b > threshold)
    return change_table(compare_scores((a, b), achieved, tolerance), GOALS)


def test_changes_by_hand() -> None:
    ball, box = _rows(A, B)
    # ball: |B - A| = 0, 0.25, 0.5; over 0.6 in A: frame 2, in B: frame 1
    assert [ball[name] for name in COUNTS] == [3, 2, 0, 0, 0, 1, 1, 0, 0, 1]
    assert (ball["mean_change"], ball["largest_change"]) == (0.25, 0.5)
    # box: |B - A| = 0.5, 0, 0; frame 0 is no success any more, the others still are
    assert [box[name] for name in COUNTS] == [3, 1, 0, 0, 0, 0, 1, 0, 0, 1]
    assert (box["mean_change"], box["largest_change"]) == (pytest.approx(1 / 6, abs=1e-9), 0.5)


def test_a_change_up_to_the_tolerance_is_none() -> None:
    assert [row["changed"] for row in _rows(A, B, tolerance=0.25)] == [1, 1]
    assert [row["changed"] for row in _rows(A, B, tolerance=0.5)] == [0, 0]
    assert [row["changed"] for row in _rows(A, np.nextafter(A, np.float32(1)))] == [3, 3]


def test_an_episode_gains_or_loses_a_goal_where_one_side_never_achieves_it() -> None:
    ball, box = _rows(np.where(A > 0.6, 0.0, A).astype(np.float32), B)
    assert (ball["gained_episodes"], ball["lost_episodes"], ball["flipped_episodes"]) == (1, 0, 1)
    assert (box["gained_episodes"], box["lost_episodes"], box["gained_frames"]) == (1, 0, 2)
    ball, _ = _rows(A, np.zeros_like(B))
    assert (ball["gained_episodes"], ball["lost_episodes"]) == (0, 1)


def test_scores_that_sparse_labels_do_not_hold_are_unknown_not_changed() -> None:
    a, b = A.copy(), B.copy()
    a[0, 0] = b[0, 0] = b[1, 0] = a[:, 1] = -np.inf
    ball, box = _rows(a, b)
    assert {name: ball[name] for name in COUNTS[:5]} == {
        "compared": 1,
        "changed": 1,
        "only_in_a": 1,
        "only_in_b": 0,
        "in_neither": 1,
    }
    assert (box["compared"], box["only_in_b"], box["changed"]) == (0, 3, 0)
    for name in ("mean_change", "largest_change", "rank_correlation"):
        assert box[name] == "undefined: no score that both hold"
    assert box["gained_frames"] == 2  # what is not held is not achieved


def test_merging_is_exact_in_any_order_and_grouping() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 60, 2), np.float32)
    episodes = [(a[i : i + 10], b[i : i + 10]) for i in range(0, 60, 10)]
    parts = [compare_scores(pair, (pair[0] > 0.5, pair[1] > 0.5), 0.1) for pair in episodes]
    whole = change_table(merge_changes(parts), GOALS)
    assert whole == change_table(merge_changes(reversed(parts)), GOALS)
    assert whole == change_table(merge_changes([merge_changes(parts[:2]), merge_changes(parts[2:])]), GOALS)
    change = np.abs(b.astype(np.float64) - a)
    assert [row["mean_change"] for row in whole] == pytest.approx(change.mean(axis=0), abs=1e-9)
    assert [row["changed"] for row in whole] == (change > 0.1).sum(axis=0).tolist()


def test_rank_correlation_is_scipys() -> None:
    rng = np.random.default_rng(1)
    a = rng.random((500, 2)).astype(np.float32)
    b = np.clip(a + rng.normal(0, 0.2, a.shape), 0, 1).astype(np.float32)
    for index, row in enumerate(_rows(a, b)):
        # the bins are 1/256 wide here, so ranks move by a few of 500
        assert row["rank_correlation"] == pytest.approx(spearmanr(a[:, index], b[:, index]).statistic, abs=2e-3)
    ball, _ = _rows(a, a**2)
    assert ball["rank_correlation"] == pytest.approx(1, abs=1e-3)
    ball, _ = _rows(a, 1 - a)
    assert ball["rank_correlation"] == pytest.approx(-1, abs=1e-3)


def test_a_constant_side_has_no_rank_correlation() -> None:
    ball, _ = _rows(A, np.full_like(B, 0.5))
    assert ball["rank_correlation"] == "undefined: constant scores"
    assert rank_correlation(np.zeros(1, np.int64), np.ones(1, np.int64)) == "undefined: constant scores"


@pytest.mark.parametrize("value", [np.nan, np.inf, 2000.0])
def test_scores_that_cannot_be_compared_are_refused(value: float) -> None:
    b = B.copy()
    b[1, 0] = value
    with pytest.raises(ValueError, match=r"must lie between -1024 and 1024, got .* for goal 0 in row 1 of B"):
        _rows(A, b)
