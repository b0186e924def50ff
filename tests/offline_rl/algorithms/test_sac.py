"""SAC's, RLPD's and continuous Cal-QL's losses by hand and against plain loops."""

import math

import pytest
import torch
from random_batches import CONTINUOUS, random_batch

from vlm_rewards.offline_rl.algorithms.agents import build_agent
from vlm_rewards.offline_rl.algorithms.sac import Sac, actor_loss, sampled_conservative_loss, temperature_loss
from vlm_rewards.offline_rl.interfaces import Batch

SETTINGS = {"width": 16, "learning_rate": 0.01}


def test_actor_loss_by_hand():
    # Mean values of the two critics: 2 and 4. (0.5 * -1 - 2 + 0.5 * -3 - 4) / 2 = -4.
    q = torch.tensor([[1.0, 3.0], [3.0, 5.0]])
    loss, info = actor_loss(torch.tensor([-1.0, -3.0]), q, torch.tensor(0.5))
    assert loss.item() == pytest.approx(-4.0)
    assert info["entropy"].item() == pytest.approx(2.0)


def test_temperature_rises_where_the_entropy_is_below_its_target():
    temperature = torch.tensor(2.0, requires_grad=True)
    # Entropy is 1, its target 3: -2 * (-1 + 3) = -4, whose descent raises the temperature.
    loss, _ = temperature_loss(torch.tensor([-0.5, -1.5]), temperature, 3.0)
    loss.backward()
    assert loss.item() == pytest.approx(-4.0)
    assert temperature.grad.item() == pytest.approx(-2.0)


def test_sampled_conservative_loss_by_hand():
    # One of each kind, K = 1, densities 1/2, 1, 2: weights 2, 1, 1/2. Values log 1, log 2, log 4: (2*1 + 1*2 + 4/2) / 3 = 2.
    sampled = torch.log(torch.tensor([1.0, 2.0, 4.0]))[None, :, None]
    densities = torch.log(torch.tensor([0.5, 1.0, 2.0]))[:, None]
    loss, _ = sampled_conservative_loss(torch.tensor([[0.25]]), sampled, densities, None)
    assert loss.item() == pytest.approx(math.log(2) - 0.25)
    # Return log 10 lifts the policy's two, and leaves the uniform one: (2*1 + 10 + 10/2) / 3 = 17 / 3.
    loss, _ = sampled_conservative_loss(torch.tensor([[0.25]]), sampled, densities, torch.log(torch.tensor([10.0])))
    assert loss.item() == pytest.approx(math.log(17 / 3) - 0.25)


def test_importance_sampling_gives_the_integral_over_actions():
    """With Q(a) = a and uniform draws, the mean of exp(Q) / density is the integral of e^a over [-1, 1], e - 1/e."""
    actions = 2 * torch.rand(300_000, generator=torch.Generator().manual_seed(0)) - 1
    densities = torch.full((300_000, 1), -math.log(2))
    loss, _ = sampled_conservative_loss(torch.zeros(1, 1), actions[None, :, None], densities, None)
    assert loss.item() == pytest.approx(math.log(math.e - 1 / math.e), abs=0.01)


def test_the_squashed_density_integrates_to_one_and_equals_torchs():
    agent = build_agent("rlpd", SETTINGS, CONTINUOUS, seed=0)
    batch = random_batch(CONTINUOUS, size=3)
    policy, features = agent.parts["policy"], agent.encode(batch, agent.parts)
    noise = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(0))
    actions, log_prob = policy.sample(features, noise)
    mean, log_std = policy._gaussian(features)
    torchs = torch.distributions.TransformedDistribution(
        torch.distributions.Normal(mean, log_std.exp()), torch.distributions.TanhTransform(cache_size=1)
    )
    torch.testing.assert_close(log_prob, torchs.log_prob(actions).sum(-1), atol=1e-4, rtol=1e-4)
    assert actions.abs().max() < 1
    # Far out, where 1 - tanh^2 is 0 in float32, the density stays finite.
    assert torch.isfinite(policy.sample(features, torch.full((3, 2), 60.0))[1]).all()


