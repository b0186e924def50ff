"""Where an output folder is, and how what is in it becomes complete: on a disk, or in an object store.

    disk    .lock ─ settings.json ─► parts/u.tmp-... ─ fsync ─ rename ─► parts/u ─► markers/u ─► manifest.json
    store   settings.json, made only ─► scratch folder ─ digest ─ upload ─► parts/u ─► markers/u ─► manifest.json
            if it is not there

A store has no locks and no renames. It needs neither: an object is replaced as a whole, and parts have the same bytes whoever
writes them, so two runs at once end with the same parts. Nothing unfinished is ever in the store.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vlm_rewards.pipelines.engine.run_record import RUN_RECORD, run_record_path
from vlm_rewards.schemas.files.remote_paths import (
    Location,
    RemotePath,
    check_writable,
    location_of,
)
from vlm_rewards.schemas.files.stores import ObjectStoreError
from vlm_rewards.schemas.files.unit_files import unit_names
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.folders import (
    MANIFEST,
    SETTINGS,
    check_claim,
    claim_text,
    claimed,
    locked,
    publish,
    remove_leftovers,
    temporary_path,
    write_atomically,
)

_LISTED_S = 10.0


class Claim(NamedTuple):
    """What a run claims a folder for; see `schemas.folders.claimed`."""

    kind: str
    fingerprint: Fingerprint
    settings: Mapping[str, object]


class DiskPlace:
    """An output folder on a disk.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def progress(self) -> Path:
        """The folder of this machine where work shows how far it is."""
        return self.path / "progress"

    @property
    def disk(self) -> Path:
        """What is named where a disk is full."""
        return self.path

    def check_writable(self) -> None:
        """Refuses nothing: the disk itself does."""

    @contextlib.contextmanager
    def claimed(self, claim: Claim) -> Iterator[None]:
        """Context manager that keeps other runs out of the folder."""
        with claimed(self.path, **claim._asdict()):
            yield

    def prepare(self) -> None:
        """Makes the folders that work needs."""
        for folder in ("parts", "markers"):
            self.make_folder(folder)
        shutil.rmtree(self.progress, ignore_errors=True)
        self.progress.mkdir()

    def make_folder(self, name: str) -> None:
        """Makes a folder in this one, where it is not there."""
        (self.path / name).mkdir(exist_ok=True)

    def marked(self) -> set[str]:
        """Names of all units that have a marker."""
        return unit_names(self.path, "markers", "json")

    def finished(self) -> set[str]:
        """Names of the units that have a marker, for progress."""
        return self.marked()

    def temporary(self, part: Location) -> Path:
        """A file of this machine to write a part to."""
        assert isinstance(part, Path)
        return temporary_path(part)

    def publish(self, temporary: Path, part: Location) -> None:
        """Gives a part its name."""
        assert isinstance(part, Path)
        publish(temporary, part)

    def forget(self, names: Sequence[str]) -> None:
        """Removes the markers of units that will be done again."""
        for name in names:
            (self.path / "markers" / f"{name}.json").unlink(missing_ok=True)

    def remove_unfinished(self) -> None:
        """Removes what processes that have ended left behind."""
        remove_leftovers(self.path)
        for path in self.progress.iterdir():
            if path.name != RUN_RECORD:
                path.unlink()

    def record_error(self, name: str, text: str) -> None:
        """Writes down an error for the driver's process.

        Raises:
            OSError: It could not be written.
        """
        path = self.progress / name
        try:
            path.write_text(text)
        except OSError:
            path.unlink(missing_ok=True)
            raise

    def errors(self) -> list[Path]:
        """The errors of this run."""
        return sorted(self.progress.glob("*.error"))

    def finish(self, claim: Claim, manifest: str) -> None:
        """Writes the manifest, last; what workers left that a runner has replaced is removed before."""
        remove_leftovers(self.path)
        write_atomically(self.path / MANIFEST, manifest)
        shutil.rmtree(self.progress, ignore_errors=True)


