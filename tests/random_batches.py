"""Batches of noise for agents, one kind of spaces after the other."""

import torch
import torch.nn.functional as F

from vlm_rewards.offline_rl.interfaces import Batch, Spaces

FRAMES = Spaces(observation="frames", observation_shape=(16, 24, 3), goal_size=6, num_actions=4)
EMBEDDINGS = Spaces(observation="embeddings", observation_shape=(5,), goal_size=6, num_actions=4, state_size=3)
CONTINUOUS = Spaces(observation="embeddings", observation_shape=(5,), goal_size=6, action_size=2)


def random_batch(spaces: Spaces, size: int = 8, seed: int = 0) -> Batch:
    """A batch that fits the spaces: a fifth of the steps achieve their goal, returns are between 0 and 1."""
    generator = torch.Generator().manual_seed(seed)

    def observations() -> torch.Tensor:
        shape = (size, *spaces.observation_shape)
        if spaces.observation == "frames":
            return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        return torch.randn(shape, generator=generator)

    if spaces.num_actions is not None:
        actions = torch.randint(0, spaces.num_actions, (size,), generator=generator)
    else:
        actions = 2 * torch.rand(size, spaces.action_size or 0, generator=generator) - 1
    rewards = (torch.rand(size, generator=generator) < 0.2).float()
    has_state = spaces.state_size is not None
    return Batch(
        observations=observations(),
        actions=actions,
        rewards=rewards,
        next_observations=observations(),
        masks=1 - rewards,
        goals=F.normalize(torch.randn(size, spaces.goal_size, generator=generator), dim=1),
        returns=torch.maximum(rewards, torch.rand(size, generator=generator)),
        successes=torch.arange(size) % 2 == 0,
        states=torch.randn(size, spaces.state_size or 0, generator=generator) if has_state else None,
        next_states=torch.randn(size, spaces.state_size or 0, generator=generator) if has_state else None,
    )
