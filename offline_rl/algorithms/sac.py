"""Soft actor-critic with prior data (RLPD) for continuous actions, and with the conservative term of CQL or Cal-QL.

    L_Q     = sum_i E[(r + discount m (min_j Qt_j(s', a') [- temperature log pi(a'|s')]) - Q_i(s, a))^2] + alpha * conservative
    L_pi    = E[temperature log pi(b|s) - mean_i Q_i(s, b)]                              a', b drawn from pi
    L_temp  = E[-temperature (log pi(b|s) + target_entropy)]

    conservative = sum_i E[log 1/3K (sum_k e^(Q_i(s, u_k)) / U(u_k) + sum_k e^(Q'_i(s, b_k)) / pi(b_k|s)
                                     + sum_k e^(Q'_i(s, c_k)) / pi(c_k|s')) - Q_i(s, a)]
    u_k uniform, b_k from pi(s), c_k from pi(s'), and Q' = max(Q, G) with the recorded return G (Cal-QL) or Q (CQL)

RLPD is this with half of each batch from prior data, ten critics with LayerNorm, and in the target the smallest value of two of
them, drawn anew for each update.

Source: Haarnoja et al. 2018; Ball et al. 2023, "Efficient Online Reinforcement Learning with Offline Data" (RLPD); Nakamoto et
al. 2023, "Cal-QL", and its official code. Differences: goals; the encoder learns only from the critics, and the policy reads
features without gradient, as in DrQ; the policy's step reads the features from before the encoder's step. The entropy bonus is left
out of targets by default, as in Cal-QL's code, so that values stay on the scale of the returns that calibrate them.

Shape letters as in `offline_rl.interfaces`; N critics, K actions drawn per distribution.
"""

import dataclasses
import math

import torch
from torch import Tensor, nn

from vlm_rewards.offline_rl.algorithms.learner import CriticSettings, Learner, bounds_of, build_critic, cut_features
from vlm_rewards.offline_rl.interfaces import Batch, Spaces
from vlm_rewards.offline_rl.networks.encoder import Encoder, check_rules
from vlm_rewards.offline_rl.networks.heads import TanhGaussianPolicy
from vlm_rewards.offline_rl.networks.losses import min_of_critics, td_loss


@dataclasses.dataclass(frozen=True, kw_only=True)
class SacSettings(CriticSettings):
    """Settings of `Sac`.

    Args:
        target_entropy: Target entropy of the policy in nats; None for -A / 2 as in RLPD.
        initial_temperature: Initial weight of the entropy.
        entropy_in_targets: Whether the entropy bonus is part of the values.
        alpha: Weight of the conservative term; 0 leaves it out (RLPD).
        calibrated: Whether values are pushed no lower than recorded returns (Cal-QL).
        num_sampled_actions: K, number of actions drawn from each of three distributions for the conservative term.

    Raises:
        ValueError: A value is out of its range.
    """

    num_critics: int = 10
    target_entropy: float | None = None
    initial_temperature: float = 0.1
    entropy_in_targets: bool = False
    alpha: float = 0.0
    calibrated: bool = True
    num_sampled_actions: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rules(
            initial_temperature=(self.initial_temperature > 0, "above 0", self.initial_temperature),
            alpha=(self.alpha >= 0, "at least 0", self.alpha),
            num_sampled_actions=(self.num_sampled_actions >= 1, "at least 1", self.num_sampled_actions),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SacCalQlSettings(SacSettings):
    """Settings of the algorithm "sac-cal-ql": `Sac` with the conservative term, and two critics as in Cal-QL."""

    alpha: float = 0.1
    num_critics: int = 2


class Temperature(nn.Module):
    """Weight of the entropy, learned as its logarithm.

    Args:
        initial: Initial weight, above 0.
    """

    def __init__(self, initial: float) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(initial)))

    def forward(self) -> Tensor:
        """Returns the weight, above 0."""
        return self.log.exp()


