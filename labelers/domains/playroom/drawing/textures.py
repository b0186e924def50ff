"""Textures of walls, floors, rugs, wood and windows, computed from noise: squares whose opposite edges fit together.

Shape letter: S side of a texture in texels, a power of two.
"""

import functools
from collections.abc import Callable

import numpy as np

SIDE = 256

FLOORS = ("oak", "walnut", "parquet", "checks", "terracotta", "carpet", "marble", "slate")
"""Names of the floors."""

WALLS = ("plaster", "stripes", "dots", "bricks", "panels", "diamonds", "leaves", "tiles", "stars")
"""Names of the walls, which are pale and tinted by the room's paint."""

RUGS = ("frame", "bands", "rings", "zigzag", "chequers")
"""Names of the rugs, tinted as well."""

OTHERS = ("wood", "cloth", "books", "sky", "painting", "shadow")
"""Names of the textures of furniture, windows and pictures."""


@functools.cache
def texture(name: str) -> np.ndarray:
    """Returns a texture, [S, S, 4] uint8 RGBA with its lowest row first; it is the same in every process."""
    random = np.random.default_rng(list(name.encode()))
    drawn = _DRAWERS[name](random)
    pixels = np.full((SIDE, SIDE, 4), 255, np.uint8)
    pixels[..., : drawn.shape[2]] = np.rint(np.clip(drawn, 0, 1) * 255)
    pixels.flags.writeable = False
    return pixels


def _noise(random: np.random.Generator, *cells: int) -> np.ndarray:
    """Returns smooth noise of several grain sizes around 0, [S, S, 1], each half as strong as the one before."""
    total = np.zeros((SIDE, SIDE))
    for octave, count in enumerate(cells):
        grid = random.standard_normal((count, count))
        place = np.arange(SIDE) * count / SIDE
        low = place.astype(int)
        part = place - low
        part = part * part * (3 - 2 * part)
        high = (low + 1) % count
        rows = grid[low] * (1 - part)[:, None] + grid[high] * part[:, None]
        total += (rows[:, low] * (1 - part) + rows[:, high] * part) / 2**octave
    return total[..., None]


def _grid() -> tuple[np.ndarray, np.ndarray]:
    """Returns row and column of every texel from 0 to 1."""
    along = (np.arange(SIDE) + 0.5) / SIDE
    return along[:, None], along[None, :]


def _mixed(share: np.ndarray, one: tuple[float, ...], other: tuple[float, ...]) -> np.ndarray:
    share = share[..., None] if share.ndim == 2 else share
    return share * np.asarray(one) + (1 - share) * np.asarray(other)


def _planks(random: np.random.Generator, base: tuple[float, float, float], rows: int, spread: float) -> np.ndarray:
    y, x = _grid()
    row = np.broadcast_to((y * rows).astype(int), (SIDE, SIDE))
    shift = random.random(rows)[row]
    column = ((x + shift) * 2).astype(int) % 2
    tone = random.normal(0, spread, (rows, 2))[row, column]
    fine = 0.015 * _noise(random, 64)[..., 0]
    streaks = 0.06 * random.standard_normal((SIDE, 1)) + 0.035 * _noise(random, 4, 16)[..., 0] + fine
    seam = np.minimum((y * rows) % 1, 1 - (y * rows) % 1) < 0.05
    end = np.abs(((x + shift) * 2) % 1) < 0.02
    colours = np.asarray(base) * (1 + tone + streaks)[..., None]
    colours[np.broadcast_to(seam, (SIDE, SIDE)) | end] *= 0.55
    return colours


def _checks(random: np.random.Generator, one: tuple[float, ...], other: tuple[float, ...], count: int) -> np.ndarray:
    y, x = _grid()
    odd = ((y * count).astype(int) + (x * count).astype(int)) % 2
    joint = np.minimum((y * count) % 1, (x * count) % 1) < 0.04
    colours = _mixed(odd.astype(float), one, other) * (1 + 0.04 * _noise(random, 8, 32))
    tones = random.normal(0, 0.03, (count, count))[(y * count).astype(int), (x * count).astype(int)]
    colours *= 1 + tones[..., None]
    colours[joint] *= 0.7
    return colours


def _parquet(random: np.random.Generator) -> np.ndarray:
    y, x = _grid()
    upright = ((y * 2).astype(int) + (x * 2).astype(int)) % 2 == 1
    across = np.where(upright, np.broadcast_to(x, (SIDE, SIDE)), np.broadcast_to(y, (SIDE, SIDE)))
    strip = (across * 8).astype(int)
    cell = 2 * (y * 2).astype(int) + (x * 2).astype(int)
    tone = random.normal(0, 0.10, (4, 8))[cell, strip]
    colours = np.asarray((0.66, 0.44, 0.25)) * (1 + tone + 0.05 * _noise(random, 16, 64)[..., 0])[..., None]
    colours[((across * 8) % 1) < 0.08] *= 0.65
    return colours


