"""Joins goals of a corpus's instructions that the model reads as one text.

    "pick up the cup"    ids 4 7 1 9  ──►  Goal("pick-up-the-cup", instructions=("pick up the cup", "Pick up the cup!"))
    "Pick up the cup!"   ids 4 7 1 9  ──┘  (a tokenizer that drops punctuation)

In one softmax, neither of two goals with one vector could get more than half, so they are refused where people wrote them
(`labelers.encoders.readings`). Nobody chose the wordings that a corpus holds, and as far as the model can tell they ask for
the same thing. So there they become one goal, which every one of the instructions asks for.
"""

import dataclasses
from collections.abc import Collection, Sequence

from vlm_rewards.labelers.encoders.encoder import Encoder
from vlm_rewards.labelers.scoring.prompts import fill_templates
from vlm_rewards.schemas.goals import Goal


def join_alike(
    goals: Sequence[Goal], joinable: Collection[str], templates: Sequence[str], encoder: Encoder
) -> tuple[Goal, ...]:
    """Joins goals that the encoder reads as another goal to that one, which takes over their instructions.

    Args:
        goals: Goals, in order.
        joinable: Ids of goals that may be joined to another; the others stay as they are and may be refused later.
        templates: Prompts with `{goal}` in them.
        encoder: Model whose tokenizer reads them.

    Returns:
        The goals that remain, in order: of several that are one text, one that is not joinable, else the first.
    """
    prompts = {goal.id: list(goal.prompts) or fill_templates(templates, goal.text) for goal in goals if not goal.images}
    readings = iter(encoder.read_texts([prompt for several in prompts.values() for prompt in several]))
    keys = {goal_id: tuple(sorted(next(readings).ids for _ in several)) for goal_id, several in prompts.items()}
    head: dict[tuple, str] = {}
    for is_joinable in (False, True):
        for goal in goals:
            if (goal.id in joinable) == is_joinable and goal.id in keys:
                head.setdefault(keys[goal.id], goal.id)
    members: dict[str, list[Goal]] = {}
    for goal in goals:
        joins = goal.id in joinable and goal.id in keys
        members.setdefault(head[keys[goal.id]] if joins else goal.id, []).append(goal)
    return tuple(_joined(goal, members[goal.id]) for goal in goals if goal.id in members)


def _joined(goal: Goal, members: Sequence[Goal]) -> Goal:
    if len(members) == 1:
        return goal
    wordings = dict.fromkeys(goal.instructions)
    wordings |= dict.fromkeys(wording for member in members for wording in member.instructions)
    return dataclasses.replace(goal, instructions=tuple(wordings))
