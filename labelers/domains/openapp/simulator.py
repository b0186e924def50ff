"""A phone that is touched and shows its screen, as a simulator behind a touch interface.

    send_touch, send_swipe, send_key ──► Screen ──► get_screenshot
                                           └──► app_in_front

What the phone shows is a function of its seed and of what was sent. In a hard phone apps take a moment to open and to close,
messages come up over apps, notes of other apps lie over their top, and a swipe to the side goes to the app before.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

from vlm_rewards.labelers.domains.openapp import launcher
from vlm_rewards.labelers.domains.openapp.apps import APPS
from vlm_rewards.labelers.domains.openapp.canvas import HEIGHT, WIDTH, Canvas
from vlm_rewards.labelers.domains.openapp.phone import (
    FOLDER,
    MESSAGE_PLACES,
    Phone,
    Place,
    drawer_places,
    folder_places,
    home_places,
    make_phone,
    place_at,
)

SWIPES = ("up", "down", "left", "right")
"""Directions in which a finger moves."""

KEYS = ("home", "back")
"""Keys."""

PARTS = 3
"""Parts of an app's contents, seen one after the other by swiping."""

FRAME_COLOUR = (92, 96, 104)
"""Colour beside the screen in frames that are wider."""

_KEPT = 48


class Screen(NamedTuple):
    """The state of a phone's screen.

    Attributes:
        mode: "home", "drawer", "folder" or "app".
        page: Page of the home screen, or of the drawer.
        folder: The open folder.
        app: The app that is in front, or on its way there or back.
        part: Scroll position of the app.
        moving: Share of the screen that an app on its way takes; 0 if it has come to rest.
        before: The app that goes away to the left while `app` comes from the right.
        message: Number of the message over it; -1 for none.
        note: App whose note lies over the top.
    """

    mode: str = "home"
    page: int = 0
    folder: int = 0
    app: str | None = None
    part: int = 0
    moving: float = 0.0
    before: str | None = None
    message: int = -1
    note: str | None = None


