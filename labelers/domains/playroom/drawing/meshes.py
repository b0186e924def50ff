"""Meshes made of boxes, turned profiles and tubes, with a colour and a normal per vertex, and their light.

Axes: x forwards, y to the left, z up; in metres. Shape letters: V vertices, T triangles.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np

Colour = tuple[float, float, float]
"""Red, green and blue from 0 to 1."""

Point = tuple[float, float, float]

_POINT = 1e-6
"""Radius of a ring that is one point."""

_WHITE = 248
"""Brightest value of a vertex: at 255 the renderer's steps between vertices overflow to black."""


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Triangles whose vertices have colours.

    Args:
        points: [V, 3] float32, places in metres.
        normals: [V, 3] float32, directions of length 1.
        colours: [V, 3] float32, from 0 to 1, without light.
        places: [V, 2] float32, places in a texture, of which 1 is its whole side.
        triangles: [T, 3] int32, vertices of the triangles, counterclockwise from outside.
    """

    points: np.ndarray
    normals: np.ndarray
    colours: np.ndarray
    places: np.ndarray
    triangles: np.ndarray

    def moved(self, offset: Point = (0, 0, 0), *, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> "Mesh":
        """Returns the mesh, turned by angles in degrees (roll about x first, then pitch about y, then yaw about z) and moved."""
        points, normals = self.points, self.normals
        for axis, angle in ((0, roll), (1, pitch), (2, yaw)):
            if angle:
                turn = _about(axis, angle).T
                points, normals = points @ turn, normals @ turn
        return dataclasses.replace(self, points=points + np.asarray(offset, np.float32), normals=normals)

    def scaled(self, factor: float) -> "Mesh":
        """Returns the mesh at another size."""
        return dataclasses.replace(self, points=self.points * np.float32(factor))

    def lit(self, light: "Light") -> np.ndarray:
        """Returns the colours of the vertices in a light, [V, 3] uint8."""
        sun = np.maximum(self.normals @ np.asarray(light.towards, np.float32), 0)
        shade = light.ambient + light.sky * self.normals[:, 2] + light.sun * sun
        return np.rint(np.clip(self.colours * shade[:, None], 0, 1) * _WHITE).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class Light:
    """The light of a room.

    Args:
        towards: Direction to the sun, of length 1.
        ambient: Light from everywhere.
        sky: What a surface that looks up has more of it, and one that looks down has less.
        sun: Light of the sun.
    """

    towards: Point
    ambient: float = 0.62
    sky: float = 0.16
    sun: float = 0.42


def _about(axis: int, degrees: float) -> np.ndarray:
    """Returns the rotation by an angle about an axis, [3, 3] float32."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = np.eye(3)
    one, other = (axis + 1) % 3, (axis + 2) % 3
    turn[one, one] = turn[other, other] = cosine
    turn[one, other], turn[other, one] = -sine, sine
    return turn.astype(np.float32)


def merged(*meshes: Mesh) -> Mesh:
    """Returns one mesh of several."""
    starts = np.cumsum([0, *(len(mesh.points) for mesh in meshes)])
    return Mesh(
        np.concatenate([mesh.points for mesh in meshes]),
        np.concatenate([mesh.normals for mesh in meshes]),
        np.concatenate([mesh.colours for mesh in meshes]),
        np.concatenate([mesh.places for mesh in meshes]),
        np.concatenate([mesh.triangles + start for mesh, start in zip(meshes, starts, strict=False)]),
    )


def quad(corners: Sequence[Point], colour: Colour, repeats: tuple[float, float] = (1, 1)) -> Mesh:
    """Returns a flat four-sided surface.

    Args:
        corners: Four corners, counterclockwise as seen from outside, from the lower left one of the texture.
        colour: Its colour, which tints a texture.
        repeats: How often a texture is repeated, from the left and from below.
    """
    u, v = repeats
    return _quads(
        np.asarray(corners, np.float32)[None], colour, np.array([[(0, 0), (u, 0), (u, v), (0, v)]], np.float32)
    )


