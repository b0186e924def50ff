"""Ways over the floor, as a grid of points 0.1 m apart: where the agent can stand, how far it is to walk, and what is in sight."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from vlm_rewards.labelers.domains.playroom.rooms import BODY, HEADINGS, Room, Toy
from vlm_rewards.labelers.domains.playroom.world import DROP_AHEAD, DROP_CLEAR, TOGETHER, TOY_ROOM

CELL = 0.1
MARGIN = 0.03
"""Metres that ways keep from walls and toys beside what they must."""

_STEPS = ((1, 0, 1.0), (0, 1, 1.0), (1, 1, math.sqrt(2)), (1, -1, math.sqrt(2)))


class FloorMap:
    """The floor of a room.

    Args:
        room: The room.

    Attributes:
        x: [rows, columns], place of the points.
        y: [rows, columns].
    """

    def __init__(self, room: Room) -> None:
        along, across = np.arange(CELL / 2, room.depth, CELL), np.arange(CELL / 2, room.width, CELL)
        self.y, self.x = np.meshgrid(along, across, indexing="ij")
        self._room = room
        self._clearance = room.clearance(self.x, self.y)

    def free(self, toys: Sequence[Toy]) -> np.ndarray:
        """Returns where the agent can stand between toys, [rows, columns] bool."""
        free = self._clearance >= BODY + MARGIN
        for toy in toys:
            free &= self.distance(toy.x, toy.y) >= TOY_ROOM + MARGIN
        return free

    def distance(self, x: float, y: float) -> np.ndarray:
        """Returns the distance of every point from one, in metres."""
        return np.hypot(self.x - x, self.y - y)

    def nearest(self, x: float, y: float) -> tuple[int, int]:
        """Returns row and column of the point nearest to a place in the room."""
        rows, columns = self.x.shape
        return min(int(y / CELL), rows - 1), min(int(x / CELL), columns - 1)

    def in_sight(self, x: float, y: float, wanted: np.ndarray) -> np.ndarray:
        """Returns which of the points wanted see a place past the furniture, [rows, columns] bool."""
        seen = np.zeros_like(wanted)
        rows, columns = np.nonzero(wanted)
        share = np.linspace(0.1, 0.9, 9)
        between_x = self.x[rows, columns, None] * share + x * (1 - share)
        between_y = self.y[rows, columns, None] * share + y * (1 - share)
        seen[rows, columns] = (self._room.clearance(between_x, between_y) > 0.02).all(axis=1)
        return seen

    def ways(self, free: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Returns how far it is from every free point to the nearest of some ends, in metres; infinite where there is no way.

        Args:
            free: [rows, columns] bool.
            ends: [rows, columns] bool.
        """
        far = np.full((free.shape[0] + 2, free.shape[1] + 2), np.inf)
        inner = far[1:-1, 1:-1]
        inner[ends & free] = 0.0
        while True:
            before = inner.copy()
            for rows, columns, length in _STEPS:
                for sign in (1, -1):
                    down, right = 1 + sign * rows, 1 + sign * columns
                    shifted = far[down : down + inner.shape[0], right : right + inner.shape[1]]
                    np.minimum(inner, shifted + length * CELL, out=inner, where=free)
            if np.array_equal(before, inner):
                return inner.copy()

    def reached(self, free: np.ndarray, x: float, y: float) -> np.ndarray:
        """Returns which points can be walked to from a place, [rows, columns] bool."""
        regions, _ = ndimage.label(free, np.ones((3, 3)))
        return free & np.isin(regions, regions[free & (self.distance(x, y) <= 1.5 * CELL)])

    def approaches(self, toy: Toy, free: np.ndarray, far: float) -> np.ndarray:
        """Returns the free points from which a toy can be faced at most so far away, [rows, columns] bool."""
        return self.in_sight(toy.x, toy.y, free & (self.distance(toy.x, toy.y) <= far))

    def drops(self, toy: Toy, others: Sequence[Toy], free: np.ndarray) -> np.ndarray:
        """Returns the free points from which something can be put next to a toy with both in sight, [rows, columns] bool.

        Args:
            toy: The toy that stands.
            others: The other toys that stand.
            free: [rows, columns] bool.
        """
        found = np.zeros_like(free)
        away = self.distance(toy.x, toy.y)
        wanted = free & (away >= 0.7) & (away <= DROP_AHEAD + TOGETHER)
        rows, columns = np.nonzero(wanted)
        x, y = self.x[rows, columns], self.y[rows, columns]
        good = np.zeros(len(rows), bool)
        for heading in range(len(HEADINGS)):
            good |= can_drop(self._room, x, y, heading, toy, others)
        found[rows[good], columns[good]] = True
        return self.in_sight(toy.x, toy.y, found)


def can_drop(
    room: Room, x: np.ndarray, y: np.ndarray, heading: int, toy: Toy, others: Sequence[Toy], slack: float = 0.05
) -> np.ndarray:
    """Returns from which places something is put next to a toy, in a heading, with the toy at its side in the picture.

    Args:
        room: The room.
        x: Places.
        y: Places.
        heading: The number of a heading.
        toy: The toy that stands.
        others: The other toys that stand.
        slack: Metres to be kept from all limits.
    """
    cosine, sine = HEADINGS[heading]
    there_x, there_y = x + DROP_AHEAD * cosine, y + DROP_AHEAD * sine
    apart = np.hypot(there_x - toy.x, there_y - toy.y)
    ahead = cosine * (toy.x - x) + sine * (toy.y - y)
    aside = np.abs(cosine * (toy.y - y) - sine * (toy.x - x))
    good = (apart >= DROP_CLEAR[1] + slack / 2) & (apart <= TOGETHER - slack)
    good &= (aside >= 0.28) & (aside <= 0.60 * ahead)
    for other in others:
        good &= np.hypot(there_x - other.x, there_y - other.y) >= DROP_CLEAR[1] + slack / 2
    left = np.nonzero(good)
    good[left] = room.clearance(there_x[left], there_y[left]) >= DROP_CLEAR[0] + slack / 2
    return good