class PhoneSimulator:
    """A phone.

    Args:
        frame_size: (H, W) of its screenshots in pixels; where they are wider than the screen, the screen stands in their middle.
        hard: Whether it is a hard one.

    Attributes:
        phone: The phone of the last `reset`.
        screen: State of the screen.
    """

    phone: Phone
    screen: Screen

    def __init__(self, frame_size: tuple[int, int], hard: bool = False) -> None:
        self._size, self._hard = frame_size, hard
        self._shots: dict[Screen, np.ndarray] = {}

    def reset(self, seed: int) -> None:
        """Takes the phone of a seed."""
        self.phone = make_phone(seed, self._hard)
        self._rng = np.random.default_rng([seed, 2])
        self._shots = {}
        self._opened: list[str] = []
        self._closing = False
        page = int(self._rng.integers(len(self.phone.pages)))
        self.screen = Screen(page=page)
        start = self._rng.random()
        if start < (0.3 if self._hard else 0.15):
            self.screen = self.screen._replace(message=int(self._rng.integers(len(launcher.MESSAGES))))
        elif start < (0.6 if self._hard else 0.25):
            self._opened = [str(self._rng.choice(self.phone.apps))]
            self.screen = self.screen._replace(mode="app", app=self._opened[0])

    @property
    def app_in_front(self) -> str | None:
        """The app that is in front and at rest, with no message over it; None where there is none."""
        screen = self.screen
        return screen.app if screen.mode == "app" and not screen.moving and screen.message < 0 else None

    def get_screenshot(self) -> np.ndarray:
        """Returns the screen, [H, W, 3] uint8, RGB; read-only."""
        if self.screen not in self._shots:
            if len(self._shots) == _KEPT:
                del self._shots[next(iter(self._shots))]
            self._shots[self.screen] = self._shot()
        return self._shots[self.screen]

    def places(self) -> tuple[Place, ...]:
        """Returns what can be touched now."""
        screen = self.screen
        if screen.moving:
            return ()
        if screen.message >= 0:
            return MESSAGE_PLACES
        if screen.mode == "home":
            return home_places(self.phone, screen.page)
        if screen.mode == "drawer":
            return drawer_places(self.phone, screen.page)
        return folder_places(self.phone, screen.folder) if screen.mode == "folder" else ()

    def send_touch(self, x: float, y: float) -> None:
        """Touches a point of the screen, each coordinate from 0 to 1, from the left and from the top."""
        if self._comes_to_rest():
            return
        screen, x, y = self.screen, x * WIDTH, y * HEIGHT
        what = place_at(self.places(), x, y)
        if what == "close":
            self.screen = screen._replace(message=-1)
        elif what is not None and what.startswith(FOLDER):
            self.screen = screen._replace(mode="folder", folder=int(what.removeprefix(FOLDER)))
        elif what is not None:
            self._open(what)
        elif screen.mode == "folder" and screen.message < 0 and not (7 <= x <= 89 and 34 <= y <= 108):
            self.screen = screen._replace(mode="home")

    def send_swipe(self, direction: str) -> None:
        """Moves a finger over the screen, in one of `SWIPES`."""
        if self._comes_to_rest() or self.screen.message >= 0:
            return
        screen, phone = self.screen, self.phone
        if screen.mode == "home":
            if direction == "up":
                self.screen = Screen(mode="drawer")
            elif direction in ("left", "right"):
                page = screen.page + (1 if direction == "left" else -1)
                self.screen = screen._replace(page=min(max(page, 0), len(phone.pages) - 1))
        elif screen.mode == "drawer":
            if direction == "up":
                self.screen = screen._replace(page=min(screen.page + 1, phone.drawer_pages - 1))
            elif direction == "down":
                self.screen = screen._replace(page=screen.page - 1) if screen.page else Screen()
        elif screen.mode == "app":
            if direction in ("up", "down"):
                part = screen.part + (1 if direction == "up" else -1)
                self.screen = screen._replace(part=min(max(part, 0), PARTS - 1))
            elif self._hard and len(self._opened) > 1:
                before, app = self._opened[-1], self._opened[-2]
                self._opened[-2:] = [before, app]
                self.screen = screen._replace(app=app, before=before, part=0, moving=self._share())

    def send_key(self, key: str) -> None:
        """Presses one of `KEYS`."""
        if self._comes_to_rest():
            return
        screen = self.screen
        if screen.message >= 0:
            closed = screen._replace(message=-1)
            self.screen = closed if key == "back" or screen.mode != "app" else Screen()
        elif screen.mode == "app" and self._hard:
            self._closing = True
            self.screen = screen._replace(moving=self._share())
        elif screen.mode == "folder":
            self.screen = screen._replace(mode="home")
        elif screen.mode != "home" or key == "home":
            self.screen = Screen()

    def _share(self) -> float:
        return float(self._rng.choice((0.4, 0.6, 0.8)))

    def _open(self, app: str) -> None:
        self._opened = [*(name for name in self._opened if name != app), app][-4:]
        self.screen = self.screen._replace(mode="app", app=app, part=0, note=None)
        if self._hard:
            self.screen = self.screen._replace(moving=self._share())

    def _comes_to_rest(self) -> bool:
        """Ends a movement, which takes one action, whatever that is; returns whether there was one."""
        screen = self.screen._replace(note=None)
        moved = bool(screen.moving)
        if moved and self._closing:
            screen = Screen()
        elif moved:
            screen = screen._replace(moving=0.0, before=None)
            chance = self._rng.random()
            if chance < 0.25:
                screen = screen._replace(message=int(self._rng.integers(len(launcher.MESSAGES))))
            elif chance < 0.5:
                screen = screen._replace(note=str(self._rng.choice(list(APPS))))
        self._closing = False if moved else self._closing
        self.screen = screen
        return moved

    def _shot(self) -> np.ndarray:
        height, width = self._size
        inner = min(width, round(height * WIDTH / HEIGHT))
        scale = 2 * inner / WIDTH
        canvas = self._drawn(scale)
        picture = canvas.image.resize((inner, height), Image.Resampling.BOX)
        if inner < width:
            framed = Image.new("RGB", (width, height), FRAME_COLOUR)
            framed.paste(picture, ((width - inner) // 2, 0))
            picture = framed
        shot = np.array(picture)
        shot.flags.writeable = False
        return shot

    def _drawn(self, scale: float) -> Canvas:
        phone, screen = self.phone, self.screen
        if screen.mode == "app":
            assert screen.app is not None
            canvas = launcher.draw_front(phone, screen.app, screen.part, scale)
            if screen.before is not None:
                left = launcher.draw_front(phone, screen.before, 0, scale)
                canvas = launcher.draw_side_by_side(left, canvas, screen.moving)
            elif screen.moving:
                canvas = launcher.draw_half_open(launcher.draw_home(phone, 0, scale), canvas, screen.moving)
        elif screen.mode == "drawer":
            canvas = launcher.draw_drawer(phone, screen.page, scale)
        elif screen.mode == "folder":
            canvas = launcher.draw_folder(phone, screen.page, screen.folder, scale)
        else:
            canvas = launcher.draw_home(phone, screen.page, scale)
        if screen.message >= 0:
            launcher.draw_message(canvas, phone, screen.message)
        launcher.draw_status(canvas, phone)
        if screen.note is not None:
            launcher.draw_banner(canvas, phone, screen.note)
        return canvas
