"""Draws all that a phone shows: home pages, dock, folders, drawer, messages, the app in front, and what moves between them."""

import functools

import numpy as np
from PIL import Image, ImageDraw

from vlm_rewards.labelers.domains.openapp.apps import APPS, Colour
from vlm_rewards.labelers.domains.openapp.canvas import HEIGHT, WIDTH, Canvas, mix
from vlm_rewards.labelers.domains.openapp.paints import PICTURE_COLOURS
from vlm_rewards.labelers.domains.openapp.phone import (
    FOLDER,
    Phone,
    Place,
    drawer_places,
    folder_places,
    home_places,
)
from vlm_rewards.labelers.domains.openapp.screens import AppStyle, draw_app

MESSAGES = (
    ("Update ready", "Later", "Install"),
    ("Battery is low", "OK", "Save"),
    ("Allow access?", "No", "Yes"),
    ("Rate this app", "Later", "Rate"),
    ("No network", "Retry", "Close"),
)
"""Messages, each with its two buttons."""

WHITE: Colour = (255, 255, 255)
ICON = 17
"""Side of an icon in units."""


def draw_home(phone: Phone, page: int, scale: float) -> Canvas:
    """Draws a home page with the dock."""
    canvas = _wallpapered(phone, scale)
    if phone.widget and page == 0:
        card = draw_app(APPS[phone.widget], _style(phone, 0), scale).image
        cut = card.crop((0, 0, card.width, round(card.width * 0.62)))
        _paste_round(canvas, cut.resize((round(80 * scale), round(44 * scale)), Image.Resampling.BILINEAR), 8, 14, 5)
    for number in range(len(phone.pages)):
        x = 48 + 6 * (number - (len(phone.pages) - 1) / 2)
        canvas.disc(x, 128, 1.5, WHITE if number == page else (150, 154, 164))
    _tint(canvas, (3, 133, 93, 157), WHITE, 0.3, 8)
    places = home_places(phone, page)
    for place in places:
        _icon(canvas, phone, place, labelled=place not in places[-len(phone.dock) :], ink=WHITE)
    return canvas


def draw_drawer(phone: Phone, page: int, scale: float) -> Canvas:
    """Draws a page of the list of all apps."""
    ground, ink = ((20, 22, 28), WHITE) if phone.dark else ((242, 243, 246), (40, 44, 52))
    canvas = Canvas(scale, ground)
    canvas.box(6, 12, 90, 24, mix(ground, ink, 0.12), 6)
    canvas.text(13, 18, "Search apps", 7, mix(ground, ink, 0.5))
    for place in drawer_places(phone, page):
        _icon(canvas, phone, place, labelled=True, ink=ink)
    size = 120 / phone.drawer_pages
    canvas.box(93.5, 30 + size * page, 95, 30 + size * (page + 1), mix(ground, ink, 0.4), 0.7)
    return canvas


def draw_folder(phone: Phone, page: int, folder: int, scale: float) -> Canvas:
    """Draws an open folder over a home page."""
    canvas = draw_home(phone, page, scale)
    _tint(canvas, (0, 0, WIDTH, HEIGHT), (0, 0, 0), 0.45, 0)
    ground, ink = ((44, 47, 56), WHITE) if phone.dark else ((238, 240, 244), (40, 44, 52))
    canvas.box(7, 34, 89, 108, ground, 9)
    canvas.text(48, 42, f"Folder {folder + 1}", 8, ink, "mm")
    for place in folder_places(phone, folder):
        _icon(canvas, phone, place, labelled=True, ink=ink)
    return canvas


def draw_front(phone: Phone, app: str, part: int, scale: float) -> Canvas:
    """Draws an app in front."""
    return draw_app(APPS[app], _style(phone, part), scale)


