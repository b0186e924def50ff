"""Settings of a rollout."""

import dataclasses
from collections.abc import Sequence
from typing import TypedDict

from vlm_rewards.schemas.options import as_declared, option

CAMERA_HELP = "camera whose frames the environments show"
FRAMES_HELP = (
    "where environments outside every domain have their frames: observation, render, or a key of a Dict observation"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutSettings:
    """Settings of a rollout.

    Args:
        envs: Environments by their registered names; none for those that the agent was fine-tuned in, unless one of them names a
            module: only a module that is named here is imported.
        episodes: Number of episodes, at least one per environment.
        videos: Number of episodes, the first ones, that are kept as videos.
        temperature: Temperature of the policy; 0 or None for the most likely action.
        held_out_goals: Whether to ask only for goals that the agent was never trained on.
        seed: Seed of the held-out levels.
        threads: Threads of torch; small batches are slower with more.
        camera: Camera of the frames that the environments show; None for the labelled camera, and no other may be given.
        frames: Source of the frames, as in `EnvironmentSettings`; None for that of the agent.

    Raises:
        ValueError: A value is out of its range.
    """

    envs: tuple[str, ...] = dataclasses.field(
        default=(), metadata=option("NAME", "level; repeatable", name="env", unset="the agent's own")
    )
    episodes: int = dataclasses.field(default=100, metadata=option("N", "episodes of held-out levels"))
    videos: int = dataclasses.field(default=8, metadata=option("N", "videos, of the first episodes"))
    temperature: float | None = dataclasses.field(
        default=1.0, metadata=option("T", "temperature of the policy; 0: always the most likely action")
    )
    held_out_goals: bool = dataclasses.field(
        default=False, metadata=option("", "ask only for goals that the agent never trained on")
    )
    seed: int = dataclasses.field(default=0, metadata=option("N", "seed of the levels"))
    threads: int = dataclasses.field(default=1, metadata=option("N", "threads of torch"))
    camera: str | None = dataclasses.field(
        default=None, metadata=option("NAME", CAMERA_HELP, unset="the labels', which it must be")
    )
    frames: str | None = dataclasses.field(
        default=None, metadata=option("WHERE", FRAMES_HELP, unset="as for the agent")
    )

    def __post_init__(self) -> None:
        as_declared(self)
        object.__setattr__(self, "temperature", self.temperature or None)
        for name, least in (("episodes", 1), ("videos", 0), ("seed", 0), ("threads", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}. Choose another.")
        if self.temperature is not None and not 0 < self.temperature < float("inf"):
            raise ValueError(
                f"temperature must be above 0 and finite, got {self.temperature}. Give 0 for the most likely action."
            )


class RolloutKeywords(TypedDict, total=False):
    """`RolloutSettings` as keyword arguments."""

    envs: Sequence[str]
    episodes: int
    videos: int
    temperature: float | None
    held_out_goals: bool
    seed: int
    threads: int
    camera: str | None
    frames: str | None
