"""Finds Minari data sets and reads their metadata on observations.

    data/metadata.json                              what the observations are: a tree of spaces
    data/main_data.hdf5                             HDF5: every episode
    data/0/part-0.arrow  data/1/part-0.arrow        Arrow (or .parquet): an episode per file

metadata.json holds the lowest and the highest value of every pixel, megabytes of numbers that nobody needs: they are cut out
before the JSON is read.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from vlm_rewards.schemas.formats.folder import Folder

METADATA, MAIN_FILE = "metadata.json", "main_data.hdf5"
MAX_METADATA_BYTES = 256 << 20
INSTRUCTION = "mission"
"""The observation that is the instruction, where people name no other."""
WHOLE = "observations"
"""Name of the only observation if the observations are not a tree."""
_EPISODE = re.compile(r"(.*?/|)\d+/part-\d+\.(arrow|parquet)")
_BOUNDS = re.compile(r'"(low|high)":\s*\[[\[\]\d\s,.eE+NaInfity-]*\]')


def data_folders(folder: Folder) -> list[str]:
    """Returns the data sets in a folder, by the path below it of what Minari calls `data`, with a "/" at its end."""
    found: dict[str, None] = {}
    for file in folder.files:
        if file.name.rpartition("/")[2] == MAIN_FILE:
            found[file.name.removesuffix(MAIN_FILE)] = None
        elif match := _EPISODE.fullmatch(file.name):
            found[match[1]] = None
    return [prefix for prefix in found if folder.has_file(prefix + METADATA)]


class Metadata(NamedTuple):
    """Contents of metadata.json.

    Attributes:
        spaces: The spaces of the observations by their paths, as Minari writes them; of one that is no tree, under the name
            WHOLE. Nothing where it does not say, as that of old versions.
        num_episodes: Number of episodes; None where it does not say.
    """

    spaces: Mapping[str, Mapping[str, Any]]
    num_episodes: int | None


def read_metadata(folder: Folder, prefix: str) -> Metadata:
    """Reads the metadata of a data set.

    Raises:
        ValueError: The metadata are no JSON, or too large.
    """
    name = prefix + METADATA
    num_bytes = folder.size(name)
    if num_bytes > MAX_METADATA_BYTES:
        raise ValueError(
            f"metadata of Minari must be {MAX_METADATA_BYTES} bytes at most: got {num_bytes} in {folder.path(name)}. Remove "
            "the bounds of its pictures"
        )
    try:
        record = json.loads(folder.read(name))
        space, number = record.get("observation_space"), record.get("total_episodes")
        tree = None if space is None else json.loads(_BOUNDS.sub(r'"\1":null', space))
        spaces = {} if tree is None else dict(_leaves(tree, ""))
        return Metadata(spaces, number if isinstance(number, int) else None)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"metadata of Minari must say what the observations are: got {error!r} in {folder.path(name)}. Copy the data set "
            "again"
        ) from error


def _leaves(space: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if space["type"] not in ("Dict", "Tuple"):
        yield path or WHOLE, space
        return
    inner = space["subspaces"]
    for name, subspace in inner.items() if isinstance(inner, dict) else enumerate(inner):
        yield from _leaves(subspace, f"{path}/{name}" if path else str(name))
