"""Draws playroom.jpg: what the playroom's agent sees on the way, and when its goal holds.

Run it from the root: `python docs/pictures/playroom.py`.
"""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vlm_rewards.labelers.domains.playroom.domain import PLAYROOM

COLUMNS, SIDE, GAP, LINE = 6, 160, 4, 18
PAPER, INK = (250, 250, 248), (40, 42, 48)


def episodes(env: str, seeds: Sequence[int]) -> list[tuple[str, Image.Image, Image.Image]]:
    """Returns the missions of the expert's episodes, each with a frame half-way and the last one."""
    level = PLAYROOM.make(env, frame_size=(SIDE, SIDE), cameras=PLAYROOM.cameras)
    found = []
    for seed in seeds:
        frames, expert, done = [level.reset(seed).frames["eyes"]], level.expert(), False
        while not done:
            look, _, done, _ = level.step(expert.act(None))
            frames.append(look.frames["eyes"])
        found.append((level.mission, Image.fromarray(frames[len(frames) // 2]), Image.fromarray(frames[-1])))
    return found


def main() -> None:
    """Writes two rows of episodes per family, full rooms above small ones."""
    each = COLUMNS // 2
    envs = PLAYROOM.environments()
    seeds = PLAYROOM.seeds.recorded
    shown = [one for place, env in enumerate(envs) for one in episodes(env, seeds[place * each : (place + 1) * each])]
    rows = 2 * len(shown) // COLUMNS
    sheet = Image.new("RGB", (COLUMNS * (SIDE + GAP) + GAP, rows * (SIDE + LINE + GAP)), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for place, (mission, midway, done) in enumerate(shown):
        left = GAP + (2 * place % COLUMNS) * (SIDE + GAP)
        top = GAP + (2 * place // COLUMNS) * (SIDE + LINE + GAP)
        sheet.paste(midway, (left, top))
        sheet.paste(done, (left + SIDE + GAP, top))
        pen.text((left + SIDE + GAP / 2, top + SIDE + LINE / 2), mission, INK, font, anchor="mm")
    sheet.save(Path(__file__).with_suffix(".jpg"), quality=88)


if __name__ == "__main__":
    main()