def _plain(random: np.random.Generator, base: tuple[float, ...], strength: float, *cells: int) -> np.ndarray:
    return np.asarray(base) * (1 + strength * _noise(random, *cells))


def _marble(random: np.random.Generator) -> np.ndarray:
    veins = 1 - np.abs(np.sin(9 * _noise(random, 3, 6, 12, 24)))
    y, x = _grid()
    colours = np.asarray((0.86, 0.85, 0.83)) * (1 - 0.22 * veins**6) * (1 + 0.02 * _noise(random, 4, 8))
    colours[np.minimum((y * 2) % 1, (x * 2) % 1) < 0.02] *= 0.75
    return colours


def _stripes(random: np.random.Generator) -> np.ndarray:
    _, x = _grid()
    broad = np.broadcast_to(((x * 4) % 1 < 0.5), (SIDE, SIDE)).astype(float)
    return _mixed(broad, (0.98, 0.98, 0.98), (0.82, 0.82, 0.84)) * (1 + 0.015 * _noise(random, 16, 64))


def _dots(random: np.random.Generator) -> np.ndarray:
    y, x = _grid()
    row = (y * 4).astype(int)
    far = np.hypot((y * 4) % 1 - 0.5, ((x * 4) + 0.5 * (row % 2)) % 1 - 0.5)
    return _mixed((far > 0.22).astype(float), (0.96, 0.96, 0.96), (0.70, 0.70, 0.74)) * (
        1 + 0.02 * _noise(random, 8, 32)
    )


def _bricks(random: np.random.Generator) -> np.ndarray:
    y, x = _grid()
    row = np.broadcast_to((y * 8).astype(int), (SIDE, SIDE))
    along = x * 4 + 0.5 * (row % 2)
    tone = random.normal(0, 0.06, (8, 4))[row, along.astype(int) % 4]
    colours = np.asarray((0.90, 0.86, 0.84)) * (1 + tone + 0.05 * _noise(random, 16, 64)[..., 0])[..., None]
    colours[(((y * 8) % 1) < 0.10) | ((along % 1) < 0.05)] = (0.66, 0.64, 0.62)
    return colours


def _panels(random: np.random.Generator) -> np.ndarray:
    _, x = _grid()
    groove = np.broadcast_to((x * 6) % 1, (SIDE, SIDE))
    shade = np.where(groove < 0.06, 0.70, np.where(groove < 0.14, 1.04, 0.94))
    return np.asarray((0.95, 0.95, 0.95)) * shade[..., None] * (1 + 0.02 * _noise(random, 8, 64))


def _diamonds(random: np.random.Generator) -> np.ndarray:
    y, x = _grid()
    one, other = ((x + y) * 4) % 1, ((x - y) * 4) % 1
    line = (np.minimum(one, 1 - one) < 0.07) | (np.minimum(other, 1 - other) < 0.07)
    odd = (((x + y) * 4).astype(int) + np.floor((x - y) * 4).astype(int)) % 2
    colours = _mixed(odd.astype(float), (0.97, 0.97, 0.97), (0.88, 0.88, 0.90)) * (1 + 0.015 * _noise(random, 16))
    colours[line] *= 0.80
    return colours


def _leaves(random: np.random.Generator) -> np.ndarray:
    y, x = _grid()
    colours = np.full((SIDE, SIDE, 3), 0.95) * (1 + 0.02 * _noise(random, 8, 32))
    for _ in range(26):
        centre, angle = random.random(2), random.random() * np.pi
        dy, dx = ((y - centre[0] + 0.5) % 1) - 0.5, ((x - centre[1] + 0.5) % 1) - 0.5
        along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        leaf = (along / 0.085) ** 2 + (across / 0.032) ** 2 < 1
        colours[leaf] = np.asarray((0.72, 0.78, 0.70)) * random.uniform(0.92, 1.05)
        colours[leaf & (np.abs(across) < 0.006)] *= 0.86
    return colours


def _tiles(random: np.random.Generator) -> np.ndarray:
    colours = _checks(random, (0.96, 0.97, 0.98), (0.93, 0.94, 0.96), 6)
    y, x = _grid()
    colours[np.minimum((y * 6) % 1, (x * 6) % 1) < 0.06] = (0.74, 0.75, 0.77)
    return colours


def _stars(random: np.random.Generator) -> np.ndarray:
    y, x = _grid()
    row = (y * 3).astype(int)
    dy, dx = (y * 3) % 1 - 0.5, ((x * 3) + 0.5 * (row % 2)) % 1 - 0.5
    radius = np.hypot(dy, dx)
    star = radius < 0.15 + 0.11 * np.cos(5 * np.arctan2(dx, dy))
    return _mixed(star.astype(float), (0.76, 0.74, 0.62), (0.96, 0.96, 0.97)) * (1 + 0.015 * _noise(random, 16))


