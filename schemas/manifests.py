"""Units of work, their markers and failures, and the manifest that completes an output folder.

An output folder of every command:

    settings.json            kind, fingerprint and settings; written first, it claims the folder
    parts/<unit>.<ext>       one part per unit, complete or absent
    markers/<unit>.json      the unit's PartStatistics; written after the part: a unit with a marker is done
    failures/<unit>.jsonl    one Failure per line for each unreadable item; only if something failed
    manifest.json            written last: all parts with rows and digests
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

SCOPES = ("frame", "episode", "shard")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unit:
    """One unit of work: an input file, several small ones, or a range of a large one.

    Args:
        name: Stem of the part's file name; unique in a corpus and derived from its files and the range.
        files: Input files by their names below the corpus's folder, in order; none where there is no input, such as
            episodes to record.
        start: Where the range begins in the first file: rows, bytes, episodes, as the format counts.
        stop: Where it ends in the last file, exclusive; -1 for the end of that file.
        num_episodes: Episodes in the range, where the plan knows it, else None.
        num_frames: Frames in the range, where the plan knows it, else None.
        num_bytes: Size of the range, in bytes.
        content: A short digest of the files' contents: of files that were replaced it is another.
        id_bounds: Bounds of the ids of its episodes, all texts or all whole numbers, where the plan knows them, else None; of
            use while a run is planned, and not kept.
    """

    name: str
    files: tuple[str, ...] = ()
    start: int = 0
    stop: int = -1
    num_episodes: int | None = None
    num_frames: int | None = None
    num_bytes: int = 0
    content: str = ""
    id_bounds: tuple[Any, Any] | None = dataclasses.field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", tuple(self.files))

    @property
    def shard(self) -> str:
        """The files in words, for messages: "a.parquet", or "a.parquet to c.parquet (3 files)"; "" without files."""
        if len(self.files) < 2:
            return "".join(self.files)
        return f"{self.files[0]} to {self.files[-1]} ({len(self.files)} files)"

    def to_json(self) -> dict[str, object]:
        """Returns the unit as a JSON object."""
        record = dataclasses.asdict(self)
        del record["id_bounds"]
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Unit":
        """Returns the inverse of `to_json`; also of what version 0.2.0 wrote, where a unit had one file, as a path."""
        if "shard" not in record:
            return cls(**record)
        rest = {name: value for name, value in record.items() if name != "shard"}
        return cls(files=(record["shard"],) if record["shard"] else (), **rest)

    def is_same_work(self, other: "Unit") -> bool:
        """Returns whether the two stand for the same range of the same contents, wherever the corpus lies."""
        return dataclasses.replace(self, files=()) == dataclasses.replace(other, files=())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    """Something that could not be read, and why; the rest is processed.

    Args:
        scope: "frame", "episode" or "shard".
        shard: File name of the shard.
        episode_id: The episode, if the scope is smaller than a shard.
        frame_index: The frame, if the scope is a frame.
        reason: Short category to count by, such as "undecodable image".
        detail: Description of the error, with the value and the fix.
        num_frames: Number of frames lost, 0 if unknown.
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
        """Returns the failure as a JSON object."""
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
    """A unit's marker, which states that it is done, with statistics.

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
        counts: Other counts by name, such as frames encoded and frames found in the cache.
        made_by: Origin of the part, such as versions of libraries and the processor; empty if irrelevant.
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
    made_by: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        """Returns the marker's text."""
        record = {**dataclasses.asdict(self), "unit": self.unit.to_json()}
        return json.dumps(record, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "PartStatistics":
        """Returns the inverse of `to_json`."""
        record = json.loads(text)
        return cls(**{**record, "unit": Unit.from_json(record["unit"])})
