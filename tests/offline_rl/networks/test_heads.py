"""Heads: ensembles against their members alone, distributions by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from vlm_rewards.offline_rl.networks.heads import (
    CategoricalPolicy,
    DiscreteCritic,
    EnsembleLinear,
    EnsembleNorm,
    GaussianPolicy,
    Head,
    draw_actions,
    gaussian_log_prob,
    take_actions,
)


def test_an_ensemble_equals_its_members_alone():
    torch.manual_seed(0)
    linear, norm = EnsembleLinear(3, 5, 7), EnsembleNorm(3, 7)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    x = torch.randn(4, 5)
    together = norm(linear(x))
    assert together.shape == (3, 4, 7)
    for n in range(3):
        hidden = F.linear(x, linear.weight[n].T, linear.bias[n, 0])
        expected = F.layer_norm(hidden, (7,), norm.weight[n, 0], norm.bias[n, 0])
        torch.testing.assert_close(together[n], expected)
    torch.testing.assert_close(linear(x.expand(3, 4, 5)), linear(x))


def test_critics_start_out_different():
    torch.manual_seed(0)
    values = DiscreteCritic(16, 4, 3).values(torch.rand(5, 16))
    assert values.std(0).min() > 0.01


def test_a_gradient_reaches_every_critic_alone():
    critic = DiscreteCritic(16, 4, 3)
    critic.values(torch.rand(5, 16))[1].sum().backward()
    touched = critic.out.weight.grad.abs().sum((1, 2)) > 0
    assert touched.tolist() == [False, True, False]


def test_take_actions_by_hand():
    values = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
    assert take_actions(values, torch.tensor([1, 0])).tolist() == [[2.0, 3.0], [6.0, 7.0]]


def test_drawn_actions_have_the_shares_of_the_softmax():
    # softmax([0, log 4] / 2) = [1, 2] / 3.
    logits = torch.tensor([[0.0, math.log(4)]]).repeat(20000, 1)
    drawn = draw_actions(logits, torch.Generator().manual_seed(0), 2.0)
    # The standard deviation of the share is sqrt(2/9 / 20000) = 0.0033: four of them.
    assert drawn.float().mean().item() == pytest.approx(2 / 3, abs=0.0133)
    assert draw_actions(logits[:1], None, 2.0).tolist() == [1]


def test_gaussian_log_prob_by_hand():
    # Standard deviations 1 and e: at the mean, -log(sqrt(2 pi)) each and -1 for the wider; one of its deviations away, -1/2 more.
    log_prob = gaussian_log_prob(torch.tensor([0.0, math.e]), torch.zeros(2), torch.tensor([0.0, 1.0]))
    assert log_prob.item() == pytest.approx(-math.log(2 * math.pi) - 1.5)


def test_gaussian_samples_have_the_temperature_and_stay_in_range():
    policy = GaussianPolicy(16, 2)
    with torch.no_grad():
        policy.log_std.fill_(math.log(0.1))
        features = torch.rand(1, 16).repeat(20000, 1)
        drawn = policy.act(features, torch.Generator().manual_seed(0), 2.0)
        assert drawn.std(0).tolist() == pytest.approx([0.2, 0.2], abs=0.005)
        assert policy.act(features, torch.Generator().manual_seed(0), 50.0).abs().max() == 1


def test_a_policy_starts_out_undecided():
    torch.manual_seed(0)
    logits = CategoricalPolicy(Head(16, 4, scale=0.01)).logits(torch.rand(5, 16))
    assert torch.softmax(logits, dim=-1).max().item() == pytest.approx(0.25, abs=0.01)
