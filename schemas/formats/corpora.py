"""Corpora of recorded episodes: which formats there are, and how a folder of shards becomes units of work.

    data/                                          plan_units                              read_episodes(unit)
      a.parquet (40 MB)      ──►  Unit a                                          ──►  Episode, Failure, Episode, ...
      b.parquet (600 MB)     ──►  Unit b-g00000-00009, b-g00009-00018, ...

A format is one file with five functions and one entry of FORMATS.
"""

import dataclasses
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.formats.parquet_corpus.reader import (
    plan_parquet,
    read_parquet,
    read_parquet_features,
    read_parquet_ids,
)
from vlm_rewards.schemas.formats.parquet_corpus.writer import write_parquet
from vlm_rewards.schemas.formats.webdataset_corpus.reader import (
    plan_webdataset,
    read_webdataset,
    read_webdataset_features,
    read_webdataset_ids,
    write_webdataset,
)
from vlm_rewards.schemas.manifests import Failure, Unit

MAX_UNIT_BYTES = 256 * 2**20
_DIGEST_BYTES = 64 * 2**10


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusFormat:
    """A container of episodes: its file name extension, without the dot, and what can be done with a file or unit."""

    extension: str
    plan: Callable[[Path, int], list[Unit]]
    read: Callable[..., Iterator[Episode | Failure]]
    read_ids: Callable[[Unit], list[str]]
    read_features: Callable[[Unit], CorpusFeatures]
    write: Callable[[Path, CorpusFeatures, Iterable[Episode]], None]


FORMATS = {
    "parquet": CorpusFormat(
        extension="parquet",
        plan=plan_parquet,
        read=read_parquet,
        read_ids=read_parquet_ids,
        read_features=read_parquet_features,
        write=write_parquet,
    ),
    "webdataset": CorpusFormat(
        extension="tar",
        plan=plan_webdataset,
        read=read_webdataset,
        read_ids=read_webdataset_ids,
        read_features=read_webdataset_features,
        write=write_webdataset,
    ),
}


def plan_units(input_path: str | Path, *, max_unit_bytes: int = MAX_UNIT_BYTES) -> list[Unit]:
    """Lists the units of work of a corpus, in the order of their shards' paths.

    Args:
        input_path: A shard; a folder with shards in it or in folders below it; or an output folder of ours, whose parts
            are the shards. Names that begin with "." or "_" and unfinished temporary files are passed over.
        max_unit_bytes: A larger shard is cut into units of about this size, where its format allows.

    Returns:
        Units whose names follow from the shard's path below `input_path` and the range, and can be file names.

    Raises:
        ValueError: There is nothing to read, there are two formats, or the folder is the output of an unfinished run.
    """
    root = Path(input_path)
    if max_unit_bytes < 1:
        raise ValueError(f"max_unit_bytes must be at least 1, got {max_unit_bytes}; the default is {MAX_UNIT_BYTES}")
    units = []
    for shard in _shards(root):
        stem = _unit_stem(shard.name if shard == root else shard.relative_to(root).as_posix())
        content = _content(shard)
        for unit in _format_of(shard).plan(shard, max_unit_bytes):
            name = stem + unit.name.removeprefix(shard.stem)
            units.append(dataclasses.replace(unit, name=name, content=content))
    twice = [name for name, count in Counter(unit.name for unit in units).items() if count > 1]
    if twice:
        raise ValueError(f"every unit must have a name of its own, got {twice[0]!r} twice; rename a shard in {root}")
    return units


def read_episodes(
    unit: Unit, *, images: bool = True, cameras: Sequence[str] | None = None
) -> Iterator[Episode | Failure]:
    """Streams a unit's episodes, and a Failure for each that cannot be read; memory is bounded by the largest episode.

    Args:
        unit: One of `plan_units`.
        images: False leaves the pictures unread, which is much faster: every frame is then b"", so that lengths hold.
        cameras: Read only these; all by default. A shard or episode that lacks one is a Failure.
    """
    return _format_of(Path(unit.shard)).read(unit, images=images, cameras=cameras)


def read_episode_ids(unit: Unit) -> list[str]:
    """The ids of a unit's episodes in order, each once, without reading the episodes.

    What cannot be read is left out: `read_episodes` says why.
    """
    return _format_of(Path(unit.shard)).read_ids(unit)


