"""How an agent is played, as plain data."""

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
    """How an agent is played.

    Args:
        envs: Environments by their registered names; none for those that the agent was fine-tuned in, unless one of them names a
            module: only a module that is named here is imported.
        episodes: How many, at least one of each environment.
        videos: Episodes that are kept as videos, the first ones.
        temperature: Temperature of the policy; 0 or None for the most likely action.
        held_out_goals: Ask only for goals that the agent was never trained on.
        seed: Of the held-out levels.
        threads: Threads of torch; small batches are slower with more.
        camera: Whose frames the environments show; None for the labels', and no other may be given.
        frames: Where they have them, see `EnvironmentSettings`; None for where the agent's own had.

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
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}; choose another")
        if self.temperature is not None and not 0 < self.temperature < float("inf"):
            raise ValueError(
                f"temperature must be above 0 and finite, got {self.temperature}; leave it out for the likeliest action"
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
