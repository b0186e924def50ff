"""Settings of what `calibrate` reads besides labels; what it optimises is in `labelers.calibration.settings`."""

import dataclasses
from pathlib import Path

from vlm_rewards.pipelines.engine.settings import RunKeywords, RunSettings
from vlm_rewards.pipelines.evaluate.settings import ACHIEVED_GOALS, TRUTHS, check_truth
from vlm_rewards.schemas.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrateRun(RunSettings):
    """Inputs of a run of `calibrate` besides labels.

    Args:
        corpus: Corpus that was labelled, with ground truth; None with `marks`, or without any truth.
        truth: Truth from the corpus itself, as of `pipelines.evaluate.settings.EvaluateRun`.
        goal: Id of the goal that the recorded success of all episodes is of; None for the one that each instruction asks for.
        marks: CSV of frames that a person marked, see `schemas.formats.marks`; instead of a corpus.
        embeddings: Kept embeddings of the labels' frames: to choose the temperature, too.
        max_temperature_frames: Size of the subsample that the temperature is chosen on, in frames, about.

    Raises:
        ValueError: `truth` is unknown, or options contradict each other.
    """

    corpus: str | Path | None = dataclasses.field(
        default=None, metadata=option("PATH", "corpus that was labelled, with ground truth", name="input")
    )
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
    embeddings: str | Path | None = dataclasses.field(
        default=None, metadata=option("DIR", "kept embeddings of the labels: to choose the temperature, too")
    )
    max_temperature_frames: int = dataclasses.field(
        default=20_000, metadata=option("N", "frames, about, that the temperature is chosen on")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_truth(self.truth, self.goal, self.marks)


class CalibrateKeywords(RunKeywords, total=False):
    """`CalibrationSettings` and `CalibrateRun` as keyword arguments."""

    objective: str
    precision: float | None
    level: float | None
    confidence: float | None
    quantile: float | None
    min_examples: int
    corpus: str | Path | None
    truth: str
    goal: str | None
    marks: str | Path | None
    embeddings: str | Path | None
    max_temperature_frames: int
