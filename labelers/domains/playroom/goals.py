"""The environments and the goals of the playroom: find, lift and place toys of 12 kinds in 8 colours.

    Find     96   the agent stands before the toy: it is at most 1.2 m away, and in view
    Lift     96   the agent holds the toy
    Place 9,120   the two toys stand at most 0.8 m apart, and both are in view (every ordered pair)

Numpy only: Panda3D is not needed to read labels.
"""

import functools
from typing import NamedTuple

from vlm_rewards.schemas.goals import Goal

CAMERA = "eyes"


class Kind(NamedTuple):
    """What makes an environment.

    Attributes:
        family: "find", "lift" or "place".
        near: Whether its rooms are small, with few toys, and what is asked for is in view at the start.
        max_steps: Time limit in steps.
    """

    family: str
    near: bool
    max_steps: int


ENVIRONMENTS = {
    "vlm-rewards/Playroom-Find-v0": Kind("find", False, 150),
    "vlm-rewards/Playroom-Lift-v0": Kind("lift", False, 150),
    "vlm-rewards/Playroom-Place-v0": Kind("place", False, 250),
    "vlm-rewards/Playroom-FindNear-v0": Kind("find", True, 60),
    "vlm-rewards/Playroom-LiftNear-v0": Kind("lift", True, 60),
    "vlm-rewards/Playroom-PlaceNear-v0": Kind("place", True, 60),
}
"""What makes each environment, by its name."""

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
"""Colours of toys."""

OBJECTS = (
    "ball",
    "mug",
    "lamp",
    "plane",
    "boat",
    "helicopter",
    "roll",
    "car",
    "duck",
    "teddy",
    "chair",
    "rocket",
)
"""Kinds of toys."""

TOYS = tuple(f"{colour} {thing}" for colour in COLOURS for thing in OBJECTS)
"""The 96 toys, colour-major: toy = 12 * colour + kind."""

NUM_TOYS = len(TOYS)
FAMILIES = ("find", "lift", "place")

NEUTRAL = "a room"
"""Neutral text, true of every frame: beside it alone, a goal's softmax says whether the goal holds, whatever other goals hold."""

HELD_OUT = ("green ball", "blue mug", "pink teddy", "red car")
"""Toys to hold out of training. Their colours and their kinds occur in the goals that are left."""

PLACE_STEPS = (7, 17, 29, 31, 43)
"""Differences of the numbers of two toys whose pair is in the default bank, in both orders and round the end of the list."""


def find_id(toy: int) -> str:
    """Returns the id of the goal to find a toy."""
    return f"find-{_slug(TOYS[toy])}"


def lift_id(toy: int) -> str:
    """Returns the id of the goal to lift a toy."""
    return f"lift-{_slug(TOYS[toy])}"


def place_id(toy: int, other: int) -> str:
    """Returns the id of the goal to put a toy next to another."""
    return f"place-{_slug(TOYS[toy])}-next-to-{_slug(TOYS[other])}"


def is_default_pair(toy: int, other: int) -> bool:
    """Returns whether the default bank has the goal to put a toy next to another."""
    step = (other - toy) % NUM_TOYS
    return step in PLACE_STEPS or NUM_TOYS - step in PLACE_STEPS


@functools.cache
def goal_bank(bank: str) -> tuple[Goal, ...]:
    """Lists the goals of a bank.

    The text describes the state in which the goal is achieved, the instructions ask for it in the paper's words. The two orders of
    a Place pair mean the same state and share a group.

    Args:
        bank: "all" for the 9,312 goals, "find", "lift" or "place" for a family (960 pairs for Place), or "default" for these three.
    """
    if bank == "find":
        return tuple(_find(toy) for toy in range(NUM_TOYS))
    if bank == "lift":
        return tuple(_lift(toy) for toy in range(NUM_TOYS))
    if bank == "place":
        return tuple(_place(toy, other) for toy, other in _pairs() if is_default_pair(toy, other))
    if bank == "default":
        return (*goal_bank("find"), *goal_bank("lift"), *goal_bank("place"))
    assert bank == "all", bank
    known = {goal.id: goal for goal in goal_bank("place")}
    pairs = (known.get(place_id(toy, other)) or _place(toy, other) for toy, other in _pairs())
    return (*goal_bank("find"), *goal_bank("lift"), *pairs)


BANKS = ("default", "all", *FAMILIES)
"""Names of the banks; the first is the default."""


def goal_of(goal_id: str) -> Goal:
    """Returns a goal by its id."""
    return _by_id()[goal_id]


def goal_kinds(goal: Goal) -> frozenset[str]:
    """Returns what a goal may be held out by: its toys ("red ball"), their kinds ("ball") and the pair ("blue mug + red ball").

    None for goals of other worlds.
    """
    if _by_id().get(goal.id) != goal:
        return frozenset()
    told = goal.attributes
    things = [told["object"], *([told["other object"]] if "other object" in told else [])]
    toys = [f"{told['colour']} {told['object']}"]
    if len(things) > 1:
        toys.append(f"{told['other colour']} {told['other object']}")
        return frozenset((*things, *toys, " + ".join(sorted(toys))))
    return frozenset((*things, *toys))


@functools.cache
def _by_id() -> dict[str, Goal]:
    return {goal.id: goal for goal in goal_bank("all")}


def _pairs() -> list[tuple[int, int]]:
    return [(toy, other) for toy in range(NUM_TOYS) for other in range(NUM_TOYS) if toy != other]


def _find(toy: int) -> Goal:
    return Goal(
        id=find_id(toy),
        text=f"{_article(toy)} {TOYS[toy]} close to the camera",
        family="find",
        instructions=tuple(
            form.format(the=the, toy=TOYS[toy])
            for form in ("go near {the} {toy}", "find {the} {toy}", "go to {the} {toy}")
            for the in ("the", _article(toy))
        ),
        negatives=(NEUTRAL,),
        attributes=_attributes(toy),
    )


def _lift(toy: int) -> Goal:
    return Goal(
        id=lift_id(toy),
        text=f"{_article(toy)} {TOYS[toy]} held up in the air",
        family="lift",
        instructions=tuple(
            form.format(the=the, toy=TOYS[toy])
            for form in ("lift {the} {toy}", "pick up {the} {toy}")
            for the in ("the", _article(toy))
        ),
        negatives=(NEUTRAL,),
        attributes=_attributes(toy),
    )


def _place(toy: int, other: int) -> Goal:
    return Goal(
        id=place_id(toy, other),
        text=f"{_article(toy)} {TOYS[toy]} next to {_article(other)} {TOYS[other]}",
        family="place",
        group=f"together-{_slug(TOYS[min(toy, other)])}-{_slug(TOYS[max(toy, other)])}",
        instructions=(
            f"put the {TOYS[toy]} next to the {TOYS[other]}",
            f"put {_article(toy)} {TOYS[toy]} next to {_article(other)} {TOYS[other]}",
        ),
        negatives=(NEUTRAL,),
        attributes=_attributes(toy) | _attributes(other, "other "),
    )


def _article(toy: int) -> str:
    return "an" if TOYS[toy].startswith("o") else "a"


def _attributes(toy: int, prefix: str = "") -> dict[str, str]:
    colour, thing = TOYS[toy].split()
    return {f"{prefix}colour": colour, f"{prefix}object": thing}


def _slug(text: str) -> str:
    return text.replace(" ", "-")
