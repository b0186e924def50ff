import tracemalloc

import numpy as np
import pytest

from vlm_rewards.labelers.domains.babyai.goals import goal_bank
from vlm_rewards.labelers.quality import confusion
from vlm_rewards.labelers.quality.confusion import GoalRelations, Pairs
from vlm_rewards.schemas.goals import Goal


def _goal(family: str, colour: str, thing: str, other: tuple[str, str] | None = None) -> Goal:
    attributes = {"colour": colour, "object": thing}
    if other is not None:
        attributes |= {"other colour": other[0], "other object": other[1]}
    name = "-".join([family, *attributes.values()])
    return Goal(name, f"text of {name}", family, attributes=attributes)


GOALS = (
    _goal("see", "red", "ball"),
    _goal("see", "blue", "ball"),
    _goal("see", "red", "box"),
    _goal("see", "green", "box"),
    _goal("hold", "red", "ball"),
)
RED_BALL, BLUE_BALL, RED_BOX, GREEN_BOX, HOLD_RED_BALL = range(5)


def _pairs(*pairs: tuple[int, int]) -> Pairs:
    frames, goals = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return Pairs(frames, goals)


def _causes(goals: tuple[Goal, ...], false: Pairs, true: Pairs) -> list[str]:
    relations = GoalRelations(goals)
    return [relations.causes[cause] for cause in relations.causes_of(false, true)]


def test_each_cause_by_hand() -> None:
    true = _pairs((0, RED_BALL), (10, BLUE_BALL), (20, RED_BOX), (30, GREEN_BOX), (40, HOLD_RED_BALL))
    false = _pairs(*[(frame, RED_BALL) for frame in (3, 4, 10, 20, 30, 40, 50)])
    assert _causes(GOALS, false, true) == [
        "near in time",  # three frames after one in which it holds
        "none of these",  # four after
        "another colour",
        "another object",
        "another goal of the family",
        "the same attributes in another family",
        "none of these",
    ]


def test_the_first_cause_counts() -> None:
    # In frame 5 a blue ball, a red box and a green box are seen and a red ball held; in frame 8 a red ball is seen.
    true = _pairs((5, GREEN_BOX), (5, RED_BOX), (5, HOLD_RED_BALL), (5, BLUE_BALL), (8, RED_BALL))
    false = _pairs((5, RED_BALL), (4, RED_BALL))
    assert _causes(GOALS, false, true) == ["near in time", "none of these"]
    assert _causes(GOALS, _pairs((5, RED_BALL)), _pairs(*zip(true.frames[:4], true.goals[:4], strict=True))) == [
        "another colour"
    ]


def test_nearness_is_of_the_same_goal_on_both_sides() -> None:
    true = _pairs((10, RED_BALL), (4, HOLD_RED_BALL))
    false = _pairs((7, RED_BALL), (13, RED_BALL), (6, RED_BALL), (9, BLUE_BALL), (1, HOLD_RED_BALL))
    near, nothing = "near in time", "none of these"
    assert _causes(GOALS, false, true) == [near, near, nothing, nothing, near]


def test_a_goal_about_two_things_differs_in_either() -> None:
    goals = (
        _goal("put", "red", "ball", ("blue", "box")),
        _goal("put", "red", "ball", ("grey", "box")),
        _goal("put", "red", "key", ("blue", "box")),
        _goal("put", "red", "key", ("grey", "box")),
        _goal("see", "red", "ball"),
        _goal("see", "blue", "box"),
    )
    true = _pairs((0, 1), (10, 2), (20, 3), (30, 4), (40, 5))
    assert _causes(goals, _pairs(*[(frame, 0) for frame in (0, 10, 20, 30, 40)]), true) == [
        "another colour",
        "another object",
        "another goal of the family",  # differs in two attributes
        "the same attributes in another family",  # a red ball is seen, a part of the goal's attributes
        "none of these",  # the blue box is the second thing here and the first there
    ]
    # The other way round: "see red ball" fires where a red ball stands beside something.
    assert _causes(goals, _pairs((0, 4)), true) == ["the same attributes in another family"]


