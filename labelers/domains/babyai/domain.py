"""BabyAI as a domain: 96 grid levels of MiniGrid, seen through the agent's eyes, with 342 goals."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlm_rewards.labelers.domains.agent_facts import AgentFacts
from vlm_rewards.labelers.domains.babyai.goals import VIEW_SIZE, goal_bank, object_kinds
from vlm_rewards.labelers.domains.babyai.level_names import LEVEL_NAMES
from vlm_rewards.labelers.domains.babyai.levels import CAMERA, BabyAILevel
from vlm_rewards.labelers.domains.demonstration import Demonstration
from vlm_rewards.labelers.domains.domain import FrameSize, SeedRanges, check_cameras, check_frame_size
from vlm_rewards.schemas.goals import Goal

if TYPE_CHECKING:
    from vlm_rewards.labelers.domains.pretraining import Pretraining

_SHOWN = ("BabyAI-GoToLocal-v0", "BabyAI-PickupDist-v0", "BabyAI-PutNextLocal-v0")
_TILE_SIZES = (8, 4, *range(12, 65, 4))


@functools.cache
def _goals() -> tuple[Goal, ...]:
    """Returns the 342 goals, made once: every environment asks for them."""
    return tuple(goal_bank())


@dataclasses.dataclass(frozen=True)
class BabyAI:
    """The domain; see `labelers.domains.domain.Domain`."""

    name: str = "babyai"
    cameras: tuple[str, ...] = (CAMERA,)
    frame_sizes: tuple[FrameSize, ...] = tuple((VIEW_SIZE * tile, VIEW_SIZE * tile) for tile in _TILE_SIZES)
    seeds: SeedRanges = dataclasses.field(default_factory=SeedRanges)
    banks: tuple[str, ...] = ("default",)
    policies: tuple[str, ...] = ("bot", "noisy-bot", "random")
    default_model: str | None = "reference-s"

    def goals(self, bank: str) -> tuple[Goal, ...]:
        """Returns the 342 goals; see `goals.goal_bank`."""
        assert bank in self.banks, bank
        return _goals()

    def environments(self) -> tuple[str, ...]:
        """Returns the names of the levels."""
        return LEVEL_NAMES

    def make(self, env: str, *, frame_size: FrameSize, cameras: Sequence[str]) -> BabyAILevel:
        """Makes a level; the frame size sets the size of a grid cell.

        Raises:
            ImportError: MiniGrid is not installed.
        """
        check_frame_size(self, frame_size)
        check_cameras(self, cameras)
        return BabyAILevel(env, frame_size[0] // VIEW_SIZE)

    def pretraining(self) -> "Pretraining":
        """Returns how the reference models of BabyAI are trained."""
        from vlm_rewards.labelers.domains.babyai.pretraining import BABYAI_PRETRAINING

        return BABYAI_PRETRAINING

    def demonstration(self) -> Demonstration:
        """Returns a level of each family, labelled by the best reference model."""
        return Demonstration(envs=_SHOWN, model="reference-l")

    def agent_facts(self, frame_size: FrameSize) -> AgentFacts:
        """Returns that frames are drawn of the cells that the agent sees."""
        return AgentFacts(frame_grid=(VIEW_SIZE, VIEW_SIZE))

    def kinds(self, goal: Goal) -> frozenset[str]:
        """Returns the objects that a goal is about, such as "green box"."""
        return object_kinds(goal)


BABYAI = BabyAI()
