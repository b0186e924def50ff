"""Settings of how `hindsight` writes; which goals it chooses is in `labelers.rewards.hindsight`."""

import dataclasses

from vlm_rewards.pipelines.engine.settings import RunKeywords, RunSettings
from vlm_rewards.schemas.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class HindsightRun(RunSettings):
    """Settings of how `hindsight` writes.

    Args:
        format: Container of the output: "parquet" or "webdataset".
        max_failure_share: Highest share of episodes, and of shards, that may fail; one unlabelled frame fails its episode.
    """

    format: str = dataclasses.field(
        default="parquet", metadata=option("NAME", "container of the output, such as parquet or webdataset")
    )
    max_failure_share: float = dataclasses.field(
        default=0.01, metadata=option("SHARE", "highest share of episodes, and of shards, that may fail")
    )


class HindsightKeywords(RunKeywords, total=False):
    """`HindsightSettings` and `HindsightRun` as keyword arguments."""

    strategy: str
    goals_per_episode: int
    ratio: tuple[float, float, float]
    balance: float
    seed: int
    format: str
    max_failure_share: float
