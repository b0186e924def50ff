"""Collects notes for the user on an RLDS data set: missing files, differing counts, pictures that are not cameras."""

from collections.abc import Iterator, Sequence

from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.rlds_corpus.layout import INFO, Shard
from vlm_rewards.schemas.formats.rlds_corpus.roles import Roles, is_observation
from vlm_rewards.schemas.formats.rlds_corpus.tfrecord import BrokenFileError, walk_records


def data_set_notes(
    folder: Folder, place: str, shards: Sequence[Shard], roles: Roles, all_cameras: Sequence[str]
) -> list[str]:
    """Returns the notes on a data set.

    Args:
        folder: The corpus's folder.
        place: Name of the data set's folder below it.
        shards: Files that are read.
        roles: Roles of its features.
        all_cameras: Names of the cameras that are declared.
    """
    where = f" of {place}" if place else ""
    notes = [*_missing_files(shards, where), *_other_counts(folder, shards, where)]
    absent = [camera for camera in all_cameras if camera not in roles.cameras]
    if absent:
        notes.append(
            f"the first episodes{where} have no camera {', '.join(absent)}: a filler stands for it; the option cameras reads it "
            "where it is"
        )
    for path, feature in roles.declared.items():
        if is_observation(path) and feature.why_no_camera:
            notes.append(f"{path}{where} is no camera: it has {feature.why_no_camera}")
    return notes


def _missing_files(shards: Sequence[Shard], where: str) -> Iterator[str]:
    for split in dict.fromkeys(shard.split for shard in shards):
        found = {shard.number for shard in shards if shard.split == split}
        promised = max(shard.num_shards for shard in shards if shard.split == split)
        if len(found) < promised:
            yield f"the split {split}{where} has {promised:,} files by their names, but {len(found):,} are there, which are read"


def _other_counts(folder: Folder, shards: Sequence[Shard], where: str) -> Iterator[str]:
    """Compares the records with dataset_info.json; on disks alone, since each record costs a request elsewhere."""
    if not folder.is_local:
        return
    for split in dict.fromkeys(shard.split for shard in shards):
        told = [shard for shard in shards if shard.split == split and shard.num_records is not None]
        promised = sum(shard.num_records or 0 for shard in told)
        found = sum(_num_records(folder, shard) for shard in told)
        if found != promised:
            yield (
                f"{INFO}{where} speaks of {promised:,} records in the files of {split} that are there, but they hold {found:,}, "
                "which are read"
            )


def _num_records(folder: Folder, shard: Shard) -> int:
    count = 0
    with folder.open(shard.file.name) as file:
        try:
            for _ in walk_records(file):
                count += 1
        except BrokenFileError:
            pass  # the read of the file says so, as a Failure
    return count
