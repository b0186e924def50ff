"""Rooms drawn by chance: size, paint, furniture, toys and where the agent begins; numpy only.

y = depth ┌───[shelf]──────[window]───┐
          │   ball         mug        │      headings: 16, heading h looks towards
          │        rug                [door]  (cos, sin)(22.5° · h)
          │ [bed]      agent ──►      │
    y = 0 └───────────────────────────┘
          x = 0                       x = width
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from vlm_rewards.labelers.domains.playroom.drawing.furniture import SIZES
from vlm_rewards.labelers.domains.playroom.drawing.meshes import Colour
from vlm_rewards.labelers.domains.playroom.drawing.textures import FLOORS, RUGS, WALLS
from vlm_rewards.labelers.domains.playroom.goals import NUM_TOYS

NUM_HEADINGS = 16
HEADINGS = tuple(
    (math.cos(2 * math.pi * heading / NUM_HEADINGS), math.sin(2 * math.pi * heading / NUM_HEADINGS))
    for heading in range(NUM_HEADINGS)
)
"""Direction of each heading."""

BODY = 0.30
"""Least distance of the agent from walls and furniture in metres."""

TOY_GAP = 1.0
"""Least distance between two toys at the start: more than what counts as next to each other."""

_PAINTS: tuple[Colour, ...] = (
    (0.93, 0.90, 0.84),
    (0.84, 0.90, 0.93),
    (0.86, 0.92, 0.84),
    (0.95, 0.86, 0.80),
    (0.90, 0.86, 0.93),
    (0.95, 0.93, 0.78),
    (0.80, 0.86, 0.86),
    (0.92, 0.84, 0.86),
    (0.78, 0.80, 0.86),
)
_WOODS: tuple[Colour, ...] = (
    (0.62, 0.42, 0.25),
    (0.42, 0.26, 0.16),
    (0.80, 0.64, 0.44),
    (0.90, 0.88, 0.84),
    (0.32, 0.28, 0.27),
)
_CLOTHS: tuple[Colour, ...] = (
    (0.42, 0.50, 0.60),
    (0.62, 0.56, 0.48),
    (0.50, 0.58, 0.48),
    (0.64, 0.50, 0.50),
    (0.52, 0.47, 0.58),
    (0.72, 0.68, 0.60),
    (0.36, 0.40, 0.44),
)


class Piece(NamedTuple):
    """A piece of furniture.

    Attributes:
        kind: A key of `SIZES`.
        x: Middle of its back.
        y: Middle of its back.
        side: Quarter turns; at 0 its back is towards y = 0.
        wood: Colour of its wood.
        cloth: Colour of its cloth.
    """

    kind: str
    x: float
    y: float
    side: int
    wood: Colour
    cloth: Colour

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Smallest x, smallest y, largest x, largest y of its footprint."""
        width, depth, _ = SIZES[self.kind]
        half = width / 2
        return {
            0: (self.x - half, self.y, self.x + half, self.y + depth),
            1: (self.x - depth, self.y - half, self.x, self.y + half),
            2: (self.x - half, self.y - depth, self.x + half, self.y),
            3: (self.x, self.y - half, self.x + depth, self.y + half),
        }[self.side]


class Toy(NamedTuple):
    """A toy on the floor.

    Attributes:
        kind: Its number among `goals.TOYS`.
        x: Its middle.
        y: Its middle.
        yaw: Where it looks, in degrees.
    """

    kind: int
    x: float
    y: float
    yaw: float


class Pose(NamedTuple):
    """Where the agent stands, and the number of the heading that it looks along."""

    x: float
    y: float
    heading: int


class Hanging(NamedTuple):
    """Something on a wall: a "window", a "door" or a "painting".

    Attributes:
        kind: What it is.
        wall: 0 for y = 0, 1 for x = width, 2 for y = depth, 3 for x = 0.
        along: Its middle along the wall, from 0 to 1.
    """

    kind: str
    wall: int
    along: float


class Rug(NamedTuple):
    """A rug: name of its texture, its middle, its sides and its colour."""

    texture: str
    x: float
    y: float
    width: float
    depth: float
    colour: Colour


