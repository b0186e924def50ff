"""How thoroughly a corpus is inspected, as plain data."""

import dataclasses
from collections.abc import Mapping
from typing import TypedDict

from vlm_rewards.schemas.options import as_declared, option, read_assignment


@dataclasses.dataclass(frozen=True, kw_only=True)
class InspectRun:
    """How thoroughly a corpus is inspected.

    Args:
        frames: Decode every frame of every camera, and count those that are unreadable, black, or the same as the one before.
        corpus_options: What the format of the corpus is told, see `schemas.formats.corpus.open_corpus`.
    """

    frames: bool = dataclasses.field(
        default=False,
        metadata=option(
            "",
            "decode every frame of every camera: count unreadable ones, black ones, and repetitions of the one before",
        ),
    )
    corpus_options: Mapping[str, str] = dataclasses.field(
        default_factory=dict,
        metadata=option(
            "NAME=VALUE", "option of the corpus's format; repeatable", name="corpus-option", read=read_assignment
        ),
    )

    def __post_init__(self) -> None:
        as_declared(self)


class InspectKeywords(TypedDict, total=False):
    """`InspectRun` as keyword arguments."""

    frames: bool
    corpus_options: Mapping[str, str]
