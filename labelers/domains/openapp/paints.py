"""Elements shared by the screens of all apps: colours, words, pictures and the title bar."""

import math
from typing import NamedTuple

import numpy as np

from vlm_rewards.labelers.domains.openapp.apps import App, Colour
from vlm_rewards.labelers.domains.openapp.canvas import WIDTH, Canvas, mix

WORDS = (
    *("river", "stone", "market", "orange", "window", "paper", "garden", "silver"),
    *("cloud", "bridge", "music", "forest", "island", "letter", "winter", "coffee"),
)
"""Words shown in apps."""

PICTURE_COLOURS: tuple[Colour, ...] = (
    (214, 84, 76),
    (232, 152, 60),
    (226, 198, 84),
    (106, 176, 98),
    (66, 158, 158),
    (74, 124, 206),
    (130, 96, 190),
    (196, 98, 156),
    (110, 120, 136),
)
"""Colours of pictures, avatars and wallpapers."""


class Paints(NamedTuple):
    """The colours of an app on a phone.

    Attributes:
        app: The app.
        paper: Colour of the background.
        ink: Colour of text.
        soft: Colour of fields, near the paper.
        faint: Colour of less important text.
        accent: Colour of touchable elements.
        bar: Colour of the title bar.
        on_bar: Colour of the content of the title bar.
        titled: Whether the name stands in the title bar.
    """

    app: App
    paper: Colour
    ink: Colour
    soft: Colour
    faint: Colour
    accent: Colour
    bar: Colour
    on_bar: Colour
    titled: bool


def title_bar(c: Canvas, p: Paints) -> None:
    """Draws the bar with the app's sign and, where the phone shows names, its name."""
    c.box(0, 0, WIDTH, 26, p.bar)
    c.glyph(p.app.name, 11, 17.5, 12, p.on_bar, p.bar)
    if p.titled:
        c.text(21, 17.5, p.app.title, 10, p.on_bar)
    for place in range(3):
        c.disc(89, 14 + 3.5 * place, 1, p.on_bar)


def draw_picture(c: Canvas, x0: float, y0: float, x1: float, y1: float, rng: np.random.Generator) -> None:
    """Draws a picture into a field: hills, bubbles or stripes."""
    one, two, three = (PICTURE_COLOURS[i] for i in rng.choice(len(PICTURE_COLOURS), 3, replace=False))
    width, height = x1 - x0, y1 - y0
    part = Canvas(c.scale, mix(one, (255, 255, 255), 0.45), width, height)
    kind = int(rng.integers(3))
    if kind == 0:
        part.disc(width * float(rng.uniform(0.2, 0.8)), height * 0.3, height * 0.13, (255, 246, 214))
        for layer, colour in enumerate((two, mix(two, (0, 0, 0), 0.3), mix(three, (0, 0, 0), 0.5))):
            phase, waves = float(rng.uniform(0, 6)), float(rng.uniform(1, 2.4))
            base = height * (0.5 + 0.17 * layer)
            points: list[float] = [0, height]
            for step in range(17):
                points += [width * step / 16, base + height * 0.12 * math.sin(phase + waves * step * math.pi / 8)]
            part.shape([*points, width, height], colour)
    elif kind == 1:
        for colour in (two, three, one, two, three):
            at = float(rng.uniform(0, width)), float(rng.uniform(0, height))
            part.disc(*at, min(width, height) * float(rng.uniform(0.15, 0.45)), mix(colour, (255, 255, 255), 0.15))
    else:
        band = max(width, height) / 5
        for stripe in range(-5, 10, 2):
            x = stripe * band
            part.shape((x, 0, x + band, 0, x + band + height, height, x + height, height), mix(two, three, 0.4))
    c.image.paste(part.image, (round(x0 * c.scale), round(y0 * c.scale)))
