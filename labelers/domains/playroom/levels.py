"""The playroom's levels: a room of a seed, what is asked for, the truth of every frame, and the expert."""

import itertools
import math
from typing import NamedTuple

import numpy as np

from vlm_rewards.labelers.domains.domain import FrameSize, Look
from vlm_rewards.labelers.domains.playroom.drawing.renderer import Stage
from vlm_rewards.labelers.domains.playroom.expert import PlayroomExpert
from vlm_rewards.labelers.domains.playroom.goals import (
    CAMERA,
    NUM_TOYS,
    PLACE_STEPS,
    Kind,
    find_id,
    goal_of,
    is_default_pair,
    lift_id,
    place_id,
)
from vlm_rewards.labelers.domains.playroom.maps import FloorMap
from vlm_rewards.labelers.domains.playroom.rooms import (
    FULL,
    NEAR,
    Pose,
    Room,
    Toy,
    draw_kinds,
    draw_room,
    draw_start,
    draw_toys,
)
from vlm_rewards.labelers.domains.playroom.world import ACTIONS, LEAST_PIXELS, REACH, Sight, World, count_pixels


class Start(NamedTuple):
    """A room at its start.

    Attributes:
        room: The room.
        toys: Its toys.
        pose: Where the agent begins.
        asked: The goals that it can be asked for, each with the indices of its toys.
    """

    room: Room
    toys: tuple[Toy, ...]
    pose: Pose
    asked: dict[str, tuple[int, ...]]


class PlayroomLevel:
    """One room of a family: a `labelers.domains.domain.Level`. The state of a look is a `world.Sight`.

    Args:
        frame_size: (H, W) of its frames.
        kind: What makes the environment.

    Attributes:
        num_actions: Number of discrete actions.
        mission: Instruction of the episode.
        world: The room, the toys and the agent.
    """

    num_actions = len(ACTIONS)

    def __init__(self, frame_size: FrameSize, kind: Kind) -> None:
        self.mission = ""
        self._kind = kind
        self._stage = Stage(frame_size[0])
        self._steps = 0
        self._asked = ""
        self._possible: dict[str, tuple[int, ...]] = {}
        self.world: World
        self._counts: list[int] = []
        self._sight: Sight

    def reset(self, seed: int) -> Look:
        """Takes the room of a seed: the first of its stream in which something can be asked for."""
        random = np.random.default_rng([seed, 11])
        while True:
            start = draw_start_of(random, self._kind)
            if start is None:
                continue
            self.world = World(start.room, start.toys, start.pose)
            self._stage.furnish(start.room, start.toys)
            look = self._look()
            self._possible = {
                goal: toys
                for goal, toys in start.asked.items()
                if goal not in self.facts(look) and (not self._kind.near or self._in_view(toys))
            }
            if self._possible:
                break
        self._steps = 0
        first = [
            goal for goal in self._possible if self._kind.family != "place" or _is_default(start, self._possible[goal])
        ]
        self.ask(str(random.choice(first or list(self._possible))))
        return look

    def goals(self) -> tuple[str, ...]:
        """Returns the ids of the goals that the room can be asked for, that of the mission first."""
        return (self._asked, *(goal for goal in self._possible if goal != self._asked))

    def ask(self, goal_id: str) -> None:
        """Asks for another goal.

        Raises:
            ValueError: The room cannot be asked for it.
        """
        if goal_id not in self._possible:
            raise ValueError(
                f"this room cannot be asked for the goal, having no such toys or none within reach: got {goal_id!r}. Reset it "
                f"with another seed"
            )
        self._asked = goal_id
        self.mission = goal_of(goal_id).instructions[0]

    def step(self, action: int) -> tuple[Look, float, bool, bool]:
        """Acts; see `world`.

        Returns:
            What is seen then; 1 while the goal asked for holds, else 0; whether it does; and whether the time is up.
        """
        moved = self.world.step(action, self.seen)
        if moved is not None:
            if self.world.held == moved:
                self._stage.lift(moved, self.world.toys[moved].kind)
            else:
                self._stage.put(moved, self.world.toys[moved])
        self._steps += 1
        look = self._look()
        done = self._asked in self.facts(look)
        return look, float(done), done, self._steps >= self._kind.max_steps

    def facts(self, look: Look) -> frozenset[str]:
        """Returns the goals that hold in a look and are seen in it."""
        return look.state.goals()

    def expert(self) -> PlayroomExpert:
        """Returns the expert for the goal of this episode."""
        return PlayroomExpert(self.world, lambda: self.seen, self._kind.family, self._possible[self._asked])

    def close(self) -> None:
        """Frees the scene graph."""
        self._stage.close()

    @property
    def seen(self) -> list[int]:
        """Indices of the toys that are seen."""
        return [index for index, count in enumerate(self._counts) if count >= LEAST_PIXELS]

    def _in_view(self, toys: tuple[int, ...]) -> bool:
        return all(self._counts[index] >= 2 * LEAST_PIXELS for index in toys)

    def _look(self) -> Look:
        drawn = self._stage.draw(self.world.pose, self.world.held, self.world.may_be_seen())
        self._counts = count_pixels(drawn.ids, len(self.world.toys))
        return Look({CAMERA: drawn.frame}, self.world.sight(self._counts))


def draw_start_of(random: np.random.Generator, kind: Kind) -> Start | None:
    """Draws a room in which the agent can reach something to ask for; None where this draw has none."""
    sizes = NEAR if kind.near else FULL
    room = draw_room(random, sizes)
    first: tuple[int, ...] = ()
    if kind.family == "place":
        toy = int(random.integers(NUM_TOYS))
        step = int(random.choice(PLACE_STEPS)) * (1 if random.random() < 0.5 else -1)
        first = (toy, (toy + step) % NUM_TOYS)
    toys = draw_toys(random, room, draw_kinds(random, int(random.integers(sizes.toys[0], sizes.toys[1] + 1)), first))
    if toys is None:
        return None
    pose = draw_start(random, room, toys, sizes.far)
    if pose is None:
        return None
    if kind.near:
        pose = _facing(pose, toys[:2] if kind.family == "place" else toys[:1])
    floor = FloorMap(room)
    free = floor.free(toys)
    reached = floor.reached(free, pose.x, pose.y)
    open_to = [bool((floor.approaches(toy, free, REACH - 0.25) & reached).any()) for toy in toys]
    asked: dict[str, tuple[int, ...]] = {}
    if kind.family == "place":
        beside = [
            bool((floor.drops(toy, [rest for rest in toys if rest is not toy], free) & reached).any()) for toy in toys
        ]
        for one, two in itertools.permutations(range(len(toys)), 2):
            if open_to[one] and beside[two]:
                asked[place_id(toys[one].kind, toys[two].kind)] = (one, two)
    else:
        name = find_id if kind.family == "find" else lift_id
        asked = {name(toy.kind): (index,) for index, toy in enumerate(toys) if open_to[index]}
    return Start(room, toys, pose, asked) if asked else None


def _is_default(start: Start, toys: tuple[int, ...]) -> bool:
    return is_default_pair(*(start.toys[index].kind for index in toys))


def _facing(pose: Pose, toys: tuple[Toy, ...]) -> Pose:
    """Returns the pose, turned to the middle of some toys."""
    x, y = (sum(toy[axis] for toy in toys) / len(toys) for axis in (1, 2))
    angle = math.atan2(y - pose.y, x - pose.x)
    return pose._replace(heading=round(angle / (2 * math.pi) * 16) % 16)
