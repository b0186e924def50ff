"""Data sets of Minari, whatever their storage: T+1 frames for T actions, pictures as the bytes that they are.

Ids are "episode_0", "episode_1", ... in every storage. Which storage it is, the files tell.
"""

from collections.abc import Mapping

from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.hdf5_corpus.reader import Hdf5Reader, first_look, open_recordings
from vlm_rewards.schemas.formats.hdf5_corpus.recording import Told
from vlm_rewards.schemas.formats.interface import CorpusFormat, CorpusReader
from vlm_rewards.schemas.formats.minari_corpus.arrow_storage import ArrowStorageReader, StoredEpisode, episode_files
from vlm_rewards.schemas.formats.minari_corpus.hdf5_storage import MINARI_HDF5
from vlm_rewards.schemas.formats.minari_corpus.layout import (
    MAIN_FILE,
    METADATA,
    Metadata,
    data_folders,
    read_metadata,
)

_SHOWN = 5


def open_minari(folder: Folder, options: Mapping[str, str]) -> CorpusReader:
    """Opens a data set: its folder, the folder `data` in it, or its main_data.hdf5.

    Raises:
        ValueError: The folder holds several data sets, or no episode can be read.
    """
    told = Told.of(options)
    prefixes = data_folders(folder)
    if len(prefixes) > 1:
        names = [prefix.removesuffix("/").removesuffix("data").removesuffix("/") or "." for prefix in prefixes]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise ValueError(
            f"a corpus must be one data set of Minari: got {', '.join(names[:_SHOWN])}{more} in {folder}. Give the folder of "
            "one of them"
        )
    prefix = prefixes[0]
    main = prefix + MAIN_FILE
    if folder.has_file(main):
        return _open_main_file(folder, prefix, main, told)
    metadata = read_metadata(folder, prefix)
    first: ValueError | None = None
    files = episode_files(folder, prefix)
    for file in files:
        try:
            stored = StoredEpisode.open(folder, file.name, metadata.spaces, told)
        except ValueError as error:
            first = first or error
            continue
        notes = _notes(metadata, len(files))
        return ArrowStorageReader(folder, prefix, metadata.spaces, told, stored.features, notes)
    raise ValueError(
        f"a corpus must have an episode that can be read: got none in {len(files)} files, the first being "
        f"{folder.path(files[0].name)} ({first})"
    ) from first


def _open_main_file(folder: Folder, prefix: str, main: str, told: Told) -> Hdf5Reader:
    layouts = (MINARI_HDF5,)
    features, notes = first_look(folder, [main], told, layouts)
    try:
        metadata = read_metadata(folder, prefix)
    except ValueError as error:  # the file itself tells what it holds
        notes += (f"{prefix}{METADATA} is not used: {error}",)
    else:
        _, _, keys = open_recordings(folder, main, told, layouts)
        notes += _notes(metadata, len(keys))
    return Hdf5Reader(folder, features, told, layouts, main, metadata=prefix + METADATA, notes=notes)


def _notes(metadata: Metadata, num_episodes: int) -> tuple[str, ...]:
    if metadata.num_episodes in (None, num_episodes):
        return ()
    return (f"{METADATA} says {metadata.num_episodes} episodes, the files hold {num_episodes}: the files are read",)


MINARI = CorpusFormat(
    name="minari",
    recognizes=lambda folder: bool(data_folders(folder)),
    open=open_minari,
    options={
        "states": "names of observations that make up the state vector, with commas between them",
        "instruction": "name of the observation that is the instruction; mission by default",
    },
)
