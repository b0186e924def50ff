"""A demonstrator that knows the floor: it walks down the distance to where its next deed can be done, and does it.

find:   walk to the toy, face it
lift:   walk to the toy, face it, grab
place:  lift the first toy, walk to where it can be put next to the second, turn, drop, step back until both are seen
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from vlm_rewards.labelers.domains.domain import ExpertGaveUpError
from vlm_rewards.labelers.domains.playroom.maps import FloorMap, can_drop
from vlm_rewards.labelers.domains.playroom.rooms import HEADINGS, NUM_HEADINGS, Toy
from vlm_rewards.labelers.domains.playroom.world import (
    BACK,
    DROP,
    DROP_AHEAD,
    FORWARD,
    GRAB,
    LEFT,
    REACH,
    RIGHT,
    STRIDE,
    TOGETHER,
    World,
)

_CLOSE = REACH - 0.12
"""Distance at which a toy is faced."""

_TURN_COST = 0.12
"""Metres that a turn is worth."""


class PlayroomExpert:
    """Expert for one episode.

    Args:
        world: The world that it acts in.
        seen: Returns the indices of the toys that are seen now.
        family: "find", "lift" or "place".
        toys: Indices of the toy, and of the one that it is put next to.
    """

    def __init__(self, world: World, seen: Callable[[], Sequence[int]], family: str, toys: tuple[int, ...]) -> None:
        self._world = world
        self._seen = seen
        self._family = family
        self._toys = toys
        self._map = FloorMap(world.room)
        self._ways: dict[object, tuple[np.ndarray, np.ndarray]] = {}
        self._visits: dict[tuple[object, ...], int] = {}

    def act(self, taken: int | None) -> int:
        """Returns the next action; see `labelers.domains.domain.Expert`.

        Raises:
            ExpertGaveUpError: It knows no way.
        """
        world, target = self._world, self._toys[0]
        if self._family == "find":
            return self._go(target)
        if world.held == target:
            return self._bring(self._toys[1]) if self._family == "place" else LEFT
        if world.held is not None:
            return self._put_away()
        if self._family == "place" and self._together():
            return self._look_at_both()
        if world.before(self._seen()) == target:
            return GRAB
        return self._go(target)

    def _together(self) -> bool:
        one, other = (self._world.toys[index] for index in self._toys)
        return math.hypot(one.x - other.x, one.y - other.y) <= TOGETHER

    def _go(self, index: int) -> int:
        """Walks to a toy and faces it."""
        world, toy = self._world, self._world.toys[index]
        if world.distance(toy) <= _CLOSE:
            turn = self._towards(toy.x, toy.y)
            if turn is not None:
                return turn
            seen = index in self._seen()
            if world.before(self._seen()) == index or (seen and self._family == "find"):
                return FORWARD if self._can_move(1) else BACK
            if self._can_move(1) and seen:
                return FORWARD
        return self._follow(("go", index), lambda free: self._map.approaches(toy, free, _CLOSE - 0.1))

    def _bring(self, index: int) -> int:
        """Walks with the held toy to where it can be put next to another, and puts it there."""
        world, toy = self._world, self._world.toys[index]
        others = [other for place, other in world.standing() if place != index]
        x, y, heading = world.pose
        best: tuple[float, int] | None = None
        for turn in range(NUM_HEADINGS):
            slack = 0.02
            if can_drop(world.room, np.array([x]), np.array([y]), turn, toy, others, slack) and self._free_view(toy):
                cost = abs(_turns(heading, turn))
                if best is None or cost < best[0]:
                    best = (cost, turn)
        if best is not None:
            return DROP if best[1] == heading else _turn(heading, best[1])
        return self._follow(("bring", index), lambda free: self._map.drops(toy, others, free))

    def _free_view(self, toy: Toy) -> bool:
        x, y, _ = self._world.pose
        share = np.linspace(0.1, 0.9, 9)
        clearance = self._world.room.clearance(x + (toy.x - x) * share, y + (toy.y - y) * share)
        return bool((clearance > 0.02).all())

    def _put_away(self) -> int:
        """Puts down a toy that was not asked for."""
        world = self._world
        x, y, heading = world.pose
        for turn in sorted(range(NUM_HEADINGS), key=lambda other: abs(_turns(heading, other))):
            there = x + DROP_AHEAD * HEADINGS[turn][0], y + DROP_AHEAD * HEADINGS[turn][1]
            if world.can_lie(*there):
                return DROP if turn == heading else _turn(heading, turn)
        return self._follow(("away",), lambda free: self._map.free(world.toys) & free)

    def _look_at_both(self) -> int:
        """Turns to two toys that are together, and steps back until both are in the picture."""
        one, other = (self._world.toys[index] for index in self._toys)
        turn = self._towards((one.x + other.x) / 2, (one.y + other.y) / 2)
        if turn is not None:
            return turn
        if self._count("both") > 6:
            raise ExpertGaveUpError("the expert does not get both toys into the picture: got 6 tries")
        return BACK if self._can_move(-1) else LEFT

    def _towards(self, x: float, y: float) -> int | None:
        """Returns the turn that faces a place best; None where no turn is better."""
        pose = self._world.pose
        wanted = math.atan2(y - pose.y, x - pose.x) / (2 * math.pi) * NUM_HEADINGS
        off = (wanted - pose.heading + NUM_HEADINGS / 2) % NUM_HEADINGS - NUM_HEADINGS / 2
        if abs(off) <= 0.55:
            return None
        return LEFT if off > 0 else RIGHT

    def _can_move(self, sign: int) -> bool:
        x, y, heading = self._world.pose
        step = sign * STRIDE
        return self._world.free(x + step * HEADINGS[heading][0], y + step * HEADINGS[heading][1])

    def _follow(self, key: tuple[object, ...], ends: Callable[[np.ndarray], np.ndarray]) -> int:
        """Takes the step that leads down the distance to the ends.

        Raises:
            ExpertGaveUpError: There is no way, or it has been here too often.
        """
        world = self._world
        layout = (*key, tuple((toy.x, toy.y) for _, toy in world.standing()))
        if layout not in self._ways:
            free = self._map.free([toy for _, toy in world.standing()])
            self._ways = {layout: (free, self._map.ways(free, ends(free)))}
        free, ways = self._ways[layout]
        x, y, heading = world.pose
        visits = self._count((layout, round(x, 2), round(y, 2), heading))
        if visits > 4:
            raise ExpertGaveUpError(f"the expert walks in circles: got {visits} visits of one place")
        best: tuple[float, int] | None = None
        for direction, (cosine, sine) in enumerate(HEADINGS):
            there_x, there_y = x + STRIDE * cosine, y + STRIDE * sine
            if not world.free(there_x, there_y):
                continue
            left = _way_from(self._map, ways, there_x, there_y)
            cost = (
                left
                + _TURN_COST * abs(_turns(heading, direction))
                + 0.5 * self._visits.get((key, round(there_x, 1), round(there_y, 1)), 0)
            )
            if math.isfinite(left) and (best is None or cost < best[0]):
                best = (cost, direction)
        if best is None:
            raise ExpertGaveUpError(f"the expert knows no way: got none from {x:.1f}, {y:.1f}")
        if best[1] != heading:
            return _turn(heading, best[1])
        self._count((key, round(x, 1), round(y, 1)))
        return FORWARD

    def _count(self, key: object) -> int:
        place = key if isinstance(key, tuple) else (key,)
        self._visits[place] = self._visits.get(place, 0) + 1
        return self._visits[place]


def _way_from(floor: FloorMap, ways: np.ndarray, x: float, y: float) -> float:
    """Returns the distance from a place: that of the best of the points around, and the way there."""
    row, column = floor.nearest(x, y)
    low, left = max(row - 1, 0), max(column - 1, 0)
    part = (slice(low, row + 2), slice(left, column + 2))
    return float((ways[part] + np.hypot(floor.x[part] - x, floor.y[part] - y)).min())


def _turns(heading: int, other: int) -> int:
    """Returns how many turns to the left lead from a heading to another, from -8 to 7."""
    return (other - heading + NUM_HEADINGS // 2) % NUM_HEADINGS - NUM_HEADINGS // 2


def _turn(heading: int, other: int) -> int:
    return LEFT if _turns(heading, other) > 0 else RIGHT
