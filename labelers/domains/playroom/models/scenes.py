"""Parts of the stock of views on which the playroom's reference models are trained, with the states that they show.

Rooms are drawn from TRAIN_SEEDS, and for figures from VALIDATION_SEEDS; both belong to the seeds of models.
"""

from collections.abc import Mapping

import numpy as np

from vlm_rewards.labelers.domains.playroom.drawing.renderer import ID_SIDE
from vlm_rewards.labelers.domains.playroom.models.captions import (
    FIND,
    LEFT,
    LIFT,
    NOTHING_TO,
    PAIR_STATE,
    RIGHT,
    VIEW,
)
from vlm_rewards.labelers.domains.playroom.views import View, Views
from vlm_rewards.labelers.reference_models.stock import ROWS, Field

TRAIN_SEEDS = range(1_900_000)
VALIDATION_SEEDS = range(1_900_000, 2_000_000)

FRAME_SIZE = (96, 96)
MAX_TRUE = 48
"""True states of a frame at most."""

MAX_TOYS = 10
"""Toys in a frame at most."""

MAX_PAIRS = 12
"""Pairs next to each other in a frame at most."""

TOLD = 60
"""Pixels of the picture of ids, 64 x 64, from which on captions tell that a toy is in view."""

FIELDS: Mapping[str, Field] = {
    "frames": Field((*FRAME_SIZE, 3), "uint8"),
    "ids": Field((ID_SIDE, ID_SIDE), "uint8"),
    "states": Field((MAX_TRUE,), "int16"),
    "toys": Field((MAX_TOYS,), "int16"),
    "near": Field((MAX_TOYS,), "bool"),
    "held": Field((MAX_TOYS,), "bool"),
    "pairs": Field((MAX_PAIRS, 2), "int16"),
}
"""Arrays of the stock. `toys` are the numbers of the toys that are seen, filled up with -1; `near` and `held` say of each
whether it is found, or lifted; `pairs` are the pairs, by numbers of toys, filled up with -1."""


def draw_views(part: int, seeds: range = TRAIN_SEEDS) -> dict[str, np.ndarray]:
    """Draws the views of a part of the stock.

    Args:
        part: Number of the part, from 0.
        seeds: Seeds of the rooms.

    Raises:
        ImportError: Panda3D is not installed.
    """
    rng = np.random.default_rng([seeds.start, part])
    arrays = {name: np.zeros((ROWS, *field.shape), dtype=field.dtype) for name, field in FIELDS.items()}
    for name in ("states", "toys", "pairs"):
        arrays[name][:] = -1
    views = Views(FRAME_SIZE, seeds)
    for row in range(ROWS):
        view = views.draw(rng)
        arrays["frames"][row], arrays["ids"][row] = view.frame, view.ids
        sight = view.sight
        toys = list(sight.pixels)
        arrays["toys"][row, : len(toys)] = toys
        arrays["near"][row, : len(toys)] = [toy in sight.near for toy in toys]
        arrays["held"][row, : len(toys)] = [toy == sight.held for toy in toys]
        arrays["pairs"][row, : len(sight.pairs)] = np.reshape(sight.pairs, (-1, 2))
        true = view_states(view)
        arrays["states"][row, : len(true)] = true
    views.close()
    return arrays


def view_states(view: View) -> list[int]:
    """Returns the states of `captions` that a view shows, some at least."""
    sight = view.sight
    found = [FIND + toy for toy in sight.near] or [NOTHING_TO["find"]]
    found.append(NOTHING_TO["lift"] if sight.held is None else LIFT + sight.held)
    found += [int(PAIR_STATE[pair]) for pair in sight.pairs] or [NOTHING_TO["place"]]
    if not sight.pixels:
        found.append(NOTHING_TO["view"])
    columns = np.arange(ID_SIDE)
    for toy, pixels in sight.pixels.items():
        if pixels < TOLD:
            continue
        found.append(VIEW + toy)
        middle = (view.ids == toy + 1).sum(axis=0) @ columns / pixels
        if middle < 0.36 * ID_SIDE:
            found.append(LEFT + toy)
        elif middle > 0.64 * ID_SIDE:
            found.append(RIGHT + toy)
    return found
