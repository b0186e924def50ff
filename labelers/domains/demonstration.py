"""What `vlm-rewards demo --domain` shows of a domain."""

import dataclasses
from typing import Protocol, runtime_checkable

from vlm_rewards.labelers.domains.domain import Domain

_MIX = {"bot": 0.2, "noisy-bot": 0.5, "random": 0.3}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demonstration:
    """What is recorded, labelled and learned.

    Args:
        envs: Environments that are recorded; the agent is fine-tuned in the first.
        model: Reference model that labels; None if the domain has none.
        frame_stack: Frames that the agent sees at once.
        batch_size: Transitions per update; fewer where frames are dear, so that a demo takes minutes.
    """

    envs: tuple[str, ...]
    model: str | None
    frame_stack: int = 1
    batch_size: int = 256


@runtime_checkable
class HasDemonstration(Protocol):
    """A domain that says what a demo is to show; any other shows its first environment."""

    def demonstration(self) -> Demonstration:
        """Returns what a demo is to show."""


def demonstration_of(domain: Domain) -> Demonstration:
    """Returns what a demo is to show of a domain."""
    if isinstance(domain, HasDemonstration):
        return domain.demonstration()
    return Demonstration(envs=domain.environments()[:1], model=domain.default_model)


def mixed_policy(domain: Domain) -> str:
    """Returns shares of the domain's policies, as `vlm-rewards record --policy` takes them: corpora to learn from are mixed."""
    shares = {name: share for name, share in _MIX.items() if name in domain.policies}
    total = sum(shares.values())
    return ",".join(f"{name}:{share / total:g}" for name, share in shares.items())


def num_actions_of_level(domain: Domain, env: str) -> int:
    """Returns the number of actions of an environment."""
    level = domain.make(env, frame_size=domain.frame_sizes[0], cameras=domain.cameras[:1])
    try:
        return level.num_actions
    finally:
        level.close()