def draw_message(canvas: Canvas, phone: Phone, message: int) -> None:
    """Draws a message over what is there."""
    _tint(canvas, (0, 0, WIDTH, HEIGHT), (0, 0, 0), 0.5, 0)
    text, left, right = MESSAGES[message]
    ground, ink = ((48, 51, 60), WHITE) if phone.dark else ((252, 252, 252), (36, 40, 48))
    canvas.box(9, 58, 87, 112, ground, 8)
    canvas.text(48, 74, text, 10, ink, "mm")
    canvas.box(14, 91, 45, 109, mix(ground, ink, 0.14), 5)
    canvas.text(29.5, 100, left, 8, ink, "mm")
    canvas.box(51, 91, 82, 109, (58, 120, 226), 5)
    canvas.text(66.5, 100, right, 8, WHITE, "mm")


def draw_banner(canvas: Canvas, phone: Phone, app: str) -> None:
    """Draws the note of an app over the top of what is there."""
    ground, ink = ((58, 61, 70), WHITE) if phone.dark else ((252, 252, 252), (36, 40, 48))
    canvas.box(3, 11, 93, 31, ground, 6)
    canvas.box(7, 14.5, 20, 27.5, APPS[app].colour, 4)
    canvas.glyph(app, 13.5, 21, 9, WHITE, APPS[app].colour)
    canvas.text(25, 17.5, APPS[app].title, 7, ink)
    canvas.box(25, 23, 78, 25, mix(ground, ink, 0.3), 1)


def draw_half_open(under: Canvas, over: Canvas, share: float) -> Canvas:
    """Draws an app on its way to the front or back, smaller than the screen, over what lies behind it."""
    _tint(under, (0, 0, WIDTH, HEIGHT), (0, 0, 0), 0.25, 0)
    small = over.image.resize(
        (round(over.image.width * share), round(over.image.height * share)), Image.Resampling.BILINEAR
    )
    _paste_round(under, small, WIDTH * (1 - share) / 2, HEIGHT * (1 - share) * 0.6, 7)
    return under


def draw_side_by_side(left: Canvas, right: Canvas, share: float) -> Canvas:
    """Draws one app that pushes another to the left; the share is that of the right one."""
    cut = round(left.image.width * (1 - share))
    both = Canvas(left.scale, (0, 0, 0))
    both.image.paste(left.image, (cut - left.image.width, 0))
    both.image.paste(right.image, (cut + round(2 * left.scale), 0))
    return both


def draw_status(canvas: Canvas, phone: Phone) -> None:
    """Draws the time, the network and the battery, in what stands out from what is there."""
    strip = np.asarray(canvas.image.crop((0, 0, canvas.image.width, round(9 * canvas.scale))).convert("L"))
    ink: Colour = (30, 32, 38) if strip.mean() > 150 else WHITE
    canvas.text(4, 5, f"{phone.minutes // 60:02d}:{phone.minutes % 60:02d}", 7, ink)
    canvas.box(85, 3, 92, 7.5, ink, 1)
    canvas.box(92, 4.3, 93, 6.2, ink)
    for bar in range(3):
        canvas.box(76 + 2.4 * bar, 6 - 1.4 * bar, 77.6 + 2.4 * bar, 7.5, ink)


def _style(phone: Phone, part: int) -> AppStyle:
    return AppStyle(phone.seed, part, phone.dark, phone.plain, phone.titled)


def _wallpapered(phone: Phone, scale: float) -> Canvas:
    canvas = Canvas(scale, (0, 0, 0))
    canvas.image.paste(_wallpaper(phone.seed, phone.dark, scale))
    return canvas


