"""What an agent's networks can use of a domain: what its frames are drawn of, and which actions are cells of a frame.

    frame_grid (2, 3)               action_grid (2, 3) of 8 actions
    ┌──┬──┬──┐ a frame is drawn     ┌──┬──┬──┐ action 0 is the cell at the top left, action 5
    ├──┼──┼──┤ of 2 x 3 tiles       │0 │1 │2 │ the one at the bottom right; actions 6 and 7
    └──┴──┴──┘                      │3 │4 │5 │ are no cells
                                    └──┴──┴──┘

A domain may state them by a method `agent_facts`, which is no part of `labelers.domains.domain.Domain`: a domain without it has
frames of any kind and actions that are no cells.
"""

import dataclasses
import math
from typing import Protocol, runtime_checkable

from vlm_rewards.labelers.domains.domain import Domain, FrameSize


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgentFacts:
    """Facts about frames of one size and the actions of every environment of a domain.

    Args:
        frame_grid: Rows and columns of the tiles that a frame is drawn of; None where frames are no grid of tiles.
        action_grid: Rows and columns of a grid over the whole frame whose cells are the first actions, row by row; None where no
            action is a cell.
        num_actions: Number of actions of every environment, for corpora in which the last ones were never taken; None for the
            highest recorded one and those under it.

    Raises:
        ValueError: A grid has no cell, or there are fewer actions than cells.
    """

    frame_grid: tuple[int, int] | None = None
    action_grid: tuple[int, int] | None = None
    num_actions: int | None = None

    def __post_init__(self) -> None:
        for name in ("frame_grid", "action_grid"):
            grid = getattr(self, name)
            if grid is not None and not (len(grid) == 2 and min(grid) >= 1):
                raise ValueError(f"{name} must be numbers of rows and columns, got {grid}. Correct it, or leave it out")
        if self.action_grid is not None and not math.prod(self.action_grid) <= (self.num_actions or 0):
            raise ValueError(
                f"num_actions must be at least the number of cells of {self.action_grid}, got {self.num_actions}. State all actions"
            )


@runtime_checkable
class StatesAgentFacts(Protocol):
    """A domain that states facts for agents."""

    def agent_facts(self, frame_size: FrameSize) -> AgentFacts:
        """Returns the facts that hold for frames of (H, W)."""


def agent_facts_of(domain: Domain, frame_size: FrameSize) -> AgentFacts:
    """Returns what a domain states about its frames of (H, W) and its actions; no facts where it states none."""
    return domain.agent_facts(frame_size) if isinstance(domain, StatesAgentFacts) else AgentFacts()
