"""The screens of apps that are games, instruments and scenes."""

import math
from collections.abc import Callable

import numpy as np

from vlm_rewards.labelers.domains.openapp.apps import Colour
from vlm_rewards.labelers.domains.openapp.canvas import HEIGHT, WIDTH, Canvas, mix
from vlm_rewards.labelers.domains.openapp.paints import PICTURE_COLOURS, WORDS, Paints, draw_picture, title_bar

WHITE: Colour = (255, 255, 255)


def _sky(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    top, low = ((18, 28, 62), (52, 74, 128)) if p.paper[0] < 99 else ((52, 128, 212), (150, 204, 246))
    for band in range(32):
        c.box(0, 5 * band, WIDTH, 5 * band + 5, mix(top, low, band / 31))
    c.text(48, 24, str(rng.choice(WORDS)).capitalize(), 11, WHITE, "mm")
    c.glyph("weather", 48, 56, 46, WHITE, low)
    c.text(48, 96, f"{rng.integers(-9, 36)} C", 22, WHITE, "mm")
    for place in range(5):
        x = 10 + 19 * place
        c.glyph("weather" if rng.random() < 0.5 else "water", x, 126, 12, WHITE, low)
        c.text(x, 142, str(rng.integers(-9, 36)), 8, WHITE, "mm")


def _stickies(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    title_bar(c, p)
    papers: tuple[Colour, ...] = ((255, 240, 150), (190, 232, 190), (186, 216, 250), (250, 206, 214))
    for place in range(6):
        x, y = 4 + 45.5 * (place % 2), 30 + 43 * (place // 2)
        c.box(x, y, x + 43, y + 40, mix(papers[int(rng.integers(4))], p.paper, 0.12), 3)
        c.text(x + 4, y + 8, str(rng.choice(WORDS)).capitalize(), 8, (70, 62, 50))
        for row in range(3):
            c.box(x + 4, y + 17 + 7 * row, x + float(rng.uniform(20, 39)), y + 19.5 + 7 * row, (150, 140, 116), 1)


def _board(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    title_bar(c, p)
    for cell in range(64):
        x, y = 4 + 11 * (cell % 8), 36 + 11 * (cell // 8)
        c.box(x, y, x + 11, y + 11, (236, 214, 178) if (cell + cell // 8) % 2 else (146, 98, 66))
    for cell in rng.choice(64, 15, replace=False):
        ink: Colour = WHITE if rng.random() < 0.5 else (20, 20, 22)
        c.glyph("chess", 9.5 + 11 * (cell % 8), 41.5 + 11 * (cell // 8), 10, ink, ink)
    c.text(48, 138, f"Move {rng.integers(9, 60)}", 11, p.ink, "mm")


def _chart(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    title_bar(c, p)
    values = np.cumsum(rng.normal(0, 1, 25))
    values = 40 + 44 * (values.max() - values) / (np.ptp(values) + 1e-6)
    points = [value for step, y in enumerate(values) for value in (4 + 88 * step / 24, float(y))]
    stocks = p.app.name == "stocks"
    up: Colour = (46, 190, 110) if stocks else p.app.colour
    if not stocks:
        c.shape([*points, 92, 88, 4, 88], mix(p.paper, up, 0.3))
    for row in range(4):
        c.line((4, 40 + 16 * row, 92, 40 + 16 * row), 0.5, p.soft)
    c.line(points, 2, up)
    for row in range(4):
        y = 101 + 15 * row
        if not stocks:
            c.disc(10, y, 5, mix(up, PICTURE_COLOURS[row], 0.4))
        c.text(18 if not stocks else 6, y, str(rng.choice(WORDS))[:4].upper(), 8, p.ink)
        gain = float(rng.normal(0, 5))
        c.text(91, y, f"{gain:+.1f}%", 8, up if gain > 0 else (224, 70, 62), "rm")


def _rings(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    title_bar(c, p)
    for ring, colour in enumerate(((238, 62, 92), (140, 220, 50), (44, 180, 226))):
        c.arc(48, 68, 36 - 8.5 * ring, 7, p.soft, 0, 360)
        c.arc(48, 68, 36 - 8.5 * ring, 7, colour, -90, -90 + float(rng.uniform(80, 350)))
    c.text(48, 114, f"{rng.integers(900, 19000)} steps", 11, p.ink, "mm")
    for day in range(7):
        c.box(11 + 11 * day, 152 - float(rng.uniform(5, 28)), 19 + 11 * day, 152, p.accent, 1)


def _wave(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    title_bar(c, p)
    for bar in range(29):
        size = 3 + 30 * abs(math.sin(bar * 0.4 + float(rng.uniform(0, 1)))) * float(rng.uniform(0.4, 1))
        c.line((6 + 3 * bar, 68 - size, 6 + 3 * bar, 68 + size), 1.5, p.accent)
    c.text(48, 116, f"00:{rng.integers(60):02d}.{rng.integers(10)}", 16, p.ink, "mm")
    c.disc(48, 141, 13, p.soft)
    c.disc(48, 141, 9.5, p.app.colour)


def _torch(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    c.box(0, 0, WIDTH, HEIGHT, (20, 21, 26))
    if rng.random() < 0.5:
        for step in range(12):
            c.disc(48, 80, 60 - 4 * step, mix((20, 21, 26), (255, 240, 170), (step + 1) / 14))
    c.disc(48, 80, 21, (92, 95, 102))
    c.disc(48, 80, 19, (52, 54, 60))
    c.arc(48, 80, 9, 2.6, WHITE, -60, 240)
    c.line((48, 68, 48, 80), 2.6, WHITE)
    c.glyph("flashlight", 48, 144, 13, (150, 152, 160), (20, 21, 26))


def _strokes(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    title_bar(c, p)
    c.box(0, 26, WIDTH, 138, (252, 250, 244))
    for _ in range(11):
        x, y = rng.uniform(8, 88), rng.uniform(36, 128)
        points = [
            float(v)
            for _ in range(4)
            for v in (np.clip(x + rng.normal(0, 20), 4, 92), np.clip(y + rng.normal(0, 20), 30, 134))
        ]
        c.line(points, float(rng.uniform(1.5, 5)), PICTURE_COLOURS[int(rng.integers(9))])
    c.box(0, 138, WIDTH, HEIGHT, p.soft)
    for place in range(6):
        c.disc(10 + 15.2 * place, 149, 5.5, PICTURE_COLOURS[place])


def _keys(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    title_bar(c, p)
    c.text(48, 46, f"{rng.choice(('do re mi', 'la ti do', 'fa so la'))}", 13, p.ink, "mm")
    c.box(0, 64, WIDTH, HEIGHT, (30, 30, 34))
    down = int(rng.integers(7))
    for key in range(7):
        c.box(1 + 13.6 * key, 66, 13.8 + 13.6 * key, 157, (250, 210, 120) if key == down else (252, 252, 250), 2)
    for key in (0, 1, 3, 4, 5):
        c.box(10.2 + 13.6 * key, 64, 18.6 + 13.6 * key, 118, (24, 24, 28), 1)


def _night(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    c.box(0, 0, WIDTH, HEIGHT, (8, 10, 34))
    for _ in range(60):
        c.disc(float(rng.uniform(0, 96)), float(rng.uniform(12, 160)), float(rng.uniform(0.3, 0.9)), (210, 214, 240))
    if p.app.name == "stars":
        places = [(float(rng.uniform(12, 84)), float(rng.uniform(34, 138))) for _ in range(7)]
        c.line([value for place in sorted(places) for value in place], 0.8, (122, 150, 226))
        for x, y in places:
            c.glyph("stars", x, y, 11, (255, 240, 180), (8, 10, 34))
        c.text(48, 22, f"{rng.choice(WORDS)} sky".capitalize(), 10, (200, 210, 250), "mm")
        return
    c.disc(float(rng.uniform(0, 90)), 150, 32, PICTURE_COLOURS[int(rng.integers(9))])
    c.text(6, 18, f"Score {rng.integers(100, 9999)}", 9, WHITE)
    for _ in range(5):
        x, y = float(rng.uniform(12, 84)), float(rng.uniform(32, 84))
        c.ellipse(x - 7, y - 2, x + 7, y + 3, (96, 214, 120))
        c.disc(x, y - 2, 3.4, (170, 240, 180))
    c.glyph("space", float(rng.uniform(20, 76)), 116, 26, (236, 238, 246), (60, 110, 220))


def _board_rows(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    title_bar(c, p)
    ground: Colour = (22, 26, 34) if p.app.name == "flights" else mix(p.paper, p.app.colour, 0.14)
    ink: Colour = (250, 212, 90) if p.app.name == "flights" else p.ink
    c.box(0, 26, WIDTH, HEIGHT, ground)
    for row in range(8):
        y = 36 + 16.4 * row
        c.glyph(p.app.name, 9, y, 10, mix(ink, ground, 0.25), ground)
        c.text(18, y, f"{rng.integers(24):02d}:{rng.integers(60):02d}", 8, ink)
        c.text(43, y, str(rng.choice(WORDS)).upper(), 7, ink)
        c.text(92, y, str(rng.integers(1, 40)), 8, ink, "rm")


def _ledger(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    title_bar(c, p)
    y = 82.0
    if p.app.name == "wallet":
        for card, colour in enumerate(rng.choice(9, 3, replace=False)):
            c.box(7, 32 + 13 * card, 89, 76 + 13 * card, PICTURE_COLOURS[int(colour)], 5)
            c.text(13, 39 + 13 * card, f"{rng.choice(WORDS)} card", 7, WHITE)
        c.text(83, 93, f"**** {rng.integers(1000, 9999)}", 8, WHITE, "rm")
        y = 118
    else:
        c.box(0, 26, WIDTH, 70, mix(p.accent, p.paper, 0.75))
        c.text(48, 44, f"${rng.integers(1, 90)},{rng.integers(100, 999)}", 19, p.ink, "mm")
        c.text(48, 60, "Balance", 8, p.faint, "mm")
    while y < 158:
        c.glyph(str(rng.choice(("shop", "water", "hotel", "taxi"))), 11, y, 10, p.accent, p.paper)
        c.box(21, y - 1.5, float(rng.uniform(36, 60)), y + 1.5, p.soft, 1)
        c.text(91, y, f"-${rng.integers(2, 200)}", 8, (214, 70, 62), "rm")
        y += 14.5


def _numbers(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    title_bar(c, p)
    c.box(4, 36, 92, 124, mix(p.soft, p.app.colour, 0.25), 4)
    for cell in range(16):
        x, y, power = 6.5 + 21.4 * (cell % 4), 38.5 + 21.4 * (cell // 4), int(rng.integers(0, 7))
        colour = mix((238, 228, 200), (226, 92, 40), power / 6) if power else mix(p.soft, p.paper, 0.4)
        c.box(x, y, x + 19, y + 19, colour, 3)
        if power:
            c.text(x + 9.5, y + 9.5, str(2**power), 10, (60, 54, 48) if power < 4 else WHITE, "mm")
    c.text(48, 140, f"Best {rng.integers(100, 9999)}", 11, p.ink, "mm")


def _road(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    bend = float(rng.uniform(-22, 22))
    c.box(0, 0, WIDTH, 66, (112, 184, 240))
    for hill in range(-10, 100, 22):
        c.disc(hill + float(rng.uniform(0, 12)), 68, 15, (122, 142, 160))
    c.box(0, 66, WIDTH, HEIGHT, (86, 164, 76))
    c.shape((44 + bend, 66, 52 + bend, 66, 108, 160, -12, 160), (74, 76, 84))
    for mark in range(5):
        near, far = (mark + 0.55) ** 2 / 25, mark**2 / 25
        y0, y1 = 66 + 94 * far, 66 + 94 * near
        c.shape(
            (
                48 + bend * (1 - far),
                y0,
                48 + bend * (1 - near) - 2 * near - 0.4,
                y1,
                48 + bend * (1 - near) + 2 * near + 0.4,
                y1,
            ),
            WHITE,
        )
    x = float(rng.uniform(32, 64))
    c.box(x - 13, 126, x + 13, 143, p.app.colour, 5)
    c.box(x - 9, 119, x + 9, 131, mix(p.app.colour, (0, 0, 0), 0.35), 4)
    for side in (-1, 1):
        c.box(x + 10 * side - 3.5, 138, x + 10 * side + 3.5, 148, (24, 24, 26), 2)
    c.text(7, 20, f"{rng.integers(60, 220)} km/h", 12, WHITE)


def _field(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    farm = p.app.name == "farm"
    title_bar(c, p)
    c.box(0, 26, WIDTH, HEIGHT, (122, 182, 82) if farm else mix(p.paper, (206, 232, 196), 0.8))
    if farm:
        c.glyph("farm", 22, 46, 30, (196, 54, 46), (250, 236, 216))
        for cell in range(20):
            x, y = 6 + 17.2 * (cell % 5), 68 + 22 * (cell // 5)
            c.box(x, y, x + 15, y + 19, (118, 80, 48), 2)
            for sprout in range(int(rng.integers(0, 4))):
                c.ellipse(
                    x + 2 + 4 * sprout,
                    y + 3,
                    x + 5 + 4 * sprout,
                    y + 15,
                    (240, 190, 60) if cell % 3 else (150, 214, 90),
                )
        return
    for cell in range(6):
        x, y = 18 + 30 * (cell % 3), 66 + 62 * (cell // 3)
        c.shape((x - 10, y + 6, x + 10, y + 6, x + 7, y + 22, x - 7, y + 22), (178, 98, 62))
        flower = PICTURE_COLOURS[int(rng.integers(9))]
        c.line((x, y + 6, x, y - 12), 1.8, (60, 140, 70))
        for petal in range(5):
            a = petal * 2 * math.pi / 5
            c.disc(x + 5.5 * math.sin(a), y - 14 - 5.5 * math.cos(a), 4, flower)
        c.disc(x, y - 14, 3.2, (250, 220, 110))


def _crawler(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    c.box(0, 0, WIDTH, HEIGHT, (14, 34, 20))
    c.box(4, 26, 92, 154, (22, 52, 30), 3)
    x, y = 5, 9
    for _ in range(16):
        c.box(8 + 8 * x, 28 + 8 * y, 15 + 8 * x, 35 + 8 * y, (112, 220, 90), 1.5)
        if rng.random() < 0.5:
            x = int(np.clip(x + rng.choice((-1, 1)), 0, 9))
        else:
            y = int(np.clip(y + rng.choice((-1, 1)), 0, 14))
    c.disc(11.5 + 8 * int(rng.integers(10)), 31.5 + 8 * int(rng.integers(15)), 4, (240, 66, 60))
    c.text(7, 18, f"Length {rng.integers(4, 60)}", 9, (150, 230, 130))


def _table(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    c.box(0, 0, WIDTH, HEIGHT, (24, 104, 60))
    c.ellipse(6, 20, 90, 150, (30, 122, 72))
    for card in range(8):
        x, y = 8 + 21 * (card % 4), 30 + 40 * (card // 4) + 3 * (card % 2)
        red = rng.random() < 0.5
        ink: Colour = (208, 44, 44) if red else (28, 28, 32)
        c.box(x, y, x + 18, y + 27, (252, 252, 248), 2)
        c.text(x + 3, y + 7, str(rng.choice(list("AKQJ98765"))), 9, ink)
        c.shape((x + 9, y + 11, x + 14, y + 18, x + 9, y + 25, x + 4, y + 18), ink)
    for card in range(3):
        c.box(36 + 3 * card, 118, 54 + 3 * card, 145, (56, 88, 170), 2)


def _green(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    c.box(0, 0, WIDTH, HEIGHT, (76, 158, 74))
    for band in range(0, 160, 20):
        c.box(0, band, WIDTH, band + 10, (84, 168, 80))
    x = float(rng.uniform(30, 66))
    c.ellipse(x - 28, 30, x + 28, 80, (140, 208, 110))
    c.ellipse(x - 50, 86, x - 20, 102, (236, 214, 160))
    c.ellipse(x + 14, 112, x + 56, 134, (92, 172, 226))
    c.glyph("golf", x + 4, 48, 28, (216, 44, 44), WHITE)
    c.disc(float(rng.uniform(20, 76)), 142, 3.6, WHITE)
    c.text(7, 20, f"Hole {rng.integers(1, 19)}", 11, WHITE)


def _feed(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    title_bar(c, p)
    for post in range(2):
        y = 27 + 68 * post
        c.disc(11, y + 9, 6, PICTURE_COLOURS[int(rng.integers(9))])
        c.text(21, y + 9, f"{rng.choice(WORDS)} {rng.choice(WORDS)}".capitalize(), 8, p.ink)
        draw_picture(c, 0, y + 18, 96, y + 55, rng)
        c.glyph("social", 11, y + 61.5, 9, (232, 60, 84), p.paper)
        c.glyph("messages", 26, y + 61.5, 9, p.faint, p.paper)
        c.text(91, y + 61.5, f"{rng.integers(3, 900)} likes", 7, p.faint, "rm")


def _bars(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    c.box(0, 0, WIDTH, HEIGHT, (22, 17, 60))
    c.glyph("sleep", 48, 44, 44, (250, 226, 150), (22, 17, 60))
    c.text(48, 88, f"{rng.integers(5, 10)}h {rng.integers(60):02d}m", 17, WHITE, "mm")
    for bar in range(14):
        c.box(6 + 6.1 * bar, 154 - float(rng.uniform(8, 48)), 11 + 6.1 * bar, 154, (120, 104, 232), 1)


def _glass(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    title_bar(c, p)
    share = float(rng.uniform(0.15, 0.9))
    if p.app.name == "water":
        top = 152 - 118 * share
        c.shape((16, 40, 80, 40, 71, 154, 25, 154), p.soft)
        slant = 9 * (top - 40) / 114
        c.shape((16 + slant, top, 80 - slant, top, 71, 154, 25, 154), (52, 158, 232))
        c.text(48, 96, f"{round(100 * share)}%", 22, p.ink, "mm")
        return
    c.box(28, 36, 44, 132, p.soft, 8)
    c.disc(36, 136, 14, p.soft)
    c.disc(36, 136, 10.5, (226, 58, 44))
    c.box(32, 128 - 84 * share, 40, 136, (226, 58, 44), 4)
    for tick in range(9):
        c.line((50, 44 + 10 * tick, 60 if tick % 2 else 66, 44 + 10 * tick), 1.2, p.faint)
    c.text(72, 136, f"{round(50 * share) - 8} C", 14, p.ink, "mm")


def _spirit(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    title_bar(c, p)
    at = float(rng.uniform(28, 68))
    c.box(8, 66, 88, 98, mix(p.app.colour, (30, 50, 10), 0.3), 16)
    c.box(11, 69, 85, 95, (206, 226, 92), 13)
    c.ellipse(at - 13, 71, at + 13, 93, (242, 250, 190))
    for x in (36, 60):
        c.line((x, 66, x, 98), 1.4, (40, 52, 20))
    c.text(48, 124, f"{(at - 48) / 2:+.1f} deg", 15, p.ink, "mm")


def _cells(c: Canvas, p: Paints, rng: np.random.Generator) -> None:
    title_bar(c, p)
    c.box(0, 26, WIDTH, 36, p.soft)
    for column, letter in enumerate("ABCD"):
        c.text(24 + 21 * column, 31, letter, 7, p.faint, "mm")
    for row in range(12):
        y = 36 + 10.4 * row
        c.line((0, y, WIDTH, y), 0.5, p.soft)
        c.text(6, y + 5.2, str(row + 1), 6, p.faint, "mm")
        for column in range(4):
            if rng.random() < 0.6:
                c.text(33 + 21 * column, y + 5.2, str(rng.integers(1, 900)), 7, p.ink, "rm")
    for column in range(4):
        c.line((13 + 21 * column, 26, 13 + 21 * column, HEIGHT), 0.5, p.soft)
    x, y = 13 + 21 * int(rng.integers(4)), 36 + 10.4 * int(rng.integers(10))
    c.line((x, y, x + 21, y, x + 21, y + 10.4, x, y + 10.4, x, y), 1.6, p.accent)


GAMES: dict[str, Callable[[Canvas, Paints, np.random.Generator], None]] = {
    "sky": _sky,
    "stickies": _stickies,
    "board": _board,
    "chart": _chart,
    "rings": _rings,
    "wave": _wave,
    "torch": _torch,
    "strokes": _strokes,
    "keys": _keys,
    "night": _night,
    "board_rows": _board_rows,
    "ledger": _ledger,
    "numbers": _numbers,
    "road": _road,
    "field": _field,
    "crawler": _crawler,
    "table": _table,
    "green": _green,
    "feed": _feed,
    "bars": _bars,
    "glass": _glass,
    "spirit": _spirit,
    "cells": _cells,
}
"""Functions that draw screens, by name."""
