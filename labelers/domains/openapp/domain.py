"""OpenApp as a domain: a phone with 60 apps in two levels of difficulty, with a goal for each app."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlm_rewards.labelers.domains.agent_facts import AgentFacts
from vlm_rewards.labelers.domains.demonstration import Demonstration
from vlm_rewards.labelers.domains.domain import FrameSize, SeedRanges, check_cameras, check_frame_size
from vlm_rewards.labelers.domains.openapp.apps import APPS, goal_of
from vlm_rewards.schemas.goals import Goal

if TYPE_CHECKING:
    from vlm_rewards.labelers.domains.openapp.levels import OpenAppLevel
    from vlm_rewards.labelers.domains.pretraining import Pretraining

HARD = {"vlm-rewards/OpenApp-v0": False, "vlm-rewards/OpenAppHard-v0": True}
"""Whether an environment's phones are hard, by its name."""


@functools.cache
def _goals() -> tuple[Goal, ...]:
    return tuple(goal_of(app) for app in APPS.values())


@dataclasses.dataclass(frozen=True)
class OpenApp:
    """The domain; see `labelers.domains.domain.Domain`. Square frames show the screen in their middle."""

    name: str = "openapp"
    cameras: tuple[str, ...] = ("screen",)
    frame_sizes: tuple[FrameSize, ...] = ((160, 96), (96, 96), (160, 160), (224, 224), (320, 192))
    seeds: SeedRanges = dataclasses.field(default_factory=SeedRanges)
    banks: tuple[str, ...] = ("default", "common")
    policies: tuple[str, ...] = ("bot", "noisy-bot", "random")
    default_model: str | None = "openapp-l"

    def goals(self, bank: str) -> tuple[Goal, ...]:
        """Returns the goals of all 60 apps, or those of the 10 common ones."""
        assert bank in self.banks, bank
        return tuple(goal for goal in _goals() if bank in ("default", goal.family))

    def environments(self) -> tuple[str, ...]:
        """Returns the names of the levels: the easy and the hard phones."""
        return tuple(HARD)

    def make(self, env: str, *, frame_size: FrameSize, cameras: Sequence[str]) -> "OpenAppLevel":
        """Makes a level."""
        from vlm_rewards.labelers.domains.openapp.levels import OpenAppLevel

        check_frame_size(self, frame_size)
        check_cameras(self, cameras)
        return OpenAppLevel(frame_size, HARD[env])

    def pretraining(self) -> "Pretraining":
        """Returns how the reference models of phones are trained."""
        from vlm_rewards.labelers.domains.openapp.models.pretraining import OPENAPP_PRETRAINING

        return OPENAPP_PRETRAINING

    def demonstration(self) -> Demonstration:
        """Returns the easy phones."""
        return Demonstration(envs=self.environments()[:1], model=self.default_model, batch_size=64)

    def agent_facts(self, frame_size: FrameSize) -> AgentFacts:
        """Returns that touches are cells of the frame, where the screen fills it."""
        from vlm_rewards.labelers.domains.openapp.canvas import HEIGHT, WIDTH
        from vlm_rewards.labelers.domains.openapp.levels import NUM_ACTIONS, TOUCH_GRID

        fills = frame_size[0] * WIDTH == frame_size[1] * HEIGHT
        return AgentFacts(action_grid=TOUCH_GRID if fills else None, num_actions=NUM_ACTIONS)

    def kinds(self, goal: Goal) -> frozenset[str]:
        """Returns the app that a goal asks for, such as "chess"."""
        return frozenset({goal.attributes["app"]}) if goal in _goals() else frozenset()


OPENAPP = OpenApp()
