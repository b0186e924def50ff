"""Frames of rooms at random, off any agent's path, with all that holds in them: what reference models are trained on.

    views = Views((96, 96), PLAYROOM.seeds.models)
    view = views.draw(np.random.default_rng(0))
    view.frame          [96, 96, 3] uint8
    view.ids            [64, 64] uint8: 0, or 1 + the number of the toy, among `goals.TOYS`, that the pixel shows
    view.sight.pixels   {toy: pixels of 64 x 64} of the toys that are seen (8 pixels or more)
    view.sight.near     toys that the goal "find" holds for
    view.sight.held     the toy that the goal "lift" holds for, or None
    view.sight.pairs    pairs that the goal "place" holds for, the smaller number first
    view.sight.goals()  the same as ids of goals

Positives of every family are frequent, and so are frames that nearly are: `SHARES` says how often each sort of view is drawn.
One room serves `VIEWS_PER_ROOM` views with other toys in between, since furnishing costs more than drawing.
"""

import math
from typing import NamedTuple

import numpy as np

from vlm_rewards.labelers.domains.domain import FrameSize
from vlm_rewards.labelers.domains.playroom.drawing.renderer import Stage
from vlm_rewards.labelers.domains.playroom.rooms import (
    BODY,
    FULL,
    NEAR,
    NUM_HEADINGS,
    Pose,
    Room,
    Toy,
    draw_kinds,
    draw_room,
    draw_toys,
)
from vlm_rewards.labelers.domains.playroom.world import (
    DROP_CLEAR,
    REACH,
    TOGETHER,
    TOY_ROOM,
    Sight,
    World,
    count_pixels,
)

SHARES = {"anywhere": 0.14, "before": 0.24, "beyond": 0.08, "holding": 0.24, "together": 0.24, "apart": 0.06}
"""Shares of the sorts of views: a pose anywhere, before a toy, just too far from one, holding one, two toys next to each other, and
two toys nearly so."""

VIEWS_PER_ROOM = 32
VIEWS_PER_TOYS = 4
LEAST_TOYS, MOST_TOYS = 3, 8
SMALL_ROOMS = 0.4
"""Share of the rooms that are small, as those of the near environments."""


class View(NamedTuple):
    """A frame with all that holds in it.

    Attributes:
        frame: [H, W, 3] uint8 RGB, read-only.
        ids: [64, 64] uint8, 1 plus the number of the toy that a pixel shows, 0 for none.
        sight: What holds.
    """

    frame: np.ndarray
    ids: np.ndarray
    sight: Sight


