"""Behaviour cloning's loss by hand, and what filtering leaves out."""

import math

import pytest
import torch
from random_batches import CONTINUOUS, FRAMES, random_batch

from vlm_rewards.offline_rl.algorithms.agents import build_agent
from vlm_rewards.offline_rl.algorithms.bc import cloning_loss
from vlm_rewards.offline_rl.interfaces import Batch

SETTINGS = {"width": 16, "channels": 4}


def test_cloning_loss_by_hand():
    # The first and last are cloned: -(-1 - 4) / 2 = 2.5.
    loss, info = cloning_loss(torch.tensor([-1.0, -9.0, -4.0]), torch.tensor([1.0, 0.0, 1.0]))
    assert loss.item() == pytest.approx(2.5)
    assert info["cloned_share"].item() == pytest.approx(2 / 3)


def test_the_first_loss_is_that_of_a_policy_that_knows_nothing():
    # The last layer starts out at a hundredth: four actions of a quarter each, log 4.
    info = build_agent("bc", SETTINGS, FRAMES, seed=0).update(random_batch(FRAMES, size=64))
    assert info["policy_loss"] == pytest.approx(math.log(4), abs=0.02)
    # Two standard normal dimensions around 0, of actions uniform in [-1, 1] with mean square 1/3: log(2 pi) + 2 * 1/6.
    info = build_agent("bc", SETTINGS, CONTINUOUS, seed=0).update(random_batch(CONTINUOUS, size=4000))
    assert info["policy_loss"] == pytest.approx(math.log(2 * math.pi) + 1 / 3, abs=0.02)


@pytest.mark.parametrize("spaces", [FRAMES, CONTINUOUS])
def test_filtered_equals_plain_on_the_successes_alone(spaces):
    batch = random_batch(spaces)
    kept = Batch._make(None if part is None else part[batch.successes] for part in batch)
    filtered, plain = (build_agent(name, SETTINGS, spaces, seed=0) for name in ("filtered-bc", "bc"))
    info, expected = filtered.update(batch), plain.update(kept)
    assert info["policy_loss"] == pytest.approx(expected["policy_loss"], abs=1e-6)
    assert info["cloned_share"] == 0.5
    for mine, theirs in zip(filtered.parts["policy"].parameters(), plain.parts["policy"].parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_a_batch_without_success_is_refused_before_anything_moves():
    agent = build_agent("filtered-bc", SETTINGS, FRAMES, seed=0)
    batch = random_batch(FRAMES)._replace(successes=torch.zeros(8, dtype=torch.bool))
    with pytest.raises(
        ValueError, match="a batch for filtered BC must hold .* successful segment, got none of 8. Draw larger"
    ):
        agent.update(batch)
    assert agent.num_updates == 0
    assert not agent.optimisers["policy"].state
