"""The banks of the playroom: how many goals they hold, how they ask, and what they may be held out by."""

from collections import Counter

from vlm_rewards.labelers.domains.playroom.domain import PLAYROOM
from vlm_rewards.labelers.domains.playroom.goals import HELD_OUT, OBJECTS, TOYS, goal_of, is_default_pair


def test_there_are_96_toys_and_9312_goals():
    assert len(OBJECTS) == 12
    assert len(set(TOYS)) == 96
    families = Counter(goal.family for goal in PLAYROOM.goals("all"))
    assert families == {"find": 96, "lift": 96, "place": 96 * 95}
    assert {bank: len(PLAYROOM.goals(bank)) for bank in PLAYROOM.banks} == {
        "default": 96 + 96 + 960,
        "all": 9312,
        "find": 96,
        "lift": 96,
        "place": 960,
    }


def test_every_toy_occurs_equally_often_in_the_default_pairs_and_both_orders_are_there():
    ids = {goal.id for goal in PLAYROOM.goals("place")}
    firsts = Counter(goal.attributes["colour"] + goal.attributes["object"] for goal in PLAYROOM.goals("place"))
    assert set(firsts.values()) == {10}
    assert len(firsts) == 96
    for goal in PLAYROOM.goals("place"):
        one, _, other = goal.id.removeprefix("place-").partition("-next-to-")
        assert f"place-{other}-next-to-{one}" in ids
    assert is_default_pair(0, 7)
    assert is_default_pair(90, 1)  # 90 + 7 - 96
    assert is_default_pair(0, 65)  # 31 back from 96
    assert not is_default_pair(0, 1)


def test_goals_ask_in_the_papers_words():
    find, lift = goal_of("find-green-ball"), goal_of("lift-blue-mug")
    place = goal_of("place-orange-lamp-next-to-white-plane")
    assert find.instructions[:2] == ("go near the green ball", "go near a green ball")
    assert lift.instructions[0] == "lift the blue mug"
    assert place.instructions == (
        "put the orange lamp next to the white plane",
        "put an orange lamp next to a white plane",
    )
    assert place.text == "an orange lamp next to a white plane"
    assert place.group == goal_of("place-white-plane-next-to-orange-lamp").group


def test_goals_are_held_out_by_toy_by_kind_and_by_pair():
    assert PLAYROOM.kinds(goal_of("find-green-ball")) == {"green ball", "ball"}
    assert PLAYROOM.kinds(goal_of("place-red-car-next-to-blue-mug")) == {
        "red car",
        "car",
        "blue mug",
        "mug",
        "blue mug + red car",
    }
    assert set(HELD_OUT) <= set(TOYS)
    left = [goal for goal in PLAYROOM.goals("all") if not PLAYROOM.kinds(goal) & set(HELD_OUT)]
    assert len(left) == 92 + 92 + 92 * 91
