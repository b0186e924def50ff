"""Draws openapp.png: what phones of OpenApp show while their expert opens apps.

Run it from the root: `python docs/pictures/openapp.py`.
"""

from pathlib import Path

from PIL import Image

from vlm_rewards.labelers.domains.openapp.domain import OPENAPP

COLUMNS, ROWS, HEIGHT, WIDTH, GAP = 10, 4, 160, 96, 4


def frames(env: str, number: int) -> list[Image.Image]:
    """Returns the first frames of the expert's episodes."""
    level = OPENAPP.make(env, frame_size=(HEIGHT, WIDTH), cameras=OPENAPP.cameras)
    found: list[Image.Image] = []
    seed = OPENAPP.seeds.recorded.start
    while len(found) < number:
        look, done = level.reset(seed), False
        found.append(Image.fromarray(look.frames["screen"]))
        expert = level.expert()
        while not done:
            look, _, done, _ = level.step(expert.act(None))
            found.append(Image.fromarray(look.frames["screen"]))
        seed += 1
    return found[:number]


def main() -> None:
    """Writes two rows of the easy phones and two of the hard ones."""
    shown = [frame for env in OPENAPP.environments() for frame in frames(env, COLUMNS * ROWS // 2)]
    sheet = Image.new("RGB", (COLUMNS * (WIDTH + GAP) + GAP, ROWS * (HEIGHT + GAP) + GAP), (58, 60, 66))
    for place, frame in enumerate(shown):
        sheet.paste(frame, (GAP + (place % COLUMNS) * (WIDTH + GAP), GAP + (place // COLUMNS) * (HEIGHT + GAP)))
    sheet.quantize(128).save(Path(__file__).with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    main()
