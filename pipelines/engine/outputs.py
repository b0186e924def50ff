"""Output folders that no interruption can corrupt: atomic parts, markers, and a manifest written last.

    claim ──► writing(unit): temporary file ─ fsync ─ rename ─ failures ─ marker ──► ... ──► finish: reconcile ─ manifest.json

A unit is done or not done: it is done when its marker is there, fits the unit and the fingerprint, and its part has the
size the marker says. Whatever a killed run left half written has a temporary name and is removed by the next claim.

How a folder is claimed and a part gets its name, on a disk and in an object store: `pipelines.engine.places`.
"""

import contextlib
import json
import os
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from vlm_rewards.pipelines.engine.places import Claim, place_at
from vlm_rewards.pipelines.engine.run_record import RUN_RECORD, RunRecord, run_record_path
from vlm_rewards.schemas.files.digests import seal
from vlm_rewards.schemas.files.errors import explain_os_error
from vlm_rewards.schemas.files.remote_paths import Location
from vlm_rewards.schemas.files.stores import ObjectStoreError
from vlm_rewards.schemas.files.unit_files import unit_states
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.folders import check_claim, sync_file, write_atomically
from vlm_rewards.schemas.manifests import Failure, PartStatistics, Unit

_HEARTBEAT_S = 1.0


class PartWriter:
    """Record of one unit that the work on it fills in; given by `OutputFolder.writing`.

    Attributes:
        path: Temporary file to write the part to.
        rows: Rows (or samples) written so far.
        episodes: Episodes written so far.
        failed_frames: Frames that got no row.
        failures: Records of what could not be read.
        seconds: Time by stage.
        counts: Other numbers for the marker.
        made_by: Makers of the part for its marker, such as versions of libraries.
    """

    def __init__(self, path: Path, heartbeat: Path) -> None:
        self.path = path
        self.rows = 0
        self.episodes = 0
        self.failed_frames = 0
        self.failures: list[Failure] = []
        self.seconds: dict[str, float] = defaultdict(float)
        self.counts: Counter[str] = Counter()
        self.made_by: dict[str, str] = {}
        self._heartbeat = heartbeat
        self._last_beat = time.monotonic()
        self._pid = os.getpid()

    def take(self, other: "PartWriter") -> None:
        """Takes over what a copy of this record says, which another process has filled in."""
        vars(self).update(vars(other))

    def fail(self, failure: Failure, num_rows: int | None = None) -> None:
        """Records something that could not be read.

        Args:
            failure: Record of what and why.
            num_rows: Rows lost with it; by default its frames, as far as they are known.
        """
        self.failures.append(failure)
        self.failed_frames += failure.num_frames if num_rows is None else num_rows

    def advance(self, rows: int) -> None:
        """Counts rows and, about once a second, shows the count to whoever draws the progress bar."""
        self.rows += rows
        now = time.monotonic()
        if now - self._last_beat >= _HEARTBEAT_S:
            self._last_beat = now
            self.beat()

    def beat(self) -> None:
        """Shows that the process that made this record is at work on the unit, and how many rows it has written."""
        self._heartbeat.write_text(f"{self.rows} {self._pid}")

    @contextlib.contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Adds the seconds spent inside to the stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started


