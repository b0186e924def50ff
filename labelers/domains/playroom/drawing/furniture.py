"""Furniture: pieces with their backs at y = 0 towards a wall, looking along y, on z = 0, centred on x = 0."""

from collections.abc import Callable
from typing import NamedTuple

from vlm_rewards.labelers.domains.playroom.drawing.meshes import (
    Colour,
    Mesh,
    ball,
    box,
    cylinder,
    merged,
    quad,
    turned,
)


class Part(NamedTuple):
    """Part of a scene.

    Attributes:
        texture: Name of its texture; None where its colours are all.
        mesh: Its triangles.
    """

    texture: str | None
    mesh: Mesh


SIZES: dict[str, tuple[float, float, float]] = {
    "bed": (1.00, 1.90, 0.95),
    "sofa": (1.60, 0.80, 0.75),
    "armchair": (0.85, 0.80, 0.75),
    "table": (1.10, 0.70, 0.62),
    "shelf": (0.95, 0.32, 1.75),
    "wardrobe": (1.10, 0.58, 1.95),
    "drawers": (0.90, 0.45, 0.80),
    "plant": (0.42, 0.42, 0.95),
    "nightstand": (0.42, 0.40, 0.50),
    "television": (1.20, 0.42, 1.10),
    "toy chest": (0.80, 0.45, 0.45),
}
"""Width, depth and height of each piece in metres."""


def furniture_parts(kind: str, wood: Colour, cloth: Colour) -> list[Part]:
    """Returns the parts of a piece.

    Args:
        kind: A key of `SIZES`.
        wood: Colour of its wood.
        cloth: Colour of its cloth or paint.
    """
    return _MAKERS[kind](wood, cloth)


def _darker(colour: Colour, share: float = 0.7) -> Colour:
    return (colour[0] * share, colour[1] * share, colour[2] * share)


def _bed(wood: Colour, cloth: Colour) -> list[Part]:
    frame = [
        box((1.0, 0.08, 0.90), wood, (0, 0.04, 0.45)),
        box((1.0, 0.06, 0.48), wood, (0, 1.87, 0.24)),
        box((1.0, 1.82, 0.24), wood, (0, 0.95, 0.16)),
    ]
    sheets = [
        box((0.94, 1.76, 0.16), (0.95, 0.95, 0.93), (0, 0.96, 0.36)),
        box((1.02, 1.20, 0.13), cloth, (0, 1.24, 0.40)),
        box((0.98, 0.16, 0.05), (0.97, 0.97, 0.97), (0, 0.66, 0.465)),
    ]
    pillow = ball((0.32, 0.17, 0.08), (0.98, 0.98, 0.98), (0, 0.28, 0.49), around=10, rings=6)
    return [Part("wood", merged(*frame)), Part("cloth", merged(*sheets, pillow))]


def _sofa(_: Colour, cloth: Colour) -> list[Part]:
    return _seating(cloth, 1.6)


def _armchair(_: Colour, cloth: Colour) -> list[Part]:
    return _seating(cloth, 0.85)


def _seating(cloth: Colour, width: float) -> list[Part]:
    seats = 2 if width > 1 else 1
    inner = width - 0.36
    pieces = [
        box((width, 0.78, 0.22), _darker(cloth, 0.85), (0, 0.41, 0.19)),
        box((width, 0.20, 0.52), cloth, (0, 0.12, 0.49)),
        *(box((0.18, 0.78, 0.28), cloth, (x, 0.41, 0.42)) for x in (-(width - 0.18) / 2, (width - 0.18) / 2)),
    ]
    for seat in range(seats):
        x = (seat + 0.5) * inner / seats - inner / 2
        pieces.append(box((inner / seats - 0.02, 0.56, 0.13), cloth, (x, 0.51, 0.36)))
        pieces.append(box((inner / seats - 0.04, 0.14, 0.36), _darker(cloth, 0.92), (x, 0.28, 0.58)))
    feet = [
        box((0.06, 0.06, 0.08), (0.2, 0.15, 0.1), (x * (width / 2 - 0.08), y, 0.04))
        for x in (-1, 1)
        for y in (0.1, 0.72)
    ]
    return [Part("cloth", merged(*pieces)), Part(None, merged(*feet))]


def _table(wood: Colour, _: Colour) -> list[Part]:
    top = box((1.1, 0.7, 0.05), wood, (0, 0.35, 0.60))
    apron = box((1.0, 0.6, 0.09), _darker(wood, 0.85), (0, 0.35, 0.54))
    legs = [box((0.07, 0.07, 0.56), _darker(wood, 0.9), (x, y, 0.28)) for x in (-0.47, 0.47) for y in (0.06, 0.64)]
    bowl = turned([(0, 0), (0.08, 0), (0.15, 0.09), (0.13, 0.085), (0, 0.03)], (0.9, 0.9, 0.95)).moved(
        (0.15, 0.35, 0.63)
    )
    return [Part("wood", merged(top, apron, *legs)), Part(None, bowl)]


