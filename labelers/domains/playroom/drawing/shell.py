"""Walls, floor, rugs, doors, windows and pictures of a room, its furniture in place, and the shadows on its floor."""

import numpy as np

from vlm_rewards.labelers.domains.playroom.drawing.furniture import Part, furniture_parts
from vlm_rewards.labelers.domains.playroom.drawing.meshes import Colour, Mesh, Point, ball, merged, quad
from vlm_rewards.labelers.domains.playroom.rooms import Hanging, Piece, Room, Rug

WHITE: Colour = (0.96, 0.96, 0.95)
_DOOR: Colour = (0.55, 0.38, 0.24)
_CEILING: Colour = (0.93, 0.93, 0.92)

_FLOOR_SCALE = {
    "oak": 0.7,
    "walnut": 0.7,
    "parquet": 0.9,
    "checks": 1.0,
    "terracotta": 0.8,
    "carpet": 0.8,
    "marble": 0.7,
    "slate": 0.8,
}
"""Repeats of a floor's texture per metre."""

_WALL_SCALE = 0.7


def room_parts(room: Room) -> tuple[list[Part], list[Part], Mesh]:
    """Returns the shell of a room, its furniture, and the shadows below it."""
    shell = [Part(room.floor, _floor(room)), Part(room.wall, _walls(room)), Part(None, _trim(room))]
    shell += [_rug(rug) for rug in room.rugs]
    for hanging in room.hangings:
        shell += _hanging(room, hanging)
    furniture = [part for piece in room.furniture for part in _furniture(piece)]
    return (
        _by_texture(shell),
        _by_texture(furniture),
        merged(_no_shadow(), *(_shadow(piece) for piece in room.furniture)),
    )


def _by_texture(parts: list[Part]) -> list[Part]:
    textures = dict.fromkeys(part.texture for part in parts)
    return [Part(name, merged(*(part.mesh for part in parts if part.texture == name))) for name in textures]


def _sheet(
    corners: tuple[Point, Point, Point, Point], colour: Colour, repeats: tuple[float, float], shades: np.ndarray
) -> Mesh:
    """Returns a flat surface of several cells, darkened by [rows, columns] shades at their corners, from the lower left one."""
    rows, columns = shades.shape
    low_left, low_right, _, high_left = (np.asarray(corner, np.float64) for corner in corners)
    v, u = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
    points = low_left + u[..., None] * (low_right - low_left) + v[..., None] * (high_left - low_left)
    normal = np.cross(low_right - low_left, high_left - low_left)
    normal /= np.linalg.norm(normal)
    first = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).reshape(-1)
    count = rows * columns
    return Mesh(
        points.reshape(count, 3).astype(np.float32),
        np.tile(normal, (count, 1)).astype(np.float32),
        (shades.reshape(count, 1) * np.asarray(colour)).astype(np.float32),
        np.stack([u * repeats[0], v * repeats[1]], axis=2).reshape(count, 2).astype(np.float32),
        np.concatenate(
            [
                np.stack([first, first + 1, first + columns + 1], axis=1),
                np.stack([first, first + columns + 1, first + columns], axis=1),
            ]
        ).astype(np.int32),
    )


def _floor(room: Room) -> Mesh:
    edge = np.array([0.72, 0.93, 1.0, 1.0, 0.93, 0.72])
    shades = np.sqrt(edge[:, None] * edge[None, :])
    scale = _FLOOR_SCALE[room.floor]
    corners = ((0.0, 0.0, 0.0), (room.width, 0.0, 0.0), (room.width, room.depth, 0.0), (0.0, room.depth, 0.0))
    return _sheet(corners, (1, 1, 1), (room.width * scale, room.depth * scale), shades)


def _spot(room: Room, wall: int, along: float, z: float, out: float) -> Point:
    """Returns a point before a wall: so many metres from its left end as seen from inside, above the floor and off the wall."""
    return {
        0: (room.width - along, out, z),
        1: (room.width - out, room.depth - along, z),
        2: (along, room.depth - out, z),
        3: (out, along, z),
    }[wall]


def _length(room: Room, wall: int) -> float:
    return room.width if wall % 2 == 0 else room.depth


def _panel(
    room: Room, wall: int, middle: float, low: float, width: float, height: float, out: float, colour: Colour
) -> Mesh:
    corners = [(-width / 2, 0.0), (width / 2, 0.0), (width / 2, height), (-width / 2, height)]
    return quad([_spot(room, wall, middle + u, low + v, out) for u, v in corners], colour)


