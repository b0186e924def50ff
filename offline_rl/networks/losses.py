"""Losses that several algorithms share, as pure functions of the outputs of networks.

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
    """Returns the squared temporal-difference error, sum_i E[(r + discount * m * V(s') - Q_i)^2].

    Args:
        q: [N, B], values of the recorded actions.
        rewards: [B].
        masks: [B], 0 if the step achieved the goal: the value of what follows is not added.
        next_values: [B], value of the next observation, without gradient.
        discount: Discount factor per step.
        returns: [B], recorded returns to go, a lower bound of the targets; None for no bound.

    Returns:
        The loss, and critic_loss and the means q and td_target to log.
    """
    target = (rewards + discount * masks * next_values).detach()
    if returns is not None:
        target = torch.maximum(target, returns)
    loss = ((target - q) ** 2).mean(1).sum(0)
    return loss, {"critic_loss": loss, "q": q.mean(), "td_target": target.mean()}


def min_of_critics(q: Tensor, num_min_critics: int, generator: torch.Generator) -> Tensor:
    """Returns the smallest value of all critics, or of a few random ones (REDQ, Chen et al. 2021).

    Args:
        q: [N, ...].
        num_min_critics: Number of critics; N for all, without a draw.
        generator: Random generator on the CPU that draws them, the same ones for the whole batch.

    Returns:
        [...].
    """
    if num_min_critics == len(q):
        return q.amin(0)
    chosen = torch.randperm(len(q), generator=generator)[:num_min_critics]
    return q[chosen.to(q.device)].amin(0)
