"""Draws BabyAI scenes and their frames, many thousands per second, as MiniGrid would render them, pixel for pixel.

A scene is what one agent sees: a 7x7 crop of a real level's walls and doors from a random pose, objects placed at random
on its visible floor (boosted next to each other, and nearly so), perhaps something carried. MiniGrid's frames are mosaics
of 58 different tiles, so a frame is a table look-up:

    layout + pose ──► crop, rotate ──► visibility ──► objects ──► view [N, 7, 7, 3] ──► tiles [N, 7, 7] ──► frames
                                                                       └──► vlm_rewards.labelers.domains.babyai.goals.ground_truth

Layouts are drawn from TRAIN_SEEDS; VALIDATION_SEEDS are for choices, EVALUATION_SEEDS for reported figures.

Shape letters: N scenes, S tile size in pixels. Views are indexed [x, y] as in MiniGrid, tiles and frames [y, x] as images.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from vlm_rewards.labelers.domains.babyai.goals import (
    AGENT_CELL,
    COLOURS,
    FRONT_CELL,
    NUM_KINDS,
    TYPES,
    VIEW_SIZE,
    kind_indices,
)

TRAIN_SEEDS = range(500_000)
VALIDATION_SEEDS = range(500_000, 1_000_000)
EVALUATION_SEEDS = range(1_000_000, 1_500_000)

ROOM_LEVELS = (
    "BabyAI-GoToObj-v0",
    "BabyAI-GoToObjS4-v0",
    "BabyAI-GoToObjS6-v1",
    "BabyAI-GoToLocal-v0",
    "BabyAI-PickupDist-v0",
    "BabyAI-PutNextLocal-v0",
    "BabyAI-PutNextLocalS5N3-v0",
    "BabyAI-PutNextS5N2-v0",
    "BabyAI-PutNextS6N3-v0",
    "BabyAI-PutNextS7N4-v0",
    "BabyAI-MoveTwoAcrossS8N9-v0",
    "BabyAI-OneRoomS12-v0",
    "BabyAI-OneRoomS16-v0",
)
"""Levels of one or two rooms, with few different layouts."""

MAZE_LEVELS = (
    "BabyAI-GoTo-v0",
    "BabyAI-GoToObjMazeS4-v0",
    "BabyAI-GoToObjMazeOpen-v0",
    "BabyAI-Open-v0",
    "BabyAI-OpenDoorColor-v0",
    "BabyAI-Pickup-v0",
    "BabyAI-UnblockPickup-v0",
    "BabyAI-FindObjS5-v0",
    "BabyAI-FindObjS7-v0",
    "BabyAI-UnlockPickup-v0",
    "BabyAI-KeyCorridorS4R3-v0",
)
"""Levels of several rooms joined by doors."""

_UNSEEN, _EMPTY, _WALL, _DOOR, _KEY = 0, 1, 2, 4, 5  # MiniGrid's object types
_OPEN = 0  # MiniGrid's door states: open 0, closed 1, locked 2
_GREY = 5
_PAD = VIEW_SIZE - 1  # what lies outside a level is wall

# Tile ids: what is drawn in a cell. The agent's own cell shows the agent over what it carries.
_TILE_UNSEEN, _TILE_EMPTY, _TILE_WALL, _TILE_DOOR = 0, 1, 2, 3
_TILE_OBJECT = _TILE_DOOR + 3 * len(COLOURS)
_TILE_AGENT = _TILE_OBJECT + NUM_KINDS
_TILE_AGENT_CARRYING = _TILE_AGENT + 1
NUM_TILES = _TILE_AGENT_CARRYING + NUM_KINDS


@dataclass(frozen=True, kw_only=True)
class Layouts:
    """Walls, floors and doors of real levels, objects removed.

    Attributes:
        cells: `[L, W, H, 3]` uint8, MiniGrid's encoding [x, y] of each level, padded on all sides with 6 cells of wall.
        free: `[F, 2]` int64, padded (x, y) of the cells an agent can stand on, level after level.
        first_free: `[L + 1]` int64, where each level's cells start in `free`.
    """

    cells: np.ndarray
    free: np.ndarray
    first_free: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """N scenes.

    Attributes:
        view: `[N, 7 (x), 7 (y), 3]` uint8, MiniGrid's encoding of what the agent sees, as in its observation's `image`.
        carrying: `[N, 2]` uint8, (type, colour) of the carried object, zeros for none.
        tiles: `[N, 7 (y), 7 (x)]` uint8 tile ids, for `render`.
    """

    view: np.ndarray
    carrying: np.ndarray
    tiles: np.ndarray


def load_layouts(
    seeds: Sequence[int],
    *,
    room_levels: Sequence[str] = ROOM_LEVELS,
    maze_levels: Sequence[str] = MAZE_LEVELS,
    num_rooms: int = 8,
    num_mazes: int = 32,
) -> Layouts:
    """Resets real levels and keeps their walls and doors.

    Args:
        seeds: Seeds of the resets, used in order and from the first one for each level.
        room_levels: Gymnasium ids of levels drawn `num_rooms` times each.
        maze_levels: Gymnasium ids of levels drawn `num_mazes` times each.
        num_rooms: Layouts per room level.
        num_mazes: Layouts per maze level.

    Returns:
        The layouts, one per reset.

    Raises:
        ImportError: MiniGrid is not installed.
    """
    make = _minigrid().make
    grids = []
    for levels, count in ((room_levels, num_rooms), (maze_levels, num_mazes)):
        for level in levels:
            env = make(level)
            for seed in seeds[:count]:
                with contextlib.redirect_stdout(io.StringIO()):  # levels print "Sampling rejected ..."
                    env.reset(seed=seed)
                grids.append(env.unwrapped.grid.encode())
            env.close()
    width = max(grid.shape[0] for grid in grids) + 2 * _PAD
    height = max(grid.shape[1] for grid in grids) + 2 * _PAD
    cells = np.tile(np.array([_WALL, _GREY, 0], dtype=np.uint8), (len(grids), width, height, 1))
    free = []
    for index, grid in enumerate(grids):
        is_object = kind_indices(grid[..., 0], grid[..., 1]) >= 0
        grid = np.where(is_object[..., None], np.array([_EMPTY, 0, 0], dtype=np.uint8), grid)
        cells[index, _PAD : _PAD + grid.shape[0], _PAD : _PAD + grid.shape[1]] = grid
        free.append(np.argwhere((grid[..., 0] == _EMPTY) | (grid[..., 0] == _DOOR)) + _PAD)
    first_free = np.cumsum([0] + [len(places) for places in free])
    return Layouts(cells=cells, free=np.concatenate(free), first_free=first_free)


def draw_scenes(layouts: Layouts, rng: np.random.Generator, num_scenes: int) -> Scenes:
    """Draws scenes: a layout, a pose, then objects and what is carried.

    Up to ten objects are placed one after the other on visible floor: the first in front of the agent in a third of the
    scenes, each later one next to, nearly next to (diagonal or two away), or anywhere from the one before. In half of the scenes
    the kinds come from few colours or types, so that only the pairing tells two captions apart.

    Args:
        layouts: Layouts from `load_layouts`.
        rng: Source of all randomness.
        num_scenes: N.

    Returns:
        N scenes.
    """
    level = rng.integers(len(layouts.cells), size=num_scenes)
    start, stop = layouts.first_free[level], layouts.first_free[level + 1]
    position = layouts.free[start + (rng.random(num_scenes) * (stop - start)).astype(np.int64)]
    view = _crop(layouts.cells, level, position, rng.integers(4, size=num_scenes))

    is_door = view[..., 0] == _DOOR
    view[..., 1] = np.where(is_door, rng.integers(len(COLOURS), size=is_door.shape), view[..., 1])
    view[..., 2] = np.where(is_door, rng.integers(3, size=is_door.shape), view[..., 2])
    view[:, AGENT_CELL[0], AGENT_CELL[1]] = (_EMPTY, 0, 0)  # also where the agent stands in an open door
    view[~visible_cells(view)] = _UNSEEN

    kinds = _draw_kinds(rng, num_scenes, _MAX_OBJECTS + 1)
    _place_objects(view, kinds[:, 1:], rng)
    carries = rng.random(num_scenes) < 0.45
    carrying = _kind_codes(kinds[:, 0])[:, :2] * carries[:, None].astype(np.uint8)
    view[:, AGENT_CELL[0], AGENT_CELL[1], :2] = np.where(carries[:, None], carrying, [_EMPTY, 0])
    view[:, AGENT_CELL[0], AGENT_CELL[1], 2] = 0
    return Scenes(view=view, carrying=carrying, tiles=view_tiles(view))


def visible_cells(view: np.ndarray) -> np.ndarray:
    """Returns which cells the agent sees: MiniGrid's `Grid.process_vis`, for many views at once.

    Args:
        view: `[N, 7 (x), 7 (y), 3]` integers, MiniGrid's encoding of the whole crop, before anything is hidden.

    Returns:
        `[N, 7 (x), 7 (y)]` bool.

    Source: `minigrid.core.grid.Grid.process_vis`, the loops over cells kept and each step done for all views.
    """
    clear = (view[..., 0] != _WALL) & ~((view[..., 0] == _DOOR) & (view[..., 2] != _OPEN))
    mask = np.zeros((VIEW_SIZE, VIEW_SIZE, len(view)), dtype=bool)  # the views last: each step reads whole rows
    clear = np.ascontiguousarray(np.moveaxis(clear, 0, -1))
    mask[AGENT_CELL] = True
    for y in reversed(range(VIEW_SIZE)):
        for step, columns in ((1, range(VIEW_SIZE - 1)), (-1, range(VIEW_SIZE - 1, 0, -1))):
            for x in columns:
                through = mask[x, y] & clear[x, y]
                mask[x + step, y] |= through
                if y > 0:
                    mask[x + step, y - 1] |= through
                    mask[x, y - 1] |= through
    return np.moveaxis(mask, -1, 0)


def view_tiles(view: np.ndarray) -> np.ndarray:
    """Returns which tile MiniGrid draws in every cell of what an agent sees.

    Args:
        view: `[N, 7 (x), 7 (y), 3]` integers, the `image` of MiniGrid's observations, unseen cells 0.

    Returns:
        `[N, 7 (y), 7 (x)]` uint8 tile ids, for `render`.

    Raises:
        ValueError: the view holds a type that BabyAI does not draw.
    """
    types, colours, states = np.moveaxis(view.astype(np.int64), -1, 0)
    kinds = kind_indices(types, colours)
    tiles = np.full(types.shape, -1)
    tiles[types == _UNSEEN] = _TILE_UNSEEN
    tiles[types == _EMPTY] = _TILE_EMPTY
    tiles[types == _WALL] = _TILE_WALL
    tiles = np.where(types == _DOOR, _TILE_DOOR + 3 * colours + states, tiles)
    tiles = np.where(kinds >= 0, _TILE_OBJECT + kinds, tiles)
    carried = kinds[:, AGENT_CELL[0], AGENT_CELL[1]]
    tiles[:, AGENT_CELL[0], AGENT_CELL[1]] = np.where(carried >= 0, _TILE_AGENT_CARRYING + carried, _TILE_AGENT)
    if (tiles < 0).any():
        unknown = int(types[tiles < 0][0])
        raise ValueError(
            f"view must hold walls, doors, keys, balls and boxes only, got MiniGrid type {unknown}; use a BabyAI level"
        )
    return np.ascontiguousarray(tiles.swapaxes(1, 2)).astype(np.uint8)


def render(tiles: np.ndarray, tile_size: int = 8) -> np.ndarray:
    """Composes frames from MiniGrid's own tiles, equal to `env.get_frame(tile_size=S, agent_pov=True)` bit for bit.

    Args:
        tiles: `[N, 7 (y), 7 (x)]` uint8 tile ids.
        tile_size: S, pixels per cell: 8 for 56x56 frames, 32 for 224x224.

    Returns:
        `[N, 7 S, 7 S, 3]` uint8 frames.

    Raises:
        ImportError: MiniGrid is not installed.
    """
    mosaic = tile_table(tile_size)[tiles]  # [N, 7, 7, S, S, 3]
    return mosaic.swapaxes(2, 3).reshape(len(tiles), VIEW_SIZE * tile_size, VIEW_SIZE * tile_size, 3)


@cache
def tile_table(tile_size: int) -> np.ndarray:
    """Renders every tile once with MiniGrid.

    Args:
        tile_size: S, pixels per cell.

    Returns:
        `[58, S, S, 3]` uint8.

    Raises:
        ImportError: MiniGrid is not installed.
    """
    minigrid = _minigrid()
    door = [minigrid.Door(colour, is_open=state == 0, is_locked=state == 2) for colour in COLOURS for state in range(3)]
    objects = [minigrid.WORLD_OBJECTS[kind](colour) for colour in COLOURS for kind in TYPES]
    plain = [None, minigrid.Wall(), *door, *objects]
    tile = minigrid.Grid.render_tile
    drawn = [tile(None, tile_size=tile_size)]
    drawn += [tile(thing, highlight=True, tile_size=tile_size) for thing in plain]
    drawn += [tile(thing, agent_dir=3, highlight=True, tile_size=tile_size) for thing in [None, *objects]]
    return np.stack(drawn).astype(
        np.uint8
    )  # MiniGrid stores the averaged pixels in uint8 frames, cutting off fractions


_MAX_OBJECTS = 10


def _crop(cells: np.ndarray, level: np.ndarray, position: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Returns the 7x7 cells before each agent, in its own coordinates: forward is -y, right is +x."""
    forward = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])[direction]
    right = np.stack([-forward[:, 1], forward[:, 0]], axis=1)
    ahead = (AGENT_CELL[1] - np.arange(VIEW_SIZE))[None, None, :, None]
    aside = (np.arange(VIEW_SIZE) - AGENT_CELL[0])[None, :, None, None]
    world = position[:, None, None] + forward[:, None, None] * ahead + right[:, None, None] * aside
    return cells[level[:, None, None], world[..., 0], world[..., 1]]


