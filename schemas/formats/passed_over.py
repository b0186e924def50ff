"""Reports files of a corpus's folder that are not read: in full in the manifest, shortened on the screen.

12 names, one reason  ──►  passed over (ends with .txt, which the format parquet does not read): a.txt, b.txt, c.txt and 9 more
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from vlm_rewards.schemas.files.remote_paths import Location, location_of
from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.listing import COMPANION, File, PassedOver

_SHOWN = 3
_GOALS = "goals.jsonl"
_COMPRESSED_TARS = (".tar.gz", ".tar.zst", ".tar.xz", ".tar.bz2", ".tar.lz4", ".tgz", ".txz", ".tbz2", ".tzst")
_ARCHIVES = {".zip", ".gz", ".7z", ".rar", ".zst", ".xz", ".bz2", ".lz4"}


def find_passed_over(folder: Folder, format_name: str | None, own: Iterable[str]) -> tuple[PassedOver, ...]:
    """Finds the files below a folder that a format does not read.

    Args:
        folder: The corpus's folder.
        format_name: Name of its format; None if it has none.
        own: Files of the format itself; a name that ends with "/" stands for all files below that folder.

    Returns:
        Files and folders, in the order of their names, each once.
    """
    names = set(own)
    folders = {name for name in names if name.endswith("/")}
    endings = {File(name, 0).suffix for name in names - folders}
    others = [
        PassedOver(file.name, _reason(file, format_name, endings)) for file in folder.files if file.name not in names
    ]
    found = [*others, *(entry for entry in folder.left_out if entry.name not in names)]
    if folders:
        found = [entry for entry in found if not any(entry.name.startswith(name) for name in folders)]
    return tuple(sorted(found, key=lambda entry: entry.name.split("/")))


def _reason(file: File, format_name: str | None, endings: Collection[str]) -> str:
    if file.name.lower().endswith(_COMPRESSED_TARS):
        return "is a compressed tar, which cannot be read from its middle; unpack it to a plain .tar"
    if file.suffix in _ARCHIVES:
        return "is a compressed archive; unpack it"
    if file.suffix in endings:
        return "is no part of the corpus, as its own metadata says"
    ending = f"ends with {file.suffix}" if file.suffix else "has a name without an ending"
    return f"{ending}, which {'no format reads' if format_name is None else f'the format {format_name} does not read'}"


def without_outputs(found: Iterable[PassedOver], folder: Folder, outputs: Iterable[str | Location]) -> list[PassedOver]:
    """Returns the entries without the folders that a run writes itself, so that a resumed run reports the same."""
    own = {_whole(location_of(output)) for output in outputs}
    return [entry for entry in found if _whole(location_of(folder.path(entry.name))) not in own]


def passed_over_beside(
    found: Iterable[PassedOver], folder: Folder, used: Iterable[str | Location]
) -> dict[str, list[str]]:
    """Returns the entries as a JSON object, for commands that compare labels with a corpus.

    Args:
        found: What the format does not read.
        folder: The corpus's folder.
        used: What the command itself reads or writes, beside goals.jsonl, which says what the truth covers.
    """
    return passed_over_record(without_outputs(found, folder, [*used, folder.path(_GOALS)]))


def _whole(location: Location) -> Location:
    return location.resolve() if isinstance(location, Path) else location


def passed_over_record(found: Iterable[PassedOver]) -> dict[str, list[str]]:
    """Returns the entries as a JSON object for manifests: all names by reason."""
    record: dict[str, list[str]] = {}
    for entry in found:
        record.setdefault(entry.reason, []).append(entry.name)
    return dict(sorted(record.items()))


def passed_over_lines(record: Mapping[str, list[str]]) -> list[str]:
    """Returns the entries in lines for the user, one per reason.

    Args:
        record: Result of `passed_over_record`.
    """
    lines = [f"passed over ({reason}): {_brief(names)}" for reason, names in record.items() if reason != COMPANION]
    if COMPANION in record:
        lines.append(f"beside the corpus, not read: {_brief(record[COMPANION])}")
    return lines


def _brief(names: list[str]) -> str:
    shown = ", ".join(name if name.isprintable() else repr(name) for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN:,} more"
