"""Objects that other installed packages add, such as corpus formats, domains, encoders and formulas.

A package declares them as entry points, and needs no edit here:

    [project.entry-points."vlm_rewards.formats"]
    zarr = "my_package.zarr_corpus:ZARR"
"""

import functools
import sys
import time
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

_SETTLED_S = 2.0  # a folder changed within the resolution of the clock would look the same


def load_extensions(group: str) -> dict[str, object]:
    """Loads what installed packages declare under an entry-point group.

    Args:
        group: Name of the entry-point group, such as "vlm_rewards.formats".

    Returns:
        The loaded objects by the names of their entry points, sorted by name; empty where no package declares any.

    Raises:
        ValueError: Two packages declare the same name, or an entry point cannot be imported.
    """
    folders = tuple((folder, _changed_at(folder)) for folder in sys.path)
    is_settled = time.time() - max((changed for _, changed in folders), default=0.0) > _SETTLED_S
    return dict((_loaded if is_settled else _loaded.__wrapped__)(group, folders))


def _changed_at(folder: str) -> float:
    try:
        return Path(folder).stat().st_mtime
    except OSError:  # sys.path may hold what is not there
        return 0.0


@functools.lru_cache(maxsize=64)
def _loaded(group: str, _: tuple[tuple[str, float], ...]) -> dict[str, object]:
    """Looks the group up anew where packages were installed or removed: it takes about 10 ms, and settings call it often."""
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=group), key=lambda point: (point.name, _distribution(point))):
        other = found.setdefault(point.name, point)
        if other is not point and other.value != point.value:
            raise ValueError(
                f"a name in the entry-point group {group!r} must belong to one package: got {point.name!r} from "
                f"{_distribution(other)} and from {_distribution(point)}. Uninstall one of the two."
            )
    return {name: _load(group, point) for name, point in found.items()}


def _load(group: str, point: EntryPoint) -> object:
    try:
        return point.load()
    except Exception as error:  # a foreign package may raise anything while it is imported
        raise ValueError(
            f"the extension {point.name!r} of {_distribution(point)} cannot be imported: got {error!r} from "
            f"{point.value!r} in the entry-point group {group!r}. Fix or uninstall that package."
        ) from error


def _distribution(point: EntryPoint) -> str:
    return "an unknown package" if point.dist is None else f"{point.dist.name} {point.dist.version}"
