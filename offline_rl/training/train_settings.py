"""Settings of offline training."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from vlm_rewards.schemas.goals import DEFAULT_SHARES, read_goal_shares
from vlm_rewards.schemas.options import as_declared, option, read_value


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of offline training.

    Args:
        algorithm: A name of `offline_rl.algorithms.agents.ALGORITHMS`.
        algorithm_settings: Settings of the algorithm that differ from their defaults, by name.
        steps: Gradient steps.
        batch_size: Transitions per step.
        mix: Shares of original, hindsight and negative goals.
        seed: Seed of weights and draws.
        hold_out: Ids of goals, or kinds of objects such as "green box", that are never trained on and evaluated apart.
        num_actions: Discrete actions of the environment; None for the highest recorded one and those under it.
        states: Whether the agent takes the states that the corpus has besides its frames. Live environments have none, so such an
            agent is for offline use alone; False for one that is to be evaluated or fine-tuned.
        frame_stack: Number of frames that the agent sees at once: the last one and those before it; 1 for an agent without a
            memory.
        envs: Environments to evaluate the trained agent in; none for no evaluation.
        eval_episodes: Episodes of that evaluation, of held-out levels, at least one of each environment.
        eval_temperature: Temperature of the policy there; 0 or None for the most likely action.
        camera: Camera of the frames; may be None where the corpus has one. Environments show the camera that was labelled,
            so that an agent of another one can neither be evaluated nor fine-tuned in any.
        frames: Place of the frames in `envs`, see `EnvironmentSettings`.
        threads: Threads of torch; other numbers round differently, so it is part of the run.
        device: Device of the training: "cpu", "cuda" or "cuda:N"; part of the run. A run that was killed resumes to the same
            bits on a CPU.
        log_every: Steps between records of losses.
        checkpoint_every: Steps between checkpoints.

    Raises:
        ValueError: A value is out of its range, or there is no such algorithm, setting of it, device or environment.
    """

    algorithm: str = dataclasses.field(
        default="iql",
        metadata=option("NAME", "bc, filtered-bc, iql, cql, cal-ql; rlpd, sac-cal-ql for continuous actions"),
    )
    algorithm_settings: Mapping[str, Any] = dataclasses.field(
        default_factory=dict,
        metadata=option(
            "NAME=VALUE",
            "setting of the algorithm, such as expectile=0.8; repeatable",
            name="set",
            read=read_value,
        ),
    )
    steps: int = dataclasses.field(default=20_000, metadata=option("N", "gradient steps"))
    batch_size: int = dataclasses.field(default=256, metadata=option("N", "transitions per step"))
    mix: tuple[float, float, float] = dataclasses.field(
        default=DEFAULT_SHARES,
        metadata=option("O:H:N", "shares of original, hindsight and negative goals", read=read_goal_shares),
    )
    seed: int = dataclasses.field(default=0, metadata=option("N", "seed of weights and draws"))
    hold_out: tuple[str, ...] = dataclasses.field(
        default=(),
        metadata=option(
            "GOAL",
            "goal's id, or a kind of object such as 'green box', that is never trained on and evaluated apart; repeatable",
        ),
    )
    num_actions: int | None = dataclasses.field(
        default=None,
        metadata=option(
            "N",
            "discrete actions of the environment",
            unset="the highest recorded one and those under it",
        ),
    )
    states: bool = dataclasses.field(
        default=True,
        metadata=option(
            "",
            "the agent sees frames alone, though the corpus has states: live environments supply none",
            name="no-states",
        ),
    )
    frame_stack: int = dataclasses.field(
        default=1, metadata=option("N", "frames that the agent sees at once, the last ones: its memory")
    )
    envs: tuple[str, ...] = dataclasses.field(
        default=(), metadata=option("NAME", "evaluate the trained agent in this level; repeatable", name="env")
    )
    eval_episodes: int = dataclasses.field(default=100, metadata=option("N", "episodes per evaluation"))
    eval_temperature: float | None = dataclasses.field(
        default=1.0,
        metadata=option("T", "temperature of the policy there; 0: always the most likely action"),
    )
    camera: str | None = dataclasses.field(
        default=None, metadata=option("NAME", "camera whose frames the agent sees", unset="the only one")
    )
    frames: str = dataclasses.field(
        default="observation",
        metadata=option(
            "WHERE",
            "where environments outside every domain have their frames: observation, render, or a key of a Dict observation",
        ),
    )
    threads: int = dataclasses.field(default=1, metadata=option("N", "threads of torch; part of the run"))
    device: str = dataclasses.field(
        default="cpu",
        metadata=option("NAME", "where the agent learns: cpu, cuda or cuda:N; part of the run"),
    )
    log_every: int = dataclasses.field(default=100, metadata=option("N", "steps between records of losses"))
    checkpoint_every: int = dataclasses.field(default=2000, metadata=option("N", "steps between checkpoints"))

    def __post_init__(self) -> None:
        # Imported here, so that the options are read without torch.
        from vlm_rewards.labelers.encoders.devices import check_device
        from vlm_rewards.offline_rl.algorithms.agents import algorithm_settings

        as_declared(self)
        object.__setattr__(self, "eval_temperature", self.eval_temperature or None)
        algorithm_settings(self.algorithm, self.algorithm_settings)
        check_device(self.device)
        if self.envs:
            from vlm_rewards.offline_rl.environments.environments import EnvironmentSettings

            EnvironmentSettings(envs=self.envs, num_envs=len(self.envs), frames=self.frames)
        for name, least in (
            ("steps", 1),
            ("batch_size", 1),
            ("seed", 0),
            ("frame_stack", 1),
            ("eval_episodes", len(self.envs)),
            ("threads", 1),
            ("log_every", 1),
            ("checkpoint_every", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}; choose another")
        if self.eval_temperature is not None and not 0 < self.eval_temperature < float("inf"):
            raise ValueError(
                f"eval_temperature must be above 0 and finite, got {self.eval_temperature}; leave it out for the likeliest action"
            )


class TrainKeywords(TypedDict, total=False):
    """`TrainSettings` as keyword arguments."""

    algorithm: str
    algorithm_settings: Mapping[str, Any]
    steps: int
    batch_size: int
    mix: tuple[float, float, float]
    seed: int
    hold_out: Sequence[str]
    num_actions: int | None
    states: bool
    frame_stack: int
    envs: Sequence[str]
    eval_episodes: int
    eval_temperature: float | None
    camera: str | None
    frames: str
    threads: int
    device: str
    log_every: int
    checkpoint_every: int
