"""Settings of what `calibrate` reads besides labels; what it optimises is in `labelers.calibration.settings`."""

import dataclasses
from pathlib import Path

from vlm_rewards.pipelines.engine.settings import RunKeywords, RunSettings
from vlm_rewards.schemas.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrateRun(RunSettings):
    """Inputs of a run of `calibrate` besides labels.

    Args:
        corpus: Corpus that was labelled, with ground truth; None with `marks`, or without any truth.
        marks: CSV of frames that a person marked, see `schemas.formats.marks`; instead of a corpus.
        embeddings: Kept embeddings of the labels' frames: to choose the temperature, too.
        max_temperature_frames: Size of the subsample that the temperature is chosen on, in frames, about.
    """

    corpus: str | Path | None = dataclasses.field(
        default=None, metadata=option("PATH", "corpus that was labelled, with ground truth", name="input")
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


class CalibrateKeywords(RunKeywords, total=False):
    """`CalibrationSettings` and `CalibrateRun` as keyword arguments."""

    objective: str
    precision: float | None
    level: float | None
    confidence: float | None
    quantile: float | None
    min_examples: int
    corpus: str | Path | None
    marks: str | Path | None
    embeddings: str | Path | None
    max_temperature_frames: int
