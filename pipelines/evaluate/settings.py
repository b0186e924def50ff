"""Settings of what `evaluate` measures labels against."""

import dataclasses
from pathlib import Path

from vlm_rewards.pipelines.engine.settings import RunKeywords, RunSettings
from vlm_rewards.schemas.options import option

ACHIEVED_GOALS, SUCCESS = "achieved-goals", "success"
TRUTHS = (ACHIEVED_GOALS, SUCCESS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateRun(RunSettings):
    """Truth that a run of `evaluate` measures labels against.

    Args:
        truth: Truth from the corpus itself: "achieved-goals", for every frame the goals that hold, or "success", what the recording
            says of the goal that an episode is of, see `pipelines.evaluate.recorded_success`.
        goal: Id of the goal that the recorded success of all episodes is of; None for the one that each instruction asks for.
        marks: CSV of frames that a person marked, see `schemas.formats.marks`; in place of the corpus's own truth.

    Raises:
        ValueError: `truth` is none of these, or options contradict each other.
    """

    truth: str = dataclasses.field(
        default=ACHIEVED_GOALS, metadata=option("", "what the corpus says that is the truth", choices=TRUTHS)
    )
    goal: str | None = dataclasses.field(
        default=None,
        metadata=option("ID", "goal that the recorded success of all episodes is of", unset="that of the instruction"),
    )
    marks: str | Path | None = dataclasses.field(
        default=None,
        metadata=option(
            "FILE", "instead, a CSV of frames that a person marked: episode_id, frame_index, goal, achieved (0 or 1)"
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_truth(self.truth, self.goal, self.marks)


def check_truth(truth: str, goal: str | None, marks: str | Path | None) -> None:
    """Refuses settings of truth that contradict each other; see `EvaluateRun`.

    Raises:
        ValueError: `truth` is not one of TRUTHS, or comes with marks, or a goal without recorded success.
    """
    if truth not in TRUTHS:
        raise ValueError(f"truth must be one of {', '.join(TRUTHS)}: got {truth!r}. Choose one of them")
    if marks is not None and truth != ACHIEVED_GOALS:
        raise ValueError(
            f"truth must come from the corpus or from marks: got {truth!r} and {marks}. Leave one of them out"
        )
    if goal is not None and truth != SUCCESS:
        raise ValueError(
            f"a goal must be given with the truth {SUCCESS!r} alone: got {goal!r} with "
            f"{'marks' if marks is not None else repr(truth)}. Leave it out, or give --truth {SUCCESS}"
        )


class EvaluateKeywords(RunKeywords, total=False):
    """`EvaluateRun` as keyword arguments."""

    truth: str
    goal: str | None
    marks: str | Path | None
