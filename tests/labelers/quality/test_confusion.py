import itertools
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
    assert next(confusion.confused_goals(counts, relations)) == [{"goal": "a-by-c", "frames": 2, "share": 2 / 3}]


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
    assert list(confusion.confused_goals(counts, relations))[RED_BALL] == [
        {"goal": "see-blue-ball", "frames": 2, "share": 2 / 4},
        {"goal": "see-red-box", "frames": 1, "share": 1 / 4},  # equal counts go by the order of the goals
        {"goal": "hold-red-ball", "frames": 1, "share": 1 / 4},
    ]
    assert list(confusion.confused_goals(counts, relations))[GREEN_BOX] == []
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


def _slow_attribute_table(goals: tuple[Goal, ...], false: Pairs, true: Pairs, kind: str) -> list[list[int]]:
    """The definition, pair by pair."""
    values = sorted({value for goal in goals for name, value in goal.attributes.items() if name.endswith(kind)})
    table = np.zeros((len(values), len(values)), int)
    held: dict[int, set[str]] = {}
    for frame, goal in zip(true.frames.tolist(), true.goals.tolist(), strict=True):
        held.setdefault(frame, set()).add(goals[goal].group or goals[goal].id)
    for frame, index in zip(false.frames.tolist(), false.goals.tolist(), strict=True):
        goal = goals[index]
        for other in goals:
            if (other.group or other.id) not in held.get(frame, set()) - {goal.group or goal.id}:
                continue
            if other.family == goal.family and other.attributes.keys() == goal.attributes.keys():
                (*differing,) = (name for name in goal.attributes if other.attributes[name] != goal.attributes[name])
                if len(differing) == 1 and confusion.attribute_kind(differing[0]) == kind:
                    table[
                        values.index(goal.attributes[differing[0]]), values.index(other.attributes[differing[0]])
                    ] += 1
    return table.tolist()


def test_attribute_tables_equal_their_definition_also_with_groups() -> None:
    colours, things = ("red", "blue", "grey"), ("ball", "box")
    goals = tuple(
        Goal(
            f"g{number}",
            f"text {number}",
            "put",
            # "a ball beside a red box" and the like are in groups of two that differ in one colour, or in both things.
            group=f"pair {number // 2}" if number % 3 else None,
            attributes={"colour": one, "object": thing, "other colour": other, "other object": "box"},
        )
        for number, (one, thing, other) in enumerate(itertools.product(colours, things, colours))
    )
    rng = np.random.default_rng(3)
    true = Pairs(rng.integers(0, 100, 150), rng.integers(0, len(goals), 150))
    false = Pairs(rng.integers(0, 100, 300), rng.integers(0, len(goals), 300))
    relations = GoalRelations(goals)
    counts = confusion.count_false_positives(false, true, relations.causes_of(false, true), relations)
    for kind in ("colour", "object"):
        table = _slow_attribute_table(goals, false, true, kind)
        assert counts.attributes[kind].tolist() == table
        assert np.array(table).sum() > 0


def _drawn_counts(parts: int, **limits: int) -> tuple[confusion.FalsePositiveCounts, GoalRelations]:
    """Counts of 200 frames, in each of which some goals hold and others fire falsely, counted in parts and merged."""
    relations = GoalRelations(GOALS)
    rng = np.random.default_rng(4)
    holds = rng.random((200, 5)) < 0.4
    fires = (rng.random((200, 5)) < 0.6) & ~holds
    fires[:, 4] |= ~fires.any(axis=1)
    holds[:, 4] &= ~fires[:, 4]
    false, true = Pairs(*np.nonzero(fires)), Pairs(*np.nonzero(holds))
    causes = relations.causes_of(false, true)
    part_of = rng.integers(0, parts, 200)
    counted = []
    for part in range(parts):
        fires, holds = part_of[false.frames] == part, part_of[true.frames] == part
        some, held = Pairs(false.frames[fires], false.goals[fires]), Pairs(true.frames[holds], true.goals[holds])
        keys = np.arange(200, dtype=np.uint64)
        counted.append(confusion.count_false_positives(some, held, causes[fires], relations, keys, **limits))
    total = counted[0]
    for part in counted[1:]:
        total = part + total
    return total, relations


def test_a_sample_of_all_frames_gives_the_goals_of_the_matrix() -> None:
    by_matrix, relations = _drawn_counts(1)
    by_sample, _ = _drawn_counts(1, max_pairs=3)
    assert by_matrix.goals is not None
    assert by_matrix.sample is None  # 25 pairs of 5 goals are never too many
    assert by_sample.goals is None
    assert list(confusion.confused_goals(by_sample, relations)) == list(confusion.confused_goals(by_matrix, relations))
    assert confusion.confusion_tables(by_sample, relations) == confusion.confusion_tables(by_matrix, relations)


def test_parts_keep_the_matrix_if_and_only_if_the_whole_does() -> None:
    num_pairs = _drawn_counts(1)[0].goals.nnz
    for max_pairs in (num_pairs - 1, num_pairs):
        whole, relations = _drawn_counts(1, max_pairs=max_pairs)
        parts, _ = _drawn_counts(7, max_pairs=max_pairs)
        assert (whole.goals is None) == (parts.goals is None) == (max_pairs < num_pairs)
        assert list(confusion.confused_goals(parts, relations)) == list(confusion.confused_goals(whole, relations))


def test_pairs_of_a_part_of_the_frames_say_of_how_many() -> None:
    whole, relations = _drawn_counts(1, max_pairs=3, max_sample_bytes=100)  # 2 bytes per frame of 5 goals
    parts, _ = _drawn_counts(7, max_pairs=3, max_sample_bytes=100)
    tables = confusion.confusion_tables(whole, relations)
    assert tables["sampled_frames"] == {"frames": 50, "of": 200}
    assert tables == confusion.confusion_tables(parts, relations)
    rows = list(confusion.confused_goals(whole, relations))
    assert rows == list(confusion.confused_goals(parts, relations))
    # Frames are those of the sample, and shares are of its false positives.
    assert all(0 < entry["frames"] <= 50 and 0 < entry["share"] <= 1 for row in rows for entry in row)
    assert "sampled_frames" not in confusion.confusion_tables(*_drawn_counts(1))


def test_tables_too_large_to_draw_say_so() -> None:
    goals = [Goal(f"g{n}", f"text {n}", f"family {n}", attributes={"number": str(n)}) for n in range(25)]
    relations = GoalRelations(goals)
    nothing = _pairs()
    counts = confusion.count_false_positives(nothing, nothing, relations.causes_of(nothing, nothing), relations)
    tables = confusion.confusion_tables(counts, relations)
    # Each family may be a goal of its own, so pairs of families are not counted then.
    false, true = _pairs((0, 1)), _pairs((0, 2))
    assert confusion.count_false_positives(false, true, np.zeros(1, int), relations).families.nnz == 0
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
