"""Options for opening a corpus: those that every format takes, and those of one format."""

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
"""Options by name, each with a sentence for the user; a format has others of its own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadSettings:
    """Options for opening a corpus.

    Args:
        corpus_options: Options of the corpus's format, see `schemas.formats.corpus.open_corpus`.
        picture_range: Values of black and white in pictures of more than 8 bits, such as "0:4000"; None refuses such pictures.
        columns: Columns of other people's Parquet by our names for them, such as {"episode_id": "episode_index"}.
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
        """Options the corpus is opened with: those of its format and those of every format."""
        given = {} if self.picture_range is None else {PICTURE_RANGE: self.picture_range}
        if self.columns:
            given[COLUMNS] = json.dumps(dict(self.columns), sort_keys=True)
        return {**self.corpus_options, **given}


class ReadKeywords(TypedDict, total=False):
    """`ReadSettings` as keyword arguments."""

    corpus_options: Mapping[str, str]
    picture_range: str | None
    columns: Mapping[str, str]
