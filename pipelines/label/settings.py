"""Settings of `label` besides corpus and labeler."""

import dataclasses
from pathlib import Path

from vlm_rewards.pipelines.engine.settings import RunKeywords, RunSettings
from vlm_rewards.schemas.formats.common_options import ReadKeywords, ReadSettings
from vlm_rewards.schemas.options import option

_RUN_GROUP = "the run"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelRun(RunSettings, ReadSettings):
    """Settings of `label` besides corpus and labeler.

    Args:
        embeddings: Folder of kept embeddings: read where it is filled, filled where it is not; None to keep none.
        camera: Camera to label; may be None where the corpus has one.
        sparse: Store only the scores over the threshold.
        max_unit_mib: Size of the ranges that larger shards are cut into, in MiB.
        max_failure_share: Highest share of frames, and of shards, that may fail.
        decoders: Number of processes beside each model that read, decode, score and write, so that one process is left to the
            model alone; 0 for none, None for one per core on a GPU and none on a CPU.
    """

    embeddings: str | Path | None = dataclasses.field(
        default=None,
        metadata=option("DIR", "keep the frames' embeddings here; frames that are here already are not read again"),
    )
    camera: str | None = dataclasses.field(
        default=None, metadata=option("NAME", "camera to label", unset="the only one")
    )
    sparse: bool = dataclasses.field(
        default=False, metadata=option("", "store only scores over the threshold, for thousands of goals")
    )
    max_unit_mib: float = dataclasses.field(
        default=256,
        metadata=option("MIB", "larger shards are labelled in ranges of this size", group=_RUN_GROUP),
    )
    max_failure_share: float = dataclasses.field(
        default=0.01,
        metadata=option("SHARE", "highest share of frames, and of shards, that may be unreadable", group=_RUN_GROUP),
    )
    decoders: int | None = dataclasses.field(
        default=None,
        metadata=option(
            "N",
            "processes that read, decode, score and write beside each model; 0 for threads of its own process",
            unset="one per core on a GPU, 0 on a CPU",
            group=_RUN_GROUP,
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decoders is not None and self.decoders < 0:
            raise ValueError(f"decoders must be at least 0, got {self.decoders}; leave it out to have it chosen")

    @property
    def max_unit_bytes(self) -> int:
        """Size of a unit in bytes."""
        return int(self.max_unit_mib * 2**20)


class LabelKeywords(RunKeywords, ReadKeywords, total=False):
    """`LabelRun` as keyword arguments."""

    embeddings: str | Path | None
    camera: str | None
    sparse: bool
    max_unit_mib: float
    max_failure_share: float
    decoders: int | None
