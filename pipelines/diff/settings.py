"""Settings of `diff`."""

import dataclasses
from pathlib import Path

from vlm_rewards.pipelines.engine.settings import RunKeywords, RunSettings
from vlm_rewards.schemas.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffRun(RunSettings):
    """Inputs of `diff` besides two folders of labels, and its output.

    Args:
        output: Folder for diff.json; absent, empty, or of an earlier diff.
        corpus: Corpus that was labelled, with ground truth: to compare the quality of both, too.
        tolerance: Difference above which a score has changed.
    """

    output: str | Path = dataclasses.field(
        default="diff", metadata=option("DIR", "folder for diff.json; empty, or of an earlier diff")
    )
    corpus: str | Path | None = dataclasses.field(
        default=None,
        metadata=option("PATH", "corpus, with ground truth: to compare the quality of both, too", name="input"),
    )
    tolerance: float = dataclasses.field(
        default=0.0, metadata=option("X", "a score has changed where it differs by more than X")
    )


class DiffKeywords(RunKeywords, total=False):
    """`DiffRun` as keyword arguments."""

    output: str | Path
    corpus: str | Path | None
    tolerance: float
