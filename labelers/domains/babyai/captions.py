"""Captions of states in many wordings, on which BabyAI's reference models are trained.

A state is something that a frame shows: one of the 36 Find and Lift goals, one of the 153 unordered Place pairs, or "nothing" for
each family, which is true exactly when no goal of that family holds. Neutral captions say nothing at all: as a goal's only negative
they give the softmax an absolute meaning.
"""

from itertools import combinations

import numpy as np

from vlm_rewards.labelers.domains.babyai.goals import KINDS, NUM_KINDS, place_pairs

NOTHING = {
    "find": ("the agent is in front of nothing", "the agent faces nothing", "nothing is in front of the agent"),
    "lift": ("the agent carries nothing", "the agent is holding nothing", "the agent has nothing"),
    "place": ("no two objects are next to each other", "nothing is next to anything", "no objects are side by side"),
}
"""Captions that are true when no goal of the family holds. The first is the one to use as a negative."""

NEUTRAL = (
    "an agent in a room",
    "an agent in a room",
    "the agent in a room",
    "an agent",
    "the agent",
    "a room",
    "a scene",
    "a picture of a room",
    "an image of an agent in a room",
    "a photo of an agent in a room",
    "an agent in a gridworld",
)
"""Captions that say nothing. Their cosine is trained to lie between those of true and of false captions in every frame, so
the softmax over a goal and the first of them alone is the probability that the goal holds, whatever else does."""

FIND_TEMPLATES = (
    "the agent is in front of {the} {kind}",
    "the agent is in front of {the} {kind}",
    "an agent in front of {the} {kind}",
    "{the} {kind} is in front of the agent",
    "the agent faces {the} {kind}",
    "the agent is facing {the} {kind}",
    "an agent facing {the} {kind}",
    "facing {the} {kind}",
    "the agent is at {the} {kind}",
    "the agent is looking at {the} {kind}",
    "the agent stands in front of {the} {kind}",
    "standing in front of {the} {kind}",
    "a picture of an agent in front of {the} {kind}",
    "an image of the agent facing {the} {kind}",
    "a photo of {the} {kind} in front of the agent",
    "a photo of the agent in front of {the} {kind}",
    "a frame where the agent is in front of {the} {kind}",
    "go to {the} {kind}",
    "find {the} {kind}",
)
LIFT_TEMPLATES = (
    "the agent carries {the} {kind}",
    "the agent carries {the} {kind}",
    "an agent carrying {the} {kind}",
    "the agent is carrying {the} {kind}",
    "{the} {kind} is carried by the agent",
    "the agent holds {the} {kind}",
    "the agent is holding {the} {kind}",
    "an agent holding {the} {kind}",
    "holding {the} {kind}",
    "carrying {the} {kind}",
    "the agent has {the} {kind}",
    "the agent has picked up {the} {kind}",
    "a picture of an agent carrying {the} {kind}",
    "an image of the agent holding {the} {kind}",
    "a photo of the agent carrying {the} {kind}",
    "a photo of {the} {kind} carried by the agent",
    "a frame where the agent carries {the} {kind}",
    "pick up {the} {kind}",
    "lift {the} {kind}",
    "get {the} {kind}",
    "fetch {the} {kind}",
)
PLACE_TEMPLATES = (
    "{the} {kind} is next to {other} {second}",
    "{the} {kind} is next to {other} {second}",
    "{the} {kind} next to {other} {second}",
    "{the} {kind} beside {other} {second}",
    "{the} {kind} is beside {other} {second}",
    "{the} {kind} and {other} {second} are next to each other",
    "{the} {kind} and {other} {second} are side by side",
    "{the} {kind} and {other} {second} side by side",
    "{the} {kind} is near {other} {second}",
    "there is {the} {kind} next to {other} {second}",
    "a picture of {the} {kind} next to {other} {second}",
    "an image of {the} {kind} next to {other} {second}",
    "a photo of {the} {kind} next to {other} {second}",
    "a frame where {the} {kind} is next to {other} {second}",
    "put {the} {kind} next to {other} {second}",
    "place {the} {kind} next to {other} {second}",
    "put {the} {kind} beside {other} {second}",
    "the agent put {the} {kind} next to {other} {second}",
)

_DECORATED = ("{}", "{}", "{}", "a picture of a scene where {}", "a photo where {}")
MORE_WORDS = (
    "achieved accomplished adjacent and any arms at ball box brings by complete completed dropped drop each empty environment "
    "goal goals grid hands her his holds in inside is it its left lifted lifting lifts near nearby not observation of off on one "
    "open closed locked other picks puts reached reaches right robot room success successfully something stands task "
    "their then there this toggle touching two up view visible wall walls door doors with world you your floor gridworld"
)
"""Words that no caption holds, so that the tokenizer can tell them from unknown ones."""


def state_names() -> list[str]:
    """Lists the names of the states in column order: 18 Find, 18 Lift, 153 unordered Place pairs, then nothing of each family."""
    pairs = [f"place {KINDS[a]} + {KINDS[b]}" for a, b in combinations(range(NUM_KINDS), 2)]
    return [f"find {kind}" for kind in KINDS] + [f"lift {kind}" for kind in KINDS] + pairs + list(NOTHING)


def state_truth(goals: np.ndarray) -> np.ndarray:
    """Converts the truth of the 342 goals into the truth of the states.

    Args:
        goals: `[N, 342]` bool from `labelers.domains.babyai.goals.ground_truth`.

    Returns:
        `[N, 192]` bool in the order of `state_names`.
    """
    find, lift, place = goals[:, :NUM_KINDS], goals[:, NUM_KINDS : 2 * NUM_KINDS], goals[:, 2 * NUM_KINDS :]
    ordered = place_pairs()
    pairs = place[:, ordered[:, 0] < ordered[:, 1]]
    nothing = ~np.stack([find.any(axis=1), lift.any(axis=1), pairs.any(axis=1)], axis=1)
    return np.concatenate([find, lift, pairs, nothing], axis=1)


def state_captions() -> list[list[str]]:
    """Writes every wording of every state.

    Returns:
        One list of captions per state, in the order of `state_names`, those of a Place pair in both orders; at the end the
        neutral captions. A caption that occurs twice is drawn twice as often.
    """
    articles = ("a", "the")
    find = [[t.format(the=the, kind=kind) for t in FIND_TEMPLATES for the in articles] for kind in KINDS]
    lift = [[t.format(the=the, kind=kind) for t in LIFT_TEMPLATES for the in articles] for kind in KINDS]
    place = [
        [
            template.format(the=the, kind=KINDS[one], other=other, second=KINDS[two])
            for template in PLACE_TEMPLATES
            for one, two in ((a, b), (b, a))
            for the in articles
            for other in articles
        ]
        for a, b in combinations(range(NUM_KINDS), 2)
    ]
    nothing = [[form.format(text) for form in _DECORATED for text in texts] for texts in NOTHING.values()]
    return [*find, *lift, *place, *nothing, list(NEUTRAL)]
