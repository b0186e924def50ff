"""IQL's losses by hand, against plain loops, and against torchrl's on the same weights and batch."""

import math
from copy import deepcopy

import pytest
import torch
from random_batches import CONTINUOUS, FRAMES, random_batch
from tensordict import TensorDict
from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential, TensorDictModule
from torch import nn
from torch.distributions import Categorical
from torchrl.objectives import DiscreteIQLLoss, ValueEstimators

from vlm_rewards.offline_rl.algorithms.agents import build_agent
from vlm_rewards.offline_rl.algorithms.iql import Iql, advantage_weighted_loss, expectile_loss
from vlm_rewards.offline_rl.interfaces import Batch, Spaces
from vlm_rewards.offline_rl.networks.heads import DiscreteCritic
from vlm_rewards.offline_rl.networks.losses import min_of_critics, td_loss

SETTINGS = {"width": 16, "channels": 4, "clone_achieved": False, "value_weight": 1.0}  # the paper's losses


def test_expectile_loss_by_hand():
    # u = 1, -2: weights 0.9 and 0.1, so (0.9 * 1 + 0.1 * 4) / 2 = 0.65.
    loss, info = expectile_loss(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0]), 0.9)
    assert loss.item() == pytest.approx(0.65)
    assert info["value"].item() == pytest.approx(1.0)


def test_expectile_of_a_half_is_half_the_squared_error():
    q, v = torch.randn(50), torch.randn(50)
    assert expectile_loss(q, v, 0.5)[0].item() == pytest.approx(((q - v) ** 2).mean().item() / 2, rel=1e-5)


def test_advantage_weighted_loss_by_hand_and_its_largest_weight():
    # Advantages 0, log(2)/3 and 10 with beta 3: weights 1, 2 and e^30, clipped at 100. -(1*-1 + 2*-2 + 100*-3) / 3 = 305 / 3.
    log_prob = torch.tensor([-1.0, -2.0, -3.0])
    q = torch.tensor([0.5, math.log(2) / 3, 10.0])
    loss, info = advantage_weighted_loss(log_prob, q, torch.tensor([0.5, 0.0, 0.0]), 3.0, 100.0)
    assert loss.item() == pytest.approx(305 / 3, rel=1e-6)
    assert info["weight"].item() == pytest.approx(103 / 3, rel=1e-6)


def test_advantage_weighted_loss_of_cloned_transitions_by_hand():
    log_prob, q, v = (
        torch.tensor([-1.0, -2.0, -4.0]),
        torch.tensor([0.5, math.log(3.0), 0.0]),
        torch.tensor([0.5, 0, 0]),
    )
    # weights exp(0), exp(log 3), exp(0): of the first two (1 * 1 + 3 * 2) / 2; the third counts in neither sum
    loss, info = advantage_weighted_loss(log_prob, q, v, 1.0, 100.0, torch.tensor([True, True, False]))
    assert loss.item() == pytest.approx(3.5)
    assert info["weight"].item() == pytest.approx(5 / 3)  # logged of all
    assert advantage_weighted_loss(log_prob, q, v, 1.0, 100.0, torch.zeros(3, dtype=torch.bool))[0].item() == 0


def test_the_weight_of_values_scales_what_they_teach_the_encoder():
    """V's and Q's gradients in the shared encoder grow by the weight; the losses that are reported do not."""
    batch = random_batch(FRAMES, size=16, seed=9)
    gradients = []
    for weight in (1.0, 10.0, 19.0):
        agent = build_agent("iql", SETTINGS | {"value_weight": weight}, FRAMES, seed=0)
        info = agent.update(batch)
        gradients.append(agent.parts["encoder"].out.weight.grad.clone())
    one, ten, nineteen = gradients
    # In the first update the heads' steps, Adam's, are the same at any weight, so the sum is linear in it.
    assert torch.allclose(nineteen - ten, ten - one, rtol=1e-3, atol=1e-6)
    assert (ten - one).abs().max() > 1e-4
    assert info["critic_loss"] == pytest.approx(
        build_agent("iql", SETTINGS, FRAMES, seed=0).update(batch)["critic_loss"], 1e-4
    )


