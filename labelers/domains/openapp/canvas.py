"""Draws in units of a phone's screen, 96 wide and 160 high, at any number of pixels per unit."""

import functools
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from vlm_rewards.labelers.domains.openapp.apps import Colour
from vlm_rewards.labelers.domains.openapp.glyphs import GLYPHS

WIDTH, HEIGHT = 96, 160
"""Sides of a phone's screen in units."""


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """Returns a colour between two; the share is that of the other, from 0 to 1."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


@functools.lru_cache(maxsize=64)
def _font(pixels: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(pixels)


class Canvas:
    """A picture that is drawn on in units.

    Args:
        scale: Pixels per unit.
        colour: Colour of the ground.
        width: Width in units.
        height: Height in units.
    """

    def __init__(self, scale: float, colour: Colour, width: float = WIDTH, height: float = HEIGHT) -> None:
        self.scale = scale
        self.image = Image.new("RGB", (round(width * scale), round(height * scale)), colour)
        self._draw = ImageDraw.Draw(self.image)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, radius: float = 0) -> None:
        """Draws a filled rectangle, with round corners where a radius is given."""
        s = self.scale
        self._draw.rounded_rectangle(
            (x0 * s, y0 * s, max(x0 * s, x1 * s - 1), max(y0 * s, y1 * s - 1)), radius * s, colour
        )

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Draws a filled circle."""
        s = self.scale
        self._draw.ellipse(((x - radius) * s, (y - radius) * s, (x + radius) * s, (y + radius) * s), colour)

    def ellipse(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, width: float = 0) -> None:
        """Draws an ellipse: filled, or its outline where a width is given."""
        s = self.scale
        corners = (x0 * s, y0 * s, x1 * s, y1 * s)
        if width:
            self._draw.ellipse(corners, outline=colour, width=max(1, round(width * s)))
        else:
            self._draw.ellipse(corners, colour)

    def arc(self, x: float, y: float, radius: float, width: float, colour: Colour, start: float, stop: float) -> None:
        """Draws a part of a circle's outline; angles are in degrees, clockwise from the right."""
        s = self.scale
        corners = ((x - radius) * s, (y - radius) * s, (x + radius) * s, (y + radius) * s)
        self._draw.arc(corners, start, stop, colour, max(1, round(width * s)))

    def line(self, points: Sequence[float], width: float, colour: Colour) -> None:
        """Draws a line through points, given as x, y, x, y, ..."""
        s = self.scale
        self._draw.line([value * s for value in points], colour, max(1, round(width * s)), "curve")

    def shape(self, points: Sequence[float], colour: Colour) -> None:
        """Draws a filled polygon through points, given as x, y, x, y, ..."""
        self._draw.polygon([value * self.scale for value in points], colour)

    def text(self, x: float, y: float, text: str, size: float, colour: Colour, anchor: str = "lm") -> None:
        """Writes a line of text; the size is its height in units."""
        pixels = max(4, round(size * self.scale))
        self._draw.text((x * self.scale, y * self.scale), text, colour, _font(pixels), anchor=anchor)

    def glyph(self, name: str, x: float, y: float, size: float, colour: Colour, ground: Colour) -> None:
        """Draws a glyph around a point.

        Args:
            name: One of `GLYPHS`.
            x: Centre of the glyph.
            y: Centre of the glyph.
            size: Side of the glyph.
            colour: Colour of the glyph.
            ground: Colour of its holes.
        """
        unit = size / 24
        left, top = x - size / 2, y - size / 2
        for part in GLYPHS[name].split("|"):
            kind, *words = part.split()
            values = [float(word) * unit for word in words]
            paint = colour if kind.isupper() else ground
            at = [value + (left, top)[place % 2] for place, value in enumerate(values)]
            match kind.upper():
                case "D":
                    self.disc(at[0], at[1], values[2], paint)
                case "B":
                    self.box(at[0], at[1], at[2], at[3], paint, values[4] if len(values) > 4 else 0)
                case "O":
                    self.ellipse(at[0], at[1], at[2], at[3], paint, values[4] if len(values) > 4 else 0)
                case "A":
                    self.arc(at[0], at[1], values[2], values[5], paint, float(words[3]), float(words[4]))
                case "L":
                    self.line(at[:-1], values[-1], paint)
                case _:
                    self.shape(at, paint)