def naive_losses(agent: Sac, batch: Batch) -> dict[str, float]:
    """The losses at the agent's weights by plain loops, drawing noise in the order in which an update does."""
    settings, size, count = agent.settings, len(batch.rewards), agent.settings.num_sampled_actions
    generator = torch.Generator()
    generator.set_state(agent.generator.get_state())
    next_noise = torch.randn(size, 2, generator=generator)
    chosen = torch.randperm(settings.num_critics, generator=generator)[:2].tolist()
    uniform = 2 * torch.rand(count, size, 2, generator=generator) - 1
    noise_here = torch.randn(count, size, 2, generator=generator)
    noise_there = torch.randn(count, size, 2, generator=generator)
    critic, policy, judge = agent.parts["critic"], agent.parts["policy"], agent.targets["critic"]
    td = penalty = 0.0
    for t in range(size):
        one = Batch._make(None if part is None else part[t : t + 1] for part in batch)
        with torch.no_grad():
            here, there = agent.encode(one, agent.parts), agent.encode_next(one, agent.parts)
            action, log_prob = policy.sample(there, next_noise[t : t + 1])
            next_q = judge(agent.encode_next(one, agent.targets), action)[:, 0].tolist()
            bonus = agent.parts["temperature"]().item() * log_prob.item() if settings.entropy_in_targets else 0.0
            goal = one.rewards.item() + settings.discount * one.masks.item() * (min(next_q[i] for i in chosen) - bonus)
            recorded = critic(here, one.actions)[:, 0].tolist()
            draws = [(uniform[k, t : t + 1], -2 * math.log(2), False) for k in range(count)]
            for features, noise in ((here, noise_here), (there, noise_there)):
                for k in range(count):
                    action, log_prob = policy.sample(features, noise[k, t : t + 1])
                    draws.append((action, log_prob.item(), settings.calibrated))
            values = [critic(here, action)[:, 0].tolist() for action, _, _ in draws]
        for i in range(settings.num_critics):
            td += (goal - recorded[i]) ** 2
            total = 0.0
            for q, (_, density, calibrated) in zip(values, draws, strict=True):
                value = max(q[i], one.returns.item()) if calibrated else q[i]
                total += math.exp(value - density)
            penalty += math.log(total / (3 * count)) - recorded[i]
    return {"critic_loss": td / size, "conservative_loss": penalty / size}


@pytest.mark.parametrize("changes", [{}, {"calibrated": False}, {"entropy_in_targets": True}])
def test_an_update_reports_the_losses_of_plain_loops(changes):
    settings = SETTINGS | {"num_critics": 3, "num_sampled_actions": 2} | changes
    agent = build_agent("sac-cal-ql", settings, CONTINUOUS, seed=0)
    for seed in range(5):
        agent.update(random_batch(CONTINUOUS, size=6, seed=seed))
    batch = random_batch(CONTINUOUS, size=6, seed=9)
    expected = naive_losses(agent, batch)
    info = agent.update(batch)
    for name, value in expected.items():
        assert info[name] == pytest.approx(value, abs=1e-5)


def test_without_alpha_there_is_no_conservative_term():
    agent = build_agent("rlpd", SETTINGS, CONTINUOUS, seed=0)
    assert agent.settings.num_critics == 10
    assert "conservative_loss" not in agent.update(random_batch(CONTINUOUS))


def test_several_actions_share_an_observation():
    agent = build_agent("rlpd", SETTINGS, CONTINUOUS, seed=0)
    batch = random_batch(CONTINUOUS)
    critic, features = agent.parts["critic"], agent.encode(batch, agent.parts)
    actions = torch.stack([batch.actions, -batch.actions, batch.actions.flip(0)])
    together = critic(features, actions)
    assert together.shape == (10, 3, 8)
    for k in range(3):
        torch.testing.assert_close(together[:, k], critic(features, actions[k]))


def test_the_target_entropy_is_rlpds_unless_given():
    assert build_agent("rlpd", SETTINGS, CONTINUOUS, seed=0).target_entropy == -1.0  # -A / 2 of two dimensions
    assert build_agent("rlpd", SETTINGS | {"target_entropy": -3.0}, CONTINUOUS, seed=0).target_entropy == -3.0
