"""Batches of noise in the shapes that the benchmarks of learning measure on."""

import torch
import torch.nn.functional as F

from vlm_rewards.offline_rl.interfaces import Batch, Spaces

BATCH_SIZE = 256
GOAL_SIZE = 24
CASES = {
    "tiles of 56x56 frames": Spaces(
        observation="frames", observation_shape=(56, 56, 3), goal_size=GOAL_SIZE, num_actions=7
    ),
    "embeddings of 512": Spaces(observation="embeddings", observation_shape=(512,), goal_size=GOAL_SIZE, num_actions=7),
}


def random_batch(spaces: Spaces) -> Batch:
    """A batch of noise."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, BATCH_SIZE, *spaces.observation_shape)
    if spaces.observation == "frames":
        seen = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    else:
        seen = torch.randn(shape, generator=generator)
    rewards = (torch.rand(BATCH_SIZE, generator=generator) < 0.1).float()
    return Batch(
        observations=seen[0],
        actions=torch.randint(0, spaces.num_actions or 0, (BATCH_SIZE,), generator=generator),
        rewards=rewards,
        next_observations=seen[1],
        masks=1 - rewards,
        goals=F.normalize(torch.randn(BATCH_SIZE, spaces.goal_size, generator=generator), dim=1),
        returns=rewards,
        successes=rewards > 0,
    )
