"""Losses that several algorithms share, as pure functions of what the networks gave.

Shape letters: B transitions, N critics.
"""

import torch
from torch import Tensor


def td_loss(
    q: Tensor,
    rewards: Tensor,
    masks: Tensor,
    next_values: Tensor,
    discount: float,
    returns: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Squared temporal-difference error: sum_i E[(r + discount * m * V(s') - Q_i)^2].

    Args:
        q: [N, B], values of the recorded actions.
        rewards: [B].
        masks: [B], 0 where the step achieved the goal: what follows is not added.
        next_values: [B], value of the next observation; no gradient flows into it.
        discount: Of a step.
        returns: [B], the recorded returns to go, below which no target is; None for the plain target.

    Returns:
        The loss, and critic_loss, q and td_target (means) to log.
    """
    target = (rewards + discount * masks * next_values).detach()
    if returns is not None:
        target = torch.maximum(target, returns)
    loss = ((target - q) ** 2).mean(1).sum(0)
    return loss, {"critic_loss": loss, "q": q.mean(), "td_target": target.mean()}


def min_of_critics(q: Tensor, num_min_critics: int, generator: torch.Generator) -> Tensor:
    """The smallest value among the critics, or among a random few of them (REDQ, Chen et al. 2021).

    Args:
        q: [N, ...].
        num_min_critics: Of how many critics; N for all, which draws nothing.
        generator: On the CPU; draws which ones, the same for the whole batch.

    Returns:
        [...].
    """
    if num_min_critics == len(q):
        return q.amin(0)
    chosen = torch.randperm(len(q), generator=generator)[:num_min_critics]
    return q[chosen.to(q.device)].amin(0)