class Views:
    """An endless supply of views. What is drawn depends on the generators given since the object was made, and on the seeds.

    Args:
        frame_size: (H, W) of the frames.
        seeds: Seeds that rooms are drawn by, so that no two uses share a room.

    Raises:
        ImportError: Panda3D is not installed.
    """

    def __init__(self, frame_size: FrameSize, seeds: range) -> None:
        self._stage = Stage(frame_size[0])
        self._seeds = seeds
        self._left = 0
        self._toys_left = 0
        self._room: Room
        self._toys: list[Toy] = []
        self._held: int | None = None

    def draw(self, random: np.random.Generator) -> View:
        """Draws the next view."""
        self._refill(random)
        for _ in range(20):
            world = self._world(random, str(random.choice(list(SHARES), p=list(SHARES.values()))))
            if world is not None:
                break
        else:
            self._left = 0  # a room without space
            return self.draw(random)
        self._left -= 1
        self._toys_left -= 1
        drawn = self._stage.draw(world.pose, world.held, world.may_be_seen())
        numbers = np.array([0, *(1 + toy.kind for toy in world.toys)], np.uint8)
        return View(drawn.frame, numbers[drawn.ids], world.sight(count_pixels(drawn.ids, len(world.toys))))

    def close(self) -> None:
        """Frees the room."""
        self._stage.close()

    def _refill(self, random: np.random.Generator) -> None:
        """Takes another room, or other toys in as many places, when it is time; a room without space for all takes fewer."""
        while self._left <= 0 or self._toys_left <= 0:
            fresh = self._left <= 0
            sizes = NEAR if random.random() < SMALL_ROOMS else FULL
            if fresh:
                seed = self._seeds[int(random.integers(len(self._seeds)))]
                self._room = draw_room(np.random.default_rng([seed, 13]), sizes)
            many, few = MOST_TOYS if fresh else len(self._toys), int(random.integers(LEAST_TOYS, MOST_TOYS))
            toys = draw_toys(random, self._room, draw_kinds(random, many))
            if toys is None:
                toys = draw_toys(random, self._room, draw_kinds(random, few))
            if toys is None or not (fresh or len(toys) == many):
                self._left = 0
                continue
            if fresh:
                self._stage.furnish(self._room, toys)
                self._left = VIEWS_PER_ROOM
            else:
                for index, toy in enumerate(toys):
                    self._stage.put(index, toy)
            self._toys, self._held, self._toys_left = list(toys), None, VIEWS_PER_TOYS

    def _world(self, random: np.random.Generator, sort: str) -> World | None:
        """Returns a world of a sort, with its toys in their places on the stage; None where there is no space for it."""
        index = int(random.integers(len(self._toys)))
        self._hold(index if sort == "holding" else None)
        if sort in ("together", "apart"):
            pair = self._pair(random, index, sort == "together")
            if pair is None:
                return None
            middle, far = pair, (0.75, 2.6)
        else:
            toy = self._toys[index]
            middle, far = (toy.x, toy.y), {"before": (TOY_ROOM, REACH), "beyond": (REACH, 2.0)}.get(sort, (0.0, 99.0))
        pose = self._pose(random, middle if sort not in ("anywhere", "holding") else None, far)
        if pose is None:
            return None
        world = World(self._room, self._toys, pose)
        world.held = self._held
        return world

    def _hold(self, index: int | None) -> None:
        if self._held is not None and self._held != index:
            self._stage.put(self._held, self._toys[self._held])
        if index is not None and index != self._held:
            self._stage.lift(index, self._toys[index].kind)
        self._held = index

    def _pair(self, random: np.random.Generator, index: int, together: bool) -> tuple[float, float] | None:
        """Moves another toy beside one, and returns the place between them; None where there is no space."""
        toy = self._toys[index]
        other = (index + 1 + int(random.integers(len(self._toys) - 1))) % len(self._toys)
        near, far = (DROP_CLEAR[1], TOGETHER) if together else (TOGETHER, 1.3 * TOGETHER)
        for _ in range(12):
            angle, apart = random.uniform(0, 2 * math.pi), random.uniform(near, far)
            x, y = toy.x + apart * math.cos(angle), toy.y + apart * math.sin(angle)
            others = [self._toys[place] for place in range(len(self._toys)) if place not in (index, other)]
            if self._room.clear_at(x, y, DROP_CLEAR[0]) and all(
                math.hypot(x - one.x, y - one.y) >= DROP_CLEAR[1] for one in others
            ):
                self._toys[other] = Toy(self._toys[other].kind, x, y, float(random.uniform(0, 360)))
                self._stage.put(other, self._toys[other])
                return (x + toy.x) / 2, (y + toy.y) / 2
        return None

    def _pose(
        self, random: np.random.Generator, target: tuple[float, float] | None, far: tuple[float, float]
    ) -> Pose | None:
        """Draws a pose in which the agent can stand, looking about at a target where one is given."""
        standing = [toy for index, toy in enumerate(self._toys) if index != self._held]
        for _ in range(20):
            if target is None:
                x, y = (float(random.uniform(BODY, side - BODY)) for side in (self._room.width, self._room.depth))
                heading = int(random.integers(NUM_HEADINGS))
            else:
                angle, away = random.uniform(0, 2 * math.pi), random.uniform(*far)
                x, y = target[0] + away * math.cos(angle), target[1] + away * math.sin(angle)
                towards = angle + math.pi + random.uniform(-0.5, 0.5)
                heading = round(towards / (2 * math.pi) * NUM_HEADINGS) % NUM_HEADINGS
            if self._room.clear_at(x, y, BODY) and all(
                math.hypot(x - toy.x, y - toy.y) >= TOY_ROOM for toy in standing
            ):
                return Pose(x, y, heading)
        return None