def _rug(random: np.random.Generator, name: str) -> np.ndarray:
    y, x = (2 * along - 1 for along in _grid())
    edge = np.maximum(np.abs(y), np.abs(x))
    pattern = {
        "frame": (edge > 0.72) & (edge < 0.84),
        "bands": np.broadcast_to((np.abs(y) * 4) % 1 < 0.45, (SIDE, SIDE)),
        "rings": (np.hypot(y, x) * 4) % 1 < 0.4,
        "zigzag": ((y * 4 + np.abs((x * 4) % 2 - 1)) % 1) < 0.5,
        "chequers": (np.floor(y * 3) + np.floor(x * 3)) % 2 == 0,
    }[name]
    colours = _mixed(pattern.astype(float), (1.0, 0.97, 0.90), (0.78, 0.72, 0.72))
    colours[edge > 0.93] = (0.55, 0.52, 0.52)
    return colours * (1 + 0.06 * _noise(random, 64) + 0.04 * _noise(random, 8))


def _books(random: np.random.Generator) -> np.ndarray:
    colours = np.full((SIDE, SIDE, 3), 0.10)
    column = 0
    while column < SIDE:
        width, height = int(random.integers(10, 24)), int(random.integers(168, 240))
        paint = np.asarray(
            random.choice(
                [
                    (0.55, 0.2, 0.18),
                    (0.2, 0.32, 0.5),
                    (0.24, 0.42, 0.3),
                    (0.6, 0.5, 0.3),
                    (0.35, 0.25, 0.4),
                    (0.75, 0.72, 0.66),
                ]
            )
        )
        colours[:height, column : column + width - 2] = paint * random.uniform(0.8, 1.1)
        colours[int(height * 0.7) : int(height * 0.76), column : column + width - 2] *= 1.5
        column += width
    return colours


def _sky(random: np.random.Generator) -> np.ndarray:
    y, _ = _grid()
    clouds = np.clip(_noise(random, 4, 8, 16)[..., 0] * 0.9 - 0.15, 0, 1) * np.clip((y - 0.3) * 2, 0, 1)
    colours = _mixed(clouds, (1, 1, 1), (0.45, 0.68, 0.95)) * (1.05 - 0.2 * y)[..., None]
    hill = np.broadcast_to(y, (SIDE, SIDE)) < 0.24 + 0.05 * np.sin(2 * np.pi * np.arange(SIDE) / SIDE * 2)
    colours[hill] = (0.35, 0.58, 0.30)
    return colours


def _painting(random: np.random.Generator) -> np.ndarray:
    y, x = _grid()
    colours = _mixed(np.broadcast_to(y, (SIDE, SIDE)), (0.95, 0.70, 0.45), (0.55, 0.35, 0.45))
    colours[np.hypot(y - 0.62, x - 0.6) < 0.13] = (0.98, 0.90, 0.6)
    for height, tone in ((0.45, 0.40), (0.32, 0.30), (0.2, 0.2)):
        ridge = height + 0.08 * _noise(random, 5, 10)[0, :, 0]
        colours[y < ridge[None, :]] = np.asarray((0.8, 0.9, 1.0)) * tone
    return colours


def _shadow(_: np.random.Generator) -> np.ndarray:
    y, x = (2 * along - 1 for along in _grid())
    strength = np.clip(1 - np.hypot(y, x), 0, 1) ** 0.8
    return np.concatenate([np.zeros((SIDE, SIDE, 3)), 0.62 * strength[..., None]], axis=2)


def _cloth(random: np.random.Generator) -> np.ndarray:
    y, x = _grid()
    weave = 0.05 * np.sin(2 * np.pi * 32 * x) * np.sin(2 * np.pi * 32 * y)
    return np.asarray((0.95, 0.95, 0.95)) * (1 + weave[..., None] + 0.05 * _noise(random, 8, 32))


_DRAWERS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "oak": lambda random: _planks(random, (0.76, 0.58, 0.37), 6, 0.09),
    "walnut": lambda random: _planks(random, (0.46, 0.30, 0.19), 8, 0.12),
    "parquet": _parquet,
    "checks": lambda random: _checks(random, (0.88, 0.88, 0.84), (0.46, 0.50, 0.53), 2),
    "terracotta": lambda random: _checks(random, (0.72, 0.42, 0.32), (0.78, 0.50, 0.40), 3),
    "carpet": lambda random: _plain(random, (0.60, 0.60, 0.66), 0.07, 64, 128, 128),
    "marble": _marble,
    "slate": lambda random: _checks(random, (0.40, 0.44, 0.48), (0.36, 0.40, 0.43), 2),
    "plaster": lambda random: _plain(random, (0.95, 0.95, 0.94), 0.035, 4, 8, 16, 32),
    "stripes": _stripes,
    "dots": _dots,
    "bricks": _bricks,
    "panels": _panels,
    "diamonds": _diamonds,
    "leaves": _leaves,
    "tiles": _tiles,
    "stars": _stars,
    **{name: functools.partial(_rug, name=name) for name in RUGS},
    "wood": lambda random: _planks(random, (0.98, 0.96, 0.94), 4, 0.05),
    "cloth": _cloth,
    "books": _books,
    "sky": _sky,
    "painting": _painting,
    "shadow": _shadow,
}
