import pytest

from vlm_rewards.labelers.domains.babyai.goals import HELD_OUT_KINDS, goal_bank
from vlm_rewards.offline_rl.training.held_out_goals import split_goals

BANK = tuple(goal_bank())


def test_held_out_goals_are_of_pairs_that_no_trained_goal_has():
    split = split_goals(BANK, HELD_OUT_KINDS)
    # By hand: 3 of 18 kinds; Find and Lift 3 each; Place 18 * 17 - 15 * 14 = 96 ordered pairs with one of them.
    assert (len(split.trained), len(split.held_out)) == (342 - 102, 102)
    assert not any(kind in goal.text for goal in split.trained for kind in HELD_OUT_KINDS)
    assert all(any(kind in goal.text for kind in HELD_OUT_KINDS) for goal in split.held_out)
    for word in " ".join(HELD_OUT_KINDS).split():  # every colour and every type is trained on
        assert any(word in goal.text for goal in split.trained)
    assert [goal.id for goal in split_goals(BANK[:3], ["find-red-ball"]).held_out] == ["find-red-ball"]


def test_what_leaves_nothing_on_a_side_is_refused():
    with pytest.raises(
        ValueError,
        match="an id or a kind of the 342 goals: got 'pink box'. Give a kind such as blue ball, blue box, blue key, or an id",
    ):
        split_goals(BANK, ["pink box"])
    with pytest.raises(ValueError, match="on both sides, got 0 to train on and 1 held out; hold out fewer"):
        split_goals(BANK[:1], ["find-red-key"])
    with pytest.raises(ValueError, match="on both sides, got 342 to train on and 0 held out; hold out some"):
        split_goals(BANK, [])
