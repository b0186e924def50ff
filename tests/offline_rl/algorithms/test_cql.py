"""CQL's and Cal-QL's losses by hand and against plain loops."""

import math

import pytest
import torch
from random_batches import FRAMES, random_batch

from vlm_rewards.offline_rl.algorithms.agents import build_agent
from vlm_rewards.offline_rl.algorithms.cql import Cql, conservative_loss
from vlm_rewards.offline_rl.interfaces import Batch
from vlm_rewards.offline_rl.networks.losses import min_of_critics, td_loss

SETTINGS = {"width": 16, "channels": 4, "learning_rate": 0.01}


def test_td_loss_by_hand():
    # Targets: 1 + 0.5 * 0 * 8 = 1 (the goal was achieved: nothing follows) and 0 + 0.5 * 1 * 8 = 4.
    # Critic 1: (1-0)^2, (4-2)^2: mean 2.5. Critic 2: (1-1)^2, (4-1)^2: mean 4.5. Sum 7.
    q = torch.tensor([[0.0, 2.0], [1.0, 1.0]])
    loss, info = td_loss(q, torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor([8.0, 8.0]), 0.5)
    assert loss.item() == pytest.approx(7.0)
    assert info["td_target"].item() == pytest.approx(2.5)


def test_td_loss_with_targets_no_lower_than_returns_by_hand():
    # Targets of next values 0: 0 and 0, of returns 0.5 and -1: max(0, 0.5) = 0.5 and max(0, -1) = 0, so (0.25 + 4) / 2.
    nothing = torch.zeros(2)
    loss, info = td_loss(torch.tensor([[0.0, 2.0]]), nothing, nothing, nothing, 0.9, torch.tensor([0.5, -1.0]))
    assert loss.item() == pytest.approx(2.125)
    assert info["td_target"].item() == pytest.approx(0.25)


def test_min_of_critics_takes_all_or_a_few():
    q = torch.tensor([[3.0, 1.0], [2.0, 2.0], [1.0, 3.0]])
    generator = torch.Generator().manual_seed(0)
    assert min_of_critics(q, 3, generator).tolist() == [1.0, 1.0]
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(0).get_state())
    # The minima of the three pairs of critics; all are drawn sooner or later.
    pairs = {(2.0, 1.0), (1.0, 1.0), (1.0, 2.0)}
    assert {tuple(min_of_critics(q, 2, generator).tolist()) for _ in range(50)} == pairs


def test_conservative_loss_by_hand():
    # One critic: Q = 0 and log 3, the first recorded. CQL: log(e^0 + 3) - 0 = log 4.
    q = torch.tensor([[[0.0, math.log(3)]]])
    actions = torch.tensor([0])
    assert conservative_loss(q, actions, None)[0].item() == pytest.approx(math.log(4))
    # Cal-QL with return log 7: the other action counts as log 7, the recorded one stays 0: log(1 + 7) - 0 = log 8.
    assert conservative_loss(q, actions, torch.tensor([math.log(7)]))[0].item() == pytest.approx(math.log(8))
    # Two critics are summed, two transitions averaged.
    twice = conservative_loss(q.expand(2, 2, 2), torch.tensor([0, 0]), None)[0]
    assert twice.item() == pytest.approx(2 * math.log(4))


def test_calibration_stops_the_gradient_of_values_below_the_return_only():
    q = torch.tensor([[[0.5, 0.2, 0.9]]], requires_grad=True)
    conservative_loss(q, torch.tensor([0]), torch.tensor([0.6]))[0].backward()
    assert q.grad[0, 0, 1].item() == 0  # below the return: not pushed down
    assert q.grad[0, 0, 2].item() > 0  # above it: pushed down
    assert q.grad[0, 0, 0].item() < 0  # recorded: pushed up