def _shelf(wood: Colour, _: Colour) -> list[Part]:
    sides = [box((0.04, 0.30, 1.75), wood, (x, 0.16, 0.875)) for x in (-0.455, 0.455)]
    boards = [box((0.88, 0.29, 0.035), wood, (0, 0.16, z)) for z in (0.06, 0.46, 0.88, 1.30, 1.73)]
    back = box((0.88, 0.02, 1.70), _darker(wood, 0.6), (0, 0.03, 0.87))
    rows = [
        quad(
            ((0.435, 0.20, z), (-0.435, 0.20, z), (-0.435, 0.20, z + 0.36), (0.435, 0.20, z + 0.36)), (1, 1, 1), (1, 1)
        )
        for z in (0.08, 0.48, 0.90, 1.32)
    ]
    return [Part("wood", merged(*sides, *boards, back)), Part("books", merged(*rows))]


def _wardrobe(wood: Colour, _: Colour) -> list[Part]:
    body = [
        box((1.1, 0.54, 1.85), wood, (0, 0.29, 0.985)),
        box((1.16, 0.58, 0.06), _darker(wood, 0.8), (0, 0.29, 1.93)),
        box((1.1, 0.50, 0.06), _darker(wood, 0.5), (0, 0.28, 0.03)),
    ]
    doors = [box((0.51, 0.02, 1.72), _darker(wood, 1.12), (x, 0.57, 0.98)) for x in (-0.27, 0.27)]
    knobs = [ball((0.025, 0.025, 0.025), (0.8, 0.75, 0.5), (x, 0.60, 0.98), around=6, rings=4) for x in (-0.06, 0.06)]
    return [Part("wood", merged(*body, *doors)), Part(None, merged(*knobs))]


def _drawers(wood: Colour, _: Colour) -> list[Part]:
    body = [
        box((0.9, 0.42, 0.76), wood, (0, 0.22, 0.40)),
        box((0.94, 0.46, 0.04), _darker(wood, 0.85), (0, 0.23, 0.79)),
    ]
    fronts = [box((0.82, 0.02, 0.21), _darker(wood, 1.15), (0, 0.44, z)) for z in (0.17, 0.41, 0.64)]
    knobs = [
        ball((0.022, 0.022, 0.022), (0.85, 0.85, 0.8), (x, 0.465, z), around=6, rings=4)
        for x in (-0.2, 0.2)
        for z in (0.17, 0.41, 0.64)
    ]
    return [Part("wood", merged(*body, *fronts)), Part(None, merged(*knobs))]


def _plant(_: Colour, cloth: Colour) -> list[Part]:
    pot = turned(
        [(0, 0), (0.13, 0), (0.18, 0.28), (0.20, 0.28), (0.20, 0.32), (0.17, 0.32), (0.16, 0.28), (0, 0.28)],
        _darker(cloth, 0.9),
        12,
    )
    leaves = []
    for number in range(9):
        green = (0.13 + 0.03 * (number % 3), 0.38 + 0.05 * (number % 4), 0.16)
        leaf = ball((0.075, 0.02, 0.26), green, (0, 0, 0.26), around=6, rings=6)
        leaves.append(leaf.moved((0, 0, 0.28), pitch=14 + 9 * (number % 4), yaw=40 * number))
    return [Part(None, merged(pot, *leaves).moved((0, 0.21, 0)))]


def _nightstand(wood: Colour, cloth: Colour) -> list[Part]:
    body = [
        box((0.42, 0.38, 0.46), wood, (0, 0.20, 0.25)),
        box((0.34, 0.02, 0.15), _darker(wood, 1.15), (0, 0.395, 0.36)),
    ]
    book = [
        box((0.18, 0.13, 0.03), _darker(cloth, 0.8), (0.04, 0.2, 0.497)),
        box((0.15, 0.12, 0.025), (0.8, 0.78, 0.7), (0.03, 0.2, 0.526)),
    ]
    return [Part("wood", merged(*body)), Part(None, merged(*book))]


def _television(wood: Colour, _: Colour) -> list[Part]:
    stand = [
        box((1.2, 0.40, 0.40), wood, (0, 0.21, 0.22)),
        *(box((0.52, 0.02, 0.28), _darker(wood, 1.15), (x, 0.42, 0.22)) for x in (-0.29, 0.29)),
    ]
    screen = [
        box((1.0, 0.05, 0.58), (0.07, 0.07, 0.08), (0, 0.2, 0.77)),
        box((0.94, 0.01, 0.52), (0.12, 0.17, 0.24), (0, 0.23, 0.77)),
        box((0.2, 0.12, 0.06), (0.1, 0.1, 0.1), (0, 0.2, 0.45)),
    ]
    return [Part("wood", merged(*stand)), Part(None, merged(*screen))]


def _toy_chest(wood: Colour, cloth: Colour) -> list[Part]:
    body = box((0.8, 0.44, 0.36), wood, (0, 0.225, 0.19))
    lid = [
        box((0.84, 0.47, 0.07), _darker(cloth, 0.9), (0, 0.225, 0.41)),
        *(box((0.06, 0.46, 0.36), _darker(cloth, 0.9), (x, 0.225, 0.19)) for x in (-0.3, 0.3)),
    ]
    lock = cylinder(0.04, 0.02, (0.85, 0.75, 0.35), around=8).moved((0, 0.455, 0.33), roll=-90)
    return [Part("wood", body), Part(None, merged(*lid, lock))]


_MAKERS: dict[str, Callable[[Colour, Colour], list[Part]]] = {
    "bed": _bed,
    "sofa": _sofa,
    "armchair": _armchair,
    "table": _table,
    "shelf": _shelf,
    "wardrobe": _wardrobe,
    "drawers": _drawers,
    "plant": _plant,
    "nightstand": _nightstand,
    "television": _television,
    "toy chest": _toy_chest,
}
