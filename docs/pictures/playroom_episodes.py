"""Draws playroom_episodes.gif: the playroom's expert finds, lifts and places a toy, each family in an episode of its own.

Run it from the root: `python docs/pictures/playroom_episodes.py`. Shown is, per family, the first recorded room in which the agent
sees three toys at the start and that takes its expert as many steps as STEPS says.
"""

import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vlm_rewards.labelers.domains.playroom.domain import PLAYROOM

SIDE, GAP, LINE = 192, 6, 36
STEPS = {"Find": range(16, 22), "Lift": range(20, 26), "Place": range(30, 37)}
PAUSE, COLOURS, MILLISECONDS = 8, 72, 150
PAPER, INK, DONE = (250, 250, 248), (40, 42, 48), (24, 138, 62)

Strip = list[tuple[np.ndarray, bool]]


def episode(family: str, lengths: range) -> tuple[str, Strip]:
    """Returns the mission of an episode, and its frames, each with whether the goal holds in it."""
    level = PLAYROOM.make(f"vlm-rewards/Playroom-{family}-v0", frame_size=(224, 224), cameras=PLAYROOM.cameras)
    for seed in PLAYROOM.seeds.recorded:
        look, done = level.reset(seed), False
        if len(look.state.pixels) < 3:
            continue
        frames: Strip = [(look.frames["eyes"], False)]
        expert = level.expert()
        while not done and len(frames) < lengths.stop:
            look, _, done, _ = level.step(expert.act(None))
            frames.append((look.frames["eyes"], done))
        if done and len(frames) - 1 in lengths:
            return level.mission, frames
    raise AssertionError("no room takes so many steps")


def _with_palette(picture: Image.Image) -> Image.Image:
    """Returns a picture in COLOURS colours, chosen among its pixels, above all saturated ones: toys are small."""
    pixels = np.asarray(picture).reshape(-1, 3)
    spread = (pixels.max(axis=1).astype(float) - pixels.min(axis=1)) / 255
    weights = 0.05 + spread**2
    drawn = np.random.default_rng(0).choice(len(pixels), (128, 128), p=weights / weights.sum())
    palette = Image.fromarray(pixels[drawn]).quantize(COLOURS, kmeans=3)
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


def main() -> None:
    """Writes the three episodes side by side; each waits at its end for the longest."""
    shown = [episode(family, lengths) for family, lengths in STEPS.items()]
    font = ImageFont.load_default(11)
    pictures = []
    for time in range(max(len(frames) for _, frames in shown) + PAUSE):
        picture = Image.new("RGB", (3 * SIDE + 4 * GAP, SIDE + GAP + LINE), PAPER)
        pen = ImageDraw.Draw(picture)
        for place, (mission, frames) in enumerate(shown):
            frame, done = frames[min(time, len(frames) - 1)]
            left = GAP + place * (SIDE + GAP)
            picture.paste(Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.LANCZOS), (left, GAP))
            if done:
                pen.rectangle((left - 3, GAP - 3, left + SIDE + 2, GAP + SIDE + 2), outline=DONE, width=3)
            words = textwrap.fill(mission, 28)
            middle = (left + SIDE / 2, GAP + SIDE + LINE / 2)
            pen.text(middle, words, DONE if done else INK, font, anchor="mm", align="center")
        pictures.append(picture)
    flat = [_with_palette(picture) for picture in pictures]
    flat[0].save(
        Path(__file__).with_suffix(".gif"),
        save_all=True,
        append_images=flat[1:],
        duration=MILLISECONDS,
        loop=0,
        optimize=True,
    )


if __name__ == "__main__":
    main()
