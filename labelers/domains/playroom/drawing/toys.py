"""The toys: 12 kinds in 8 colours, each some 0.4 m large, standing on z = 0 and looking along x."""

import functools
import math
from collections.abc import Callable

from vlm_rewards.labelers.domains.playroom.drawing.meshes import (
    Colour,
    Mesh,
    ball,
    box,
    cylinder,
    merged,
    quad,
    tube,
    turned,
)

PAINTS: dict[str, Colour] = {
    "red": (0.86, 0.08, 0.08),
    "orange": (1.0, 0.47, 0.02),
    "yellow": (0.98, 0.85, 0.08),
    "green": (0.08, 0.60, 0.14),
    "blue": (0.08, 0.22, 0.88),
    "purple": (0.46, 0.11, 0.68),
    "pink": (1.0, 0.42, 0.70),
    "white": (0.96, 0.96, 0.96),
}
"""Colours of toys by name."""

DARK: Colour = (0.10, 0.10, 0.12)
GREY: Colour = (0.45, 0.46, 0.50)
SILVER: Colour = (0.72, 0.74, 0.78)
GLASS: Colour = (0.30, 0.52, 0.70)
CREAM: Colour = (0.98, 0.92, 0.78)
CARDBOARD: Colour = (0.62, 0.45, 0.28)


@functools.lru_cache(maxsize=96)
def toy_mesh(colour: str, thing: str) -> Mesh:
    """Returns the mesh of a toy."""
    return _MAKERS[thing](PAINTS[colour])


def _pale(paint: Colour, share: float = 0.55) -> Colour:
    """Returns a colour mixed with white; white itself turns grey, so that it shows."""
    if min(paint) > 0.9:
        return (0.74, 0.76, 0.80)
    return (1 - share * (1 - paint[0]), 1 - share * (1 - paint[1]), 1 - share * (1 - paint[2]))


def _deep(paint: Colour, share: float = 0.62) -> Colour:
    return (paint[0] * share, paint[1] * share, paint[2] * share)


def _ball(paint: Colour) -> Mesh:
    whole = ball((0.20, 0.20, 0.20), paint, around=18, rings=11)
    colours = whole.colours.copy()
    band = abs(whole.points[:, 2] + 0.35 * whole.points[:, 0]) < 0.035
    colours[band] = CREAM if min(paint) <= 0.9 else (0.62, 0.64, 0.70)
    return Mesh(whole.points, whole.normals, colours, whole.places, whole.triangles).moved((0, 0, 0.20))


def _mug(paint: Colour) -> Mesh:
    outside = turned([(0, 0), (0.15, 0), (0.15, 0), (0.17, 0.04), (0.17, 0.36), (0.17, 0.36), (0.145, 0.36)], paint, 16)
    inside = turned([(0.145, 0.36), (0.14, 0.22), (0.14, 0.22), (0, 0.22)], _deep(paint), 16)
    drink = cylinder(0.14, 0.01, (0.24, 0.13, 0.07), around=16).moved((0, 0, 0.245))
    arc = [(0.165 + 0.13 * math.sin(a), 0, 0.19 - 0.12 * math.cos(a)) for a in (i * math.pi / 7 for i in range(8))]
    return merged(outside, inside, drink, tube(arc, 0.032, paint))


def _lamp(paint: Colour) -> Mesh:
    foot = turned([(0, 0), (0.15, 0), (0.15, 0), (0.15, 0.025), (0.05, 0.06), (0, 0.06)], GREY, 14)
    stem = cylinder(0.022, 0.24, SILVER, around=6).moved((0, 0, 0.05))
    shade = turned([(0.23, 0.27), (0.23, 0.27), (0.11, 0.53), (0.11, 0.53), (0, 0.53)], paint, 16)
    glow = turned([(0, 0.30), (0.215, 0.275)], (1.25, 1.15, 0.75), 16)
    rims = [
        turned([(r, z), (r, z), (r + 0.005, z + 0.025)], _deep(paint), 16) for r, z in ((0.231, 0.265), (0.113, 0.51))
    ]
    return merged(foot, stem, shade, glow, *rims)


