"""Settings of recording."""

import dataclasses
from collections.abc import Sequence

from vlm_rewards.labelers.domains.domain import (
    FrameSize,
    check_cameras,
    check_frame_size,
    domain_of_environments,
    parse_frame_size,
)
from vlm_rewards.pipelines.engine.settings import RunKeywords, RunSettings
from vlm_rewards.schemas.options import as_declared, option

POLICIES = ("bot", "noisy-bot", "random")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordRun(RunSettings):
    """Settings of how `record` runs; workers are processes, since a level's steps are plain Python."""

    workers: int | None = dataclasses.field(
        default=1,
        metadata=option("N", "worker processes on this machine; more pay off from some thousand episodes on"),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordSettings:
    """Settings of recording.

    Args:
        envs: Exact names of environments of one domain; episode i is of environment i modulo their number.
        policy: "bot" (the domain's expert), "noisy-bot" (the expert, but with probability `noise` a uniformly random action
            instead), "random" (uniformly random actions), or a mix by weights, such as
            "bot:0.2,noisy-bot:0.5,random:0.3", from which each episode draws one.
        episodes: Number of episodes.
        seed: Seed of everything that is drawn.
        frame_size: (H, W) of the frames in pixels; None for the domain's default.
        cameras: Cameras to record; () for the domain's default.
        bank: Bank of goals whose ground truth is recorded; None for the domain's default.
        noise: Probability of a random action under noisy-bot, 0 to 1.
        format: Container of the corpus, a format of `schemas.formats.corpus.FORMATS` that can be written.
        episodes_per_shard: Episodes per part.
        max_steps: Number of steps after which an episode is cut, as truncated; None for the environment's own limit. Rewards are
            not rescaled.

    Raises:
        ValueError: A value is out of its range, or the domain lacks an environment, policy, frame size, camera or bank.
    """

    envs: tuple[str, ...] = dataclasses.field(
        metadata=option("NAME", "environment of a domain; repeat for several of one domain", name="env")
    )
    policy: str = dataclasses.field(
        default="noisy-bot",
        metadata=option(
            "POLICY",
            "bot (the domain's expert), noisy-bot, random, or shares of them such as bot:0.2,noisy-bot:0.5,random:0.3",
        ),
    )
    noise: float = dataclasses.field(
        default=0.3, metadata=option("P", "probability of a random action of noisy-bot, 0 to 1")
    )
    episodes: int = dataclasses.field(default=400, metadata=option("N", "episodes in all, shared evenly by the levels"))
    seed: int = dataclasses.field(default=0, metadata=option("N", "seed; the same one gives the same bytes"))
    frame_size: FrameSize | None = dataclasses.field(
        default=None,
        metadata=option(
            "PX",
            "height and width of the frames in pixels, such as 224, or HEIGHTxWIDTH",
            read=parse_frame_size,
            unset="the domain's first",
        ),
    )
    cameras: tuple[str, ...] = dataclasses.field(
        default=(), metadata=option("NAME", "camera to record (default: the domain's first); repeatable", name="camera")
    )
    bank: str | None = dataclasses.field(
        default=None, metadata=option("NAME", "bank of goals with ground truth", unset="the domain's first")
    )
    format: str = dataclasses.field(
        default="parquet", metadata=option("NAME", "container of the corpus, such as parquet or webdataset")
    )
    episodes_per_shard: int = dataclasses.field(default=20, metadata=option("N", "episodes in one file of the corpus"))
    max_steps: int | None = dataclasses.field(
        default=None,
        metadata=option("N", "steps after which an episode is cut, as truncated", unset="the level's own limit"),
    )

    def __post_init__(self) -> None:
        as_declared(self)
        from vlm_rewards.schemas.formats.corpus import writable_format

        domain = domain_of_environments(self.envs)
        object.__setattr__(self, "frame_size", tuple(self.frame_size or domain.frame_sizes[0]))
        object.__setattr__(self, "cameras", tuple(self.cameras) or domain.cameras[:1])
        object.__setattr__(self, "bank", domain.banks[0] if self.bank is None else self.bank)
        check_frame_size(domain, self.frame_size or (0, 0))
        check_cameras(domain, self.cameras)
        if self.bank not in domain.banks:
            raise ValueError(
                f"{domain.name} has no such bank of goals: got {self.bank!r}. Choose one of {', '.join(domain.banks)}"
            )
        unknown = [name for name in parse_policy(self.policy) if name not in domain.policies]
        if unknown:
            raise ValueError(
                f"{domain.name} cannot be recorded by this policy: got {unknown[0]!r}. Choose among {', '.join(domain.policies)}"
            )
        writable_format(self.format)
        for name, least in (("episodes", 1), ("seed", 0), ("episodes_per_shard", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}; choose another")
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1 or None, got {self.max_steps}; choose another")
        if not 0 <= self.noise <= 1:
            raise ValueError(f"noise must be a probability from 0 to 1, got {self.noise}; choose another")


def parse_policy(policy: str) -> dict[str, float]:
    """Reads a policy or a mix of policies.

    Returns:
        By policy, its share; the shares sum to 1.

    Raises:
        ValueError: A policy is unknown or occurs twice, or a weight is not a positive number.
    """
    weights: dict[str, float] = {}
    for item in policy.split(","):
        name, colon, text = (part.strip() for part in item.partition(":"))
        if name not in POLICIES:
            raise ValueError(f"a policy must be one of {', '.join(POLICIES)}, got {name!r} in {policy!r}; choose one")
        if name in weights:
            raise ValueError(f"a mix must name each policy once, got {name!r} twice in {policy!r}; add up its weights")
        try:
            weight = float(text) if colon else 1.0
        except ValueError:
            weight = 0.0
        if not 0 < weight < float("inf"):
            raise ValueError(f"the weight of a policy must be a positive number, got {text!r} in {policy!r}; fix it")
        weights[name] = weight
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


class RecordKeywords(RunKeywords, total=False):
    """`RecordSettings` and `RecordRun` as keyword arguments."""

    envs: Sequence[str]
    policy: str
    noise: float
    episodes: int
    seed: int
    frame_size: FrameSize | None
    cameras: Sequence[str]
    bank: str | None
    format: str
    episodes_per_shard: int
    max_steps: int | None