def actor_loss(log_prob: Tensor, q: Tensor, temperature: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns E[temperature log pi(b|s) - mean_i Q_i(s, b)] for log_prob [B] and q [N, B]."""
    loss = (temperature.detach() * log_prob - q.mean(0)).mean()
    return loss, {"policy_loss": loss, "entropy": -log_prob.mean()}


def temperature_loss(log_prob: Tensor, temperature: Tensor, target_entropy: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns E[-temperature (log pi(b|s) + target_entropy)] for log_prob [B]."""
    loss = -temperature * (log_prob.detach().mean() + target_entropy)
    return loss, {"temperature_loss": loss, "temperature": temperature}


def sampled_conservative_loss(
    recorded: Tensor, sampled: Tensor, log_densities: Tensor, returns: Tensor | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns sum_i E[log mean_k exp(Q'_i(s, b_k)) / density(b_k) - Q_i(s, a)]: the logsumexp by importance sampling.

    Args:
        recorded: [N, B], values of the recorded actions.
        sampled: [N, 3K, B], values of K uniform actions, then of 2K actions of the policy.
        log_densities: [3K, B], log densities that the actions were drawn with.
        returns: [B], recorded returns to go, the least that the values of the policy's actions count as (Cal-QL); None for CQL. As
            in the official code, uniform actions are not calibrated.

    Returns:
        The loss, and conservative_loss to log.
    """
    if returns is not None:
        num_uniform = sampled.shape[1] // 3
        uniform, drawn = sampled.split([num_uniform, 2 * num_uniform], dim=1)
        sampled = torch.cat([uniform, torch.maximum(drawn, returns)], dim=1)
    values = torch.logsumexp(sampled - log_densities, dim=1) - math.log(sampled.shape[1])
    loss = (values - recorded).mean(1).sum(0)
    return loss, {"conservative_loss": loss}


class Sac(Learner[SacSettings]):
    """SAC with an ensemble of critics: RLPD, or Cal-QL if alpha is above 0."""

    target_names = ("encoder", "critic")

    def check_spaces(self, spaces: Spaces) -> None:
        """Refuses discrete actions.

        Raises:
            ValueError: Actions are discrete.
        """
        if spaces.action_size is None:
            raise ValueError(
                f"actions must be continuous for rlpd and sac-cal-ql, got num_actions {spaces.num_actions}. Use iql, cql or cal-ql."
            )

    def build_parts(self) -> dict[str, nn.Module]:
        """Builds encoder, critics, policy and temperature."""
        assert self.spaces.action_size is not None
        return {
            "encoder": Encoder(self.settings, self.spaces),
            "critic": build_critic(self.settings, self.spaces),
            "policy": TanhGaussianPolicy(self.settings.width, self.spaces.action_size),
            "temperature": Temperature(self.settings.initial_temperature),
        }

    def learn(self, batch: Batch) -> dict[str, Tensor]:
        """Makes one step of critics and encoder, then of the policy on the new critics, the temperature and the targets."""
        settings, critic = self.settings, self.parts["critic"]
        features = self.encode(batch, self.parts)
        with torch.no_grad():
            next_features = self.encode_next(batch, self.parts)
            next_actions, next_log_prob = self.sample(next_features)
            next_q = self.targets["critic"](self.encode_next(batch, self.targets), next_actions)
            next_values = min_of_critics(next_q, settings.num_min_critics, self.generator)
            if settings.entropy_in_targets:
                next_values = next_values - self.parts["temperature"]() * next_log_prob

        cut = cut_features(features)
        q = critic(cut, batch.actions)
        loss, info = td_loss(q, batch.rewards, batch.masks, next_values, settings.discount, bounds_of(settings, batch))
        if settings.alpha > 0:
            actions, log_densities = self.sample_for_penalty(features.detach(), next_features)
            returns = batch.returns if settings.calibrated else None
            penalty, penalty_info = sampled_conservative_loss(q, critic(cut, actions), log_densities, returns)
            loss, info = loss + settings.alpha * penalty, info | penalty_info
        self.step("critic", loss, cut)
        self.step_encoder(features, cut)

        seen = features.detach()
        actions, log_prob = self.sample(seen)
        loss, policy_info = actor_loss(log_prob, critic(seen, actions), self.parts["temperature"]())
        self.step("policy", loss)
        loss, temperature_info = temperature_loss(log_prob, self.parts["temperature"](), self.target_entropy)
        self.step("temperature", loss)
        self.move_targets(settings.polyak)
        return info | policy_info | temperature_info

    @property
    def target_entropy(self) -> float:
        """Target entropy of the policy in nats."""
        assert self.spaces.action_size is not None
        given = self.settings.target_entropy
        return -self.spaces.action_size / 2 if given is None else given

    def sample(self, features: Tensor, *several: int) -> tuple[Tensor, Tensor]:
        """Draws actions [..., B, A] of the policy with log pi [..., B], by the agent's own generator."""
        assert self.spaces.action_size is not None
        noise = torch.randn(*several, len(features), self.spaces.action_size, generator=self.generator).to(self.device)
        return self.parts["policy"].sample(features, noise)

    @torch.no_grad()
    def sample_for_penalty(self, features: Tensor, next_features: Tensor) -> tuple[Tensor, Tensor]:
        """Draws the actions [3K, B, A] of the conservative term; returns them with their log densities [3K, B]."""
        num, size = self.settings.num_sampled_actions, self.spaces.action_size
        assert size is not None
        uniform = 2 * torch.rand((num, len(features), size), generator=self.generator).to(self.device) - 1
        here, here_log_prob = self.sample(features, num)
        there, there_log_prob = self.sample(next_features, num)
        uniform_log_prob = torch.full_like(here_log_prob, -size * math.log(2))
        actions = torch.cat([uniform, here, there])
        return actions, torch.cat([uniform_log_prob, here_log_prob, there_log_prob])

    def choose(self, features: Tensor, generator: torch.Generator | None, temperature: float) -> Tensor:
        """Returns the actions of the policy."""
        return self.acting["policy"].act(features, generator, temperature)