def _plane(paint: Colour) -> Mesh:
    profile = [(0, -0.31), (0.025, -0.30), (0.055, -0.15), (0.085, 0.05), (0.085, 0.20), (0.06, 0.28), (0, 0.30)]
    body = turned(profile, paint, 10).moved((0, 0, 0.17), pitch=90)
    wing = box((0.15, 0.74, 0.025), paint, (0.06, 0, 0.15))
    tips = [box((0.152, 0.09, 0.028), _pale(paint, 0.35), (0.06, y, 0.15)) for y in (-0.33, 0.33)]
    tail = box((0.10, 0.30, 0.022), paint, (-0.26, 0, 0.19))
    fin = box((0.11, 0.025, 0.17), _deep(paint), (-0.27, 0, 0.27), taper=0.7)
    cabin = ball((0.09, 0.055, 0.06), GLASS, (0.09, 0, 0.245), around=8, rings=5)
    nose = cylinder(0.035, 0.05, DARK, top=0.01, around=6).moved((0.30, 0, 0.17), pitch=90)
    blades = [box((0.012, 0.03, 0.26), DARK, (0.32, 0, 0.17))]
    wheels = [cylinder(0.045, 0.035, DARK, around=8).moved((0.10, y, 0.045), roll=90) for y in (-0.10, 0.14)]
    legs = [box((0.02, 0.02, 0.09), GREY, (0.10, y, 0.09)) for y in (-0.115, 0.115)]
    return merged(body, wing, *tips, tail, fin, cabin, nose, *blades, *wheels, *legs)


def _boat(paint: Colour) -> Mesh:
    low, high = 0.0, 0.15
    bow, half, stern = 0.34, 0.15, -0.27
    top = [
        (bow, 0, high + 0.05),
        (0.08, half, high),
        (stern, half * 0.85, high),
        (stern, -half * 0.85, high),
        (0.08, -half, high),
    ]
    keel = [
        (bow - 0.12, 0, low),
        (0.05, 0.06, low),
        (stern + 0.05, 0.06, low),
        (stern + 0.05, -0.06, low),
        (0.05, -0.06, low),
    ]
    sides = [
        quad((keel[i], keel[(i + 1) % 5], top[(i + 1) % 5], top[i]), paint if i % 2 else _deep(paint, 0.85))
        for i in range(5)
    ]
    deck = [quad((top[4], top[0], top[1], top[1]), CREAM), quad((top[4], top[1], top[2], top[3]), CREAM)]
    mast = cylinder(0.016, 0.50, (0.45, 0.28, 0.14), around=6).moved((0.03, 0, 0.12))
    sails = []
    for side in (1, -1):
        for one, other, peak in (
            ((0.0, 0.19), (-0.27, 0.21), (0.0, 0.60)),
            ((0.055, 0.20), (0.27, 0.24), (0.055, 0.54)),
        ):
            corners = [
                (one[0], 0.004 * side, one[1]),
                (other[0], 0.004 * side, other[1]),
                (peak[0], 0.004 * side, peak[1]),
            ]
            if (other[0] - one[0]) * side < 0:
                corners = [corners[1], corners[0], corners[2]]
            tint = _pale(paint, 0.30) if one[0] < 0.05 else _pale(paint, 0.75)
            sails.append(quad((corners[0], corners[1], corners[2], corners[2]), tint))
    return merged(*sides, *deck, mast, *(sail for sail in sails))


def _helicopter(paint: Colour) -> Mesh:
    body = ball((0.20, 0.14, 0.14), paint, (0.04, 0, 0.22), around=12, rings=8)
    nose = ball((0.13, 0.118, 0.11), GLASS, (0.135, 0, 0.235), around=10, rings=6)
    boom = cylinder(0.05, 0.30, paint, top=0.022, around=8).moved((-0.10, 0, 0.25), pitch=-90)
    fin = box((0.08, 0.02, 0.16), _deep(paint), (-0.39, 0, 0.30), taper=0.7)
    tail_rotor = box((0.15, 0.01, 0.025), DARK, (-0.39, 0.03, 0.31))
    mast = cylinder(0.02, 0.10, GREY, around=6).moved((0.03, 0, 0.35))
    blades = [box((0.78, 0.05, 0.014), DARK).moved((0.03, 0, 0.45), yaw=angle) for angle in (25, 115)]
    skids = [box((0.36, 0.025, 0.025), DARK, (0.03, y, 0.0125)) for y in (-0.12, 0.12)]
    legs = [box((0.02, 0.02, 0.12), GREY, (x, y, 0.07)) for x in (-0.05, 0.11) for y in (-0.12, 0.12)]
    return merged(body, nose, boom, fin, tail_rotor, mast, *blades, *skids, *legs)


