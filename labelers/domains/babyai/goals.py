"""The goals of BabyAI and their ground truth, read from the agent's symbolic view.

Three families over the 18 object kinds (six colours x key, ball, box):

    Find   18   the object is in the cell in front of the agent
    Lift   18   the agent carries the object
    Place 306   the two objects stand on the grid at Manhattan distance 1, both visible (every ordered pair of kinds)

The label judges what the frame shows: an object the agent cannot see does not count, and a carried object, which MiniGrid
draws in the agent's own cell, does not stand on the grid.

Numpy only: neither MiniGrid nor torch is needed to read labels.
"""

import functools

import numpy as np

from vlm_rewards.schemas.goals import Goal

COLOURS = ("red", "green", "blue", "purple", "yellow", "grey")
"""Colour names in MiniGrid's index order (0..5)."""

TYPES = ("key", "ball", "box")
"""Object types that can be carried, in MiniGrid's index order (5, 6, 7)."""

KINDS = tuple(f"{colour} {kind}" for colour in COLOURS for kind in TYPES)
"""The 18 object kinds, colour-major: kind = 3 * colour + (type - 5)."""

NUM_KINDS = len(KINDS)
NUM_GOALS = 2 * NUM_KINDS + NUM_KINDS * (NUM_KINDS - 1)
VIEW_SIZE = 7
AGENT_CELL = (3, 6)
"""The agent's cell (x, y) in its own view; it looks towards -y."""

FRONT_CELL = (3, 5)
"""The cell (x, y) that the agent faces."""

_FIRST_TYPE = 5  # MiniGrid: key 5, ball 6, box 7


NEUTRAL = "an agent in a room"
"""Neutral text, true of every frame: beside it alone, a goal's softmax says whether the goal holds, whatever other goals hold."""

HELD_OUT_KINDS = ("green box", "purple key", "yellow ball")
"""Objects to hold out of training. Their colours and their types occur in the goals that are left, the pairs do not."""


def goal_bank() -> list[Goal]:
    """Lists the 342 goals in the column order of `ground_truth`: 18 Find, 18 Lift, 306 Place.

    The text describes the state in which the goal is achieved, which a contrastive model matches better than an
    instruction. The two orders of a Place pair mean the same state and share a group, so that neither is ever a negative
    of the other. The instructions are the missions of BabyAI that ask for the goal.

    Returns:
        Goals with ids such as `find-red-ball`, `lift-red-ball` and `place-red-ball-next-to-blue-box`.
    """
    find = [
        Goal(
            id=f"find-{_slug(kind)}",
            text=f"the agent is in front of a {kind}",
            family="find",
            instructions=(f"go to a {kind}", f"go to the {kind}"),
            negatives=(NEUTRAL,),
            attributes=_attributes(kind),
        )
        for kind in KINDS
    ]
    lift = [
        Goal(
            id=f"lift-{_slug(kind)}",
            text=f"the agent carries a {kind}",
            family="lift",
            instructions=(f"pick up a {kind}", f"pick up the {kind}"),
            negatives=(NEUTRAL,),
            attributes=_attributes(kind),
        )
        for kind in KINDS
    ]
    place = [
        Goal(
            id=f"place-{_slug(KINDS[a])}-next-to-{_slug(KINDS[b])}",
            text=f"a {KINDS[a]} is next to a {KINDS[b]}",
            family="place",
            group=f"adjacent-{_slug(KINDS[min(a, b)])}-{_slug(KINDS[max(a, b)])}",
            instructions=tuple(
                f"put {one} {KINDS[a]} next to {other} {KINDS[b]}" for one in ("a", "the") for other in ("a", "the")
            ),
            negatives=(NEUTRAL,),
            attributes=_attributes(KINDS[a]) | _attributes(KINDS[b], "other "),
        )
        for a, b in place_pairs()
    ]
    return find + lift + place


@functools.cache
def place_pairs() -> np.ndarray:
    """Lists the ordered pairs of distinct kinds, in the order of the Place goals.

    Returns:
        `[306, 2]` int64 kind indices, first kind major; read-only.
    """
    pairs = np.array([(a, b) for a in range(NUM_KINDS) for b in range(NUM_KINDS) if a != b])
    pairs.setflags(write=False)
    return pairs