class StorePlace:
    """An output folder in an object store; parts are written to a scratch folder of each machine first.

    Args:
        path: The folder.
    """

    def __init__(self, path: RemotePath) -> None:
        self.path = path
        self._scratch: Path | None = None
        self._errors: RemotePath | None = None
        self._listed: tuple[float, set[str]] = (-_LISTED_S, set())

    @property
    def progress(self) -> Path:
        """See `DiskPlace.progress`."""
        return self._folder_of_scratch("progress")

    @property
    def disk(self) -> Path:
        """See `DiskPlace.disk`."""
        return self._folder_of_scratch("parts")

    def _folder_of_scratch(self, name: str) -> Path:
        assert self._scratch is not None, "an output is written while it is claimed"
        folder = self._scratch / name
        folder.mkdir(parents=True, exist_ok=True)  # on the machine of a worker it is not there yet
        return folder

    def check_writable(self) -> None:
        """Refuses a store that can only be read.

        Raises:
            ValueError: It is one.
        """
        check_writable(self.path)

    @contextlib.contextmanager
    def claimed(self, claim: Claim) -> Iterator[None]:
        """Context manager that claims the folder; another run of the same fingerprint may do the same.

        Raises:
            ValueError: The folder holds something else, or is of another fingerprint.
        """
        self.check_writable()
        with scratch_folder(str(self.path)) as scratch:
            self._scratch, self._errors = scratch, self.path / "progress" / scratch.name
            begun = check_claim(self.path, kind=claim.kind, fingerprint=claim.fingerprint)
            if not begun:
                self._confirm(claim)
            try:
                yield
            except BaseException:
                with contextlib.suppress(ObjectStoreError):  # what was raised says more
                    self._remove_errors()
                    if not begun and not self.path.files_below().keys() - {SETTINGS}:
                        (self.path / SETTINGS).unlink()
                raise
            self._remove_errors()

    def _remove_errors(self) -> None:
        for error in self.errors():
            error.unlink(missing_ok=True)

    def _confirm(self, claim: Claim) -> None:
        (self.path / SETTINGS).create(claim_text(*claim).encode())
        # Another run may have been first, and some servers let both make it.
        check_claim(self.path, kind=claim.kind, fingerprint=claim.fingerprint)

    def prepare(self) -> None:
        """See `DiskPlace.prepare`: a store has no folders."""

    def make_folder(self, name: str) -> None:
        """See `DiskPlace.make_folder`: a store has no folders."""

    def marked(self) -> set[str]:
        """See `DiskPlace.marked`."""
        return unit_names(self.path, "markers", "json")

    def finished(self) -> set[str]:
        """See `DiskPlace.finished`; listed every 10 s at most."""
        listed, names = self._listed
        if time.monotonic() - listed >= _LISTED_S:
            names = self.marked()
            self._listed = time.monotonic(), names
        return names

    def temporary(self, part: Location) -> Path:
        """See `DiskPlace.temporary`."""
        return temporary_path(self._folder_of_scratch("parts") / part.name)

    def publish(self, temporary: Path, part: Location) -> None:
        """See `DiskPlace.publish`: the part is uploaded."""
        assert isinstance(part, RemotePath)
        part.upload(temporary)
        temporary.unlink()

    def forget(self, names: Sequence[str]) -> None:
        """See `DiskPlace.forget`: they stay, since another run may have made them anew just now."""

    def remove_unfinished(self) -> None:
        """See `DiskPlace.remove_unfinished`."""
        for name in ("parts", "progress"):
            for path in self._folder_of_scratch(name).iterdir():
                path.unlink()

    def record_error(self, name: str, text: str) -> None:
        """See `DiskPlace.record_error`; in the store, where the driver sees it from any machine.

        Raises:
            ObjectStoreError: The store refuses or does not answer.
        """
        assert self._errors is not None
        (self._errors / name).write_bytes(text.encode())

    def errors(self) -> list[RemotePath]:
        """See `DiskPlace.errors`."""
        assert self._errors is not None
        return [self._errors / name for name in self._errors.entries()]

    def finish(self, claim: Claim, manifest: str) -> None:
        """See `DiskPlace.finish`; a run that failed beside this one may have taken the claim back."""
        self._confirm(claim)
        write_atomically(self.path / MANIFEST, manifest)
        run_record_path(self.path).unlink(missing_ok=True)


def place_at(path: str | Location) -> DiskPlace | StorePlace:
    """The place that a path or URL names."""
    location = location_of(path)
    return StorePlace(location) if isinstance(location, RemotePath) else DiskPlace(location)


@contextlib.contextmanager
def scratch_folder(output: str) -> Iterator[Path]:
    """Context manager of a folder for files on their way to an object store, below the system's folder for temporary files.

    Those that killed runs to the same output left are removed.

    Args:
        output: URL of the output.
    """
    base = Path(tempfile.gettempdir(), f"vlm-rewards-{os.getuid()}")
    base.mkdir(mode=0o700, exist_ok=True)
    key = hashlib.blake2b(output.encode(), digest_size=8).hexdigest()
    for left in base.glob(f"{key}-*/"):
        with contextlib.suppress(ValueError):  # of a run that is at work
            with locked(base / f"{left.name}.lock"):
                shutil.rmtree(left, ignore_errors=True)
    own = base / f"{key}-{uuid.uuid4().hex}"
    with locked(base / f"{own.name}.lock"):
        own.mkdir()
        try:
            yield own
        finally:
            shutil.rmtree(own, ignore_errors=True)