def _roll(paint: Colour) -> Mesh:
    radius, width = 0.19, 0.34
    sheet = turned([(radius, 0), (radius, width)], paint, 18)
    ends = []
    for inner, outer, tint in (
        (0.065, 0.12, _pale(paint, 0.65)),
        (0.12, 0.165, _pale(paint, 0.45)),
        (0.165, radius, _pale(paint, 0.65)),
    ):
        ends += [turned([(outer, width), (inner, width)], tint, 18), turned([(inner, 0), (outer, 0)], tint, 18)]
    core = turned([(0.065, width), (0.065, 0)], CARDBOARD, 12)
    edges = [turned([(0.075, z), (0.052, z)][:: 1 if z > 0.1 else -1], CARDBOARD, 12) for z in (-0.003, width + 0.003)]
    lying = merged(sheet, *ends, core, *edges).moved((0, width / 2, radius), roll=90)
    loose = quad(
        ((0.30, -width / 2, 0.012), (0.30, width / 2, 0.012), (0.0, width / 2, 0.014), (0.0, -width / 2, 0.014)),
        _pale(paint, 0.8),
    )
    return merged(lying, loose)


def _car(paint: Colour) -> Mesh:
    body = box((0.60, 0.30, 0.13), paint, (0, 0, 0.145))
    cabin = box((0.34, 0.28, 0.14), paint, (-0.04, 0, 0.28), taper=0.72)
    panes = [
        box((0.27, 0.286, 0.085), GLASS, (-0.04, 0, 0.277), taper=0.78),
        box((0.346, 0.22, 0.08), GLASS, (-0.04, 0, 0.277), taper=0.78),
    ]
    wheels = [
        merged(
            cylinder(0.085, 0.06, DARK, around=10), cylinder(0.04, 0.066, SILVER, around=8).moved((0, 0, -0.003))
        ).moved((x, y, 0.085), roll=90)
        for x in (-0.19, 0.19)
        for y in (-0.12, 0.18)
    ]
    lights = [box((0.02, 0.06, 0.05), (1.2, 1.1, 0.6), (0.30, y, 0.16)) for y in (-0.10, 0.10)]
    rear = [box((0.02, 0.05, 0.04), (0.75, 0.05, 0.05), (-0.30, y, 0.16)) for y in (-0.11, 0.11)]
    bumpers = [box((0.03, 0.31, 0.04), GREY, (x, 0, 0.10)) for x in (-0.30, 0.30)]
    return merged(body, cabin, *panes, *wheels, *lights, *rear, *bumpers)


def _duck(paint: Colour) -> Mesh:
    beak_paint = (0.98, 0.52, 0.05) if paint != PAINTS["orange"] else (0.98, 0.86, 0.12)
    body = ball((0.23, 0.17, 0.15), paint, (-0.02, 0, 0.15), around=14, rings=8)
    tail = cylinder(0.075, 0.16, paint, top=0.01, around=8).moved((-0.17, 0, 0.20), pitch=-55)
    neck = cylinder(0.085, 0.12, paint, top=0.075, around=10).moved((0.12, 0, 0.22))
    head = ball((0.125, 0.115, 0.115), paint, (0.14, 0, 0.385), around=12, rings=8)
    beak = ball((0.095, 0.07, 0.028), beak_paint, (0.275, 0, 0.365), around=8, rings=4)
    eyes = [ball((0.022, 0.018, 0.026), DARK, (0.215, y, 0.425), around=6, rings=4) for y in (-0.075, 0.075)]
    wings = [
        ball((0.13, 0.03, 0.075), _deep(paint, 0.85), (-0.05, y, 0.185), around=8, rings=5) for y in (-0.158, 0.158)
    ]
    return merged(body, tail, neck, head, beak, *eyes, *wings)


