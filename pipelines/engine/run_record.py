"""What a run says of itself while it is at work: `progress/.run.json` in its output, gone when the output is finished.

    {"title": "label", "units": 40, "total": 128000, "done": 51200, ..., "process": {"host": ..., "pid": ...}, "ended": null}

Units leave markers and workers leave heartbeats; this is what neither tells: how much is planned, since when, and by which process.
"""

import dataclasses
import json
import time
from collections.abc import Mapping
from typing import Any

from vlm_rewards.schemas.files.lock_files import this_process
from vlm_rewards.schemas.files.remote_paths import Location

RUN_RECORD = ".run.json"
"""Name of the record, in the folder `progress`; no unit has such a name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Record of a run.

    Args:
        title: Name of the work, such as "label".
        counted: Quantity that is counted: "rows" or "episodes".
        counted_name: Name of that quantity, in the plural.
        units: Units of the run.
        units_before: Units that an earlier run had done.
        total: Planned total of the quantity; None where the plan does not know.
        before: Amount that an earlier run had done.
        done: Amount that was done when the record was written.
        started_at: Time of the start, in seconds since 1970.
        updated_at: Time of writing.
        process: The driver's process, see `schemas.files.lock_files.this_process`.
        ended: What ended the run before it was done; None while it runs.
    """

    title: str
    counted: str
    counted_name: str
    units: int
    units_before: int
    total: int | None
    before: int
    done: int
    started_at: float = dataclasses.field(default_factory=time.time)
    updated_at: float = dataclasses.field(default_factory=time.time)
    process: Mapping[str, Any] = dataclasses.field(default_factory=this_process)
    ended: str | None = None

    def now(self, done: int | None = None, ended: str | None = None) -> "RunRecord":
        """Returns the record as it is now.

        Args:
            done: Amount done; None for that of the record.
            ended: What ended the run.
        """
        count = self.done if done is None else done
        return dataclasses.replace(self, done=count, updated_at=time.time(), ended=ended)

    def to_json(self) -> str:
        """Returns the record's text."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n"


def run_record_path(folder: Location) -> Location:
    """Returns the path of the record in an output folder."""
    return folder / "progress" / RUN_RECORD


def read_run_record(folder: Location) -> RunRecord | None:
    """Reads the record of an output folder; None where no run is under way, or was when it ended.

    Raises:
        ValueError: The file is something else.
    """
    path = run_record_path(folder)
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else None
    except FileNotFoundError:  # just finished
        text = None
    if text is None:
        return None
    try:
        return RunRecord(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} must be the record of a run, got {text!r:.60}. Run the command that makes the folder again"
        ) from error
