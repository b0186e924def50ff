"""Conservative Q-learning for discrete actions, with or without the calibration of Cal-QL, offline and online.

    L = sum_i E[(r + discount m Qt(s', a', g) - Q_i(s, a, g))^2] + alpha sum_i E[logsumexp_b Q'_i(s, b, g) - Q_i(s, a, g)]
    a' = argmax_b mean_i Q_i(s', b, g)                      (double DQN: the online critics choose, the targets judge)
    CQL      Q'_i(s, b, g) = Q_i(s, b, g)
    Cal-QL   Q'_i(s, b, g) = max(Q_i(s, b, g), G) for b != a, G the return to go of the recorded segment

CQL pushes the values of unrecorded actions down without limit, which fine-tuning then has to make up for; Cal-QL stops where a
value is already below what the recording reached from there.

Source: Kumar et al. 2020, "Conservative Q-Learning for Offline Reinforcement Learning"; Nakamoto et al. 2023, "Cal-QL".
Differences: goals; discrete actions, so the logsumexp is exact and needs no samples; an ensemble of critics whose smallest value is
the target; alpha is smaller than the papers' 1 to 5 because returns here are between 0 and 1 and not in the hundreds. As in the
authors' code and not as in CORL, the calibration stays on online, where G is the return of finished episodes.

Shape letters as in `offline_rl.interfaces`; N critics, M actions.
"""

import dataclasses

import torch
from torch import Tensor, nn

from vlm_rewards.offline_rl.algorithms.learner import CriticSettings, Learner, bounds_of, build_critic, cut_features
from vlm_rewards.offline_rl.interfaces import Batch, Spaces
from vlm_rewards.offline_rl.networks.encoder import Encoder, check_rules
from vlm_rewards.offline_rl.networks.heads import draw_actions, take_actions
from vlm_rewards.offline_rl.networks.losses import min_of_critics, td_loss


@dataclasses.dataclass(frozen=True, kw_only=True)
class CqlSettings(CriticSettings):
    """Settings of `Cql`.

    Args:
        alpha: Weight of the conservative term; the squared errors are of returns between 0 and 1.
        calibrated: Whether values are pushed no lower than recorded returns (Cal-QL).
        policy_temperature: Temperature t of the policy softmax(Q / t). Compare it with the value that one wasted step costs, about
            1 - discount.

    Raises:
        ValueError: A value is out of its range.
    """

    alpha: float = 0.1
    calibrated: bool = False
    policy_temperature: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rules(
            alpha=(self.alpha >= 0, "at least 0", self.alpha),
            policy_temperature=(self.policy_temperature > 0, "above 0", self.policy_temperature),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalQlSettings(CqlSettings):
    """Settings of the algorithm "cal-ql": `Cql`, calibrated by default."""

    calibrated: bool = True


def conservative_loss(q: Tensor, actions: Tensor, returns: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns sum_i E[logsumexp_b Q'_i(s, b) - Q_i(s, a)].

    Args:
        q: [N, B, M].
        actions: [B] int64, the recorded actions.
        returns: [B], recorded returns to go, the least that the values of other actions count as (Cal-QL); None for CQL.

    Returns:
        The loss, and conservative_loss to log.
    """
    recorded = take_actions(q, actions)
    if returns is not None:
        is_recorded = torch.arange(q.shape[-1], device=q.device) == actions[:, None]
        q = torch.where(is_recorded, q, torch.maximum(q, returns[:, None]))
    loss = (torch.logsumexp(q, dim=-1) - recorded).mean(1).sum(0)
    return loss, {"conservative_loss": loss}


class Cql(Learner[CqlSettings]):
    """CQL or Cal-QL; its policy is the softmax of its values."""

    target_names = ("encoder", "critic")
    acting_names = ("encoder", "critic")

    def check_spaces(self, spaces: Spaces) -> None:
        """Refuses continuous actions.

        Raises:
            ValueError: Actions are continuous.
        """
        if spaces.num_actions is None:
            raise ValueError(
                f"actions must be discrete for cql and cal-ql, got action_size {spaces.action_size}. Use sac-cal-ql, their form "
                "for continuous actions."
            )

    def build_parts(self) -> dict[str, nn.Module]:
        """Builds encoder and critics."""
        return {"encoder": Encoder(self.settings, self.spaces), "critic": build_critic(self.settings, self.spaces)}

    def learn(self, batch: Batch) -> dict[str, Tensor]:
        """Makes one step of critics and encoder, then of the targets."""
        settings = self.settings
        with torch.no_grad():
            choices = self.parts["critic"].values(self.encode_next(batch, self.parts)).mean(0).argmax(-1)
            next_q = self.targets["critic"](self.encode_next(batch, self.targets), choices)
            next_values = min_of_critics(next_q, settings.num_min_critics, self.generator)

        features = self.encode(batch, self.parts)
        cut = cut_features(features)
        q = self.parts["critic"].values(cut)
        loss, info = td_loss(
            take_actions(q, batch.actions),
            batch.rewards,
            batch.masks,
            next_values,
            settings.discount,
            bounds_of(settings, batch),
        )
        returns = batch.returns if settings.calibrated else None
        penalty, penalty_info = conservative_loss(q, batch.actions, returns)
        self.step("critic", loss + settings.alpha * penalty, cut)
        self.step_encoder(features, cut)
        self.move_targets(settings.polyak)
        return info | penalty_info

    def choose(self, features: Tensor, generator: torch.Generator | None, temperature: float) -> Tensor:
        """Returns actions of the softmax of the mean value, or the best ones."""
        values = self.acting["critic"].values(features).mean(0)
        return draw_actions(values / self.settings.policy_temperature, generator, temperature)
