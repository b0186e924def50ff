"""Goals that an agent is never trained on, so that what it makes of a new one can be measured."""

from collections.abc import Sequence
from typing import NamedTuple

from vlm_rewards.schemas.goals import Goal

HELD_OUT_KINDS = ("green box", "purple key", "yellow ball")
"""Objects that no goal of a trained agent is about. Their colours and their types occur in trained goals, the pairs do not."""


class GoalSplit(NamedTuple):
    """Goals to train on and goals never trained on, each in the order given.

    Attributes:
        trained: Goals.
        held_out: Goals.
    """

    trained: tuple[Goal, ...]
    held_out: tuple[Goal, ...]


def split_goals(goals: Sequence[Goal], held_out: Sequence[str] = HELD_OUT_KINDS) -> GoalSplit:
    """Holds out goals, so that what an agent makes of a goal it never trained on can be measured.

    Args:
        goals: All goals, such as those of the labels.
        held_out: Ids of goals, or kinds of objects by their attributes "colour" and "object", such as "green box": every goal
            that is about such an object, as the first or the other one, is held out.

    Raises:
        ValueError: Something to hold out is no goal's, or nothing is left on one of the two sides.
    """
    marks = [{goal.id, *_kinds(goal)} for goal in goals]
    for name in held_out:
        if not any(name in mark for mark in marks):
            raise ValueError(
                f"a held-out goal must be an id or a kind of object of the {len(goals)} goals, got {name!r}; give one such as "
                f"{goals[0].id!r}, or leave it out"
            )
    apart = [not mark.isdisjoint(held_out) for mark in marks]
    split = GoalSplit(
        tuple(goal for goal, held in zip(goals, apart, strict=True) if not held),
        tuple(goal for goal, held in zip(goals, apart, strict=True) if held),
    )
    if not (split.trained and split.held_out):
        raise ValueError(
            f"there must be goals on both sides, got {len(split.trained)} to train on and {len(split.held_out)} held out; hold out "
            f"{'some' if split.trained else 'fewer'}"
        )
    return split


def _kinds(goal: Goal) -> set[str]:
    pairs = (("colour", "object"), ("other colour", "other object"))
    return {
        f"{goal.attributes[colour]} {goal.attributes[thing]}"
        for colour, thing in pairs
        if colour in goal.attributes and thing in goal.attributes
    }
