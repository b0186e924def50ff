"""How a run is doing, from what lies in its output: markers, heartbeats, the run's record and its lock. Nothing is written.

markers/ ──► units done, failures, seconds by stage ──┐
progress/ ─► units at work, errors ───────────────────┼──► RunStatus ──► lines, or JSON
progress/.run.json, .lock ──► planned, since, by whom ─┘
"""

import dataclasses
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm_rewards.pipelines.engine.run_record import RUN_RECORD, RunRecord, read_run_record
from vlm_rewards.schemas.files.lock_files import is_running
from vlm_rewards.schemas.files.remote_paths import RemotePath, location_of
from vlm_rewards.schemas.files.unit_files import unit_names
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.folders import LOCK, MANIFEST, is_leftover, is_locked, read_manifest, read_settings
from vlm_rewards.schemas.manifests import PartStatistics

KINDS = ("corpus", "labels", "embeddings", "relabelled")
"""Kinds of output whose units have markers."""
_SILENT_S = 60.0
"""Seconds without a word of a run on another machine after which nobody can say whether it runs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunStatus:
    """State of a run.

    Args:
        path: The output.
        kind: Its kind, such as "labels".
        state: "finished", "running", "failed" (it ended with an error), "interrupted" (its process is gone), "not running"
            (nobody works on it, and nothing says why) or "unknown" (its process is on another machine and silent).
        counted_name: Quantity that is counted, in the plural.
        done: Amount done, unfinished units included as far as they can be seen from here.
        total: Planned amount; None where the plan does not know.
        per_second: Amount per second since the run began, or before it ended; None where nothing says so.
        seconds_left: Estimated seconds left; None where nothing says so.
        num_units: Units of the run; None where nothing says so.
        num_units_done: Units that are done.
        units_at_work: Rows written so far by unit at work; in an object store only those done are seen.
        num_units_failed: Units of which an input file could not be read; the next run tries them again.
        failures: Number of failures by reason.
        failed_frames: Frames that have no row, as far as known.
        errors: First lines of what stopped the run.
        stages: By stage, its seconds in finished units and the rows per second that it made of them.
        is_held: Whether a process holds the output; None where that cannot be told from here.
        process: The process of the run, on which machine; None where nothing says so.
        heard_s: Seconds since the run last wrote how far it is; None where it never did.
    """

    path: str
    kind: str
    state: str
    counted_name: str
    done: int
    total: int | None
    per_second: float | None
    seconds_left: float | None
    num_units: int | None
    num_units_done: int
    units_at_work: Mapping[str, int]
    num_units_failed: int
    failures: Mapping[str, int]
    failed_frames: int
    errors: Sequence[str]
    stages: Mapping[str, Mapping[str, float]]
    is_held: bool | None
    process: Mapping[str, Any] | None
    heard_s: float | None

    @property
    def waits_for(self) -> str | None:
        """The stage that takes the largest share of the time; None where no unit is done."""
        return max(self.stages, key=lambda stage: self.stages[stage]["seconds"], default=None)

    def to_json(self) -> dict[str, Any]:
        """Returns the status as a JSON object."""
        return {**dataclasses.asdict(self), "waits_for": self.waits_for}

    def lines(self) -> list[str]:
        """Lines for people."""
        lines = [f"{self.path}: {self.kind}, {self._state()}"]
        of_units = "" if self.num_units is None else f" of {self.num_units:,}"
        at_work = f", {len(self.units_at_work):,} at work" if self.units_at_work else ""
        failed = f", {self.num_units_failed:,} failed" if self.num_units_failed else ""
        lines.append(f"  units: {self.num_units_done:,}{of_units} done{at_work}{failed}")
        of_total = "" if self.total is None else f" of {self.total:,} ({100 * self.done / max(self.total, 1):.0f} %)"
        rate = "" if self.per_second is None else f", {self.per_second:,.1f} {self.counted_name}/s"
        left = "" if self.seconds_left is None else f", {self.seconds_left:,.0f} s left"
        lines.append(f"  {self.counted_name}: {self.done:,}{of_total}{rate}{left}")
        total_s = sum(stage["seconds"] for stage in self.stages.values())
        if self.waits_for is not None and total_s > 0:
            share = 100 * self.stages[self.waits_for]["seconds"] / total_s
            lines.append(f"  waits for: {self.waits_for} ({share:.0f} % of the time of finished units)")
            by_stage = ", ".join(
                f"{name} {stage['rows_per_s']:,.0f}" for name, stage in self.stages.items() if stage["seconds"] > 0
            )
            lines.append(f"  rows/s of one worker by stage: {by_stage}")
        if self.failures:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.failures.items())
            lines.append(f"  left out: {reasons} ({self.failed_frames:,} frames)")
        lines += [f"  error: {error}" for error in self.errors]
        if self.state in ("failed", "interrupted", "not running"):
            lines.append("  run the command that made it again: it does what is missing")
        return lines

    def _state(self) -> str:
        if self.process is None or self.state == "finished":
            return self.state
        where = f"process {self.process.get('pid')} on {self.process.get('host')}"
        heard = "" if self.heard_s is None else f", last heard of {self.heard_s:,.0f} s ago"
        return f"{self.state} ({where}{'' if self.state == 'running' else heard})"


class StatusReader:
    """Reads the status of one output again and again; markers that were read are not read twice.

    Args:
        path: The output, a folder or a URL.

    Raises:
        ValueError: It is no output whose units leave markers.
    """

    def __init__(self, path: str | Path) -> None:
        self._folder = location_of(path)
        if not self._folder.is_dir():
            raise ValueError(f"status needs an output folder of a run: got {path}, which is not there. Check the path")
        self._settings = read_settings(self._folder)
        if self._settings["kind"] not in KINDS:
            raise ValueError(
                f"status needs an output of record, label or hindsight: got {path} with {self._settings['kind']}. "
                f"vlm-rewards inspect says what it is"
            )
        self._digest = Fingerprint(self._settings["fingerprint"]).digest
        self._markers: dict[str, PartStatistics] = {}

    def read(self) -> RunStatus:
        """Returns the status of now.

        Raises:
            ValueError: The manifest or the run's record is something else.
        """
        record = read_run_record(self._folder)
        self._read_markers()
        is_finished = (self._folder / MANIFEST).is_file()
        if is_finished:
            read_manifest(self._folder, self._settings["kind"])
        parts = list(self._markers.values())
        counted = "episodes" if (record and record.counted == "episodes") or self._counts_episodes() else "rows"
        done = sum(part.episodes if counted == "episodes" else part.rows for part in parts)
        at_work = {} if is_finished else self._at_work()
        if counted == "rows":
            done += sum(at_work.values())
        if record is not None and isinstance(self._folder, RemotePath):
            done = max(done, record.done)  # workers' heartbeats are on their machines
        failures: Counter[str] = Counter()
        for part in parts:
            failures.update(part.failures)
        is_held, state = self._state(record, is_finished)
        rate = None if record is None or is_finished else _rate(record, done, is_running=state == "running")
        total = done if is_finished else None if record is None else record.total
        left = (total - done) / rate if state == "running" and total is not None and rate else None
        return RunStatus(
            path=str(self._folder),
            kind=self._settings["kind"],
            state=state,
            counted_name=record.counted_name if record is not None else "frames" if counted == "rows" else counted,
            done=done,
            total=total,
            per_second=rate,
            seconds_left=left,
            num_units=len(parts) if is_finished else None if record is None else record.units,
            num_units_done=sum(not part.counts.get("failed_shards") for part in parts),
            units_at_work=at_work,
            num_units_failed=sum(bool(part.counts.get("failed_shards")) for part in parts),
            failures=dict(sorted(failures.items())),
            failed_frames=sum(part.failed_frames for part in parts),
            errors=[] if is_finished or state == "running" else self._errors(record),
            stages=_stages(parts),
            is_held=is_held,
            process=None if record is None else record.process,
            heard_s=None if record is None else max(0.0, time.time() - record.updated_at),
        )

    def _counts_episodes(self) -> bool:
        return self._settings["kind"] in ("corpus", "relabelled")

    def _read_markers(self) -> None:
        names = unit_names(self._folder, "markers", "json")
        for name in self._markers.keys() - names:  # taken back: the unit is done again
            del self._markers[name]
        new = sorted(names - self._markers.keys())
        folder = self._folder / "markers"
        if isinstance(folder, RemotePath):
            contents = {
                file.removesuffix(".json"): text for file, text in folder.read_each(f"{n}.json" for n in new).items()
            }
        else:
            contents = {name: (folder / f"{name}.json").read_bytes() for name in new}
        for name, content in contents.items():
            marker = _marker(content)
            if marker is not None and marker.fingerprint == self._digest:
                self._markers[name] = marker

    def _at_work(self) -> dict[str, int]:
        folder = self._folder / "progress"
        if isinstance(folder, RemotePath):
            return {}
        found = {}
        for path in sorted(folder.glob("*")):
            if path.suffix == ".error" or path.name in self._markers or path.name == RUN_RECORD or is_leftover(path):
                continue
            try:
                words = path.read_text(encoding="utf-8").split()
            except FileNotFoundError:  # just finished
                continue
            if words and words[0].isdigit():
                found[path.name] = int(words[0])
        return found

    def _errors(self, record: RunRecord | None) -> list[str]:
        folder = self._folder / "progress"
        texts: list[str] = []
        if isinstance(folder, Path):
            texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.error"))]
        if not texts and record is not None and record.ended is not None:
            texts = [record.ended]
        return [text.strip().splitlines()[0] for text in texts if text.strip()]

    def _state(self, record: RunRecord | None, is_finished: bool) -> tuple[bool | None, str]:
        """Returns whether a process holds the output, and the state in a word."""
        locked = is_locked(self._folder / LOCK) if isinstance(self._folder, Path) else None
        if record is None:
            if is_finished:
                return bool(locked), "finished"
            return locked, "running" if locked else "not running"
        runs = is_running(record.process)
        if record.ended is not None:
            return locked if locked is not None else False, "failed"
        if runs is False:
            return bool(locked), "running" if locked else "interrupted"
        if runs or locked:
            return True, "running"
        silent = time.time() - record.updated_at > _SILENT_S
        return None, "unknown" if silent else "running"


def _marker(content: bytes) -> PartStatistics | None:
    try:
        return PartStatistics.from_json(content.decode())
    except (ValueError, TypeError, KeyError):  # not what we wrote: the unit is done again
        return None


def _rate(record: RunRecord, done: int, *, is_running: bool) -> float | None:
    until = time.time() if is_running else record.updated_at
    made = (done if is_running else record.done) - record.before
    seconds = until - record.started_at
    return made / seconds if seconds > 0 else None


def _stages(parts: Sequence[PartStatistics]) -> dict[str, dict[str, float]]:
    """By stage, seconds and rows per second of the units that it is known of."""
    seconds: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    for part in parts:
        for stage, value in part.seconds.items():
            seconds[stage] += value  # type: ignore[assignment]
            rows[stage] += part.rows
    return {
        stage: {"seconds": round(value, 3), "rows_per_s": round(rows[stage] / value, 1) if value else 0.0}
        for stage, value in sorted(seconds.items())
    }


def status_of(path: str | Path) -> RunStatus:
    """Returns how the run of an output is doing.

    Args:
        path: Output of record, label or hindsight: a folder, or a URL.

    Raises:
        ValueError: It is no such output.
    """
    return StatusReader(path).read()
