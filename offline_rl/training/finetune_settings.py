"""Settings of fine-tuning."""

import dataclasses
from collections.abc import Sequence
from typing import TypedDict

from vlm_rewards.offline_rl.evaluation.rollout_settings import CAMERA_HELP, FRAMES_HELP
from vlm_rewards.schemas.goals import DEFAULT_SHARES, read_goal_shares
from vlm_rewards.schemas.options import as_declared, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """Settings of fine-tuning.

    The ensemble of critics belongs to the agent: `num_critics` and `num_min_critics` are settings of its algorithm (`vlm-rewards
    train --set num_critics=10`). LayerNorm is always on.

    Args:
        envs: Registered names of environments; environment i has name i modulo their number.
        steps: Environment steps, summed over all environments.
        num_envs: N, at least one per name.
        reward: Source of the live reward: "model"; or "truth", "truth:FALSE-POSITIVES:FALSE-NEGATIVES" or "shuffled-truth" to
            compare it with ground truth, with truth that is wrong at these rates, and with the truth of other goals.
        seed: Seed of levels, actions and batches.
        batch_size: Transitions per update.
        offline_share: Share of a batch that is drawn from the corpus; 0.5 as in RLPD and Cal-QL.
        mix: Shares of original, hindsight and negative goals in that part.
        warmup_steps: Environment steps before the first update, as in WSRL; fewer than its 5000, because runs are shorter here.
        updates_per_step: Updates per environment step. RLPD, REDQ and WSRL make 4 to 20. 0.25 is what a CPU can afford, not what
            learns best per step: an update costs much more than a step there, and `hindsight_goals` stores each step under several
            goals, so that live data are plentiful. Raise it where updates are cheap.
        hindsight_goals: Number of other goals, achieved or not, that an ended episode is also stored under; 0 for none.
        temperature: Temperature of the policy while it explores.
        capacity: Approximate number of live frames in the buffer. A million is usual; these are frames in memory.
        finished_only: Whether to sample only transitions whose episode has ended and has its return, as Cal-QL's authors do.
            Otherwise those of a running episode have return 0, which is a lower bound of the value if no reward is negative.
        end_at_success: Whether a success by the model ends the episode, as in the paper.
        asynchronous: Whether to score beside the environments; only if a success does not end the episode.
        camera: Camera of the frames that the environments show; None for the labelled camera, and no other may be given.
        frames: Source of the frames, as in `EnvironmentSettings`; None for that of the agent.
        eval_episodes: Episodes per evaluation; 0 for none.
        eval_every: Environment steps between evaluations.
        eval_temperature: Temperature of the policy in evaluations; 0 or None for the most likely action.
        eval_seed: Seed of the held-out levels. Settings that were chosen by some levels must be judged by others.
        threads: Threads of torch. Other numbers round differently, so it is part of the run.
        device: Device on which the agent learns, as in `TrainSettings`. The labeler uses the device of the labels, which is in
            their fingerprint.
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
    reward: str = dataclasses.field(
        default="model",
        metadata=option(
            "SOURCE",
            "what rewards: model, or for comparisons truth, truth:0.01:0.2 (wrong at these rates of false positives and "
            "negatives), shuffled-truth",
        ),
    )
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
        from vlm_rewards.offline_rl.online.truth_rewards import parse_reward

        as_declared(self)
        parse_reward(self.reward)
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
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}. Choose another.")
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps must be below steps, {self.steps}, got {self.warmup_steps}: nothing would be learned. Take "
                "more steps, or a shorter warm-up."
            )
        if not 0 <= self.offline_share <= 1:
            raise ValueError(f"offline_share must be from 0 to 1, got {self.offline_share}. 0.5 is usual.")
        for name in ("updates_per_step", "temperature", "eval_temperature"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} must be above 0 and finite, got {value}. Choose another.")


class FinetuneKeywords(TypedDict, total=False):
    """`FinetuneSettings` as keyword arguments."""

    envs: Sequence[str]
    steps: int
    num_envs: int
    reward: str
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
