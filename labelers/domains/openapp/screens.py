"""The screens of the apps. Several apps share a kind of screen and are told apart by their sign, colour and contents."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from vlm_rewards.labelers.domains.openapp.apps import APPS, App, Colour
from vlm_rewards.labelers.domains.openapp.canvas import HEIGHT, WIDTH, Canvas, mix
from vlm_rewards.labelers.domains.openapp.games import GAMES
from vlm_rewards.labelers.domains.openapp.paints import PICTURE_COLOURS, WORDS, Paints, draw_picture, title_bar

TOP = 26
"""Top of the contents below the title bar, in units."""


@dataclasses.dataclass(frozen=True)
class AppStyle:
    """Appearance of an app on one phone.

    Args:
        seed: Seed of its contents.
        part: Scroll position.
        dark: Whether its paper is dark.
        plain: Whether its bar has the colour of its paper instead of its own.
        titled: Whether its name stands in its bar.
    """

    seed: int
    part: int
    dark: bool
    plain: bool
    titled: bool


def draw_app(app: App, style: AppStyle, scale: float) -> Canvas:
    """Draws an app in front, without the status bar.

    Args:
        app: The app.
        style: Appearance of the app.
        scale: Pixels per unit.
    """
    paper: Colour = (24, 26, 31) if style.dark else (250, 250, 248)
    ink: Colour = (236, 238, 242) if style.dark else (38, 42, 50)
    accent = mix(app.colour, (255, 255, 255), 0.3) if style.dark else app.colour
    if style.plain:
        bar, on_bar = mix(paper, ink, 0.06), ink
    else:
        bar, on_bar = app.colour, (255, 255, 255)
    paints = Paints(app, paper, ink, mix(paper, ink, 0.16), mix(paper, ink, 0.5), accent, bar, on_bar, style.titled)
    canvas = Canvas(scale, paper)
    SCREENS[app.screen](canvas, paints, np.random.default_rng([style.seed, style.part, list(APPS).index(app.name)]))
    return canvas


def _rows(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    title_bar(c, p)
    for row in range(7):
        y = TOP + 9 + 19 * row
        colour = PICTURE_COLOURS[int(rng.integers(len(PICTURE_COLOURS)))]
        c.disc(12, y, 6.5, colour)
        word = str(rng.choice(WORDS))
        if p.app.name == "mail":
            c.text(12, y, word[0].upper(), 8, (255, 255, 255), "mm")
            c.box(23, y + 4, 23 + float(rng.uniform(40, 66)), y + 6, p.soft, 1)
        else:
            c.glyph(p.app.name, 12, y, 9, (255, 255, 255), colour)
        c.text(23, y - 2, f"{word} {rng.choice(WORDS)}" if p.app.name != "pets" else word, 7, p.ink)
        if p.app.name == "contacts":
            c.glyph("phone", 88, y, 7, p.accent, p.paper)
        if p.app.name == "pets":
            c.box(23, y + 4, 23 + float(rng.uniform(14, 60)), y + 6, p.accent, 1)
    if p.app.name == "mail":
        c.disc(82, 143, 9, p.accent)
        c.line((79, 146, 86, 139), 2.4, (255, 255, 255))


def _switches(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    title_bar(c, p)
    alarm = p.app.name == "alarm"
    signs = ("browser", "radio", "weather", "music", "phone", "wallet", "contacts", "space")
    for row in range(5 if alarm else 8):
        y = TOP + 12 + 24 * row if alarm else TOP + 8 + 16.5 * row
        if alarm:
            c.box(5, y - 10, 91, y + 10, p.soft, 6)
            c.text(11, y, f"{rng.integers(24):02d}:{rng.integers(12) * 5:02d}", 13, p.ink)
        else:
            c.glyph(signs[row], 11, y, 10, p.faint, p.paper)
            c.text(22, y, f"{rng.choice(WORDS)}", 7, p.ink)
        on = rng.random() < 0.5
        c.box(71, y - 4.5, 87, y + 4.5, p.accent if on else p.faint, 4.5)
        c.disc(82.5 if on else 75.5, y, 3.4, (255, 255, 255))


def _checks(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    title_bar(c, p)
    for row in range(8):
        y, done = TOP + 9 + 16.5 * row, rng.random() < 0.5
        c.box(7, y - 5, 17, y + 5, p.accent if done else p.faint, 2)
        if done:
            c.line((9, y, 11.4, y + 2.6, 15.2, y - 2.8), 1.8, (255, 255, 255))
        else:
            c.box(8.3, y - 3.7, 15.7, y + 3.7, p.paper, 1)
        c.text(23, y, f"{rng.choice(WORDS)} {rng.choice(WORDS)}", 7, p.faint if done else p.ink)


def _article(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    title_bar(c, p)
    y = float(TOP)
    if p.app.name == "browser":
        c.box(5, y + 3, 91, y + 15, p.soft, 6)
        c.text(12, y + 9, f"{rng.choice(WORDS)}.example", 7, p.faint)
        y += 18
    draw_picture(c, 5 if p.app.name == "browser" else 0, y, 91 if p.app.name == "browser" else 96, y + 44, rng)
    if p.app.name == "recipes":
        c.disc(48, y + 22, 17, (250, 250, 250))
        c.disc(48, y + 22, 12, PICTURE_COLOURS[int(rng.integers(len(PICTURE_COLOURS)))])
        c.glyph("recipes", 48, y + 22, 15, (255, 255, 255), p.accent)
    c.text(6, y + 54, f"{rng.choice(WORDS)} {rng.choice(WORDS)}".capitalize(), 10, p.ink)
    for row in range(9):
        at = y + 66 + 9 * row
        if p.app.name == "recipes":
            c.disc(9, at + 1.5, 2, p.accent)
        if p.app.name == "news" and row % 3 == 0:
            draw_picture(c, 6, at, 30, at + 21, rng)
        left = {"recipes": 15, "news": 35}.get(p.app.name, 6)
        c.box(left, at, float(rng.uniform(70, 91)), at + 3, p.soft, 1)


def _page(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    if p.app.name == "books":
        paper, ink = mix((246, 234, 208), p.paper, 0.3), mix((92, 66, 40), p.ink, 0.3)
        c.box(0, 0, WIDTH, HEIGHT, paper)
        c.text(48, 19, f"{rng.choice(WORDS)} {rng.choice(WORDS)}".capitalize(), 9, ink, "mm")
        for row in range(20):
            end = 40 if row % 7 == 6 else float(rng.uniform(82, 87))
            c.box(9, 30 + 5.7 * row, end, 32.2 + 5.7 * row, mix(paper, ink, 0.62), 1)
        c.text(48, 152, str(rng.integers(9, 400)), 7, ink, "mm")
        return
    title_bar(c, p)
    c.box(0, TOP, WIDTH, HEIGHT, p.soft)
    c.box(8, TOP + 6, 88, HEIGHT, mix(p.paper, (255, 255, 255), 0.08))
    c.text(14, TOP + 17, f"{rng.choice(WORDS)} {rng.choice(WORDS)}".capitalize(), 9, p.accent)
    for row in range(16):
        c.box(
            14,
            TOP + 26 + 6.4 * row,
            40 if row % 6 == 5 else float(rng.uniform(72, 82)),
            TOP + 28.6 + 6.4 * row,
            p.faint,
        )


def _keypad(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    digits = "".join(str(digit) for digit in rng.integers(1, 10, 6))
    if p.app.name == "phone":
        title_bar(c, p)
        c.text(48, TOP + 14, f"{digits[:3]} {digits[3:]}", 15, p.ink, "mm")
        for place, key in enumerate("123456789*0#"):
            x, y = 22 + 26 * (place % 3), TOP + 36 + 22 * (place // 3)
            c.disc(x, y, 9.5, p.soft)
            c.text(x, y, key, 11, p.ink, "mm")
        c.disc(48, 149, 9.5, (47, 158, 68))
        c.glyph("phone", 48, 149, 10, (255, 255, 255), (47, 158, 68))
        return
    c.box(0, 0, WIDTH, 66, p.soft)
    c.glyph("calculator", 11, 20, 10, p.accent, p.soft)
    c.text(90, 51, digits, 22, p.ink, "rm")
    for place, key in enumerate("789/456x123-0.=+"):
        left, top = 3.5 + 22.6 * (place % 4), 70 + 22.4 * (place // 4)
        warm = place % 4 == 3
        c.box(left, top, left + 20.6, top + 20, (240, 146, 38) if warm else p.soft, 5)
        c.text(left + 10.3, top + 10, key, 12, (255, 255, 255) if warm else p.ink, "mm")


def _bubbles(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    title_bar(c, p)
    y = TOP + 6.0
    for _ in range(6):
        mine, two = rng.random() < 0.5, rng.random() < 0.4
        width, height = float(rng.uniform(36, 66)), 19 if two else 12
        left = 91 - width if mine else 5
        c.box(left, y, left + width, y + height, p.accent if mine else p.soft, 5)
        c.text(left + 5, y + 6, str(rng.choice(WORDS)), 7, (255, 255, 255) if mine else p.ink)
        if two:
            c.text(left + 5, y + 13, str(rng.choice(WORDS)), 7, (255, 255, 255) if mine else p.ink)
        y += height + 3.5
    c.box(0, 143, WIDTH, HEIGHT, p.paper)
    c.box(4, 144, 77, 156, p.soft, 6)
    c.disc(86, 150, 7, p.accent)
    c.shape((83, 146.5, 91, 150, 83, 153.5), (255, 255, 255))


def _panels(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    title_bar(c, p)
    word = f"{rng.choice(WORDS)} {rng.choice(WORDS)}"
    c.box(5, TOP + 6, 91, TOP + 64, p.soft, 5)
    c.text(11, TOP + 18, word, 10, p.ink)
    c.box(5, TOP + 69, 91, TOP + 127, p.accent, 5)
    c.text(11, TOP + 85, word[::-1], 10, (255, 255, 255))
    c.disc(48, TOP + 66.5, 10, p.ink)
    c.line((42, TOP + 64, 54, TOP + 64), 1.6, p.paper)
    c.line((42, TOP + 69, 54, TOP + 69), 1.6, p.paper)


def _dial(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    turn = float(rng.uniform(0, 2 * math.pi))

    def hand(angle: float, length: float, width: float, colour: Colour) -> None:
        c.line((48, 70, 48 + length * math.sin(angle), 70 - length * math.cos(angle)), width, colour)

    if p.app.name == "timer":
        title_bar(c, p)
        c.arc(48, 76, 34, 5, p.soft, 0, 360)
        c.arc(48, 76, 34, 5, p.accent, -90, -90 + math.degrees(turn))
        c.text(48, 76, f"{rng.integers(60):02d}:{rng.integers(60):02d}", 17, p.ink, "mm")
        for place in range(3):
            c.disc(22 + 26 * place, 133, 9, p.accent)
        c.shape((45, 128.5, 45, 137.5, 53, 133), (255, 255, 255))
        c.box(18.5, 129.5, 25.5, 136.5, (255, 255, 255), 1)
        c.line((69.5, 133, 78.5, 133), 2, (255, 255, 255))
        c.line((74, 128.5, 74, 137.5), 2, (255, 255, 255))
        return
    ground = mix(p.app.colour, (0, 0, 0), 0.35) if p.paper[0] < 99 else mix(p.app.colour, (255, 255, 255), 0.86)
    ink = p.ink
    c.box(0, 0, WIDTH, HEIGHT, ground)
    c.disc(48, 70, 38, ink)
    c.disc(48, 70, 36, ground)
    for tick in range(12):
        a, inner = tick * math.pi / 6, 30 if tick % 3 else 27
        c.line(
            (48 + inner * math.sin(a), 70 - inner * math.cos(a), 48 + 34 * math.sin(a), 70 - 34 * math.cos(a)), 1.4, ink
        )
    if p.app.name == "compass":
        for letter, a in zip("NESW", np.arange(4) * math.pi / 2, strict=True):
            c.text(48 + 21 * math.sin(a), 70 - 21 * math.cos(a), letter, 9, ink, "mm")
        for share, colour in ((0.0, (226, 58, 50)), (math.pi, (150, 156, 168))):
            a = turn + share
            tip = (48 + 30 * math.sin(a), 70 - 30 * math.cos(a))
            c.shape(
                (*tip, 48 + 5 * math.cos(a), 70 + 5 * math.sin(a), 48 - 5 * math.cos(a), 70 - 5 * math.sin(a)), colour
            )
        c.text(48, 130, f"{round(math.degrees(turn))} deg", 15, ink, "mm")
    else:
        hand(turn, 19, 3, ink)
        hand(turn * 12, 29, 2, ink)
        hand(turn * 3 + 1, 31, 0.9, (240, 92, 70))
        c.disc(48, 70, 2.4, (240, 92, 70))
        c.text(48, 130, f"{int(turn / 2 / math.pi * 12):02d}:{int(turn / 2 / math.pi * 720) % 60:02d}", 22, ink, "mm")


def _month(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    title_bar(c, p)
    c.text(7, TOP + 9, str(rng.choice(("January", "March", "May", "June", "August", "October"))), 10, p.ink)
    first, today = int(rng.integers(7)), int(rng.integers(30))
    for day in range(30):
        x, y = 9 + 13 * ((day + first) % 7), TOP + 23 + 11.5 * ((day + first) // 7)
        if day == today:
            c.disc(x, y, 5.6, p.accent)
        c.text(x, y, str(day + 1), 6, (255, 255, 255) if day == today else p.ink, "mm")
    for row in range(2):
        y = TOP + 92 + 20 * row
        colour = mix(p.accent, p.paper, 0.4 if row else 0.1)
        c.box(6, y, 90, y + 16, colour, 4)
        c.text(11, y + 8, f"{rng.integers(8, 18)}:00 {rng.choice(WORDS)}", 7, p.paper)


def _finder(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    c.box(0, 0, WIDTH, HEIGHT, (8, 8, 10))
    draw_picture(c, 0, 11, 96, 121, rng)
    if p.app.name == "camera":
        for share in (1, 2):
            c.line((32 * share, 11, 32 * share, 121), 0.6, (255, 255, 255))
            c.line((0, 11 + 36.6 * share, 96, 11 + 36.6 * share), 0.6, (255, 255, 255))
        c.disc(48, 140, 12, (255, 255, 255))
        c.disc(48, 140, 10.4, (8, 8, 10))
        c.disc(48, 140, 9.4, (255, 255, 255))
        draw_picture(c, 9, 132, 25, 148, rng)
        c.arc(79, 140, 6, 1.6, (255, 255, 255), 20, 320)
        return
    c.box(25, 42, 71, 88, (255, 255, 255), 3)
    for x, y in np.argwhere(rng.random((11, 11)) < 0.5):
        c.box(28.5 + 3.55 * x, 45.5 + 3.55 * y, 32.1 + 3.55 * x, 49.1 + 3.55 * y, (15, 15, 18))
    for x, y in ((18, 35), (78, 35), (18, 95), (78, 95)):
        c.line((x, y, x + (9 if x < 48 else -9), y), 2.2, p.accent)
        c.line((x, y, x, y + (9 if y < 60 else -9)), 2.2, p.accent)
    c.text(48, 140, "Scan a code", 10, (255, 255, 255), "mm")


def _map(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    night = p.paper[0] < 99
    land, street = ((44, 49, 60), (84, 92, 108)) if night else ((233, 229, 219), (255, 255, 255))
    c.box(0, 0, WIDTH, HEIGHT, land)
    for _ in range(3):
        x, y = float(rng.uniform(-10, 70)), float(rng.uniform(20, 120))
        c.box(x, y, x + float(rng.uniform(20, 44)), y + float(rng.uniform(20, 44)), mix(land, (70, 170, 80), 0.45), 5)
    bend = float(rng.uniform(20, 76))
    c.line((bend - 30, 0, bend, 60, bend - 14, 105, bend + 30, 170), 10, mix(land, (70, 140, 230), 0.6))
    for _ in range(10):
        at, slope = float(rng.uniform(-20, 180)), float(rng.uniform(-30, 30))
        c.line((0, at, 96, at + slope), 2.4, street)
        c.line((at - 40, 0, at - 40 + slope, 160), 2.4, street)
    c.line((0, float(rng.uniform(60, 120)), 96, float(rng.uniform(60, 120))), 4, (244, 196, 84))
    if p.app.name == "maps":
        c.box(5, 13, 91, 26, p.paper, 6)
        c.glyph("maps", 13, 19.5, 8, p.accent, p.paper)
        c.text(20, 19.5, str(rng.choice(WORDS)), 7, p.faint)
        c.glyph("maps", 48 + float(rng.uniform(-20, 20)), 80, 26, (226, 58, 50), (255, 255, 255))
        return
    for _ in range(4):
        x, y = float(rng.uniform(10, 86)), float(rng.uniform(25, 105))
        c.disc(x, y, 7, p.app.colour)
        c.glyph("taxi", x, y, 10, (30, 30, 34), p.app.colour)
    c.box(0, 120, WIDTH, HEIGHT, p.paper)
    c.text(7, 130, f"{rng.choice(WORDS)} {rng.choice(WORDS)}", 8, p.ink)
    c.box(6, 138, 90, 154, p.app.colour, 5)
    c.text(48, 146, "Ride", 10, (30, 30, 34), "mm")


def _tiles(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    title_bar(c, p)
    across = {"gallery": 3, "files": 3}.get(p.app.name, 2)
    side = (WIDTH - 4) / across
    for place in range(across * (5 if across == 3 else 3)):
        x, y = 2 + side * (place % across), TOP + 2 + (place // across) * (side if p.app.name == "gallery" else 43)
        if p.app.name == "gallery":
            draw_picture(c, x + 0.7, y, x + side - 0.7, y + side - 1.4, rng)
        elif p.app.name == "files":
            c.glyph("files" if rng.random() < 0.6 else "docs", x + side / 2, y + 15, 22, p.accent, p.paper)
            c.box(x + 6, y + 30, x + side - 6, y + 33, p.faint, 1)
        else:
            draw_picture(c, x + 2, y + 1, x + side - 2, y + 28, rng)
            sign = (
                ("shop", "alarm", "books", "camera") if p.app.name == "shop" else ("hotel", "water", "garden", "maps")
            )
            c.glyph(str(rng.choice(sign)), x + side / 2, y + 14.5, 18, (255, 255, 255), (90, 90, 100))
            c.text(x + 4, y + 35, f"${rng.integers(9, 300)}", 9, p.accent)
    if p.app.name == "hotel":
        c.box(0, 146, WIDTH, HEIGHT, p.accent)
        c.text(48, 153, "Book a room", 8, (255, 255, 255), "mm")


def _player(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    ground = mix(p.app.colour, (0, 0, 0), 0.72) if p.paper[0] < 99 else mix(p.app.colour, (255, 255, 255), 0.8)
    c.box(0, 0, WIDTH, HEIGHT, p.paper if p.app.name == "video" else ground)
    if p.app.name == "video":
        draw_picture(c, 0, 10, 96, 66, rng)
        c.disc(48, 38, 11, (255, 255, 255))
        c.shape((44.5, 31.5, 44.5, 44.5, 55, 38), p.app.colour)
        c.box(0, 65, 96, 67, p.faint)
        c.box(0, 65, float(rng.uniform(10, 80)), 67, p.app.colour)
        for row in range(3):
            draw_picture(c, 5, 73 + 28 * row, 42, 96 + 28 * row, rng)
            c.text(47, 79 + 28 * row, str(rng.choice(WORDS)), 7, p.ink)
            c.box(47, 86 + 28 * row, float(rng.uniform(70, 90)), 89 + 28 * row, p.soft, 1)
        return
    title_bar(c, p)
    if p.app.name == "music":
        draw_picture(c, 18, 34, 78, 94, rng)
        c.glyph("music", 48, 64, 38, (255, 255, 255), p.app.colour)
    elif p.app.name == "podcasts":
        for place in range(4):
            c.arc(48, 64, 12 + 7 * place, 1.6, mix(ground, p.ink, 0.8 - 0.17 * place), 0, 360)
        c.glyph("recorder", 48, 64, 17, p.ink, ground)
    else:
        c.box(14, 36, 82, 92, (226, 208, 172), 6)
        for tick in range(15):
            c.line((20 + 4 * tick, 44, 20 + 4 * tick, 52 if tick % 5 else 57), 0.9, (90, 66, 48))
        at = float(rng.uniform(24, 72))
        c.line((at, 42, at, 62), 1.6, (214, 48, 40))
        c.text(48, 76, f"{rng.uniform(88, 108):.1f}", 18, (90, 66, 48), "mm")
    c.text(48, 106, f"{rng.choice(WORDS)} {rng.choice(WORDS)}".capitalize(), 9, p.ink, "mm")
    c.box(10, 117, 86, 119.5, mix(ground, p.ink, 0.3), 1)
    c.box(10, 117, float(rng.uniform(20, 80)), 119.5, p.accent, 1)
    c.disc(48, 138, 11, p.accent)
    c.shape((44.5, 131.5, 44.5, 144.5, 55, 138), (255, 255, 255))
    c.shape((26, 133, 26, 143, 18, 138), p.ink)
    c.shape((70, 133, 70, 143, 78, 138), p.ink)


SCREENS: dict[str, Callable[[Canvas, Paints, np.random.Generator], None]] = {
    "rows": _rows,
    "switches": _switches,
    "checks": _checks,
    "article": _article,
    "page": _page,
    "keypad": _keypad,
    "bubbles": _bubbles,
    "panels": _panels,
    "dial": _dial,
    "month": _month,
    "finder": _finder,
    "map": _map,
    "tiles": _tiles,
    "player": _player,
    **GAMES,
}
"""Functions that draw screens, by name."""