def test_goals_of_a_group_count_as_the_goal() -> None:
    goals = (
        Goal("a-by-b", "a by b", "put", group="ab"),
        Goal("b-by-a", "b by a", "put", group="ab"),
        Goal("a-by-c", "a by c", "put"),
    )
    true = _pairs((0, 1), (0, 2), (10, 2))
    false = _pairs((0, 0), (2, 0), (10, 0))
    assert _causes(goals, false, true) == ["near in time", "near in time", "another goal of the family"]
    relations = GoalRelations(goals)
    counts = confusion.count_false_positives(false, true, relations.causes_of(false, true), relations)
    # In frame 0 the group holds, which is no confusion; a by c holds in frames 0 and 10.
    assert confusion.confused_goals(counts, relations, 0) == [{"goal": "a-by-c", "frames": 2, "share": 2 / 3}]


def test_goals_without_attributes_have_no_attribute_causes() -> None:
    relations = GoalRelations([Goal("a", "text a", "one"), Goal("b", "text b", "two")])
    assert relations.causes == ["near in time", "another goal of the family", "none of these"]
    assert GoalRelations(GOALS).causes[1:3] == ["another colour", "another object"]
    assert GoalRelations(goal_bank()).causes == GoalRelations(GOALS).causes


def _slow_causes(goals: tuple[Goal, ...], false: Pairs, true: Pairs) -> list[str]:
    """The definition, pair by pair; for goals whose attributes all have the same names in a family."""
    held: dict[int, list[Goal]] = {}
    for frame, goal in zip(true.frames.tolist(), true.goals.tolist(), strict=True):
        held.setdefault(frame, []).append(goals[goal])
    found = []
    for frame, index in zip(false.frames.tolist(), false.goals.tolist(), strict=True):
        goal = goals[index]
        others = [
            other
            for other in goals
            if other in held.get(frame, ()) or other.group in {h.group for h in held.get(frame, ())} - {None}
        ]
        family = [other for other in others if other.family == goal.family]
        differing = [
            [name for name in goal.attributes if other.attributes[name] != goal.attributes[name]] for other in family
        ]
        kinds = {confusion.attribute_kind(names[0]) for names in differing if len(names) == 1}
        shared = any(
            set(other.attributes.items()) <= set(goal.attributes.items())
            or set(other.attributes.items()) >= set(goal.attributes.items())
            for other in others
            if other.family != goal.family
        )
        same = {i for i, other in enumerate(goals) if other is goal or (goal.group and other.group == goal.group)}
        near = any(abs(int(f) - frame) <= 3 for f, g in zip(true.frames, true.goals, strict=True) if int(g) in same)
        found.append(
            "near in time"
            if near
            else "another colour"
            if "colour" in kinds
            else "another object"
            if "object" in kinds
            else "another goal of the family"
            if family
            else "the same attributes in another family"
            if shared
            else "none of these"
        )
    return found


def test_causes_among_the_goals_of_babyai_equal_their_definition() -> None:
    goals = tuple(goal_bank())
    rng = np.random.default_rng(0)
    true = Pairs(rng.integers(0, 200, 300), rng.integers(0, len(goals), 300))
    holds = set(zip(true.frames.tolist(), true.goals.tolist(), strict=True))
    drawn = zip(rng.integers(0, 200, 1500).tolist(), rng.integers(0, len(goals), 1500).tolist(), strict=True)
    false = _pairs(*[pair for pair in drawn if pair not in holds])
    found = _causes(goals, false, true)
    assert found == _slow_causes(goals, false, true)
    assert set(found) == set(GoalRelations(goals).causes)  # every cause occurs


