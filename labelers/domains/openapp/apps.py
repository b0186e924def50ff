"""The 60 apps of the phone: 10 common and 50 diverse ones, of own design."""

import dataclasses

from vlm_rewards.schemas.goals import Goal

Colour = tuple[int, int, int]
"""Red, green and blue from 0 to 255."""

_COMMON = """
mail d5433e rows|browser 2f6fd6 article|calculator 474d5c keypad|clock 1f2a3a dial|messages 1fa36b bubbles|phone 2f9e44 keypad
calendar 3b62d1 month|camera 343a40 finder|maps 48a860 map|settings 6b7780 switches
"""
_DIVERSE = """
gallery a63fc4 tiles|music e0457b player|video c62828 player|weather 3f8fdd sky|notes e3a917 stickies|chess 6b4a36 board
stocks 16304a chart|fitness 149a86 rings|shop e67a1c tiles|books 8d6141 page|recorder c0362c wave|compass 3a3f58 dial
flashlight 5c5f66 torch|timer 8a4bb0 dial|paint ea5d94 strokes|translate 3a6bd0 panels|piano 22252b keys|recipes d35400 article
podcasts 7d3fae player|files f0a92e tiles|scanner 12887b finder|stars 1a1a52 night|radio 5a3f38 player|flights 0a74b8 board_rows
bank 0b665c ledger|tasks 3fa043 checks|contacts 5a6bc2 rows|wallet 39505e ledger|taxi f2b90f map|trains 6a493e board_rows
hotel 0d868f tiles|puzzle 79b03c numbers|racing e53935 road|farm 7a5a2c field|space 26337f night|snake 2b7d32 crawler
cards 1d6b3c table|golf 5fb35f green|news b4191d article|social 3550b5 feed|sleep 2b2266 bars|water 119ddf glass
garden e84478 field|pets 9c7d70 rows|thermometer ee6c00 glass|level a4a123 spirit|coins f59b1c chart|alarm b0145c switches
docs 4584d6 page|sheets 1a8a52 cells
"""


@dataclasses.dataclass(frozen=True)
class App:
    """One app.

    Args:
        name: Name of the app and of its sign.
        colour: Colour of the app.
        screen: Kind of its screen, a key of `screens.SCREENS`.
        family: "common" or "diverse".
    """

    name: str
    colour: Colour
    screen: str
    family: str

    @property
    def title(self) -> str:
        """The name as it is written on the phone."""
        return self.name.capitalize()


def _parsed(table: str, family: str) -> list[App]:
    apps = []
    for entry in table.replace("\n", "|").strip("|").split("|"):
        name, colour, screen = entry.split()
        red, green, blue = bytes.fromhex(colour)
        apps.append(App(name, (red, green, blue), screen, family))
    return apps


APPS = {app.name: app for app in [*_parsed(_COMMON, "common"), *_parsed(_DIVERSE, "diverse")]}
"""All apps by name, the common ones first."""

NEGATIVES = (
    "a screenshot of a phone",
    "the home screen of a phone",
    "a list of all apps on a phone",
    "a message in front of a phone's screen",
)
"""Descriptions of a phone: a neutral one, and three without an app in front."""


def goal_id(app: str) -> str:
    """Returns the id of the goal that asks for an app."""
    return f"open-{app}"


def goal_of(app: App) -> Goal:
    """Returns the goal that asks for an app."""
    return Goal(
        id=goal_id(app.name),
        text=f"the {app.name} app is open on the phone",
        family=app.family,
        instructions=(
            f"open the {app.name} app",
            f"open {app.name}",
            f"start the {app.name} app",
            f"go to the {app.name} app",
        ),
        negatives=NEGATIVES,
        attributes={"app": app.name, "screen": app.screen},
    )