def _draw_kinds(rng: np.random.Generator, num_scenes: int, count: int) -> np.ndarray:
    """Returns [N, count] object kinds; in half of the scenes from two colours, or from one or two types."""
    colours = rng.integers(len(COLOURS), size=(num_scenes, count))
    types = rng.integers(len(TYPES), size=(num_scenes, count))
    few = rng.random(num_scenes)
    two_colours = np.take_along_axis(colours, rng.integers(2, size=colours.shape), axis=1)
    two_types = np.take_along_axis(types, rng.integers(2, size=types.shape), axis=1)
    colours = np.where((few < 0.35)[:, None], two_colours, colours)
    types = np.where((few > 0.8)[:, None], two_types, types)
    return len(TYPES) * colours + types


def _place_objects(view: np.ndarray, kinds: np.ndarray, rng: np.random.Generator) -> None:
    """Puts a random number of objects on visible floor, in place."""
    num_scenes = len(view)
    count = rng.integers(0, _MAX_OBJECTS + 1, size=num_scenes)
    floor = (view[..., 0] == _EMPTY).reshape(num_scenes, -1)
    floor[:, _cell(*AGENT_CELL)] = False
    rows = np.arange(num_scenes)
    codes = _kind_codes(kinds)
    cells = view.reshape(num_scenes, -1, 3)
    near, nearly = _neighbourhoods()
    last = np.full(num_scenes, _cell(*FRONT_CELL))
    for index in range(_MAX_OBJECTS):
        wish = rng.random((num_scenes, floor.shape[1]), dtype=np.float32)
        choice = rng.random(num_scenes)
        if index == 0:
            wish[choice < 0.35, _cell(*FRONT_CELL)] += 1
        else:
            wish += near[last] * (choice < 0.2)[:, None] + nearly[last] * (choice > 0.9)[:, None]
        place = np.where(floor, wish, -1).argmax(axis=1)
        put = (index < count) & floor[rows, place]
        cells[rows[put], place[put]] = codes[put, index]
        floor[rows[put], place[put]] = False
        last = np.where(put, place, last)


