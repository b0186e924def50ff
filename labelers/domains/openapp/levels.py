"""OpenApp's levels: a phone with numbered actions, its goals, and its expert.

    action   0 ... 59                    60 61 62 63              64 65
             a touch of a cell,          a swipe up, down,        home, back
             six across, ten down        left, right

Before the first action an episode may be asked for every app of its phone but the one that is open at the start.
"""

import numpy as np

from vlm_rewards.labelers.domains.domain import ExpertGaveUpError, FrameSize, Look
from vlm_rewards.labelers.domains.openapp.apps import APPS, goal_id, goal_of
from vlm_rewards.labelers.domains.openapp.phone import DRAWER_APPS, FOLDER, place_at
from vlm_rewards.labelers.domains.openapp.simulator import KEYS, SWIPES, PhoneSimulator

CAMERA = "screen"

TOUCH_GRID = (10, 6)
"""Rows and columns of the cells that can be touched; action `columns * row + column` touches the middle of a cell."""

NUM_TOUCHES = TOUCH_GRID[0] * TOUCH_GRID[1]
NUM_ACTIONS = NUM_TOUCHES + len(SWIPES) + len(KEYS)

MAX_STEPS = {False: 30, True: 50}
"""Time limit in steps, by whether the level is hard."""


def cell_centre(action: int) -> tuple[float, float]:
    """Returns where a touch lands, from 0 to 1, from the left and from the top."""
    row, column = divmod(action, TOUCH_GRID[1])
    return (column + 0.5) / TOUCH_GRID[1], (row + 0.5) / TOUCH_GRID[0]


class OpenAppLevel:
    """One phone that is asked for an app: a `labelers.domains.domain.Level`. The state of a look is the app in front, or None.

    Args:
        frame_size: (H, W) of its frames.
        hard: Whether the phones are hard.

    Attributes:
        num_actions: Number of discrete actions.
        mission: Instruction of the episode.
        simulator: The phone.
    """

    num_actions = NUM_ACTIONS

    def __init__(self, frame_size: FrameSize, hard: bool) -> None:
        self.simulator = PhoneSimulator(frame_size, hard)
        self.mission = ""
        self._hard = hard
        self._steps = 0
        self._asked = ""
        self._possible: tuple[str, ...] = ()

    def reset(self, seed: int) -> Look:
        """Takes the phone of a seed, and asks for one of its apps."""
        self.simulator.reset(seed)
        self._steps = 0
        open_now = self.simulator.screen.app
        apps = [app for app in APPS if app in self.simulator.phone.apps and app != open_now]
        self._possible = tuple(map(goal_id, apps))
        self.ask(str(np.random.default_rng([seed, 3]).choice(self._possible)))
        return self._look()

    def goals(self) -> tuple[str, ...]:
        """Returns the ids of the goals that the phone can be asked for, that of the mission first."""
        return (self._asked, *(goal for goal in self._possible if goal != self._asked))

    def ask(self, goal_id: str) -> None:
        """Asks for another app.

        Raises:
            ValueError: The phone has no such app, or it is open at the start.
        """
        if goal_id not in self._possible:
            raise ValueError(
                f"this phone cannot be asked for the goal, having no such app or showing it: got {goal_id!r}. Reset it with "
                f"another seed"
            )
        self._asked = goal_id
        self.mission = goal_of(APPS[self.asked_app]).instructions[0]

    @property
    def asked_app(self) -> str:
        """Name of the app that the episode is asked for."""
        return self._asked.removeprefix(goal_id(""))

    def step(self, action: int) -> tuple[Look, float, bool, bool]:
        """Touches, swipes or presses a key.

        Returns:
            What is seen then; 1 while the app asked for is in front, else 0; whether it is; and whether the time is up.
        """
        if action < NUM_TOUCHES:
            self.simulator.send_touch(*cell_centre(action))
        elif action < NUM_TOUCHES + len(SWIPES):
            self.simulator.send_swipe(SWIPES[action - NUM_TOUCHES])
        else:
            self.simulator.send_key(KEYS[action - NUM_TOUCHES - len(SWIPES)])
        self._steps += 1
        look = self._look()
        done = self._asked in self.facts(look)
        return look, float(done), done, self._steps >= MAX_STEPS[self._hard]

    def facts(self, look: Look) -> frozenset[str]:
        """Returns the goal of the app in front; none where a message or a movement hides it."""
        return frozenset() if look.state is None else frozenset((goal_id(look.state),))

    def expert(self) -> "OpenAppExpert":
        """Returns the expert for the phone of this episode."""
        return OpenAppExpert(self)

    def close(self) -> None:
        """Frees nothing: the simulator holds pictures alone."""

    def _look(self) -> Look:
        return Look({CAMERA: self.simulator.get_screenshot()}, self.simulator.app_in_front)


class OpenAppExpert:
    """Expert that knows the place of every app, and takes the shortest way to the requested one.

    Args:
        level: The level that it plays.
    """

    def __init__(self, level: OpenAppLevel) -> None:
        self._level = level

    def act(self, taken: int | None) -> int:
        """Returns the next action; see `labelers.domains.domain.Expert`.

        Raises:
            ExpertGaveUpError: The app is in front already.
        """
        simulator, app = self._level.simulator, self._level.asked_app
        screen, phone = simulator.screen, simulator.phone
        if simulator.app_in_front == app:
            raise ExpertGaveUpError(f"the app is in front: got {app!r}")
        if screen.moving:
            return 0  # a touch of the status bar: the movement ends by itself
        if screen.message >= 0:
            return self._touch("close")
        if screen.mode == "app":
            return _key("home")
        lying = {place.what for place in simulator.places()}
        if app in lying:
            return self._touch(app)
        if screen.mode == "drawer":
            return _swipe("up" if phone.apps.index(app) // DRAWER_APPS > screen.page else "down")
        if screen.mode == "folder":
            return _key("back")
        holder = next((f"{FOLDER}{i}" for i, apps in enumerate(phone.folders) if app in apps), app)
        if holder in lying:
            return self._touch(holder)
        page = next((number for number, cells in enumerate(phone.pages) if holder in cells), None)
        if page is None:
            return _swipe("up")
        return _swipe("left" if page > screen.page else "right")

    def _touch(self, what: str) -> int:
        """Returns the touch that lands nearest to the middle of what is looked for."""
        places = self._level.simulator.places()
        best: list[tuple[float, int]] = []
        for action in range(NUM_TOUCHES):
            x, y = cell_centre(action)
            if place_at(places, 96 * x, 160 * y) == what:
                near = min(abs(place.x - 96 * x) + abs(place.y - 160 * y) for place in places if place.what == what)
                best.append((near, action))
        return min(best)[1]


def _swipe(direction: str) -> int:
    return NUM_TOUCHES + SWIPES.index(direction)


def _key(name: str) -> int:
    return NUM_TOUCHES + len(SWIPES) + KEYS.index(name)
