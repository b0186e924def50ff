"""How an agent is fine-tuned: the settings of `offline_rl.training.finetune`."""

import dataclasses
from collections.abc import Sequence
from typing import TypedDict

from vlm_rewards.offline_rl.evaluation.rollout_settings import CAMERA_HELP, FRAMES_HELP
from vlm_rewards.schemas.goals import DEFAULT_SHARES, read_goal_shares
from vlm_rewards.schemas.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """How an agent is fine-tuned.

    What is the agent's own is not set here: the critics of its ensemble, `num_critics`, and those that a target is drawn from,
    `num_min_critics`, are settings of its algorithm (`vlm-rewards train --set num_critics=10`); LayerNorm is always on.

    Args:
        envs: Environments by their registered names; environment i is of name i modulo their number.
        steps: Environment steps, of all environments together.
        num_envs: N, at least one of each name.
        seed: Of levels, actions and batches.
        batch_size: Transitions an update.
        offline_share: Share of a batch that is of the corpus; 0.5 as in RLPD and Cal-QL.
        mix: Shares of original, hindsight and negative goals in that part.
        warmup_steps: Environment steps before the first update, as in WSRL; fewer than its 5000, as runs are shorter here.
        updates_per_step: Updates an environment step. RLPD, REDQ and WSRL take 4 to 20. 0.25 is what a CPU affords, not what
            learns best by the step: an update costs much more than a step there, and `hindsight_goals` stores each step under
            several goals, so that live data are plentiful. Raise it where updates are cheap.
        hindsight_goals: Other goals, achieved and not, under which an episode that has ended is stored as well; 0 for none.
        temperature: Of the policy while it explores.
        capacity: Frames of the environments that the buffer holds, about. The field keeps a million; these are frames in memory.
        finished_only: Sample only transitions whose episode has ended, when its return is known, as Cal-QL's authors do. Else those
            of an episode that goes on have return 0, which bounds the value from below where no reward is negative.
        end_at_success: A success by the model ends the episode, as in the paper.
        asynchronous: Score beside the environments, where success does not end the episode.
        camera: Whose frames the environments show; None for the labels', and no other may be given.
        frames: Where they have them, see `EnvironmentSettings`; None for where the agent's own had.
        eval_episodes: Episodes of an evaluation; 0 for none.
        eval_every: Environment steps between evaluations.
        eval_temperature: Temperature of the policy while it is evaluated; 0 or None for the most likely action.
        eval_seed: Of the held-out levels: whoever chooses settings by some must be judged by others.
        threads: Threads of torch; other numbers round otherwise, so it is part of the run.
        device: Where the agent learns, as in `TrainSettings`; the labeler is where the labels were made, which is in their
            fingerprint.
        log_every: Environment steps between records of losses and rewards.
        checkpoint_every: Environment steps between checkpoints.

    Raises:
        ValueError: A value is out of its range, an environment is unknown, or two settings exclude each other.
    """

    envs: tuple[str, ...] = dataclasses.field(
        metadata=option("NAME", "level to fine-tune and evaluate in; repeatable", name="env")
    )
    steps: int = dataclasses.field(
        default=50_000, metadata=option("N", "environment steps, of all environments together")
    )
    num_envs: int = dataclasses.field(default=8, metadata=option("N", "environments"))
    seed: int = dataclasses.field(default=0, metadata=option("N", "seed of levels, actions and batches"))
    batch_size: int = dataclasses.field(default=256, metadata=option("N", "transitions per update"))
    offline_share: float = dataclasses.field(
        default=0.5, metadata=option("SHARE", "share of a batch that is drawn from the corpus")
    )
    mix: tuple[float, float, float] = dataclasses.field(
        default=DEFAULT_SHARES,
        metadata=option("O:H:N", "shares of original, hindsight and negative goals in it", read=read_goal_shares),
    )
    warmup_steps: int = dataclasses.field(
        default=1000, metadata=option("N", "environment steps before the first update")
    )
    updates_per_step: float = dataclasses.field(
        default=0.25, metadata=option("X", "updates per environment step; below 1 is possible")
    )
    hindsight_goals: int = dataclasses.field(
        default=4, metadata=option("K", "other goals that an ended episode is stored under; 0: none")
    )
    temperature: float = dataclasses.field(
        default=1.0, metadata=option("T", "temperature of the policy while it explores")
    )
    capacity: int = dataclasses.field(default=100_000, metadata=option("N", "frames of the environments that are kept"))
    finished_only: bool = dataclasses.field(
        default=False,
        metadata=option("", "learn from a live step when its episode has ended, as Cal-QL's authors do"),
    )
    end_at_success: bool = dataclasses.field(
        default=True,
        metadata=option("", "the environment continues after a success (the paper ends it there)", name="keep-going"),
    )
    asynchronous: bool = dataclasses.field(
        default=False, metadata=option("", "score beside the environments; with --keep-going")
    )
    camera: str | None = dataclasses.field(
        default=None, metadata=option("NAME", CAMERA_HELP, unset="the labels', which it must be")
    )
    frames: str | None = dataclasses.field(
        default=None, metadata=option("WHERE", FRAMES_HELP, unset="as for the agent")
    )
    eval_episodes: int = dataclasses.field(default=100, metadata=option("N", "episodes per evaluation; 0: none"))
    eval_every: int = dataclasses.field(default=10_000, metadata=option("N", "environment steps between evaluations"))
    eval_temperature: float | None = dataclasses.field(
        default=1.0,
        metadata=option("T", "temperature of the policy there; 0: always the most likely action"),
    )
    eval_seed: int = dataclasses.field(default=0, metadata=option("N", "seed of the held-out levels"))
    threads: int = dataclasses.field(default=1, metadata=option("N", "threads of torch; part of the run"))
    device: str = dataclasses.field(
        default="cpu", metadata=option("NAME", "where the agent learns: cpu, cuda or cuda:N; part of the run")
    )
    log_every: int = dataclasses.field(
        default=1000, metadata=option("N", "environment steps between records of losses and rewards")
    )
    checkpoint_every: int = dataclasses.field(
        default=10_000, metadata=option("N", "environment steps between checkpoints")
    )

    def __post_init__(self) -> None:
        # Imported here, so that the options are read without torch.
        from vlm_rewards.labelers.encoders.devices import check_device
        from vlm_rewards.offline_rl.environments.environments import EnvironmentSettings
        from vlm_rewards.offline_rl.online.live_reward_settings import LiveRewardSettings

        object.__setattr__(self, "envs", tuple(self.envs))
        object.__setattr__(self, "eval_temperature", self.eval_temperature or None)
        EnvironmentSettings(
            envs=self.envs,
            num_envs=self.num_envs,
            camera=self.camera,
            frames="observation" if self.frames is None else self.frames,
        )
        LiveRewardSettings(end_at_success=self.end_at_success, asynchronous=self.asynchronous)
        check_device(self.device)
        for name, least in (
            ("steps", 1),
            ("seed", 0),
            ("batch_size", 2),
            ("warmup_steps", 0),
            ("hindsight_goals", 0),
            ("capacity", 4 * self.num_envs),
            ("eval_episodes", len(self.envs) if self.eval_episodes else 0),
            ("eval_every", 1),
            ("eval_seed", 0),
            ("threads", 1),
            ("log_every", 1),
            ("checkpoint_every", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}; choose another")
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps must be below steps, {self.steps}, got {self.warmup_steps}: nothing would be learned; take "
                "more steps, or a shorter warm-up"
            )
        if not 0 <= self.offline_share <= 1:
            raise ValueError(f"offline_share must be from 0 to 1, got {self.offline_share}; 0.5 is the field's choice")
        for name in ("updates_per_step", "temperature", "eval_temperature"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} must be above 0 and finite, got {value}; choose another")


class FinetuneKeywords(TypedDict, total=False):
    """`FinetuneSettings` as keyword arguments."""

    envs: Sequence[str]
    steps: int
    num_envs: int
    seed: int
    batch_size: int
    offline_share: float
    mix: tuple[float, float, float]
    warmup_steps: int
    updates_per_step: float
    hindsight_goals: int
    temperature: float
    capacity: int
    finished_only: bool
    end_at_success: bool
    asynchronous: bool
    camera: str | None
    frames: str | None
    eval_episodes: int
    eval_every: int
    eval_temperature: float | None
    eval_seed: int
    threads: int
    device: str
    log_every: int
    checkpoint_every: int
