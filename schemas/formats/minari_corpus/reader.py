"""Data sets of Minari, whatever their storage: T+1 frames for T actions, pictures as the bytes that they are.

Ids are "episode_0", "episode_1", ... in every storage. Which storage it is, the files tell.
"""

from collections.abc import Mapping

from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.hdf5_corpus.reader import Hdf5Reader, read_features
from vlm_rewards.schemas.formats.hdf5_corpus.recording import Told
from vlm_rewards.schemas.formats.interface import CorpusFormat, CorpusReader
from vlm_rewards.schemas.formats.minari_corpus.arrow_storage import ArrowStorageReader, StoredEpisode, episode_files
from vlm_rewards.schemas.formats.minari_corpus.hdf5_storage import MINARI_HDF5
from vlm_rewards.schemas.formats.minari_corpus.layout import MAIN_FILE, METADATA, data_folders, read_spaces

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
        layouts = (MINARI_HDF5,)
        features = read_features(folder, [main], told, layouts)
        return Hdf5Reader(folder, features, told, layouts, main, metadata=prefix + METADATA)
    spaces = read_spaces(folder, prefix)
    first: ValueError | None = None
    files = episode_files(folder, prefix)
    for file in files:
        try:
            stored = StoredEpisode.open(folder, file.name, spaces, told)
        except ValueError as error:
            first = first or error
            continue
        return ArrowStorageReader(folder, prefix, spaces, told, stored.features)
    raise ValueError(
        f"a corpus must have an episode that can be read: got none in {len(files)} files, the first being "
        f"{folder.path(files[0].name)} ({first})"
    ) from first


MINARI = CorpusFormat(
    name="minari",
    recognizes=lambda folder: bool(data_folders(folder)),
    open=open_minari,
    options={
        "states": "names of observations that make up the state vector, with commas between them",
        "instruction": "name of the observation that is the instruction; mission by default",
    },
)
