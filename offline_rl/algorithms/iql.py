"""Implicit Q-learning with advantage-weighted regression, for discrete and continuous actions, offline and online.

    L_V  = E[|tau - 1(u < 0)| u^2],  u = min_i Qt_i(s, a, g) - V(s, g)
    L_pi = -E[min(exp(beta (min_i Qt_i - V)), 100) log pi(a | s, g)]
    L_Q  = sum_i E[(r + discount m V(s', g) - Q_i(s, a, g))^2]

in the order V, pi with the new V, Q with the new V, targets. No action from outside the data is ever evaluated, so no pessimism is
needed.

Source: Kostrikov et al. 2021, "Offline Reinforcement Learning with Implicit Q-Learning", and its official code. Differences: goals;
discrete actions; V, Q and pi share an encoder that takes one step per update, on the weighted sum of their gradients (as in
BridgeData V2's goal-conditioned IQL), and has no target (as in DrQ-v2, Yarats et al. 2021); LayerNorm; the policy clones only
achieved goals, and acts with a moving average of its weights.

Shape letters as in `offline_rl.interfaces`; N critics.
"""

import dataclasses

import torch
from torch import Tensor, nn

from vlm_rewards.offline_rl.algorithms.learner import (
    CriticSettings,
    Learner,
    bounds_of,
    build_cloned_policy,
    build_critic,
    cut_features,
)
from vlm_rewards.offline_rl.interfaces import Batch
from vlm_rewards.offline_rl.networks.encoder import Encoder, check_rules
from vlm_rewards.offline_rl.networks.heads import Head
from vlm_rewards.offline_rl.networks.losses import min_of_critics, td_loss


@dataclasses.dataclass(frozen=True, kw_only=True)
class IqlSettings(CriticSettings):
    """Settings of `Iql`.

    The papers' values (expectile 0.9, beta 3, discount 0.99, learning rate 3e-4, polyak 0.005) are for rewards in the hundreds or
    -1 per step. If the only reward is 1 at success, a wasted step costs 1 - discount of the value: with those settings advantages
    are about 0.01, and IQL does not differ from behaviour cloning. The defaults here were chosen on single rooms of a grid world,
    on other corpora and levels than those reported.

    Args:
        expectile: tau, the expectile of the values of recorded actions that V learns: 0.5 their mean, towards 1 their maximum.
        inverse_temperature: beta, the factor of the advantage in the log weight of a transition.
        max_weight: Largest weight of a transition.
        value_weight: Weight of the losses of V and Q relative to the policy's in the shared encoder. Squared errors of returns up
            to 1 are about a hundredth of a log-likelihood, so at 1 the encoder would learn only for the policy.
        clone_achieved: Whether the policy learns only from segments that end in success, while the values learn from all, as in
            OGBench (Park et al. 2025), whose actor sees goals that its trajectory reaches. Under a goal out of reach no action has
            an advantage, so the weights alone would clone whatever was done.

    Raises:
        ValueError: A value is out of its range.
    """

    learning_rate: float = 1e-3
    acting_polyak: float = 0.002
    discount: float = 0.95
    polyak: float = 0.01
    expectile: float = 0.8
    inverse_temperature: float = 10.0
    max_weight: float = 100.0
    value_weight: float = 100.0
    clone_achieved: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rules(
            expectile=(0 < self.expectile < 1, "above 0 and below 1", self.expectile),
            inverse_temperature=(self.inverse_temperature >= 0, "at least 0", self.inverse_temperature),
            max_weight=(self.max_weight > 0, "above 0", self.max_weight),
            value_weight=(self.value_weight > 0, "above 0", self.value_weight),
        )


def expectile_loss(q: Tensor, v: Tensor, expectile: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns E[|tau - 1(u < 0)| u^2] with u = q - v, for q [B] without gradient and v [B]."""
    u = q - v
    loss = (torch.where(u < 0, 1 - expectile, expectile) * u**2).mean()
    return loss, {"value_loss": loss, "value": v.mean()}


def advantage_weighted_loss(
    log_prob: Tensor,
    q: Tensor,
    v: Tensor,
    inverse_temperature: float,
    max_weight: float,
    cloned: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns -E[min(exp(beta (q - v)), max_weight) log pi(a|s,g)].

    Args:
        log_prob: [B].
        q: [B], without gradient.
        v: [B], without gradient.
        inverse_temperature: beta.
        max_weight: Largest weight.
        cloned: [B] bool, the transitions that the mean is over; None for all. If there are none, the loss is 0.

    Returns:
        The loss, and policy_loss, advantage and weight of all transitions to log.
    """
    weights = torch.exp(inverse_temperature * (q - v)).clamp(max=max_weight)
    counted = torch.ones_like(weights) if cloned is None else cloned.float()
    loss = -(counted * weights * log_prob).sum() / counted.sum().clamp(min=1)
    return loss, {"policy_loss": loss, "advantage": (q - v).mean(), "weight": weights.mean()}


class Iql(Learner[IqlSettings]):
    """IQL with a shared encoder."""

    target_names = ("critic",)

    def build_parts(self) -> dict[str, nn.Module]:
        """Builds encoder, value, policy and critics."""
        return {
            "encoder": Encoder(self.settings, self.spaces),
            "value": Head(self.settings.width, 1),
            "policy": build_cloned_policy(self.settings, self.spaces),
            "critic": build_critic(self.settings, self.spaces),
        }

    def learn(self, batch: Batch) -> dict[str, Tensor]:
        """Makes one step of V, of pi with the new V, of Q with the new V, of the encoder and of the targets."""
        settings = self.settings
        features = self.encode(batch, self.parts)
        cut = cut_features(features)
        with torch.no_grad():
            target_q = self.targets["critic"](features, batch.actions)
            q = min_of_critics(target_q, settings.num_min_critics, self.generator)
            next_features = self.encode_next(batch, self.parts)

        value_loss, value_info = expectile_loss(q, self.value(cut), settings.expectile)
        self.step("value", settings.value_weight * value_loss, cut)

        with torch.no_grad():
            v, next_v = self.value(torch.cat([features, next_features])).chunk(2)

        policy_loss, policy_info = advantage_weighted_loss(
            self.parts["policy"].log_prob(cut, batch.actions),
            q,
            v,
            settings.inverse_temperature,
            settings.max_weight,
            batch.successes if settings.clone_achieved else None,
        )
        self.step("policy", policy_loss, cut)

        critic_loss, critic_info = td_loss(
            self.parts["critic"](cut, batch.actions),
            batch.rewards,
            batch.masks,
            next_v,
            settings.discount,
            bounds_of(settings, batch),
        )
        self.step("critic", settings.value_weight * critic_loss, cut)
        self.step_encoder(features, cut)
        self.move_targets(settings.polyak)
        return value_info | policy_info | critic_info

    def value(self, features: Tensor) -> Tensor:
        """Returns V(s, g) [B] for features [B, F]."""
        return self.parts["value"](features).squeeze(-1)

    def choose(self, features: Tensor, generator: torch.Generator | None, temperature: float) -> Tensor:
        """Returns the actions of the policy."""
        return self.acting["policy"].act(features, generator, temperature)
