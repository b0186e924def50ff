import numpy as np
import pytest

from vlm_rewards.pipelines.report.heat_maps import MAX_COLUMNS, ScoreGrid
from vlm_rewards.pipelines.report.strips import goals_that_matter, overview_goals, strip_grid
from vlm_rewards.schemas.goals import Goal


def _grid(truth: list[list[int]], over: list[list[int]], scores: np.ndarray | None = None) -> ScoreGrid:
    """From rows of goals, as they are drawn."""
    shape = np.array(truth).T.shape
    known = np.zeros(shape, np.float32) if scores is None else scores
    return ScoreGrid(known, np.array(truth, bool).T, np.array(over, bool).T)


def test_goals_that_hold_or_fire_come_in_the_order_they_begin_and_two_more_of_highest_score() -> None:
    goals = [Goal(name, name, "other" if name == "z" else "mine") for name in "abcdez"]
    truth = [[0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0]]
    over = [[0, 0, 1], [0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    scores = np.zeros((3, 6), np.float32)
    scores[0] = [0, 0, 0.1, 0.3, 0.2, 0]
    chosen, num_left_out = goals_that_matter(_grid(truth, over, scores), goals, "mine")
    # b fires at frame 1 and a holds at frame 2; d and e score highest of those that do neither; z is of another family.
    assert [goals[index].id for index in chosen] == ["b", "a", "d", "e", "z"]
    assert num_left_out == 0


def test_of_goals_that_mean_the_same_only_those_that_differ_are_shown() -> None:
    goals = [Goal(name, name, "place", group="ab" if name in "abc" else None) for name in "abcd"]
    chosen, _ = goals_that_matter(_grid([[1, 0]] * 4, [[1, 0], [1, 0], [1, 1], [1, 0]]), goals, "place")
    assert [goals[index].id for index in chosen] == ["a", "c", "d"]


def test_of_many_goals_half_of_the_rows_are_for_errors() -> None:
    goals = [Goal(f"g{n}", f"g{n}", "f") for n in range(60)]
    truth = [[1, 1, 1, 1]] * 30 + [[0, 0, 0, 0]] * 30
    over = [[1, 1, 1, 1]] * 30 + [[1, 0, 0, 0]] * 15 + [[1, 1, 0, 0]] * 15
    chosen, num_left_out = goals_that_matter(_grid(truth, over), goals, "f")
    assert len(chosen) == 24
    assert sum(index >= 45 for index in chosen) == 12  # twice wrong before once wrong
    assert sum(index < 30 for index in chosen) == 12
    assert num_left_out == 36


@pytest.mark.parametrize(
    ("num_goals", "num_frames", "expected"),
    [
        (342, [129] * 12, 342),
        (1000, [5000] * 12, 1000),  # up to 1,000 goals, all have a line
        (10_000, [20] * 12, 1000),
        (10_000, [100] * 12, 583),  # 1,200 columns: 700,000 / 1,200
        (10_000, [5000] * 12, 113),  # 512 columns each
        (10_000, [5000] * 20, 100),
        (10_000, [], 1000),
    ],
)
def test_overviews_of_many_goals_are_bounded_together(num_goals: int, num_frames: list[int], expected: int) -> None:
    assert overview_goals(num_goals, num_frames) == expected


def test_a_strip_keeps_the_scores_of_the_goals_that_it_draws() -> None:
    goals = [Goal(f"g{n}", f"g{n}", "f") for n in range(50)]
    scores = np.tile(np.arange(50, dtype=np.float32) / 100, (MAX_COLUMNS + 2, 1))
    scores[3, 7] = 0.9
    scores[4] = np.nan
    truth = np.zeros(scores.shape, bool)
    truth[5, 20] = True
    drawn = strip_grid(ScoreGrid(scores, truth, scores > 0.8), goals, "f", 4)
    # Goal 20 holds, goal 7 fires; 49 and 48 come closest. Lines: the two that matter, then the highest scores.
    assert drawn.rows == [7, 20, 48, 49]
    assert drawn.lines == [7, 20, 48, 49]
    assert drawn.goals == [7, 20, 48, 49]
    assert drawn.num_left_out == 0
    assert drawn.span == 2
    assert drawn.ends == (0.0, np.float32(0.9))
    column = drawn.of([20, 7])
    assert column.scores.shape == (MAX_COLUMNS // 2 + 1, 2)
    np.testing.assert_array_equal(column.scores[1], np.array([0.2, 0.9], np.float32))  # frames 2 and 3
    assert column.truth[2].tolist() == [True, False]  # frames 4 and 5


def test_frames_without_labels_are_no_peak() -> None:
    goals = [Goal(name, name, "f") for name in "abc"]
    scores = np.array([[np.nan] * 3, [0.1, 0.3, 0.2]], np.float32)
    chosen, _ = goals_that_matter(_grid([[0, 0]] * 3, [[0, 0]] * 3, scores), goals, "f")
    assert [goals[index].id for index in chosen] == ["b", "c"]