def _quads(corners: np.ndarray, colour: Colour, places: np.ndarray) -> Mesh:
    """Returns flat four-sided surfaces of [n, 4, 3] corners with [n, 4, 2] places in a texture."""
    one, other = corners[:, 1] - corners[:, 0], corners[:, 3] - corners[:, 0]
    normals = one[:, [1, 2, 0]] * other[:, [2, 0, 1]] - one[:, [2, 0, 1]] * other[:, [1, 2, 0]]
    normals /= np.sqrt((normals * normals).sum(axis=1, keepdims=True))
    count = 4 * len(corners)
    return Mesh(
        corners.reshape(count, 3),
        np.repeat(normals, 4, axis=0),
        np.full((count, 3), colour, np.float32),
        places.reshape(count, 2),
        (np.arange(0, count, 4)[:, None, None] + _TWO_TRIANGLES).reshape(-1, 3),
    )


_TWO_TRIANGLES = np.array([(0, 1, 2), (0, 2, 3)], np.int32)
_BOX_CORNERS = np.array(
    [
        [(1, -1, 1), (1, 1, 1), (-1, 1, 1), (-1, -1, 1)],
        [(-1, -1, -1), (-1, 1, -1), (1, 1, -1), (1, -1, -1)],
        [(1, -1, -1), (1, 1, -1), (1, 1, 1), (1, -1, 1)],
        [(-1, 1, -1), (-1, -1, -1), (-1, -1, 1), (-1, 1, 1)],
        [(1, 1, -1), (-1, 1, -1), (-1, 1, 1), (1, 1, 1)],
        [(-1, -1, -1), (1, -1, -1), (1, -1, 1), (-1, -1, 1)],
    ],
    np.float32,
)
"""Corners of the faces of a cube: top, bottom, front, back, left, right."""

_BOX_SIDES = np.array([(1, 0), (1, 0), (1, 2), (1, 2), (0, 2), (0, 2)])
"""The axes along which the texture of each face lies."""


def box(size: Point, colour: Colour, centre: Point = (0, 0, 0), *, taper: float = 1.0, grain: float = 1.0) -> Mesh:
    """Returns a box.

    Args:
        size: Its sides along x, y and z.
        colour: Its colour.
        centre: Its middle.
        taper: Size of its top in terms of its bottom.
        grain: Repeats of a texture per metre.
    """
    sides = np.asarray(size, np.float32)
    corners = _BOX_CORNERS * (sides / 2)
    if taper != 1:
        corners[..., :2] *= np.where(_BOX_CORNERS[..., 2:] > 0, np.float32(taper), np.float32(1))
    corners += np.asarray(centre, np.float32)
    places = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32) * (sides[_BOX_SIDES] * np.float32(grain))[:, None]
    return _quads(corners, colour, places)