@dataclasses.dataclass(frozen=True)
class Room:
    """A room with all that does not move.

    Args:
        width: Its side along x in metres.
        depth: Its side along y.
        height: Height of its ceiling.
        floor: Name of the floor's texture.
        wall: Name of the walls' texture.
        paint: Colour of the walls.
        sun: Direction in degrees that the light comes from.
        furniture: Its furniture.
        rugs: Its rugs.
        hangings: What is on its walls.
    """

    width: float
    depth: float
    height: float
    floor: str
    wall: str
    paint: Colour
    sun: float
    furniture: tuple[Piece, ...]
    rugs: tuple[Rug, ...]
    hangings: tuple[Hanging, ...]

    def clearance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Returns the distance of points from the next wall or piece of furniture, negative outside the room, 0 in furniture."""
        least = np.minimum(np.minimum(x, self.width - x), np.minimum(y, self.depth - y))
        for piece in self.furniture:
            left, low, right, high = piece.bounds
            across = np.maximum(np.maximum(left - x, x - right), 0)
            along = np.maximum(np.maximum(low - y, y - high), 0)
            least = np.minimum(least, np.hypot(across, along))
        return least

    def clear_at(self, x: float, y: float, distance: float) -> bool:
        """Returns whether a point is at least this far from walls and furniture."""
        if min(x, self.width - x, y, self.depth - y) < distance:
            return False
        for piece in self.furniture:
            left, low, right, high = piece.bounds
            if math.hypot(max(left - x, x - right, 0.0), max(low - y, y - high, 0.0)) < distance:
                return False
        return True


class Sizes(NamedTuple):
    """How large and how full rooms are: smallest and largest values.

    Attributes:
        side: Sides in metres.
        furniture: Pieces of furniture.
        toys: Toys.
        far: Least distance of the agent from toys at the start in metres.
    """

    side: tuple[float, float]
    furniture: tuple[int, int]
    toys: tuple[int, int]
    far: float


FULL = Sizes((4.6, 6.4), (3, 6), (5, 9), 1.4)
NEAR = Sizes((3.8, 4.2), (1, 2), (4, 4), 1.35)


def draw_room(random: np.random.Generator, sizes: Sizes) -> Room:
    """Draws a room with furniture along its walls."""
    width, depth = (float(random.uniform(*sizes.side)) for _ in range(2))
    wood = _WOODS[random.integers(len(_WOODS))]
    hangings = _draw_hangings(random)
    furniture = _draw_furniture(
        random, width, depth, int(random.integers(sizes.furniture[0], sizes.furniture[1] + 1)), wood, hangings
    )
    rugs: list[Rug] = []
    if random.random() < 0.75:
        across, along = (float(random.uniform(1.2, 2.0)) for _ in range(2))
        rugs.append(
            Rug(
                RUGS[random.integers(len(RUGS))],
                float(random.uniform(across / 2 + 0.3, width - across / 2 - 0.3)),
                float(random.uniform(along / 2 + 0.3, depth - along / 2 - 0.3)),
                across,
                along,
                _CLOTHS[random.integers(len(_CLOTHS))],
            )
        )
    return Room(
        width,
        depth,
        2.4,
        FLOORS[random.integers(len(FLOORS))],
        WALLS[random.integers(len(WALLS))],
        _PAINTS[random.integers(len(_PAINTS))],
        float(random.uniform(0, 360)),
        furniture,
        tuple(rugs),
        hangings,
    )


def _draw_hangings(random: np.random.Generator) -> tuple[Hanging, ...]:
    walls = [int(wall) for wall in random.permutation(4)]
    found = [
        Hanging("door", walls[0], float(random.uniform(0.2, 0.8))),
        Hanging("window", walls[1], float(random.uniform(0.3, 0.7))),
    ]
    found.append(
        Hanging("window" if random.random() < 0.5 else "painting", walls[2], float(random.uniform(0.25, 0.75)))
    )
    found.append(Hanging("painting", walls[3], float(random.uniform(0.25, 0.75))))
    return tuple(found)


def _draw_furniture(
    random: np.random.Generator, width: float, depth: float, count: int, wood: Colour, hangings: tuple[Hanging, ...]
) -> tuple[Piece, ...]:
    placed: list[Piece] = []
    kinds = [str(kind) for kind in random.permutation(sorted(SIZES))]
    door = next(hanging for hanging in hangings if hanging.kind == "door")
    for kind in kinds[:count]:
        cloth = _CLOTHS[random.integers(len(_CLOTHS))]
        for _ in range(20):
            side = int(random.integers(4))
            half = SIZES[kind][0] / 2 + 0.06
            along = float(random.uniform(half, (width if side % 2 == 0 else depth) - half))
            x, y = {0: (along, 0.05), 1: (width - 0.05, along), 2: (along, depth - 0.05), 3: (0.05, along)}[side]
            piece = Piece(kind, x, y, side, wood, cloth)
            if side == door.wall and abs(along - door.along * (width if side % 2 == 0 else depth)) < half + 0.5:
                continue
            if not any(_overlap(piece.bounds, other.bounds, 0.12) for other in placed):
                placed.append(piece)
                break
    return tuple(placed)


def _overlap(one: tuple[float, ...], other: tuple[float, ...], gap: float) -> bool:
    return one[0] - gap < other[2] and other[0] - gap < one[2] and one[1] - gap < other[3] and other[1] - gap < one[3]


def draw_toys(random: np.random.Generator, room: Room, kinds: list[int]) -> tuple[Toy, ...] | None:
    """Draws places of toys on the floor, far enough apart and with space around; None where they find none."""
    toys: list[Toy] = []
    for kind in kinds:
        for _ in range(60):
            x, y = float(random.uniform(0.5, room.width - 0.5)), float(random.uniform(0.5, room.depth - 0.5))
            if room.clear_at(x, y, 0.45) and all(math.hypot(x - toy.x, y - toy.y) >= TOY_GAP for toy in toys):
                toys.append(Toy(kind, x, y, float(random.uniform(0, 360))))
                break
        else:
            return None
    return tuple(toys)


def draw_kinds(random: np.random.Generator, count: int, first: tuple[int, ...] = ()) -> list[int]:
    """Draws different toys, some of which are given."""
    others = [int(kind) for kind in random.permutation(NUM_TOYS) if kind not in first]
    return [*first, *others][:count]


def draw_start(random: np.random.Generator, room: Room, toys: tuple[Toy, ...], far: float) -> Pose | None:
    """Draws a pose for the agent away from all toys; None where none is found."""
    for _ in range(60):
        x, y = float(random.uniform(BODY, room.width - BODY)), float(random.uniform(BODY, room.depth - BODY))
        if room.clear_at(x, y, BODY + 0.05) and all(math.hypot(x - toy.x, y - toy.y) >= far for toy in toys):
            return Pose(x, y, int(random.integers(NUM_HEADINGS)))
    return None
