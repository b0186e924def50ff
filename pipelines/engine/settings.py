"""Settings of how a run works on Beam; nothing here changes what it writes."""

import dataclasses
import os
from collections.abc import Sequence
from typing import TypedDict

from vlm_rewards.schemas.options import as_declared, option

LOG_FORMATS = ("text", "json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Settings of how a run works.

    Args:
        workers: Workers on this machine; None for one per core.
        beam_options: Options for Apache Beam, as given after a bare `--`.
        log_format: "text" for people, or "json" for one JSON object per line on standard error.
    """

    workers: int | None = dataclasses.field(
        default=None, metadata=option("N", "workers on this machine", unset="one per core")
    )
    beam_options: tuple[str, ...] = ()
    log_format: str = dataclasses.field(
        default="text",
        metadata=option(
            "FORMAT",
            "progress, warnings and errors on standard error: text, or one JSON object per line",
            choices=LOG_FORMATS,
        ),
    )

    def __post_init__(self) -> None:
        as_declared(self)
        if self.log_format not in LOG_FORMATS:
            raise ValueError(f"log_format must be one of {', '.join(LOG_FORMATS)}: got {self.log_format!r}")


class RunKeywords(TypedDict, total=False):
    """`RunSettings` as keyword arguments."""

    workers: int | None
    beam_options: Sequence[str]
    log_format: str


def available_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))
