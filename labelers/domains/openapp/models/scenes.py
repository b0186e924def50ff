"""Draws single screens of phones with the states that they show, without playing episodes.

A part of the stock (`labelers.reference_models.stock`) shows `ROWS` screens of as many phones as `_PER_PHONE` gives, every second
phone a hard one. Phones are drawn from TRAIN_SEEDS, and for figures from VALIDATION_SEEDS; both belong to the seeds of models.
"""

from collections.abc import Mapping

import numpy as np

from vlm_rewards.labelers.domains.openapp import launcher
from vlm_rewards.labelers.domains.openapp.apps import APPS
from vlm_rewards.labelers.domains.openapp.models.captions import MOVING, NOTE, NOTHING, OPEN, OTHERS
from vlm_rewards.labelers.domains.openapp.phone import Phone
from vlm_rewards.labelers.domains.openapp.simulator import PARTS, PhoneSimulator, Screen
from vlm_rewards.labelers.reference_models.stock import ROWS, Field

TRAIN_SEEDS = range(1_900_000)
VALIDATION_SEEDS = range(1_900_000, 2_000_000)

FRAME_SIZE = (160, 96)
MAX_TRUE = 4
"""True states of a screen at most."""

FIELDS: Mapping[str, Field] = {
    "frames": Field((*FRAME_SIZE, 3), "uint8"),
    "states": Field((MAX_TRUE,), "int16"),
}
"""Arrays of the stock."""

_PER_PHONE = 8
_NAMES = tuple(APPS)


def draw_screens(part: int, seeds: range = TRAIN_SEEDS) -> dict[str, np.ndarray]:
    """Draws the screens of a part of the stock.

    Args:
        part: Number of the part, from 0.
        seeds: Seeds of the phones.
    """
    rng = np.random.default_rng([seeds.start, part])
    frames = np.empty((ROWS, *FRAME_SIZE, 3), dtype=np.uint8)
    states = np.full((ROWS, MAX_TRUE), -1, dtype=np.int16)
    simulators = [PhoneSimulator(FRAME_SIZE, hard) for hard in (False, True)]
    for row in range(ROWS):
        hard = row // _PER_PHONE % 2
        simulator = simulators[hard]
        if row % _PER_PHONE == 0:
            simulator.reset(int(seeds[int(rng.integers(len(seeds)))]))
        simulator.screen = draw_screen(simulator.phone, bool(hard), rng)
        frames[row] = simulator.get_screenshot()
        true = screen_states(simulator.screen)
        states[row, : len(true)] = true
    return {"frames": frames, "states": states}


def draw_screen(phone: Phone, hard: bool, rng: np.random.Generator) -> Screen:
    """Draws what a phone may show: an app in about six of ten screens."""
    kind = rng.random()
    if kind < 0.62:
        app, part = str(rng.choice(_NAMES)), int(rng.integers(PARTS))
        screen = Screen(mode="app", app=app, part=part)
        if hard and rng.random() < 0.3:
            return _moving(screen, rng)
        if hard and rng.random() < 0.2:
            screen = screen._replace(note=str(rng.choice(_NAMES)))
    elif kind < 0.8:
        screen = Screen(page=int(rng.integers(len(phone.pages))))
    elif kind < 0.92:
        screen = Screen(mode="drawer", page=int(rng.integers(phone.drawer_pages)))
    else:
        screen = Screen(mode="folder", page=0, folder=int(rng.integers(len(phone.folders))))
    if rng.random() < 0.12 and screen.note is None and screen.mode in ("app", "home"):
        screen = screen._replace(message=int(rng.integers(len(launcher.MESSAGES))))
    return screen


def screen_rows(num_frames: int, hard: bool) -> np.ndarray:
    """Returns which rows of a stock are screens of easy, or of hard phones."""
    rows = np.arange(num_frames)
    return rows[rows // _PER_PHONE % 2 == hard]


def _moving(screen: Screen, rng: np.random.Generator) -> Screen:
    """Puts an app on its way: from the right beside another, or out of the home page."""
    before = str(rng.choice(_NAMES)) if rng.random() < 0.4 else None
    return screen._replace(
        moving=float(rng.choice((0.4, 0.6, 0.8))),
        before=before if before != screen.app else None,
        part=0 if before else screen.part,
    )


def screen_states(screen: Screen) -> list[int]:
    """Returns the states of `captions.state_names` that a screen shows, some at least."""
    if screen.message >= 0:
        return [OTHERS["message"], NOTHING]
    if screen.mode != "app":
        return [OTHERS[screen.mode], NOTHING]
    if screen.moving:
        return [NOTHING, *(MOVING[app] for app in (screen.app, screen.before) if app is not None)]
    assert screen.app is not None
    return [OPEN[screen.app], *([NOTE] if screen.note is not None else [])]