def naive_loss(agent: Cql, batch: Batch) -> tuple[float, float]:
    """Temporal-difference and conservative loss by plain loops over transitions, critics and actions."""
    settings, num = agent.settings, agent.spaces.num_actions
    td = penalty = 0.0
    for t in range(len(batch.rewards)):
        one = Batch._make(None if part is None else part[t : t + 1] for part in batch)
        with torch.no_grad():
            q = agent.parts["critic"].values(agent.encode(one, agent.parts))[:, 0].tolist()
            next_q = agent.parts["critic"].values(agent.encode_next(one, agent.parts))[:, 0].tolist()
            judged = agent.targets["critic"].values(agent.encode_next(one, agent.targets))[:, 0].tolist()
        best = max(range(num), key=lambda action: sum(row[action] for row in next_q))
        goal = one.rewards.item() + settings.discount * one.masks.item() * min(row[best] for row in judged)
        action, reached = int(one.actions), one.returns.item()
        for row in q:
            td += (goal - row[action]) ** 2
            values = [row[b] if b == action or not settings.calibrated else max(row[b], reached) for b in range(num)]
            penalty += math.log(sum(math.exp(value) for value in values)) - row[action]
    return td / len(batch.rewards), penalty / len(batch.rewards)


@pytest.mark.parametrize("name", ["cql", "cal-ql"])
def test_an_update_reports_the_losses_of_plain_loops(name):
    agent = build_agent(name, SETTINGS, FRAMES, seed=0)
    for seed in range(5):
        agent.update(random_batch(FRAMES, size=16, seed=seed))
    batch = random_batch(FRAMES, size=16, seed=9)
    td, penalty = naive_loss(agent, batch)
    info = agent.update(batch)
    assert info["critic_loss"] == pytest.approx(td, abs=1e-5)
    assert info["conservative_loss"] == pytest.approx(penalty, abs=1e-5)


def test_an_update_follows_the_gradient_of_the_sum():
    """The first step of Adam is its learning rate against the gradient's sign: so signs show what was descended."""
    agent, twin = (build_agent("cql", SETTINGS | {"alpha": 0.7}, FRAMES, seed=0) for _ in range(2))
    batch = random_batch(FRAMES, size=16, seed=9)
    features, critic = twin.encode(batch, twin.parts), twin.parts["critic"]
    with torch.no_grad():
        choices = critic.values(twin.encode_next(batch, twin.parts)).mean(0).argmax(-1)
        next_values = twin.targets["critic"](twin.encode_next(batch, twin.targets), choices).amin(0)
    loss = td_loss(critic(features, batch.actions), batch.rewards, batch.masks, next_values, 0.99)[0]
    (loss + 0.7 * conservative_loss(critic.values(features), batch.actions, None)[0]).backward()
    agent.update(batch)
    for part in ("encoder", "critic"):
        for mine, theirs in zip(agent.parts[part].parameters(), twin.parts[part].parameters(), strict=True):
            clear = theirs.grad.abs() > 1e-4
            step = torch.sign(mine - theirs)[clear]
            assert torch.equal(step, -torch.sign(theirs.grad)[clear])


def test_the_policy_is_the_softmax_of_the_mean_value():
    agent = build_agent("cql", SETTINGS | {"policy_temperature": 0.5}, FRAMES, seed=0)
    one = random_batch(FRAMES, size=1)
    frames, goals = one.observations.repeat(20000, 1, 1, 1), one.goals.repeat(20000, 1)
    with torch.no_grad():
        expected = torch.softmax(agent.parts["critic"].values(agent.encode(one, agent.parts)).mean(0)[0] / 0.5, dim=0)
    drawn = agent.act(frames, goals, generator=torch.Generator().manual_seed(0))
    shares = torch.bincount(torch.from_numpy(drawn), minlength=4) / 20000
    # The standard deviation of a share is at most sqrt(0.25 / 20000) = 0.0035: four of them.
    torch.testing.assert_close(shares, expected, atol=0.014, rtol=0)