def _walls(room: Room) -> Mesh:
    across = np.array([0.84, 1.0, 1.0, 0.84])
    upwards = np.array([0.86, 0.97, 1.0, 1.0])
    walls = []
    for wall in range(4):
        length = _length(room, wall)
        corners = (
            _spot(room, wall, 0, 0, 0),
            _spot(room, wall, length, 0, 0),
            _spot(room, wall, length, room.height, 0),
            _spot(room, wall, 0, room.height, 0),
        )
        repeats = (length * _WALL_SCALE, room.height * _WALL_SCALE)
        walls.append(_sheet(corners, room.paint, repeats, upwards[:, None] * across[None, :]))
    return merged(*walls)


def _trim(room: Room) -> Mesh:
    """Returns the skirting boards and the ceiling."""
    boards = [
        _panel(room, wall, _length(room, wall) / 2, 0.0, _length(room, wall) - 0.04, 0.11, 0.025, WHITE)
        for wall in range(4)
    ]
    lips = [
        quad(
            [
                _spot(room, wall, along, 0.11, out)
                for along, out in (
                    (0.02, 0.025),
                    (_length(room, wall) - 0.02, 0.025),
                    (_length(room, wall) - 0.02, 0.0),
                    (0.02, 0.0),
                )
            ],
            WHITE,
        )
        for wall in range(4)
    ]
    top = room.height
    ceiling = quad(
        ((0, room.depth, top), (room.width, room.depth, top), (room.width, 0, top), (0, 0, top)), (1.3, 1.3, 1.28)
    )
    return merged(*boards, *lips, ceiling)


def _rug(rug: Rug) -> Part:
    x, y, z = rug.width / 2, rug.depth / 2, 0.008
    corners = [(rug.x + u * x, rug.y + v * y, z) for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    return Part(rug.texture, quad(corners, (rug.colour[0] * 1.3, rug.colour[1] * 1.3, rug.colour[2] * 1.3)))


def _hanging(room: Room, hanging: Hanging) -> list[Part]:
    wall = hanging.wall
    middle = hanging.along * _length(room, wall)
    if hanging.kind == "door":
        frame = _panel(room, wall, middle, 0.0, 1.02, 2.10, 0.03, WHITE)
        leaf = _panel(room, wall, middle, 0.01, 0.86, 2.0, 0.055, _DOOR)
        fields = [
            _panel(room, wall, middle + u, low, 0.30, height, 0.08, (_DOOR[0] * 0.82, _DOOR[1] * 0.82, _DOOR[2] * 0.82))
            for u in (-0.20, 0.20)
            for low, height in ((0.16, 0.75), (1.05, 0.80))
        ]
        knob = ball(
            (0.035, 0.035, 0.035), (0.85, 0.72, 0.35), _spot(room, wall, middle + 0.36, 0.98, 0.10), around=6, rings=4
        )
        return [Part("wood", leaf), Part(None, merged(frame, *fields, knob))]
    if hanging.kind == "window":
        width, height, low = 1.3, 1.05, 0.90
        pane = _panel(room, wall, middle, low, width, height, 0.045, (1.25, 1.25, 1.25))
        bars = [
            _panel(room, wall, middle, low - 0.08, width + 0.16, height + 0.16, 0.025, WHITE),
            _panel(room, wall, middle, low, 0.05, height, 0.07, WHITE),
            _panel(room, wall, middle, low + height * 0.55, width, 0.05, 0.07, WHITE),
            _panel(room, wall, middle, low - 0.12, width + 0.26, 0.07, 0.09, WHITE),
        ]
        return [Part("sky", pane), Part(None, merged(*bars))]
    width, height, low = 0.85, 0.62, 1.15
    border = [
        _panel(room, wall, middle, low, width, height, 0.03, (0.25, 0.18, 0.12)),
        _panel(room, wall, middle, low + 0.05, width - 0.1, height - 0.1, 0.05, WHITE),
    ]
    picture = _panel(room, wall, middle, low + 0.10, width - 0.2, height - 0.2, 0.075, (1.1, 1.1, 1.1))
    return [Part("painting", picture), Part(None, merged(*border))]


def _furniture(piece: Piece) -> list[Part]:
    parts = furniture_parts(piece.kind, piece.wood, piece.cloth)
    return [Part(part.texture, part.mesh.moved((piece.x, piece.y, 0.0), yaw=90.0 * piece.side)) for part in parts]


def _shadow(piece: Piece) -> Mesh:
    left, low, right, high = piece.bounds
    x, y = (left + right) / 2, (low + high) / 2
    across, along = (right - left) * 0.85 + 0.1, (high - low) * 0.85 + 0.1
    corners = [(x + u * across, y + v * along, 0.016) for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    return quad(corners, (1, 1, 1))


def _no_shadow() -> Mesh:
    """Returns a surface of no size, for rooms without furniture."""
    return quad(((0, 0, -0.01), (1e-3, 0, -0.01), (1e-3, 1e-3, -0.01), (0, 1e-3, -0.01)), (1, 1, 1))
