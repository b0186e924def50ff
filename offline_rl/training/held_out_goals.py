"""Goals that an agent is never trained on, so that its success at goals new to it can be measured."""

from collections.abc import Sequence
from typing import NamedTuple

from vlm_rewards.labelers.domains.domain import domains
from vlm_rewards.schemas.goals import Goal

_KINDS_SHOWN = 3


class GoalSplit(NamedTuple):
    """Goals to train on and goals never trained on, each in the order given.

    Attributes:
        trained: Goals.
        held_out: Goals.
    """

    trained: tuple[Goal, ...]
    held_out: tuple[Goal, ...]


def split_goals(goals: Sequence[Goal], held_out: Sequence[str]) -> GoalSplit:
    """Holds out goals, so that an agent's success at goals that it never trained on can be measured.

    Args:
        goals: All goals, such as those of the labels.
        held_out: Ids of goals, or kinds by which a domain names goals (`Domain.kinds`), such as the object "green box": every
            goal of that kind is held out.

    Raises:
        ValueError: A name is no goal's id or kind, or nothing is left on one of the two sides.
    """
    kinds = [frozenset[str]().union(*(domain.kinds(goal) for domain in domains().values())) for goal in goals]
    marks = [{goal.id, *of} for goal, of in zip(goals, kinds, strict=True)]
    for name in held_out:
        if not any(name in mark for mark in marks):
            named = sorted(frozenset().union(*kinds))
            advice = f"a kind such as {', '.join(named[:_KINDS_SHOWN])}, or " if named else ""
            raise ValueError(
                f"a held-out goal must be an id or a kind of the {len(goals)} goals: got {name!r}. Give {advice}an id such as "
                f"{goals[0].id}"
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
