import numpy as np

from vlm_rewards.pipelines.report.heat_maps import ScoreGrid
from vlm_rewards.pipelines.report.strips import goals_that_matter
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


def test_frames_without_labels_are_no_peak() -> None:
    goals = [Goal(name, name, "f") for name in "abc"]
    scores = np.array([[np.nan] * 3, [0.1, 0.3, 0.2]], np.float32)
    chosen, _ = goals_that_matter(_grid([[0, 0]] * 3, [[0, 0]] * 3, scores), goals, "f")
    assert [goals[index].id for index in chosen] == ["b", "c"]
