"""How thoroughly a corpus is inspected, as plain data."""

import dataclasses

from vlm_rewards.schemas.formats.common_options import ReadKeywords, ReadSettings
from vlm_rewards.schemas.options import as_declared, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class InspectRun(ReadSettings):
    """How thoroughly a corpus is inspected.

    Args:
        frames: Decode every frame of every camera, and count those that are unreadable, black, or the same as the one before.
    """

    frames: bool = dataclasses.field(
        default=False,
        metadata=option(
            "",
            "decode every frame of every camera: count unreadable ones, black ones, and repetitions of the one before",
        ),
    )

    def __post_init__(self) -> None:
        as_declared(self)


class InspectKeywords(ReadKeywords, total=False):
    """`InspectRun` as keyword arguments."""

    frames: bool
