"""One phone: its apps, their places and its appearance; a function of its seed.

home page 0     page 1 ...      drawer          folder
a  b  c  d      e  f            all apps,       up to nine apps
g  h  [f]                       20 per page     of one cell
dock: four apps, on every page
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from vlm_rewards.labelers.domains.openapp.apps import APPS

FOLDER = "folder"
"""Prefix of a folder's name in a cell, before its number."""

DRAWER_APPS = 20
"""Apps on a page of the drawer."""

SHAPES = ("round", "squircle", "square")
"""Shapes of icons."""


@dataclasses.dataclass(frozen=True)
class Phone:
    """One phone.

    Args:
        seed: Seed of everything that it shows.
        pages: Per home page, what lies in its cells: names of apps, and "folder0", ...
        dock: Names of four apps.
        folders: Per folder, names of apps.
        apps: All its apps, in the order of the drawer.
        columns: Columns of icons on a home page.
        shape: Shape of the icons, one of `SHAPES`.
        inverted: Whether icons are coloured signs on white instead of white signs on colour.
        labels: Whether names stand below icons.
        dark: Whether apps and the drawer are dark.
        plain: Whether title bars are without the app's colour.
        titled: Whether title bars name the app.
        minutes: The time that the status bar shows.
        widget: Name of the app whose screen is seen in part on the first home page; None for none.
    """

    seed: int
    pages: tuple[tuple[str, ...], ...]
    dock: tuple[str, ...]
    folders: tuple[tuple[str, ...], ...]
    apps: tuple[str, ...]
    columns: int
    shape: str
    inverted: bool
    labels: bool
    dark: bool
    plain: bool
    titled: bool
    minutes: int
    widget: str | None

    @property
    def drawer_pages(self) -> int:
        """Number of pages of the drawer."""
        return -(-len(self.apps) // DRAWER_APPS)


class Place(NamedTuple):
    """Place of a touchable element.

    Attributes:
        what: Name of an app, "folder0", ..., or "close" for what closes a message.
        x: Centre in units.
        y: Centre in units.
        reach: Half of the width that can be touched.
    """

    what: str
    x: float
    y: float
    reach: float


def make_phone(seed: int, hard: bool) -> Phone:
    """Returns the phone of a seed.

    Args:
        seed: Any seed.
        hard: Whether it has more apps, other themes and a widget.
    """
    rng = np.random.default_rng([seed, 0])
    installed = [str(name) for name in rng.permutation(list(APPS))[: 44 if hard else 30]]
    dock, rest = tuple(installed[:4]), installed[4:]
    folders = tuple(tuple(rest[6 * i : 6 * i + 6]) for i in range(2 if hard else 1))
    rest = rest[6 * len(folders) :]
    columns = int(rng.integers(3, 5))
    widget = str(rng.choice(list(APPS))) if hard and rng.random() < 0.5 else None
    shown = [*rest[: 16 if hard else 14], *(f"{FOLDER}{i}" for i in range(len(folders)))]
    shown = [str(name) for name in rng.permutation(shown)]
    first = columns * (2 if widget else 4)
    pages = [tuple(shown[:first]), *(tuple(shown[i : i + 4 * columns]) for i in range(first, len(shown), 4 * columns))]
    return Phone(
        seed=seed,
        pages=tuple(pages),
        dock=dock,
        folders=folders,
        apps=tuple(sorted(installed)),
        columns=columns,
        shape=str(rng.choice(SHAPES)),
        inverted=bool(rng.random() < 0.35),
        labels=bool(rng.random() < (0.5 if hard else 0.8)),
        dark=bool(rng.random() < (0.6 if hard else 0.3)),
        plain=hard and bool(rng.random() < 0.6),
        titled=not hard or bool(rng.random() < 0.4),
        minutes=int(rng.integers(24 * 60)),
        widget=widget,
    )


def home_places(phone: Phone, page: int) -> tuple[Place, ...]:
    """Returns the places on a home page, those of the dock last."""
    pitch = 96 / phone.columns
    top = 74 if phone.widget and page == 0 else 24
    cells = [
        Place(what, pitch * (i % phone.columns + 0.5), top + 26 * (i // phone.columns), 11)
        for i, what in enumerate(phone.pages[page])
    ]
    return tuple(cells) + tuple(Place(app, 24 * i + 12, 145, 11) for i, app in enumerate(phone.dock))


def drawer_places(phone: Phone, page: int) -> tuple[Place, ...]:
    """Returns the places on a page of the drawer."""
    apps = phone.apps[DRAWER_APPS * page : DRAWER_APPS * (page + 1)]
    return tuple(Place(app, 24 * (i % 4) + 12, 38 + 26 * (i // 4), 11) for i, app in enumerate(apps))


def folder_places(phone: Phone, folder: int) -> tuple[Place, ...]:
    """Returns the places in an open folder."""
    return tuple(Place(app, 24 + 24 * (i % 3), 60 + 26 * (i // 3), 11) for i, app in enumerate(phone.folders[folder]))


MESSAGE_PLACES = (Place("close", 29, 100, 15), Place("close", 67, 100, 15))
"""The buttons of a message."""


def place_at(places: tuple[Place, ...], x: float, y: float) -> str | None:
    """Returns what lies at a point: the nearest within reach; None where nothing does."""
    near = [
        (abs(place.x - x) + abs(place.y - y), place.what)
        for place in places
        if abs(place.x - x) <= place.reach and abs(place.y - y) <= 11
    ]
    return min(near)[1] if near else None
