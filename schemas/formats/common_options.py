"""What a corpus is told when it is opened: options that every corpus takes, whatever its format, and those of its format."""

import dataclasses
import json
from collections.abc import Mapping
from typing import TypedDict

from vlm_rewards.schemas.options import option, read_assignment

PICTURE_RANGE = "picture-range"
COLUMNS = "columns"
"""Option of formats of tables: a JSON object of columns by our names."""
COMMON_OPTIONS = {
    PICTURE_RANGE: "values that are black and white in pictures of more than 8 bits, such as 0:4000; refused without"
}
"""By name, with a sentence for people; a format has others of its own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadSettings:
    """What a corpus is told when it is opened.

    Args:
        corpus_options: What the format of the corpus is told, see `schemas.formats.corpus.open_corpus`.
        picture_range: Values that are black and white in pictures of more than 8 bits, such as "0:4000"; None refuses them.
        columns: By our names, columns of others' Parquet that stand for ours, such as {"episode_id": "episode_index"}.
    """

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


class ReadKeywords(TypedDict, total=False):
    """`ReadSettings` as keyword arguments."""

    corpus_options: Mapping[str, str]
    picture_range: str | None
    columns: Mapping[str, str]
