"""Behaviour cloning and filtered behaviour cloning, the baselines that are always reported.

Source: BC is maximum likelihood of the recorded actions; filtered (or %-) BC clones only what succeeded, as in Chen et al.
2021 (Decision Transformer) and Kumar et al. 2022 (When should we prefer offline RL over behavioral cloning). Here success is
what the labels say of the segment, and a transition counts under the goal that it is drawn with.

Shape letters as in `offline_rl.interfaces`.
"""

import dataclasses

import torch
from torch import Tensor, nn

from vlm_rewards.offline_rl.algorithms.learner import Learner, LearnerSettings, build_cloned_policy, cut_features
from vlm_rewards.offline_rl.interfaces import Batch
from vlm_rewards.offline_rl.networks.encoder import Encoder


@dataclasses.dataclass(frozen=True, kw_only=True)
class BcSettings(LearnerSettings):
    """Settings of `Bc` and `FilteredBc`, with the learning rate of IQL."""

    learning_rate: float = 1e-3
    acting_polyak: float = 0.002


def cloning_loss(log_prob: Tensor, weights: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the negative log-likelihood of the recorded actions: -sum(w log pi(a|s,g)) / sum(w).

    Args:
        log_prob: [B].
        weights: [B], 1 for transitions that are cloned and 0 for the others.

    Returns:
        The loss, and policy_loss and cloned_share to log.
    """
    loss = -(weights * log_prob).sum() / weights.sum()
    return loss, {"policy_loss": loss, "cloned_share": weights.mean()}


class Bc(Learner[BcSettings]):
    """Clones every recorded action, discrete or continuous."""

    def build_parts(self) -> dict[str, nn.Module]:
        """Builds encoder and policy."""
        policy = build_cloned_policy(self.settings, self.spaces)
        return {"encoder": Encoder(self.settings, self.spaces), "policy": policy}

    def cloned(self, batch: Batch) -> Tensor:
        """Returns the weights [B] of the transitions."""
        return torch.ones_like(batch.rewards)

    def learn(self, batch: Batch) -> dict[str, Tensor]:
        """Makes one step of policy and encoder."""
        features = self.encode(batch, self.parts)
        cut = cut_features(features)
        loss, info = cloning_loss(self.parts["policy"].log_prob(cut, batch.actions), self.cloned(batch))
        self.step("policy", loss, cut)
        self.step_encoder(features, cut)
        return info

    def choose(self, features: Tensor, generator: torch.Generator | None, temperature: float) -> Tensor:
        """Returns the actions of the policy."""
        return self.acting["policy"].act(features, generator, temperature)


class FilteredBc(Bc):
    """Clones the actions of segments that end in success."""

    def cloned(self, batch: Batch) -> Tensor:
        """Returns the weights [B] of the transitions: 1 if the segment ends in success.

        Raises:
            ValueError: No segment of the batch ends in success.
        """
        if not batch.successes.any():
            raise ValueError(
                f"a batch for filtered BC must hold a transition of a successful segment, got none of {len(batch.successes)}. "
                "Draw larger batches, or from successful segments only, or add hindsight goals to the corpus."
            )
        return batch.successes.float()