@functools.lru_cache(maxsize=4)
def _wallpaper(seed: int, dark: bool, scale: float) -> Image.Image:
    rng = np.random.default_rng([seed, 1])
    low, high = (PICTURE_COLOURS[i] for i in rng.choice(len(PICTURE_COLOURS), 2, replace=False))
    shade: Colour = (10, 12, 22)
    low, high = mix(low, shade, 0.6 if dark else 0.25), mix(high, shade, 0.45 if dark else 0.05)
    canvas = Canvas(scale, low)
    for band in range(40):
        canvas.box(0, 4 * band, WIDTH, 4 * band + 4.5, mix(high, low, band / 39))
    kind = int(rng.integers(4))
    if kind == 0:
        for _ in range(7):
            canvas.disc(
                float(rng.uniform(0, 96)),
                float(rng.uniform(0, 160)),
                float(rng.uniform(8, 34)),
                mix(low, high, float(rng.uniform(0, 1))),
            )
    elif kind == 1:
        for layer in range(4):
            phase, points = float(rng.uniform(0, 6)), [0.0, float(HEIGHT)]
            for step in range(17):
                points += [6.0 * step, 78 + 22 * layer + 11 * np.sin(phase + step * (0.3 + 0.1 * layer))]
            canvas.shape([*points, WIDTH, HEIGHT], mix(low, shade, 0.18 * layer))
    elif kind == 2:
        for stripe in range(-8, 12, 2):
            canvas.shape(
                (14 * stripe, 0, 14 * stripe + 14, 0, 14 * stripe + 104, 160, 14 * stripe + 90, 160),
                mix(low, high, 0.3),
            )
    return canvas.image


def _icon(canvas: Canvas, phone: Phone, place: Place, *, labelled: bool, ink: Colour) -> None:
    side = round(ICON * canvas.scale)
    at = (round((place.x - ICON / 2) * canvas.scale), round((place.y - ICON / 2) * canvas.scale))
    if place.what.startswith(FOLDER):
        folder = int(place.what.removeprefix(FOLDER))
        _tint(canvas, (place.x - 8.5, place.y - 8.5, place.x + 8.5, place.y + 8.5), WHITE, 0.45, 5)
        for cell, app in enumerate(phone.folders[folder][:4]):
            x, y = place.x - 3.7 + 7.4 * (cell % 2), place.y - 3.7 + 7.4 * (cell // 2)
            canvas.box(x - 3, y - 3, x + 3, y + 3, APPS[app].colour, 1.5)
            canvas.glyph(app, x, y, 4.6, WHITE, APPS[app].colour)
        name = f"Folder {folder + 1}"
    else:
        tile = _tile(place.what, phone.inverted, canvas.scale)
        canvas.image.paste(
            tile, at, _mask((side, side), {"round": 8.5, "squircle": 5, "square": 2}[phone.shape] * canvas.scale)
        )
        name = APPS[place.what].title
    if labelled and phone.labels:
        size = 5.6 if len(name) < 10 else 4.4
        if ink == WHITE:
            canvas.text(place.x + 0.4, place.y + 13, name, size, (20, 22, 28), "mm")
        canvas.text(place.x, place.y + 12.6, name, size, ink, "mm")


@functools.lru_cache(maxsize=256)
def _tile(app: str, inverted: bool, scale: float) -> Image.Image:
    colour, ground = (APPS[app].colour, WHITE) if inverted else (WHITE, APPS[app].colour)
    canvas = Canvas(scale, ground, ICON, ICON)
    canvas.glyph(app, ICON / 2, ICON / 2, ICON * 0.64, colour, ground)
    return canvas.image


@functools.lru_cache(maxsize=32)
def _mask(size: tuple[int, int], radius: float) -> Image.Image:
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), radius, 255)
    return mask


def _paste_round(canvas: Canvas, image: Image.Image, x: float, y: float, radius: float) -> None:
    canvas.image.paste(
        image, (round(x * canvas.scale), round(y * canvas.scale)), _mask(image.size, radius * canvas.scale)
    )


def _tint(canvas: Canvas, box: tuple[float, float, float, float], colour: Colour, share: float, radius: float) -> None:
    """Mixes a colour into a field."""
    x0, y0, x1, y1 = (round(value * canvas.scale) for value in box)
    mask = _mask((x1 - x0, y1 - y0), radius * canvas.scale).point(lambda value: round(value * share))
    canvas.image.paste(colour, (x0, y0, x1, y1), mask)
