"""What happens in the playroom: the agent walks, takes toys and puts them down; and what holds in what it sees.

    action   0 left   1 right   2 forward   3 back   4 grab   5 drop
             22.5 degrees       0.3 m                the toy before    0.8 m ahead, where
                                                     the agent         the floor is clear

An action that cannot be done changes nothing. A toy is *before the agent* if it is at most 1.2 m away, at most 30 degrees off the
middle of the picture, and seen.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vlm_rewards.labelers.domains.playroom.goals import find_id, lift_id, place_id
from vlm_rewards.labelers.domains.playroom.rooms import BODY, HEADINGS, NUM_HEADINGS, Pose, Room, Toy

ACTIONS = ("left", "right", "forward", "back", "grab", "drop")
LEFT, RIGHT, FORWARD, BACK, GRAB, DROP = range(len(ACTIONS))

STRIDE = 0.3
"""Metres of a step."""

TOY_ROOM = 0.55
"""Least distance of the agent from the middle of a toy."""

REACH = 1.2
"""Largest distance of a toy that the agent is near to."""

BEARING = math.radians(30)
"""Largest angle of such a toy off the middle of the picture."""

DROP_AHEAD = 0.8
"""Metres from the agent to where it puts a toy."""

TOGETHER = 0.8
"""Largest distance of two toys that are next to each other."""

DROP_CLEAR = (0.28, 0.42)
"""Least distances of a toy that is put down from walls and furniture, and from other toys."""

LEAST_PIXELS = 8
"""Pixels, of the 64 x 64 of the picture of ids, from which on a toy is seen."""

_VIEW = math.radians(52)
"""Largest angle at which a part of a toy may be in the picture."""


class Sight(NamedTuple):
    """What a frame shows, by the numbers of toys among `goals.TOYS`.

    Attributes:
        pixels: Pixels in which each toy is seen, of 64 x 64; only those from `LEAST_PIXELS` on.
        near: Toys before the agent.
        held: The toy that is held.
        pairs: Pairs of toys next to each other, the smaller number first.
    """

    pixels: dict[int, int]
    near: tuple[int, ...]
    held: int | None
    pairs: tuple[tuple[int, int], ...]

    def goals(self) -> frozenset[str]:
        """Returns the ids of the goals that hold."""
        ids = [find_id(toy) for toy in self.near]
        if self.held is not None:
            ids.append(lift_id(self.held))
        for toy, other in self.pairs:
            ids += [place_id(toy, other), place_id(other, toy)]
        return frozenset(ids)


class World:
    """A room with toys and an agent; no picture is drawn.

    Args:
        room: The room.
        toys: Its toys.
        pose: Where the agent begins.

    Attributes:
        toys: The toys where they are, or were before one was lifted.
        pose: Where the agent is.
        held: Index of the toy that is held; None for none.
    """

    def __init__(self, room: Room, toys: Sequence[Toy], pose: Pose) -> None:
        self.room = room
        self.toys = list(toys)
        self.pose = pose
        self.held: int | None = None

    def step(self, action: int, seen: Sequence[int]) -> int | None:
        """Acts.

        Args:
            action: The number of an action.
            seen: Indices of the toys that are seen.

        Returns:
            Index of the toy that was lifted or put down; None where no toy was moved.
        """
        x, y, heading = self.pose
        if action in (LEFT, RIGHT):
            self.pose = Pose(x, y, (heading + (1 if action == LEFT else -1)) % NUM_HEADINGS)
        elif action in (FORWARD, BACK):
            stride = STRIDE if action == FORWARD else -STRIDE
            x, y = x + stride * HEADINGS[heading][0], y + stride * HEADINGS[heading][1]
            if self.free(x, y):
                self.pose = Pose(x, y, heading)
        elif action == GRAB and self.held is None:
            self.held = self.before(seen)
            return self.held
        elif action == DROP and self.held is not None:
            x, y = x + DROP_AHEAD * HEADINGS[heading][0], y + DROP_AHEAD * HEADINGS[heading][1]
            if self.can_lie(x, y):
                dropped, self.held = self.held, None
                yaw = 360 * heading / NUM_HEADINGS + 125.0
                self.toys[dropped] = Toy(self.toys[dropped].kind, x, y, yaw)
                return dropped
        return None

    def standing(self) -> list[tuple[int, Toy]]:
        """Returns the toys on the floor with their indices."""
        return [(index, toy) for index, toy in enumerate(self.toys) if index != self.held]

    def free(self, x: float, y: float) -> bool:
        """Returns whether the agent can stand somewhere."""
        return self.room.clear_at(x, y, BODY) and all(
            math.hypot(x - toy.x, y - toy.y) >= TOY_ROOM for _, toy in self.standing()
        )

    def can_lie(self, x: float, y: float) -> bool:
        """Returns whether a toy can be put down somewhere."""
        return self.room.clear_at(x, y, DROP_CLEAR[0]) and all(
            math.hypot(x - toy.x, y - toy.y) >= DROP_CLEAR[1] for _, toy in self.standing()
        )

    def bearing(self, toy: Toy) -> float:
        """Returns the angle of a toy off the middle of the picture, from -pi to pi, positive to the left."""
        cosine, sine = HEADINGS[self.pose.heading]
        x, y = toy.x - self.pose.x, toy.y - self.pose.y
        return math.atan2(cosine * y - sine * x, cosine * x + sine * y)

    def distance(self, toy: Toy) -> float:
        """Returns the distance of a toy in metres."""
        return math.hypot(toy.x - self.pose.x, toy.y - self.pose.y)

    def may_be_seen(self) -> bool:
        """Returns whether any toy, on the floor or held, can be in the picture at all."""
        return self.held is not None or any(abs(self.bearing(toy)) < _VIEW for _, toy in self.standing())

    def before(self, seen: Sequence[int]) -> int | None:
        """Returns the index of the toy before the agent that is nearest to the middle of the picture."""
        near = [(abs(self.bearing(toy)), index) for index, toy in self.standing() if index in seen and self._near(toy)]
        return min(near)[1] if near else None

    def _near(self, toy: Toy) -> bool:
        return self.distance(toy) <= REACH and abs(self.bearing(toy)) <= BEARING

    def sight(self, counts: Sequence[int]) -> Sight:
        """Returns what holds in what is seen.

        Args:
            counts: Pixels of each toy.
        """
        seen = [(index, toy) for index, toy in self.standing() if counts[index] >= LEAST_PIXELS]
        pairs = [
            (min(one.kind, other.kind), max(one.kind, other.kind))
            for place, (_, one) in enumerate(seen)
            for _, other in seen[place + 1 :]
            if math.hypot(one.x - other.x, one.y - other.y) <= TOGETHER
        ]
        return Sight(
            {toy.kind: int(count) for toy, count in zip(self.toys, counts, strict=True) if count >= LEAST_PIXELS},
            tuple(toy.kind for _, toy in seen if self._near(toy)),
            None if self.held is None else self.toys[self.held].kind,
            tuple(pairs),
        )


def count_pixels(ids: np.ndarray, num_toys: int) -> list[int]:
    """Returns the pixels of each toy in a picture of ids."""
    return np.bincount(ids.reshape(-1), minlength=num_toys + 1)[1:].tolist()