def test_only_the_policy_leaves_out_what_failed():
    """With clone_achieved a batch's policy loss is that of its successes alone; values learn from all of it as before."""
    batch = random_batch(FRAMES, size=16, seed=9)
    assert 0 < batch.successes.sum() < 16
    every, achieved = (moved_agent(FRAMES, clone_achieved=choice) for choice in (False, True))
    state = every.state_dict()
    achieved.load_state_dict({**state, "settings": {**state["settings"], "clone_achieved": True}})
    one, other = every.update(batch), achieved.update(batch)
    assert one["policy_loss"] != pytest.approx(other["policy_loss"])
    assert {name: one[name] for name in one if name != "policy_loss"} == {
        name: other[name] for name in other if name != "policy_loss"
    }


def naive_losses(agent: Iql, batch: Batch) -> tuple[float, float, float]:
    """Value, policy and critic loss at the agent's weights, a transition and a critic at a time, from the paper's formulas."""
    settings, encoder, critic = agent.settings, agent.parts["encoder"], agent.parts["critic"]
    value_loss = policy_loss = critic_loss = 0.0
    for t in range(len(batch.rewards)):
        one = Batch._make(None if part is None else part[t : t + 1] for part in batch)
        with torch.no_grad():
            features = encoder(one.observations, one.goals)
            next_features = encoder(one.next_observations, one.goals)
            target = min(q.item() for q in agent.targets["critic"](features, one.actions))
            v = agent.parts["value"](features).item()
            next_v = agent.parts["value"](next_features).item()
            log_prob = agent.parts["policy"].log_prob(features, one.actions).item()
            values = [q.item() for q in critic(features, one.actions)]
        u = target - v
        value_loss += (1 - settings.expectile if u < 0 else settings.expectile) * u**2
        policy_loss -= min(math.exp(settings.inverse_temperature * u), settings.max_weight) * log_prob
        goal = one.rewards.item() + settings.discount * one.masks.item() * next_v
        critic_loss += sum((goal - value) ** 2 for value in values)
    return tuple(total / len(batch.rewards) for total in (value_loss, policy_loss, critic_loss))


def own_losses(agent: Iql, batch: Batch) -> dict[str, torch.Tensor]:
    """The three losses at the agent's weights, by its own functions."""
    settings = agent.settings
    features, next_features = agent.encode(batch, agent.parts), agent.encode_next(batch, agent.parts)
    target_q = agent.targets["critic"](features.detach(), batch.actions)
    q = min_of_critics(target_q, 2, agent.generator)
    v, log_prob = agent.value(features), agent.parts["policy"].log_prob(features, batch.actions)
    beta, limit = settings.inverse_temperature, settings.max_weight
    critic, next_v = agent.parts["critic"](features, batch.actions), agent.value(next_features).detach()
    return {
        "value": expectile_loss(q, v, settings.expectile)[0],
        "policy": advantage_weighted_loss(log_prob, q, v.detach(), beta, limit)[0],
        "critic": td_loss(critic, batch.rewards, batch.masks, next_v, settings.discount)[0],
    }


def moved_agent(spaces: Spaces, **settings: float | bool) -> Iql:
    """An agent whose targets differ from its parts."""
    agent = build_agent("iql", SETTINGS | {"learning_rate": 0.01} | settings, spaces, seed=0)
    for seed in range(5):
        agent.update(random_batch(spaces, size=16, seed=seed))
    for optimiser in agent.optimisers.values():
        optimiser.zero_grad()
    return agent


@pytest.mark.parametrize("spaces", [FRAMES, CONTINUOUS])
def test_losses_equal_plain_loops(spaces):
    agent = moved_agent(spaces)
    batch = random_batch(spaces, size=16, seed=9)
    own = own_losses(agent, batch)
    for loss, naive in zip(own.values(), naive_losses(agent, batch), strict=True):
        assert loss.item() == pytest.approx(naive, abs=1e-5)