def test_confusion_by_hand() -> None:
    relations = GoalRelations(GOALS)
    true = _pairs((0, BLUE_BALL), (0, HOLD_RED_BALL), (1, BLUE_BALL), (2, RED_BOX), (20, GREEN_BOX))
    false = _pairs((0, RED_BALL), (1, RED_BALL), (2, RED_BALL), (20, RED_BOX), (2, HOLD_RED_BALL), (9, RED_BALL))
    counts = confusion.count_false_positives(false, true, relations.causes_of(false, true), relations)
    assert confusion.confused_goals(counts, relations, RED_BALL) == [
        {"goal": "see-blue-ball", "frames": 2, "share": 2 / 4},
        {"goal": "see-red-box", "frames": 1, "share": 1 / 4},  # equal counts go by the order of the goals
        {"goal": "hold-red-ball", "frames": 1, "share": 1 / 4},
    ]
    assert confusion.confused_goals(counts, relations, GREEN_BOX) == []
    tables = confusion.confusion_tables(counts, relations)
    assert tables["families"] == {
        "names": ["see", "hold"],
        "false_positives": [5, 1],
        "holds": [[4, 1], [1, 0]],  # frame 9 shows nothing; in frame 0 a goal of each family holds
    }
    assert tables["attributes"] == {
        # Rows: the goal that fires; columns: what holds. Red balls fire on blue balls twice, a red box on a green one.
        "colour": {"values": ["blue", "green", "red"], "holds": [[0, 0, 0], [0, 0, 0], [2, 1, 0]]},
        "object": {"values": ["ball", "box"], "holds": [[0, 1], [0, 0]]},
    }
    assert confusion.cause_figures(counts.causes[RED_BALL], relations)["total"] == 4


def test_counts_add_up_whatever_the_parts() -> None:
    relations = GoalRelations(GOALS)
    rng = np.random.default_rng(1)
    true = Pairs(np.sort(rng.integers(0, 300, 200)), rng.integers(0, 5, 200))
    false = Pairs(np.sort(rng.integers(0, 300, 100)), rng.integers(0, 5, 100))
    causes = relations.causes_of(false, true)
    whole = confusion.count_false_positives(false, true, causes, relations)

    def part(first: int, stop: int) -> confusion.FalsePositiveCounts:
        some, held = ((first <= pairs.frames) & (pairs.frames < stop) for pairs in (false, true))
        return confusion.count_false_positives(
            Pairs(false.frames[some], false.goals[some]),
            Pairs(true.frames[held], true.goals[held]),
            causes[some],
            relations,
        )

    merged = part(200, 300) + (part(0, 90) + part(90, 200))
    np.testing.assert_array_equal(merged.causes, whole.causes)
    np.testing.assert_array_equal(merged.goals.toarray(), whole.goals.toarray())
    np.testing.assert_array_equal(merged.families.toarray(), whole.families.toarray())


def test_tables_too_large_to_draw_say_so() -> None:
    goals = [Goal(f"g{n}", f"text {n}", f"family {n}", attributes={"number": str(n)}) for n in range(25)]
    relations = GoalRelations(goals)
    nothing = _pairs()
    counts = confusion.count_false_positives(nothing, nothing, relations.causes_of(nothing, nothing), relations)
    tables = confusion.confusion_tables(counts, relations)
    assert tables["families"] == "undefined: 25 families are more than the 24 of a table"
    assert tables["attributes"] == {"number": "undefined: 25 values are more than the 24 of a table"}


@pytest.mark.parametrize("num_goals", [10_000])
def test_thousands_of_goals_take_memory_by_what_occurs(num_goals: int) -> None:
    # 100 colours, 100 objects; 2,000 frames with 20 goals each that hold, and 20 that fire falsely.
    goals = [_goal("see", f"colour{n % 100}", f"thing{n // 100}") for n in range(num_goals)]
    rng = np.random.default_rng(2)
    frames = np.repeat(np.arange(2000), 20)
    true = Pairs(frames, rng.integers(0, num_goals // 2, len(frames)))
    false = Pairs(frames, rng.integers(num_goals // 2, num_goals, len(frames)))
    relations = GoalRelations(goals)
    tracemalloc.start()
    counts = confusion.count_false_positives(false, true, relations.causes_of(false, true), relations)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert counts.causes.sum() == len(frames)
    assert counts.goals.nnz <= 2000 * 20 * 20
    assert peak < 100e6  # a dense matrix of goals by goals takes 800 MB
