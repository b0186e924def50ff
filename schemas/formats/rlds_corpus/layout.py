"""Folders of TensorFlow Datasets: builders with their splits and shards.

bridge_dataset/                                  a folder of several builders, a builder, or one of its versions may be given
  1.0.0/
    dataset_info.json                            how many records each shard should have
    features.json                                see `features`
    bridge_dataset-train.tfrecord-00000-of-00512
    bridge_dataset-val.tfrecord-00000-of-00016
"""

import dataclasses
import json
import re
from collections.abc import Mapping

from vlm_rewards.schemas.formats.folder import File, Folder
from vlm_rewards.schemas.formats.rlds_corpus.features import Declared, parse_features

FEATURES, INFO = "features.json", "dataset_info.json"

_SHARD = re.compile(
    r"(?:(?P<name>[A-Za-z]\w*)-)?(?P<split>[\w.+-]+?)\.tfrecord(?:-(?P<shard>\d{5,})-of-(?P<shards>\d{5,}))?", re.ASCII
)
_VERSION = re.compile(r"\d+\.\d+\.\d+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """A file of records.

    Args:
        file: The file.
        split: Split, such as "train".
        number: Number within the split.
        num_shards: Files that the split has, as its name says; 1 where it says nothing.
        num_records: Records that dataset_info.json promises, where it does.
    """

    file: File
    split: str
    number: int
    num_shards: int
    num_records: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Builder:
    """One version of one data set.

    Args:
        folder: Name of its folder below the corpus's; "" for that folder itself.
        declared: Declarations of its features.json, by path.
        shards: Files of records, in order.
        companions: Names of its other files: what describes it, labels and statistics.
    """

    folder: str
    declared: Mapping[str, Declared]
    shards: tuple[Shard, ...]
    companions: tuple[str, ...]


def is_rlds(folder: Folder) -> bool:
    """Returns whether a folder holds TFRecord files, or what describes them."""
    names = {file.name.rpartition("/")[2] for file in folder.files}
    return names >= {FEATURES, INFO} or any(_SHARD.fullmatch(name) for name in names)


def find_builders(folder: Folder) -> list[Builder]:
    """Finds the builders of a folder.

    Raises:
        ValueError: There is no TFRecord file, a builder has several versions, or what its features.json says cannot be read.
    """
    files: dict[str, list[File]] = {}
    for file in folder.files:
        place, _, name = file.name.rpartition("/")
        if _SHARD.fullmatch(name):
            files.setdefault(place, []).append(file)
    if not files:
        raise ValueError(f"a data set must have files .tfrecord: got none in {folder}{_other_container(folder)}")
    _check_versions(folder, list(files))
    return [_builder(folder, place, found) for place, found in files.items()]


def _other_container(folder: Folder) -> str:
    """Returns the fix for the container that dataset_info.json names."""
    for file in folder.files:
        if file.name.rpartition("/")[2] == INFO:
            container = _info(folder, file.name).get("fileFormat", "tfrecord")
            if container != "tfrecord":
                return f", whose records are in {container!r}. Convert it with `tfds convert_format` to tfrecord"
    return ". Download the data set's files"


def _check_versions(folder: Folder, places: list[str]) -> None:
    versions: dict[str, list[str]] = {}
    for place in places:
        parent, _, name = place.rpartition("/")
        if _VERSION.fullmatch(name):
            versions.setdefault(parent, []).append(name)
    for parent, found in versions.items():
        if len(found) > 1:
            raise ValueError(
                f"one version of a data set can be read: got {', '.join(found)} in {folder.path(parent).rstrip('/')}. "
                f"Give the folder of one of them, such as {folder.path(f'{parent}/{found[-1]}'.strip('/'))}"
            )


def _builder(folder: Folder, place: str, files: list[File]) -> Builder:
    name = f"{place}/{FEATURES}" if place else FEATURES
    if not folder.has_file(name):
        raise ValueError(
            f"a data set of TFRecord files must have {FEATURES} beside them: got none in {folder.path(place).rstrip('/')}. "
            "Copy it from the data set's folder, or write it with tensorflow_datasets"
        )
    try:
        declared = parse_features(folder.read(name))
    except ValueError as error:
        raise ValueError(f"{folder.path(name)} cannot be used: {error}") from error
    promised = _promised(folder, place)
    shards = []
    for file in files:
        match = _SHARD.fullmatch(file.name.rpartition("/")[2])
        assert match is not None
        number = int(match["shard"] or 0)
        lengths = promised.get(match["split"], ())
        num_records = lengths[number] if number < len(lengths) else None
        num_shards = int(match["shards"] or 1)
        shards.append(
            Shard(file=file, split=match["split"], number=number, num_shards=num_shards, num_records=num_records)
        )
    return Builder(folder=place, declared=declared, shards=tuple(shards), companions=_companions(folder, place))


def _companions(folder: Folder, place: str) -> tuple[str, ...]:
    prefix = f"{place}/" if place else ""
    beside = [file.name for file in folder.files if file.name.rpartition("/")[0] == place]
    return tuple(name for name in beside if name.removeprefix(prefix).endswith((".json", ".labels.txt")))


def _promised(folder: Folder, place: str) -> dict[str, list[int]]:
    """Records per shard by split, as dataset_info.json says; empty where it does not."""
    name = f"{place}/{INFO}" if place else INFO
    if not folder.has_file(name):
        return {}
    try:
        return {
            split["name"]: [int(count) for count in split.get("shardLengths", ())]
            for split in _info(folder, name).get("splits", ())
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{folder.path(name)} must list splits with shardLengths: got {type(error).__name__} ({error}). Write it with "
            "tensorflow_datasets, or remove it"
        ) from error


def _info(folder: Folder, name: str) -> dict:
    try:
        info = json.loads(folder.read(name))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{folder.path(name)} must be JSON: got {error}. Copy it again, or remove it") from error
    if not isinstance(info, dict):
        raise ValueError(
            f"{folder.path(name)} must be a JSON object: got {str(info)[:60]}. Copy it again, or remove it"
        )
    return info