def test_an_update_applies_the_papers_losses_in_the_papers_order():
    """The losses that an update reports are those of V before its step, and of pi and Q with V after it."""
    agent, twin = moved_agent(FRAMES), moved_agent(FRAMES)
    batch = random_batch(FRAMES, size=16, seed=9)
    before = own_losses(twin, batch)
    info = agent.update(batch)
    assert info["value_loss"] == pytest.approx(before["value"].item(), abs=1e-6)
    assert info["policy_loss"] != pytest.approx(before["policy"].item(), abs=1e-6)
    optimiser = torch.optim.Adam(twin.parts["value"].parameters(), lr=0.01)
    optimiser.load_state_dict(twin.optimisers["value"].state_dict())
    before["value"].backward()
    optimiser.step()
    after = own_losses(twin, batch)
    assert info["policy_loss"] == pytest.approx(after["policy"].item(), abs=1e-5)
    assert info["critic_loss"] == pytest.approx(after["critic"].item(), abs=1e-5)


class OneCritic(nn.Module):
    """Encoder and one critic, as torchrl stacks them; its first parameters have our ensemble's names and shapes."""

    def __init__(self, encoder: nn.Module, width: int, num_actions: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.critic = DiscreteCritic(width, num_actions, 1)

    def forward(self, observation: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        return self.critic.values(self.encoder(observation, goal))[0]


class Through(nn.Module):
    """Copies of an encoder and a head, as torchrl's networks have one each."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = deepcopy(encoder), deepcopy(head)

    def forward(self, observation: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(observation, goal))


def test_losses_and_gradients_equal_torchrl():
    agent = moved_agent(FRAMES)
    batch = random_batch(FRAMES, size=16, seed=9)
    encoder, policy, value, critic = (agent.parts[name] for name in ("encoder", "policy", "value", "critic"))

    keys = ["observation", "goal"]
    actor = ProbabilisticTensorDictSequential(
        TensorDictModule(Through(encoder, policy.logits), keys, ["logits"]),
        ProbabilisticTensorDictModule(["logits"], ["action"], distribution_class=Categorical),
    )
    loss = DiscreteIQLLoss(
        actor,
        TensorDictModule(OneCritic(deepcopy(encoder), 16, 4), keys, ["state_action_value"]),
        TensorDictModule(Through(encoder, value), keys, ["state_value"]),
        action_space="categorical",
        num_qvalue_nets=2,
        loss_function="l2",
        temperature=agent.settings.inverse_temperature,
        expectile=agent.settings.expectile,
    )
    loss.make_value_estimator(ValueEstimators.TD0, gamma=agent.settings.discount)
    for theirs, ours in (
        (loss.qvalue_network_params, agent.parts),
        (loss.target_qvalue_network_params, agent.parts | agent.targets),  # ours has no target of the encoder
    ):
        for name, weight in theirs["module"].flatten_keys(".").items():
            part, _, inner = name.partition(".")
            mine = ours[part].state_dict()[inner]
            # The critics of an ensemble are stacked in ours too; the encoder is one for both.
            weight.data.copy_(mine.unsqueeze(1) if part == "critic" else mine)
    data = TensorDict(
        {
            "observation": batch.observations,
            "goal": batch.goals,
            "action": batch.actions,
            "next": {
                "observation": batch.next_observations,
                "goal": batch.goals,
                "reward": batch.rewards[:, None],
                "terminated": batch.masks[:, None] == 0,
                "done": batch.masks[:, None] == 0,
            },
        },
        [16],
    )
    theirs = loss(data)
    own = own_losses(agent, batch)
    for name, key in (("value", "loss_value"), ("policy", "loss_actor"), ("critic", "loss_qvalue")):
        assert own[name].item() == pytest.approx(theirs[key].item(), abs=1e-5)
    sum(own.values()).backward()
    (theirs["loss_value"] + theirs["loss_actor"] + theirs["loss_qvalue"]).backward()
    gradient = loss.value_network_params["module", "head", "out", "weight"].grad
    torch.testing.assert_close(value.out.weight.grad, gradient, atol=1e-5, rtol=1e-4)
    gradient = loss.actor_network_params["module", "0", "module", "head", "out", "weight"].grad
    torch.testing.assert_close(policy.logits.out.weight.grad, gradient, atol=1e-5, rtol=1e-4)
    gradient = loss.qvalue_network_params["module", "critic", "out", "weight"].grad.squeeze(1)
    torch.testing.assert_close(critic.out.weight.grad, gradient, atol=1e-5, rtol=1e-4)