def _teddy(paint: Colour) -> Mesh:
    pale = _pale(paint, 0.40)
    body = ball((0.13, 0.145, 0.165), paint, (0, 0, 0.18), around=12, rings=7)
    belly = ball((0.06, 0.09, 0.11), pale, (0.082, 0, 0.18), around=8, rings=5)
    head = ball((0.12, 0.135, 0.12), paint, (0.01, 0, 0.42), around=12, rings=7)
    muzzle = ball((0.06, 0.065, 0.05), pale, (0.115, 0, 0.395), around=8, rings=5)
    nose = ball((0.02, 0.026, 0.018), DARK, (0.172, 0, 0.415), around=6, rings=4)
    eyes = [ball((0.018, 0.018, 0.018), DARK, (0.115, y, 0.46), around=6, rings=4) for y in (-0.052, 0.052)]
    ears = [ball((0.035, 0.06, 0.06), paint, (0.0, y, 0.53), around=8, rings=5) for y in (-0.105, 0.105)]
    inner = [ball((0.02, 0.034, 0.034), pale, (0.022, y, 0.53), around=6, rings=4) for y in (-0.105, 0.105)]
    arms = [
        ball((0.055, 0.055, 0.12), paint, (0, 0, 0), around=8, rings=5).moved(
            (0.06, 2.9 * y, 0.25), pitch=35, roll=-y * 700
        )
        for y in (-0.06, 0.06)
    ]
    legs = [ball((0.13, 0.06, 0.06), paint, (0.12, y, 0.062), around=8, rings=5) for y in (-0.095, 0.095)]
    soles = [ball((0.016, 0.045, 0.045), pale, (0.245, y, 0.062), around=8, rings=4) for y in (-0.095, 0.095)]
    return merged(body, belly, head, muzzle, nose, *eyes, *ears, *inner, *arms, *legs, *soles)


def _chair(paint: Colour) -> Mesh:
    seat = box((0.34, 0.34, 0.045), paint, (0, 0, 0.25))
    legs = [box((0.045, 0.045, 0.23), _deep(paint, 0.8), (x, y, 0.115)) for x in (-0.14, 0.14) for y in (-0.14, 0.14)]
    posts = [box((0.04, 0.045, 0.33), _deep(paint, 0.8), (-0.15, y, 0.43)) for y in (-0.145, 0.145)]
    slats = [box((0.03, 0.26, 0.06), paint, (-0.15, 0, z)) for z in (0.36, 0.46)]
    top = box((0.045, 0.34, 0.08), paint, (-0.15, 0, 0.57))
    return merged(seat, *legs, *posts, *slats, top)


def _rocket(paint: Colour) -> Mesh:
    tip = CREAM if min(paint) <= 0.9 else (0.62, 0.64, 0.70)
    hull = turned([(0.08, 0.10), (0.08, 0.10), (0.125, 0.18), (0.13, 0.32), (0.115, 0.42)], paint, 14)
    nose = turned([(0.117, 0.42), (0.117, 0.42), (0.085, 0.53), (0.04, 0.61), (0, 0.65)], tip, 14)
    engine = turned([(0, 0.05), (0.095, 0.05), (0.095, 0.05), (0.07, 0.12)], DARK, 12)
    belt = turned([(0.134, 0.19), (0.134, 0.19), (0.136, 0.225), (0.136, 0.225), (0.12, 0.225)], tip, 14)
    fins = []
    for angle in (45, 135, 225, 315):
        fin = merged(
            *(
                quad(
                    [(0.10, s * 0.014, 0.26), (0.25, s * 0.014, 0.10), (0.25, s * 0.014, 0.0), (0.10, s * 0.014, 0.10)][
                        ::s
                    ],
                    paint,
                )
                for s in (1, -1)
            ),
            quad(
                ((0.25, 0.014, 0.0), (0.25, 0.014, 0.10), (0.25, -0.014, 0.10), (0.25, -0.014, 0.0))[::-1], _deep(paint)
            ),
            quad(((0.10, 0.014, 0.26), (0.10, -0.014, 0.26), (0.25, -0.014, 0.10), (0.25, 0.014, 0.10)), _deep(paint)),
        )
        fins.append(fin.moved(yaw=angle))
    windows = [
        merged(
            ball((0.02, 0.055, 0.055), SILVER, (0.118, 0, 0.345), around=10, rings=5),
            ball((0.02, 0.038, 0.038), GLASS, (0.127, 0, 0.345), around=8, rings=5),
        ).moved(yaw=angle)
        for angle in (0, 120, 240)
    ]
    return merged(hull, nose, engine, belt, *fins, *windows)


_MAKERS: dict[str, Callable[[Colour], Mesh]] = {
    "ball": _ball,
    "mug": _mug,
    "lamp": _lamp,
    "plane": _plane,
    "boat": _boat,
    "helicopter": _helicopter,
    "roll": _roll,
    "car": _car,
    "duck": _duck,
    "teddy": _teddy,
    "chair": _chair,
    "rocket": _rocket,
}
