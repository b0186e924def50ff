"""The goal bank and its ground truth, on grids written by hand."""

import numpy as np
import pytest

from vlm_rewards.labelers.domains.babyai.goals import KINDS, goal_bank, ground_truth, kind_indices, place_pairs

# MiniGrid's encoding: key 5, ball 6, box 7; red 0, green 1, blue 2, purple 3, yellow 4, grey 5.
RED_BALL, BLUE_BOX, GREEN_KEY = (6, 0, 0), (7, 2, 0), (5, 1, 0)
NOTHING = (0, 0)


def view_of(objects: dict[tuple[int, int], tuple[int, int, int]]) -> np.ndarray:
    """An empty, fully visible 7x7 view with objects at (x, y)."""
    view = np.zeros((7, 7, 3), dtype=np.uint8)
    view[..., 0] = 1
    for place, code in objects.items():
        view[place] = code
    return view


def true_goals(view: np.ndarray, carrying: tuple[int, int] | None = NOTHING) -> set[str]:
    truth = ground_truth(view, None if carrying is None else np.array(carrying))
    return {goal.id for goal, holds in zip(goal_bank(), truth, strict=True) if holds}


def test_the_bank_has_18_find_18_lift_and_306_place_goals_in_the_order_of_the_columns():
    bank = goal_bank()
    assert [sum(goal.family == family for goal in bank) for family in ("find", "lift", "place")] == [18, 18, 306]
    assert [goal.family for goal in bank] == ["find"] * 18 + ["lift"] * 18 + ["place"] * 306
    assert len({goal.id for goal in bank}) == len({goal.text for goal in bank}) == 342
    assert bank[1].id == "find-red-ball"
    assert bank[1].text == "the agent is in front of a red ball"
    assert bank[18 + 8].id == "lift-blue-box"
    assert bank[36].id == "place-red-key-next-to-red-ball"


def test_both_orders_of_a_pair_share_a_group_and_nothing_else_does():
    bank = {goal.id: goal for goal in goal_bank()}
    one, other = bank["place-red-ball-next-to-blue-box"], bank["place-blue-box-next-to-red-ball"]
    assert one.group == other.group == "adjacent-red-ball-blue-box"
    assert sum(goal.group == one.group for goal in bank.values()) == 2
    assert bank["find-red-ball"].group is None


def test_instructions_are_the_missions_of_babyai():
    bank = {goal.id: goal for goal in goal_bank()}
    assert "go to the red ball" in bank["find-red-ball"].instructions
    assert "pick up a grey key" in bank["lift-grey-key"].instructions
    assert "put the red ball next to a blue box" in bank["place-red-ball-next-to-blue-box"].instructions


def test_kinds_are_colour_major():
    assert KINDS[:4] == ("red key", "red ball", "red box", "green key")
    assert place_pairs()[:2].tolist() == [[0, 1], [0, 2]]
    # unseen, empty, wall, door, red key, blue box
    assert kind_indices(np.array([0, 1, 2, 4, 5, 7]), np.array([0, 0, 5, 3, 0, 2])).tolist() == [-1, -1, -1, -1, 0, 8]


def test_find_is_what_stands_before_the_agent():
    assert true_goals(view_of({(3, 5): RED_BALL})) == {"find-red-ball"}
    assert true_goals(view_of({(3, 4): RED_BALL})) == set()  # two cells ahead
    assert true_goals(view_of({(2, 6): RED_BALL})) == set()  # beside the agent
    assert true_goals(view_of({(3, 5): (4, 0, 0)})) == set()  # a red door


def test_lift_is_what_the_agent_carries():
    assert true_goals(view_of({}), (5, 1)) == {"lift-green-key"}


def test_carried_object_in_the_agents_cell_does_not_stand_on_the_grid():
    # MiniGrid draws the carried key at (3, 6); the ball ahead at (3, 5) is at distance one of it.
    view = view_of({(3, 6): GREEN_KEY, (3, 5): RED_BALL})
    assert true_goals(view, (5, 1)) == {"find-red-ball", "lift-green-key"}


def test_carried_object_is_read_from_the_view_when_not_given():
    view = view_of({(3, 6): GREEN_KEY, (3, 5): RED_BALL})
    assert true_goals(view, None) == {"find-red-ball", "lift-green-key"}
    assert true_goals(view_of({(3, 5): RED_BALL}), None) == {"find-red-ball"}


@pytest.mark.parametrize("place", [(1, 2), (3, 2), (2, 1), (2, 3)])
def test_place_is_distance_one_in_all_four_directions_and_both_orders(place):
    expected = {"place-red-ball-next-to-blue-box", "place-blue-box-next-to-red-ball"}
    assert true_goals(view_of({(2, 2): RED_BALL, place: BLUE_BOX})) == expected


@pytest.mark.parametrize("place", [(3, 3), (1, 1), (4, 2), (2, 4)])
def test_diagonal_and_two_away_are_not_next_to(place):
    assert true_goals(view_of({(2, 2): RED_BALL, place: BLUE_BOX})) == set()


def test_columns_do_not_wrap_around():
    # (0, 6) and (1, 0) follow each other in memory, but are far apart.
    assert true_goals(view_of({(0, 6): RED_BALL, (1, 0): BLUE_BOX})) == set()


def test_two_of_a_kind_are_no_goal():
    assert true_goals(view_of({(1, 1): RED_BALL, (1, 2): RED_BALL})) == set()


def test_unseen_objects_do_not_count():
    view = view_of({(2, 2): RED_BALL, (2, 3): BLUE_BOX})
    view[2, 3] = 0
    assert true_goals(view) == set()


def test_leading_axes_are_kept_and_every_view_is_judged_by_itself():
    views = np.stack([view_of({(3, 5): RED_BALL}), view_of({}), view_of({(0, 0): RED_BALL, (0, 1): BLUE_BOX})])
    carrying = np.array([(0, 0), (7, 2), (0, 0)])
    truth = ground_truth(views[None], carrying[None])
    assert truth.shape == (1, 3, 342)
    assert truth.dtype == bool
    assert truth.sum(axis=-1).tolist() == [[1, 1, 2]]
    for index in range(3):
        assert np.array_equal(truth[0, index], ground_truth(views[index], carrying[index]))


def test_a_view_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"view must have shape \[..., 7, 7, 3\].*got \[5, 5, 3\]"):
        ground_truth(np.zeros((5, 5, 3)))


def test_carrying_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"carrying must have shape \[4, 2\].*got \[3, 2\]"):
        ground_truth(np.zeros((4, 7, 7, 3)), np.zeros((3, 2)))