class OutputFolder:
    """A folder that one kind of output with one fingerprint owns.

    Args:
        path: The folder, or a URL of an object store.
        kind: "corpus", "labels", "embeddings" or "relabelled".
        fingerprint: Fingerprint of every part.
        settings: The command's settings, for people to read.
        extension: Extension of parts, without the dot.
    """

    def __init__(
        self, path: str | Location, *, kind: str, fingerprint: Fingerprint, settings: dict, extension: str
    ) -> None:
        self._place = place_at(path)
        self.path = self._place.path
        self.kind = kind
        self.fingerprint = fingerprint
        self.settings = settings
        self.extension = extension
        self._digest = fingerprint.digest

    def part_path(self, unit: Unit) -> Location:
        """Returns the path of the unit's part."""
        return self.path / "parts" / f"{unit.name}.{self.extension}"

    def marker_path(self, unit: Unit) -> Location:
        """Returns the path of the unit's marker."""
        return self.path / "markers" / f"{unit.name}.json"

    def failures_path(self, unit: Unit) -> Location:
        """Returns the path of the unit's failures, which exists if it has any."""
        return self.path / "failures" / f"{unit.name}.jsonl"

    @contextlib.contextmanager
    def claim(self, units: Sequence[Unit]) -> Iterator[None]:
        """Takes the folder for this run, or refuses; inside, no other run can take it.

        Args:
            units: All units of the run; parts of other units must not be in the folder.

        Raises:
            ValueError: The folder holds something else, another fingerprint, parts of another input, or another run.
        """
        with self._place.claimed(self._claim):
            self._prepare(units)
            try:
                yield
            except BaseException:
                with contextlib.suppress(OSError, ObjectStoreError):  # what was raised says more
                    if not self._place.marked():  # a claim that made nothing is taken back
                        run_record_path(self.path).unlink(missing_ok=True)
                raise

    @property
    def _claim(self) -> Claim:
        return Claim(self.kind, self.fingerprint, self.settings)

    def check_ours(self) -> None:
        """Refuses a folder that this output may not be written to; writes nothing.

        Raises:
            ValueError: The folder holds something else, or the same kind of another fingerprint, or is in a store that can only
                be read.
        """
        self._place.check_writable()
        check_claim(self.path, kind=self.kind, fingerprint=self.fingerprint)

    def _prepare(self, units: Sequence[Unit]) -> None:
        names = [unit.name for unit in units]
        assert len(set(names)) == len(names), "units must have names of their own"
        self._place.prepare()
        others = sorted(self._place.marked() - set(names))
        if others:
            raise ValueError(
                f"the output folder must hold parts of this input only, got {self.path} with {len(others)} other parts, the first "
                f"being {others[0]!r}; give another folder, or the input that made this one"
            )

    def read_marker(self, unit: Unit) -> PartStatistics | None:
        """Returns the unit's statistics if it is done, else None."""
        return next(self.read_markers([unit]))

    def read_markers(self, units: Sequence[Unit]) -> Iterator[PartStatistics | None]:
        """Yields the statistics of units, each as by `read_marker`; in an object store they are listed once."""
        names = [unit.name for unit in units]
        for unit, (content, num_bytes) in zip(units, unit_states(self.path, names, self.extension), strict=True):
            yield None if content is None else self._valid(unit, content, num_bytes)

    def _valid(self, unit: Unit, content: bytes, num_bytes: int | None) -> PartStatistics | None:
        try:
            marker = PartStatistics.from_json(content.decode())
        except (ValueError, TypeError, KeyError, RecursionError):  # not what we wrote: the unit is done again
            return None
        holds = marker.unit.is_same_work(unit) and marker.fingerprint == self._digest and marker.num_bytes == num_bytes
        return marker if holds else None

    def is_done(self, unit: Unit) -> bool:
        """Returns whether nothing is left to do for the unit; one whose shard could not be read is tried again."""
        return next(self.to_do([unit]), None) is None

    def to_do(self, units: Sequence[Unit]) -> Iterator[Unit]:
        """Yields the units that are not done, see `is_done`."""
        for unit, marker in zip(units, self.read_markers(units), strict=True):
            if marker is None or marker.counts.get("failed_shards"):
                yield unit

    @contextlib.contextmanager
    def writing(self, unit: Unit) -> Iterator[PartWriter]:
        """Writes the unit's part: all of it and its marker, or, when the work raises, nothing.

        Raises:
            OSError: The disk is full or the file cannot be written; the note says what to do.
        """
        temporary = self._place.temporary(self.part_path(unit))
        heartbeat = self._place.progress / unit.name
        part = PartWriter(temporary, heartbeat)
        try:
            part.beat()
            yield part
            with part.timing("publish"):
                sha256, num_bytes = sync_file(temporary)
                self._write_failures(unit, part.failures)
                self._place.publish(temporary, self.part_path(unit))
            for scope in ("shard", "episode"):
                part.counts[f"failed_{scope}s"] += sum(failure.scope == scope for failure in part.failures)
            marker = PartStatistics(
                unit=unit,
                fingerprint=self._digest,
                rows=part.rows,
                episodes=part.episodes,
                failures=dict(sorted(Counter(failure.reason for failure in part.failures).items())),
                failed_frames=part.failed_frames,
                sha256=sha256,
                num_bytes=num_bytes,
                seconds={stage: round(seconds, 6) for stage, seconds in sorted(part.seconds.items())},
                counts=dict(sorted(part.counts.items())),
                made_by=dict(sorted(part.made_by.items())),
            )
            write_atomically(self.marker_path(unit), marker.to_json())
        except BaseException as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            explain_os_error(error, self._place.disk)
            raise
        finally:
            with contextlib.suppress(OSError):
                heartbeat.unlink(missing_ok=True)

    def _write_failures(self, unit: Unit, failures: Sequence[Failure]) -> None:
        path = self.failures_path(unit)
        if failures:
            self._place.make_folder("failures")
            lines = [json.dumps(failure.to_json(), sort_keys=True) for failure in failures]
            write_atomically(path, "\n".join(lines) + "\n")
        elif path.is_file():
            path.unlink()

    def pid_at_work(self, unit: Unit) -> int | None:
        """Returns the process that is at work on the unit, or was when it ended; None where none is."""
        path = self._place.progress / unit.name
        words = path.read_text().split() if path.is_file() else []
        return int(words[1]) if len(words) == 2 else None

    def remove_unfinished(self) -> None:
        """Removes what processes that have ended left of units; none may be at work."""
        self._place.remove_unfinished()

    def record_error(self, unit: Unit, error: Exception) -> None:
        """Writes down what stopped a unit, for `raise_recorded_error` in the driver's process.

        Raises:
            RuntimeError: It could not be written; the message is what was to be written.
        """
        text = "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])])
        try:
            self._place.record_error(f"{unit.name}.error", text)
        except (OSError, ObjectStoreError):  # the disk is full, say: then this error finds its way through the runner
            raise RuntimeError(text) from error

    def has_recorded_error(self) -> bool:
        """Whether a unit of this run recorded an error."""
        return bool(self._place.errors())

    def raise_recorded_error(self) -> None:
        """Raises the first error that a unit recorded, if there is one.

        Raises:
            RuntimeError: A unit recorded an error.
        """
        for path in self._place.errors():
            raise RuntimeError(path.read_text())

    def note_run(self, record: RunRecord) -> None:
        """Writes down how far the run is, for `vlm-rewards status`; what cannot be written is warned of and left out."""
        try:
            write_atomically(run_record_path(self.path), record.to_json())
        except (OSError, ObjectStoreError) as error:
            warnings.warn(f"the progress of the run could not be written to {self.path}: {error}", stacklevel=2)

    def forget(self, units: Sequence[Unit]) -> None:
        """Takes back the markers of units that will be done again, so that they do not count as progress."""
        self._place.forget([unit.name for unit in units])

    def count_so_far(self, done: dict[str, int], field: str = "rows") -> int:
        """Rows, or episodes, that are done, for progress; rows of unfinished parts count, too.

        Args:
            done: Counts of finished units by name; this call adds those that have finished since.
            field: "rows" or "episodes".
        """
        for name in self._place.finished() - done.keys():
            marker = PartStatistics.from_json((self.path / "markers" / f"{name}.json").read_text())
            done[name] = getattr(marker, field)
        count = sum(done.values())
        if field == "rows":
            for path in self._place.progress.glob("*"):
                if path.name not in done and path.suffix != ".error" and not path.name.startswith(RUN_RECORD):
                    with contextlib.suppress(
                        FileNotFoundError, ValueError, IndexError
                    ):  # just finished, or just being written
                        count += int(path.read_text().split()[0])
        return count

    def finish(self, units: Sequence[Unit], *, max_failure_share: float = 0.0, extra: dict | None = None) -> dict:
        """Reconciles the parts with the plan and writes the manifest.

        Args:
            units: All units of the run.
            max_failure_share: Highest share of frames, of episodes and of input files that may have failed.
            extra: More entries for the manifest.

        Returns:
            The manifest.

        Raises:
            RuntimeError: A unit has no marker although the pipeline ended: the runner lost it.
            ValueError: More failed than allowed; everything else is labelled and kept.
        """
        markers = {unit.name: marker for unit, marker in zip(units, self.read_markers(units), strict=True)}
        missing = [name for name, marker in markers.items() if marker is None]
        if missing:
            raise RuntimeError(
                f"every unit must be done when the pipeline has ended, got {len(missing)} of {len(units)} without a part, the "
                f"first being {missing[0]!r}; run the same command again, it does what is missing"
            )
        parts = [marker for marker in markers.values() if marker is not None]
        rows = sum(part.rows for part in parts)
        episodes = sum(part.episodes for part in parts)
        failures: Counter[str] = Counter()
        for part in parts:
            failures.update(part.failures)
        self._check_failures(parts, max_failure_share)
        if not rows:
            raise ValueError(
                f"there must be something to write, got nothing from {len(parts)} units "
                f"({dict(failures) or 'without a failure'}); check the input and its episodes, what is listed in "
                f"{self.path / 'failures'}, and for hindsight whether any goal is achieved at the threshold of the labels"
            )
        manifest = {
            "kind": self.kind,
            "version": 1,
            "fingerprint": dict(self.fingerprint.parts),
            "fingerprint_digest": self._digest,
            "rows": rows,
            "episodes": episodes,
            "failed_episodes": sum(part.counts.get("failed_episodes", 0) for part in parts),
            "failed_frames": sum(part.failed_frames for part in parts),
            "failures": dict(sorted(failures.items())),
            "parts": [
                {
                    "path": f"parts/{self.part_path(part.unit).name}",
                    "rows": part.rows,
                    "episodes": part.episodes,
                    "num_bytes": part.num_bytes,
                    "sha256": part.sha256,
                }
                for part in parts
            ],
            **(extra or {}),
        }
        manifest = seal(manifest)
        self._place.finish(self._claim, json.dumps(manifest, indent=1, sort_keys=True) + "\n")
        return manifest

    def _check_failures(self, parts: Sequence[PartStatistics], max_failure_share: float) -> None:
        files = [max(1, len(part.unit.files)) for part in parts]
        failed_files = [
            min(part.counts.get("failed_shards", 0), of_part) for part, of_part in zip(parts, files, strict=True)
        ]
        shards = sum(files), sum(failed_files)
        failed_rows = sum(part.failed_frames for part in parts)
        rows = sum(part.rows for part in parts) + failed_rows, failed_rows
        failed_episodes = sum(part.counts.get("failed_episodes", 0) for part in parts)
        episodes = sum(part.episodes for part in parts) + failed_episodes, failed_episodes
        if max(failed / max(total, 1) for total, failed in (shards, rows, episodes)) > max_failure_share:
            unit = next(part.unit for part in parts if part.failures)
            first = json.loads(self.failures_path(unit).read_text().splitlines()[0])
            raise ValueError(
                f"at most a share of {max_failure_share:g} may fail, got {rows[1]} of {rows[0]} rows, {episodes[1]} of "
                f"{episodes[0]} episodes and {shards[1]} of {shards[0]} shards; the first is: {Failure(**first)}; all are listed "
                f"in {self.path / 'failures'}; everything else is done and kept. Run the same command again when the input is "
                f"corrected, or allow more with --max-failure-share"
            )
