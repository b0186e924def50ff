"""What a run of `label` reads and keeps besides corpus and labeler, as plain data."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from vlm_rewards.pipelines.engine.settings import RunKeywords, RunSettings
from vlm_rewards.schemas.formats.common_options import COLUMNS, PICTURE_RANGE
from vlm_rewards.schemas.options import option, read_assignment

_RUN_GROUP = "the run"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelRun(RunSettings):
    """What a run of `label` reads and keeps besides corpus and labeler.

    Args:
        embeddings: Folder of kept embeddings: read where it is filled, filled where it is not; None to keep none.
        camera: Camera to label; may be None where the corpus has one.
        sparse: Store only the scores over the threshold.
        max_unit_mib: Size of the ranges that larger shards are cut into, in MiB.
        max_failure_share: Highest share of frames, and of shards, that may fail.
        picture_range: Values that are black and white in pictures of more than 8 bits, such as "0:4000"; None refuses them.
        columns: By our names, columns of others' Parquet that stand for ours, such as {"episode_id": "episode_index"}.
        corpus_options: What the format of the corpus is told, see `schemas.formats.corpus.open_corpus`.
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

    corpus_options: Mapping[str, str] = dataclasses.field(
        default_factory=dict,
        metadata=option(
            "NAME=VALUE", "option of the corpus's format; repeatable", name="corpus-option", read=read_assignment
        ),
    )

    picture_range: str | None = dataclasses.field(
        default=None,
        metadata=option(
            "BLACK:WHITE", "values that are black and white in pictures of 16 bits, such as 0:4000", unset="refused"
        ),
    )

    columns: Mapping[str, str] = dataclasses.field(
        default_factory=dict,
        metadata=option(
            "OURS=NAME",
            "column of others' Parquet that stands for ours, such as episode_id=episode_index; repeatable",
            name="column",
            read=read_assignment,
        ),
    )

    @property
    def read_options(self) -> dict[str, str]:
        """What the corpus is opened with: the options of its format, and those of every format."""
        given = {} if self.picture_range is None else {PICTURE_RANGE: self.picture_range}
        if self.columns:
            given[COLUMNS] = json.dumps(dict(self.columns), sort_keys=True)
        return {**self.corpus_options, **given}

    @property
    def max_unit_bytes(self) -> int:
        """Size of a unit in bytes."""
        return int(self.max_unit_mib * 2**20)


class LabelKeywords(RunKeywords, total=False):
    """`LabelRun` as keyword arguments."""

    embeddings: str | Path | None
    camera: str | None
    sparse: bool
    max_unit_mib: float
    max_failure_share: float
    corpus_options: Mapping[str, str]
    picture_range: str | None
    columns: Mapping[str, str]
