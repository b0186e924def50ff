"""The playroom as a domain: six environments, 9,312 goals."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlm_rewards.labelers.domains.demonstration import Demonstration
from vlm_rewards.labelers.domains.domain import FrameSize, SeedRanges, check_cameras, check_frame_size
from vlm_rewards.labelers.domains.playroom.goals import BANKS, CAMERA, ENVIRONMENTS, goal_bank, goal_kinds
from vlm_rewards.schemas.goals import Goal

if TYPE_CHECKING:
    from vlm_rewards.labelers.domains.playroom.levels import PlayroomLevel
    from vlm_rewards.labelers.domains.pretraining import Pretraining


@dataclasses.dataclass(frozen=True)
class Playroom:
    """The domain; see `labelers.domains.domain.Domain`."""

    name: str = "playroom"
    cameras: tuple[str, ...] = (CAMERA,)
    frame_sizes: tuple[FrameSize, ...] = ((96, 96), (224, 224), (64, 64), (128, 128), (160, 160))
    seeds: SeedRanges = dataclasses.field(default_factory=SeedRanges)
    banks: tuple[str, ...] = BANKS
    policies: tuple[str, ...] = ("bot", "noisy-bot", "random")
    default_model: str | None = "playroom-l"

    def goals(self, bank: str) -> tuple[Goal, ...]:
        """Returns the goals of a bank; see `goals.goal_bank`."""
        return goal_bank(bank)

    def environments(self) -> tuple[str, ...]:
        """Returns the names of the levels: three families, each in full rooms and in small ones."""
        return tuple(ENVIRONMENTS)

    def make(self, env: str, *, frame_size: FrameSize, cameras: Sequence[str]) -> "PlayroomLevel":
        """Makes a level.

        Raises:
            ImportError: Panda3D is not installed.
        """
        from vlm_rewards.labelers.domains.playroom.levels import PlayroomLevel

        check_frame_size(self, frame_size)
        check_cameras(self, cameras)
        return PlayroomLevel(frame_size, ENVIRONMENTS[env])

    def pretraining(self) -> "Pretraining":
        """Returns how the reference models of the playroom are trained."""
        from vlm_rewards.labelers.domains.playroom.models.pretraining import PLAYROOM_PRETRAINING

        return PLAYROOM_PRETRAINING

    def demonstration(self) -> Demonstration:
        """Returns the small rooms of each family; the agent remembers a few frames, as it must turn to look around."""
        near = tuple(name for name in ENVIRONMENTS if "Near" in name)
        return Demonstration(envs=near, model=self.default_model, frame_stack=3, batch_size=64)

    def kinds(self, goal: Goal) -> frozenset[str]:
        """Returns what a goal may be held out by: "red ball", "ball", and for pairs "blue mug + red ball"."""
        return goal_kinds(goal)


PLAYROOM = Playroom()
