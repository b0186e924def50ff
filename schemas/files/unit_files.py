"""What an output folder says of its units: their markers and the sizes of their parts, few at a time or all at once.

labels/markers/<unit>.json   labels/parts/<unit>.parquet      a store is asked once for all units, and not per unit
"""

from collections.abc import Iterator, Sequence

from vlm_rewards.schemas.files.remote_paths import Location, RemotePath, size_of
from vlm_rewards.schemas.manifests import PartStatistics


def unit_states(folder: Location, names: Sequence[str], extension: str) -> Iterator[tuple[bytes | None, int | None]]:
    """Yields the marker of each unit and the size of its part; None for what is not there.

    Args:
        folder: The output folder.
        names: Names of the units.
        extension: Of parts, without the dot.
    """
    if isinstance(folder, RemotePath) and len(names) > 1:
        yield from _listed_states(folder, names, extension)
        return
    for name in names:
        marker = folder / "markers" / f"{name}.json"
        part = folder / "parts" / f"{name}.{extension}"
        yield (marker.read_bytes(), size_of(part)) if marker.is_file() else (None, None)


def _listed_states(
    folder: RemotePath, names: Sequence[str], extension: str
) -> Iterator[tuple[bytes | None, int | None]]:
    markers = folder / "markers"
    there = markers.files_below()
    contents = markers.read_each(f"{name}.json" for name in names if f"{name}.json" in there)
    sizes = (folder / "parts").files_below() if contents else {}
    for name in names:
        content = contents.get(f"{name}.json")
        yield content, None if content is None else sizes.get(f"{name}.{extension}")


def unit_names(folder: Location, kind: str, extension: str) -> set[str]:
    """Names of all units that have a file in a folder of the output.

    Args:
        folder: The output folder.
        kind: "parts" or "markers".
        extension: Of the files, without the dot.
    """
    inside = folder / kind
    if isinstance(inside, RemotePath):
        ending = f".{extension}"
        return {name.removesuffix(ending) for name in inside.files_below() if name.endswith(ending)}
    return {path.stem for path in inside.glob(f"*.{extension}")}


def read_failures(folder: Location) -> Iterator[str]:
    """Yields what failed in an output folder, a JSON object each, in the order of the units' names."""
    failures = folder / "failures"
    if isinstance(failures, RemotePath):
        texts = [content.decode() for _, content in sorted(failures.read_each(failures.files_below()).items())]
    else:
        texts = [path.read_text(encoding="utf-8") for path in sorted(failures.glob("*.jsonl"))]
    for text in texts:
        yield from text.splitlines()


def read_all_markers(folder: Location) -> list[PartStatistics]:
    """Reads all markers of an output folder, in the order of the units' names."""
    if isinstance(folder, RemotePath):
        markers = folder / "markers"
        contents = markers.read_each(markers.files_below())
        return [PartStatistics.from_json(content.decode()) for _, content in sorted(contents.items())]
    paths = sorted((folder / "markers").glob("*.json"))
    return [PartStatistics.from_json(path.read_text(encoding="utf-8")) for path in paths]