def turned(profile: Sequence[tuple[float, float]], colour: Colour, around: int = 12) -> Mesh:
    """Returns a profile turned about the z axis, with smooth sides.

    Args:
        profile: Radius and height of its rings, from the lowest one on the outside; a ring that occurs twice is an edge.
        colour: Its colour.
        around: Sides of a ring.
    """
    rings = np.asarray(profile, np.float64)
    edges = np.diff(rings, axis=0)
    slopes = np.stack([edges[:, 1], -edges[:, 0]], axis=1)
    lengths = np.linalg.norm(slopes, axis=1, keepdims=True)
    slopes = np.divide(slopes, lengths, out=np.zeros_like(slopes), where=lengths > 0)
    outwards = np.zeros_like(rings)
    outwards[:-1] += slopes
    outwards[1:] += slopes
    outwards /= np.maximum(np.linalg.norm(outwards, axis=1, keepdims=True), 1e-9)
    angles = np.linspace(0, 2 * math.pi, around + 1)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = np.concatenate(
        [rings[:, None, :1] * circle, np.broadcast_to(rings[:, None, 1:], (len(rings), around + 1, 1))], axis=2
    )
    normals = np.concatenate(
        [outwards[:, None, :1] * circle, np.broadcast_to(outwards[:, None, 1:], (len(rings), around + 1, 1))], axis=2
    )
    along = np.linspace(0, 1, len(rings))
    places = np.stack(np.meshgrid(angles / (2 * math.pi), along), axis=2)
    first = np.arange(len(rings) - 1)[:, None] * (around + 1) + np.arange(around)
    below = first[(lengths[:, 0] > 0) & (rings[:-1, 0] > _POINT)].reshape(-1)
    above = first[(lengths[:, 0] > 0) & (rings[1:, 0] > _POINT)].reshape(-1)
    triangles = np.concatenate(
        [
            np.stack([below, below + 1, below + around + 2], axis=1),
            np.stack([above, above + around + 2, above + around + 1], axis=1),
        ]
    )
    count = len(rings) * (around + 1)
    return Mesh(
        points.reshape(count, 3).astype(np.float32),
        normals.reshape(count, 3).astype(np.float32),
        np.tile(np.asarray(colour, np.float32), (count, 1)),
        places.reshape(count, 2).astype(np.float32),
        triangles.astype(np.int32),
    )


def cylinder(radius: float, height: float, colour: Colour, *, top: float | None = None, around: int = 12) -> Mesh:
    """Returns a closed cylinder, or a cone with another radius at its top, that stands on z = 0."""
    upper = radius if top is None else top
    return turned([(0, 0), (radius, 0), (radius, 0), (upper, height), (upper, height), (0, height)], colour, around)


def ball(radii: Point, colour: Colour, centre: Point = (0, 0, 0), *, around: int = 12, rings: int = 7) -> Mesh:
    """Returns an ellipsoid."""
    round_one = _unit_ball(around, rings)
    size = np.asarray(radii, np.float32)
    normals = round_one.points / size
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    return dataclasses.replace(
        round_one,
        points=round_one.points * size + np.asarray(centre, np.float32),
        normals=normals,
        colours=np.full_like(round_one.colours, colour),
    )


@functools.cache
def _unit_ball(around: int, rings: int) -> Mesh:
    angles = np.linspace(-math.pi / 2, math.pi / 2, rings + 1)
    return turned(list(zip(np.cos(angles), np.sin(angles), strict=True)), (1, 1, 1), around)


def tube(path: Sequence[Point], radius: float, colour: Colour, around: int = 6) -> Mesh:
    """Returns a round tube along a path in a plane that holds the z axis, such as the handle of a mug."""
    points = np.asarray(path, np.float64)
    ahead = np.gradient(points, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    flat = points[-1] - points[0]
    across = np.cross(ahead, flat if np.abs(np.cross(ahead, flat)).sum() > 1e-6 else (0.0, 1.0, 0.3))
    across = across[np.argmax(np.linalg.norm(across, axis=1))]
    across /= np.linalg.norm(across)
    third = np.cross(ahead, across)
    angles = np.linspace(0, 2 * math.pi, around + 1)
    outwards = np.cos(angles)[None, :, None] * across + np.sin(angles)[None, :, None] * third[:, None]
    count = len(points) * (around + 1)
    first = (np.arange(len(points) - 1)[:, None] * (around + 1) + np.arange(around)).reshape(-1)
    triangles = np.concatenate(
        [
            np.stack([first, first + 1, first + around + 2], axis=1),
            np.stack([first, first + around + 2, first + around + 1], axis=1),
        ]
    )
    return Mesh(
        (points[:, None] + radius * outwards).reshape(count, 3).astype(np.float32),
        outwards.reshape(count, 3).astype(np.float32),
        np.tile(np.asarray(colour, np.float32), (count, 1)),
        np.zeros((count, 2), np.float32),
        triangles.astype(np.int32),
    )
