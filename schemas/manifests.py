"""Units of work, what happened to them, and the manifest that closes an output folder.

An output folder of every command:

    settings.json            what made it: kind, fingerprint, settings; written first, it claims the folder
    parts/<unit>.<ext>       one part a unit, complete or absent
    markers/<unit>.json      the unit's PartStatistics; written after the part: a unit with a marker is done
    failures/<unit>.jsonl    what could not be read in the unit, a Failure a line; only where something failed
    manifest.json            written last: all parts with rows and digests
"""

import dataclasses
import json
from collections.abc import Mapping

SCOPES = ("frame", "episode", "shard")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unit:
    """One unit of work: an input shard, or a range of a large one.

    Args:
        name: Stem of the part's file name; unique in a corpus and derived from the shard and the range.
        shard: Path of the input file; empty where a unit has none, such as episodes to record.
        start: First row group (Parquet), byte offset (tar) or episode (record) of the range.
        stop: End of the range, exclusive; -1 for the end of the shard.
        num_episodes: Episodes in the range, where the plan knows it, else None.
        num_frames: Frames in the range, where the plan knows it, else None.
        num_bytes: Size of the range in the shard, in bytes.
        content: A short digest of the shard's size and of its first and last bytes: a shard that was replaced is another.
    """

    name: str
    shard: str = ""
    start: int = 0
    stop: int = -1
    num_episodes: int | None = None
    num_frames: int | None = None
    num_bytes: int = 0
    content: str = ""

    def to_json(self) -> dict[str, object]:
        """The unit as a JSON object."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    """Something that could not be read, and why; the rest goes on.

    Args:
        scope: "frame", "episode" or "shard".
        shard: File name of the shard.
        episode_id: The episode, if the scope is smaller than a shard.
        frame_index: The frame, if the scope is a frame.
        reason: A short class of reasons, to count by, such as "undecodable image".
        detail: What exactly was wrong, with the value and the remedy.
        num_frames: Frames lost with it, 0 where unknown.
    """

    scope: str
    shard: str
    reason: str
    detail: str
    episode_id: str | None = None
    frame_index: int | None = None
    num_frames: int = 0

    def __post_init__(self) -> None:
        assert self.scope in SCOPES, self.scope

    def to_json(self) -> dict[str, object]:
        """The failure as a JSON object."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        where = [self.shard]
        if self.episode_id is not None:
            where.append(f"episode {self.episode_id}")
        if self.frame_index is not None:
            where.append(f"frame {self.frame_index}")
        return f"{', '.join(where)}: {self.reason}: {self.detail}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartStatistics:
    """A unit's marker: that it is done, and what was done.

    Args:
        unit: The unit.
        fingerprint: Digest of the output's fingerprint.
        rows: Rows (or samples) in the part.
        episodes: Episodes in the part.
        failures: Number of failures by reason.
        failed_frames: Frames that have no row because they, their episode or their shard failed, as far as known.
        sha256: Digest of the part's bytes.
        num_bytes: Size of the part.
        seconds: Time spent by stage, in seconds.
        counts: Other numbers worth keeping, such as frames encoded and frames found in the cache.
    """

    unit: Unit
    fingerprint: str
    rows: int
    episodes: int
    failures: Mapping[str, int]
    failed_frames: int
    sha256: str
    num_bytes: int
    seconds: Mapping[str, float]
    counts: Mapping[str, int]

    def to_json(self) -> str:
        """The marker's text."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "PartStatistics":
        """The inverse of `to_json`."""
        record = json.loads(text)
        return cls(**{**record, "unit": Unit(**record["unit"])})