def read_features(unit: Unit) -> CorpusFeatures:
    """What the unit's corpus holds.

    Raises:
        ValueError: The shard cannot be read, or is no corpus.
    """
    return _format_of(Path(unit.shard)).read_features(unit)


def corpus_features(units: Sequence[Unit]) -> CorpusFeatures:
    """What a corpus holds, by its first readable shard; the run records what is wrong with the others.

    Raises:
        ValueError: No shard can be read; the message says what is wrong with the first.
    """
    first: ValueError | None = None
    for unit in units:
        try:
            return read_features(unit)
        except ValueError as error:
            first = first or error
    raise ValueError(
        f"a corpus must have a readable shard, got {len(units)} that are not, the first being {units[0].shard} ({first}); "
        f"copy or record it again"
    ) from first


def write_episodes(path: str | Path, features: CorpusFeatures, episodes: Iterable[Episode], format_name: str) -> None:
    """Writes one shard; the same episodes give the same bytes. After an error no file is left.

    Args:
        path: The file; replaced if it exists. Its name need not tell the format.
        features: What every episode holds.
        episodes: The episodes, read one at a time.
        format_name: One of FORMATS.

    Raises:
        ValueError: The format is none, or an episode holds other things than `features` says.
    """
    check_format(format_name)
    path = Path(path)
    try:
        FORMATS[format_name].write(path, features, episodes)
    except BaseException:
        path.unlink(missing_ok=True)  # closed in good order, half a file would look like a whole one
        raise


def check_format(format_name: str) -> None:
    """Refuses a format that is none of FORMATS.

    Raises:
        ValueError: It is none.
    """
    if format_name not in FORMATS:
        raise ValueError(f"a format must be one of {', '.join(FORMATS)}, got {format_name!r}; choose one")


def _format_of(shard: Path) -> CorpusFormat:
    for known in FORMATS.values():
        if shard.suffix.lower() == f".{known.extension}":
            return known
    endings = ", ".join(f".{known.extension}" for known in FORMATS.values())
    raise ValueError(f"a shard's name must end with one of {endings}, got {shard}; rename or convert it")


def _shards(root: Path) -> list[Path]:
    if root.is_file():
        _format_of(root)
        return [root]
    if not root.is_dir():
        raise ValueError(f"a corpus must be a file or a folder, got {root}, which is not there; check the path")
    if (root / "settings.json").is_file() and not (root / "manifest.json").is_file():
        raise ValueError(
            f"a corpus must be finished, got {root}, which has no manifest.json; run the command that made it again"
        )
    folder = root / "parts" if (root / "parts").is_dir() else root
    shards: list[Path] = []
    for directory, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name[0] not in "._"]
        shards += [Path(directory, name) for name in files if name[0] not in "._"]
    extensions = {f".{known.extension}" for known in FORMATS.values()}
    shards = sorted(shard for shard in shards if shard.suffix.lower() in extensions)
    if not shards:
        endings = ", ".join(sorted(extensions))
        raise ValueError(f"a corpus must hold shards ({endings}), got none in {folder}; check the path")
    found = {shard.suffix.lower(): shard for shard in shards}
    if len(found) > 1:
        names = " and ".join(shard.name for shard in found.values())
        raise ValueError(f"a corpus must be of one format, got {names} in {folder}; give the folder of one of them")
    return shards


def _unit_stem(relative: str) -> str:
    """The shard's path as part of a file name: as it is, or else made safe and told apart by a digest."""
    stem = relative.removeprefix("parts/").rpartition(".")[0]
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", stem)[-100:]
    return safe if safe == stem else f"{safe}-{hashlib.sha256(relative.encode()).hexdigest()[:8]}"


def _content(shard: Path) -> str:
    """A digest of a shard's size, head and tail: cheap, and another for a shard that was replaced."""
    size = shard.stat().st_size
    with shard.open("rb") as file:
        head = file.read(_DIGEST_BYTES)
        file.seek(max(0, size - _DIGEST_BYTES))
        tail = file.read(_DIGEST_BYTES)
    return hashlib.sha256(b"%d\n" % size + head + tail).hexdigest()[:16]
