"""Heads for actions of which the first are cells of the frame, such as touches of a screen: one head for all cells.

    features [B, F + K C] ─┬─ F ──────────────────────────────► head ──► the other M - K actions ─┐
                           │  └─► hidden layer ─┐                                                 ├──► [B, M]
                           └─ K cells of C ────►┴─ relu, norm ──► one number per cell ──► K ──────┘

Every cell is judged by what is in it and by the features of the whole frame, with the same weights, so what is learned of an icon
in one cell holds in all others.

Shape letters: B batch, F width of the features of the whole frame, K cells, C channels of a cell, H width of the hidden layer, M
discrete actions, N critics.
"""

import torch
from torch import Tensor, nn

from vlm_rewards.offline_rl.networks.heads import DiscreteCritic, EnsembleLinear, EnsembleNorm, Head, take_actions


class GridHead(nn.Module):
    """Numbers for M actions, of which the first K are cells.

    Args:
        width: F.
        num_cells: K.
        channels: C.
        num_actions: M, at least K.
        scale: Factor of the last layers' initial weights.
    """

    def __init__(self, width: int, num_cells: int, channels: int, num_actions: int, *, scale: float = 1.0) -> None:
        super().__init__()
        self.width = width
        self.shape = (num_cells, channels)
        hidden = 2 * channels
        self.cell = nn.Linear(channels, hidden)
        self.whole = nn.Linear(width, hidden, bias=False)
        self.norm = nn.LayerNorm(hidden)
        self.out = nn.Linear(hidden, 1)
        self.others = Head(width, num_actions - num_cells, scale=scale) if num_actions > num_cells else None
        with torch.no_grad():
            self.out.weight.mul_(scale)
            self.out.bias.mul_(scale)

    def forward(self, features: Tensor) -> Tensor:
        """Maps [B, F + K C] to [B, M]."""
        whole, cells = features[:, : self.width], features[:, self.width :].unflatten(1, self.shape)
        hidden = self.cell(cells) + self.whole(whole)[:, None]
        of_cells = self.out(torch.relu(self.norm(hidden))).squeeze(-1)
        return of_cells if self.others is None else torch.cat([of_cells, self.others(whole)], dim=1)


class GridCritic(nn.Module):
    """N critics of M discrete actions, of which the first K are cells; otherwise like `heads.DiscreteCritic`.

    Args:
        width: F.
        num_cells: K.
        channels: C.
        num_actions: M, at least K.
        num_critics: N.
    """

    def __init__(self, width: int, num_cells: int, channels: int, num_actions: int, num_critics: int) -> None:
        super().__init__()
        self.width = width
        self.shape = (num_cells, channels)
        hidden = 2 * channels
        self.cell = EnsembleLinear(num_critics, channels, hidden)
        self.whole = EnsembleLinear(num_critics, width, hidden)
        self.norm = EnsembleNorm(num_critics, hidden)
        self.out = EnsembleLinear(num_critics, hidden, 1)
        rest = num_actions - num_cells
        self.others = DiscreteCritic(width, rest, num_critics) if rest else None

    def values(self, features: Tensor) -> Tensor:
        """Maps [B, F + K C] to the values of all actions, [N, B, M]."""
        whole, cells = features[:, : self.width], features[:, self.width :].unflatten(1, self.shape)
        of_cell = self.cell(cells.flatten(0, 1)).unflatten(1, cells.shape[:2])
        hidden = (of_cell + self.whole(whole)[:, :, None]).flatten(1, 2)
        of_cells = self.out(torch.relu(self.norm(hidden))).unflatten(1, cells.shape[:2]).squeeze(-1)
        return of_cells if self.others is None else torch.cat([of_cells, self.others.values(whole)], dim=-1)

    def forward(self, features: Tensor, actions: Tensor) -> Tensor:
        """Maps [B, F + K C] and [B] int64 to the values of these actions, [N, B]."""
        return take_actions(self.values(features), actions)
