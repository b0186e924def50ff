"""Settings of an export."""

import dataclasses
from pathlib import Path
from typing import TypedDict

from vlm_rewards.labelers.rewards.hindsight import STRATEGIES, HindsightSettings
from vlm_rewards.schemas.options import option

OWN_GOAL = "own"
"""Stands for the goal that each episode's instruction asks for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportRun:
    """Settings of an export.

    Args:
        output: Folder for what it makes, empty or not there; None with `in_place`.
        in_place: Whether the corpus itself is changed.
        goal: Id of the one goal that all episodes are judged by; "own" for the goal that each episode's instruction asks for.
        smooth: Frames of the centred moving average that scores go through; an odd number, 1 for none.
        all_scores: Whether the scores of all goals are written too, as a vector per frame.
        link: Whether unchanged files of a copy are hard links to the corpus's own.
        strategy: Which achievement of a hindsight goal ends its rows, of `labelers.rewards.hindsight.STRATEGIES`.
        seed: Seed of the draw of hindsight goals.

    Raises:
        ValueError: There is no such strategy.
    """

    output: Path | None = dataclasses.field(
        default=None, metadata=option("DIR", "folder for what is made; empty, or not there")
    )
    in_place: bool = dataclasses.field(
        default=False, metadata=option("", "change the corpus itself; all of it or, after an interruption, nothing")
    )
    goal: str = dataclasses.field(
        default=OWN_GOAL,
        metadata=option("ID", "goal that all episodes are judged by; 'own' is the one that its instruction asks for"),
    )
    smooth: int = dataclasses.field(
        default=1, metadata=option("N", "frames of the centred moving average that written scores go through; odd")
    )
    all_scores: bool = dataclasses.field(
        default=False,
        metadata=option("", "write the scores of all goals too, as one vector per frame, where the format can"),
    )
    link: bool = dataclasses.field(
        default=False, metadata=option("", "make unchanged files of a copy hard links to those of the corpus")
    )
    strategy: str = dataclasses.field(
        default="first",
        metadata=option(
            "",
            "of lerobot-hindsight: which achievement of the goal ends its rows, the first, one that still holds at the end, or "
            "one drawn at random",
            choices=STRATEGIES,
        ),
    )
    seed: int = dataclasses.field(default=0, metadata=option("N", "of lerobot-hindsight: seed of the draw of goals"))

    def __post_init__(self) -> None:
        HindsightSettings(strategy=self.strategy, seed=self.seed)


class ExportKeywords(TypedDict, total=False):
    """`ExportRun` as keyword arguments."""

    output: str | Path | None
    in_place: bool
    goal: str
    smooth: int
    all_scores: bool
    link: bool
    strategy: str
    seed: int
