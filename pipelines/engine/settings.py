"""Settings of how a run works on Beam; nothing here changes what it writes."""

import dataclasses
import os
from collections.abc import Sequence
from typing import TypedDict

from vlm_rewards.schemas.options import as_declared, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Settings of how a run works.

    Args:
        workers: Workers on this machine; None for one per core.
        beam_options: Options for Apache Beam, as given after a bare `--`.
    """

    workers: int | None = dataclasses.field(
        default=None, metadata=option("N", "workers on this machine", unset="one per core")
    )
    beam_options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        as_declared(self)


class RunKeywords(TypedDict, total=False):
    """`RunSettings` as keyword arguments."""

    workers: int | None
    beam_options: Sequence[str]


def available_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))