def ground_truth(view: np.ndarray, carrying: np.ndarray | None = None) -> np.ndarray:
    """Returns which of the 342 goals hold, for any number of views at once.

        view[x, y], the agent at (3, 6) looking up      Find   what stands at (3, 5)
            . . . . . . .                               Lift   what the agent carries
            . . . A B . .   y = 4                       Place  A-B: yes, A-C: no (distance 2)
            . . C . . . .
            . . . ^ . . .   y = 6

    Args:
        view: `[..., 7 (x), 7 (y), 3]` integers, MiniGrid's encoding (type, colour, state) of what the agent sees, unseen
            cells 0: the `image` of MiniGrid's observation, `grid.encode(vis_mask)` of `gen_obs_grid()`.
        carrying: `[..., 2]` integers, MiniGrid's (type, colour) of the carried object, type 0 for none. None reads it
            from the agent's cell of the view, where `gen_obs_grid` puts it.

    Returns:
        `[..., 342]` bool in the order of `goal_bank`.

    Raises:
        ValueError: the view or the carried object has another shape.
    """
    view = np.asarray(view)
    if view.shape[-3:] != (VIEW_SIZE, VIEW_SIZE, 3):
        raise ValueError(
            f"view must have shape [..., 7, 7, 3] (MiniGrid's encoding of the agent's view), got {list(view.shape)}; "
            "pass the 'image' of an environment whose agent_view_size is 7"
        )
    leading = view.shape[:-3]
    kinds = kind_indices(view[..., 0], view[..., 1]).reshape(-1, VIEW_SIZE, VIEW_SIZE)
    if carrying is None:
        carried = kinds[:, AGENT_CELL[0], AGENT_CELL[1]]
    else:
        carrying = np.asarray(carrying)
        if carrying.shape != (*leading, 2):
            raise ValueError(
                f"carrying must have shape {[*leading, 2]} to go with the view, got {list(carrying.shape)}; "
                "pass one (type, colour) per view, (0, 0) where nothing is carried"
            )
        carried = kind_indices(carrying[..., 0], carrying[..., 1]).reshape(-1)

    standing = kinds.copy()
    standing[:, AGENT_CELL[0], AGENT_CELL[1]] = -1
    find = _one_hot(standing[:, FRONT_CELL[0], FRONT_CELL[1]])
    lift = _one_hot(carried)

    # One row more for "no object", cut off after the scatter.
    adjacent = np.zeros((len(kinds), NUM_KINDS + 1, NUM_KINDS + 1), dtype=bool)
    rows = np.arange(len(kinds))[:, None, None]
    for first, second in ((standing[:, :-1], standing[:, 1:]), (standing[:, :, :-1], standing[:, :, 1:])):
        adjacent[rows, first, second] = True
        adjacent[rows, second, first] = True
    pairs = place_pairs()
    place = adjacent[:, pairs[:, 0], pairs[:, 1]]
    return np.concatenate([find, lift, place], axis=1).reshape(*leading, NUM_GOALS)


def kind_indices(types: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Maps MiniGrid's types and colours to object kinds.

    Args:
        types: integers of any shape, MiniGrid's object type.
        colours: integers of the same shape, MiniGrid's colour, 0..5.

    Returns:
        int64 of the same shape: 3 * colour + (type - 5), or -1 where there is no key, ball or box.
    """
    types = np.asarray(types).astype(np.int64)
    is_object = (types >= _FIRST_TYPE) & (types < _FIRST_TYPE + len(TYPES))
    return np.where(is_object, len(TYPES) * np.asarray(colours).astype(np.int64) + types - _FIRST_TYPE, -1)


def object_kinds(goal: Goal) -> frozenset[str]:
    """Returns the objects that a goal is about, as colour and type, by its attributes; none where it has no such attributes."""
    pairs = (("colour", "object"), ("other colour", "other object"))
    return frozenset(
        f"{goal.attributes[colour]} {goal.attributes[thing]}"
        for colour, thing in pairs
        if colour in goal.attributes and thing in goal.attributes
    )


def _one_hot(kinds: np.ndarray) -> np.ndarray:
    return kinds[:, None] == np.arange(NUM_KINDS)


def _attributes(kind: str, prefix: str = "") -> dict[str, str]:
    colour, type_name = kind.split()
    return {f"{prefix}colour": colour, f"{prefix}object": type_name}


def _slug(text: str) -> str:
    return text.replace(" ", "-")