def _kind_codes(kinds: np.ndarray) -> np.ndarray:
    """Returns MiniGrid's (type, colour, state) of object kinds."""
    return np.stack([_KEY + kinds % len(TYPES), kinds // len(TYPES), np.zeros_like(kinds)], axis=-1).astype(np.uint8)


def _cell(x: int, y: int) -> int:
    return x * VIEW_SIZE + y


@cache
def _neighbourhoods() -> tuple[np.ndarray, np.ndarray]:
    """Returns two [49, 49] float32 tables of 0 and 1 over pairs of cells: at distance one; diagonal or two away."""
    xy = np.stack(np.divmod(np.arange(VIEW_SIZE**2), VIEW_SIZE), axis=1)
    distance = np.abs(xy[:, None] - xy[None]).sum(axis=-1)
    return (distance == 1).astype(np.float32), (distance == 2).astype(np.float32)


class _MiniGrid:
    """The parts of MiniGrid and Gymnasium in use."""

    def __init__(self) -> None:
        import gymnasium
        import minigrid  # noqa: F401  registers the levels
        from minigrid.core.grid import Grid
        from minigrid.core.world_object import Ball, Box, Door, Key, Wall

        self.make: Any = gymnasium.make
        self.Grid: Any = Grid
        self.Door: Any = Door
        self.Wall: Any = Wall
        self.WORLD_OBJECTS: dict[str, Any] = {"key": Key, "ball": Ball, "box": Box}


@cache
def _minigrid() -> _MiniGrid:
    try:
        return _MiniGrid()
    except ImportError as error:
        raise ImportError(
            "drawing BabyAI scenes needs MiniGrid, which is not installed; pip install 'vlm-rewards[babyai]'"
        ) from error
