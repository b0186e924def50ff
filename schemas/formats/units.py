"""Units of work of several files: their names, and when small files share a unit.

1,500 files of 4 frames ──► 12 units of about 128 files: batches span files; one part, marker and flush per unit
20 files of 60,000 frames ──► 20 units (or more, cut by size)
what `record` wrote ──► one unit per file, as its --episodes-per-shard says
"""

import dataclasses
import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from vlm_rewards.schemas.folders import SETTINGS
from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.manifests import Unit

KEPT_FILES = 16
"""A corpus of at most so many files has no unit of several: workers would have less to share than is saved."""
SMALL_FRAMES, SMALL_BYTES = 256, 1 << 20
"""A unit of fewer frames (of fewer bytes, where its frames are not known) is small: padding and flushing cost it most."""
SHARED_FRAMES, SHARED_BYTES = 1024, 16 << 20
"""Small units are joined until they have so many frames, or bytes, whichever comes first."""


def file_stem(name: str) -> str:
    """Returns the name of a unit of one whole file, which can be part of a file name.

    Args:
        name: Name of the file below the corpus's folder; the folder "parts" of our outputs is left out.

    Returns:
        The name without its ending if that is safe, else a safe form with a digest.
    """
    stem = name.removeprefix("parts/").rpartition(".")[0]
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", stem)[-100:]
    return safe if safe == stem else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def file_ranges(unit: Unit) -> Iterator[tuple[str, int, int]]:
    """Yields the files of a unit, each with the start and end (exclusive, -1 for the end of the file) of its range."""
    for index, name in enumerate(unit.files):
        yield name, unit.start if index == 0 else 0, unit.stop if index + 1 == len(unit.files) else -1


def share_units(folder: Folder, units: Sequence[Unit], max_bytes: int) -> list[Unit]:
    """Joins successive small units, each starting where the previous one ends.

    Args:
        folder: The corpus's folder.
        units: Units of the corpus, in order.
        max_bytes: Largest size of a joined unit in bytes.

    Returns:
        Units; a joined one is named after its first file and the number of files, "name-f00128".
    """
    num_files = len({name for unit in units for name in unit.files})
    if num_files <= KEPT_FILES or _is_recorded(folder):
        return list(units)
    shared: list[Unit] = []
    waiting: list[Unit] = []
    num_bytes = num_frames = 0  # of the pending units; unknown frames count as 0

    def join() -> None:
        if waiting:
            shared.append(_joined(waiting))
            waiting.clear()

    for unit in units:
        if waiting and (not _is_small(unit) or num_bytes + unit.num_bytes > max_bytes):
            join()
        if not waiting:
            num_bytes = num_frames = 0
        waiting.append(unit)
        num_bytes += unit.num_bytes
        num_frames += unit.num_frames or 0
        if not _is_small(unit) or num_frames >= SHARED_FRAMES or num_bytes >= SHARED_BYTES:
            join()
    join()
    return shared


def _is_recorded(folder: Folder) -> bool:
    """Returns whether this is one of our output folders or its parts, whose file size the user has chosen."""
    return folder.has_file(SETTINGS) or (folder.name == "parts" and folder.above.has_file(SETTINGS))


def _is_small(unit: Unit) -> bool:
    return unit.num_bytes < SMALL_BYTES if unit.num_frames is None else unit.num_frames < SMALL_FRAMES


def _joined(units: Sequence[Unit]) -> Unit:
    if len(units) == 1:
        return units[0]
    files = tuple(dict.fromkeys(name for unit in units for name in unit.files))
    frames = [unit.num_frames for unit in units]
    episodes = [unit.num_episodes for unit in units]
    return dataclasses.replace(
        units[0],
        name=f"{units[0].name}-f{len(files):05d}",
        files=files,
        stop=units[-1].stop,
        num_frames=None if None in frames else sum(count or 0 for count in frames),
        num_episodes=None if None in episodes else sum(count or 0 for count in episodes),
        num_bytes=sum(unit.num_bytes for unit in units),
        id_bounds=joined_bounds([unit.id_bounds for unit in units]),
    )


def joined_bounds(bounds: Sequence[tuple[Any, Any] | None]) -> tuple[Any, Any] | None:
    """Returns the bounds of all ids together; None if some are unknown, or texts and numbers are mixed."""
    known = [pair for pair in bounds if pair is not None]
    if not known or len(known) < len(bounds) or len({type(low) for low, _ in known}) > 1:
        return None
    return min(low for low, _ in known), max(high for _, high in known)


def units_to_compare(units: Sequence[Unit]) -> list[Unit]:
    """Returns the units that may share an episode id with another, by the bounds of their ids."""
    if joined_bounds([unit.id_bounds for unit in units]) is None:
        return list(units)
    ordered = sorted(units, key=lambda unit: unit.id_bounds or ())
    meeting: set[str] = set()
    widest = ordered[0]  # the unit so far with the largest upper bound
    for unit in ordered[1:]:
        assert unit.id_bounds is not None
        assert widest.id_bounds is not None
        if unit.id_bounds[0] <= widest.id_bounds[1]:
            meeting |= {unit.name, widest.name}
        if unit.id_bounds[1] >= widest.id_bounds[1]:
            widest = unit
    return [unit for unit in units if unit.name in meeting]
