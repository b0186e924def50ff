"""Opens HDF5 files safely: never follows links to other files, and reports broken data in plain words.

An HDF5 file may point to others: by an external link, by a virtual data set, or by a data set whose bytes lie elsewhere. A
corpus is what lies in its folder, so all three are refused; a link within the file is followed.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from vlm_rewards.schemas.formats.folder import File, Folder
from vlm_rewards.schemas.formats.interface import InvalidEpisodeError

if TYPE_CHECKING:
    import h5py

ENDINGS = (".hdf5", ".h5")
_MAX_DEPTH = 16
_SHOWN = 12


class UnreadableFileError(ValueError):
    """Raised for a file that is not HDF5, is cut short, or holds no readable episodes."""


def hdf5_files(folder: Folder) -> list[File]:
    """Returns the HDF5 files of a folder, in order."""
    return folder.files_ending(ENDINGS)


def open_hdf5(folder: Folder, name: str) -> "h5py.File":
    """Opens a file for reading; it is closed when nothing refers to it or to a part of it any more.

    Raises:
        UnreadableFileError: It is no HDF5, or it is cut short.
    """
    import h5py  # here, since it takes a while to load

    source = folder.path(name) if folder.is_local else folder.open(name)
    try:
        return h5py.File(source, "r")
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        num_bytes = folder.size(name)
        detail = f"a shard must be a whole HDF5 file: got {num_bytes} bytes that are not ({error}). Copy it again from its source"
        raise UnreadableFileError(detail) from error


@contextlib.contextmanager
def plain_errors(what: str) -> Iterator[None]:
    """Context manager that turns h5py's errors on broken data into an InvalidEpisodeError.

    Args:
        what: Name of what is read, for the message.
    """
    try:
        yield
    except (OSError, RuntimeError, KeyError) as error:
        detail = (
            f"{what} must be readable: got an error of the HDF5 library ({error}). Copy the file again from its source"
        )
        raise InvalidEpisodeError("unreadable data", detail) from error


def find(group: "h5py.Group", name: str, depth: int = 0) -> "h5py.Group | h5py.Dataset | None":
    """Returns the object at a path below a group, within this file.

    Args:
        group: Group where the path begins.
        name: The path, with "/" between names; one that begins with "/" begins at the root.
        depth: Links followed so far.

    Returns:
        A group or a data set; None where there is none, or another kind of object.

    Raises:
        ValueError: A link leads out of the file, or in a circle.
    """
    import h5py

    here: Any = group.file if name.startswith("/") else group
    for part in filter(None, name.split("/")):
        if not isinstance(here, h5py.Group):
            return None
        with plain_errors(f"the entry {part!r} of {here.name!r}"):
            link = here.get(part, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise ValueError(
                    f"an HDF5 file must hold its data itself: got a link from {_path(here, part)!r} to {link.filename!r}. "
                    "Copy the data into the file"
                )
            if isinstance(link, h5py.SoftLink):
                if depth == _MAX_DEPTH:
                    raise ValueError(
                        f"links of an HDF5 file must lead to data: got a circle at {_path(here, part)!r}. Remove the link"
                    )
                here = find(here, link.path, depth + 1)
            else:
                here = None if link is None else here[part]
    if isinstance(here, h5py.Dataset):
        _check_inside(here)
    return here if isinstance(here, h5py.Group | h5py.Dataset) else None


def group_at(group: "h5py.Group", name: str) -> "h5py.Group | None":
    """Returns the group at a path; None where there is none. See `find`."""
    import h5py

    found = find(group, name)
    return found if isinstance(found, h5py.Group) else None


def dataset_at(group: "h5py.Group", name: str) -> "h5py.Dataset | None":
    """Returns the data set at a path; None where there is none. See `find`."""
    import h5py

    found = find(group, name)
    return found if isinstance(found, h5py.Dataset) else None


def datasets(group: "h5py.Group", depth: int = 0) -> Iterator[tuple[str, "h5py.Dataset"]]:
    """Lists the data sets of a group and of groups in it, by their paths below it, in the file's order.

    Raises:
        ValueError: A link leads out of the file, or groups are nested too deeply.
    """
    import h5py

    if depth == _MAX_DEPTH:
        raise ValueError(
            f"groups must be nested {_MAX_DEPTH} deep at most: got more at {group.name!r}. Remove the circle"
        )
    for name in group:
        found = find(group, name)
        if isinstance(found, h5py.Dataset):
            yield name, found
        elif found is not None:
            yield from ((f"{name}/{inner}", dataset) for inner, dataset in datasets(found, depth + 1))


def read_all(dataset: "h5py.Dataset") -> np.ndarray:
    """Returns the whole of a small data set."""
    with plain_errors(f"the data set {dataset.name!r}"):
        return cast(np.ndarray, dataset[()])


def text_of(value: object) -> str | None:
    """Returns a text that is an attribute, or one element of a data set; None for anything else."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return value if isinstance(value, str) else None


def summary_of(group: "h5py.Group") -> str:
    """Returns the names in a group, for messages; of data sets with shape and dtype."""
    import h5py

    names = []
    for name in list(group)[:_SHOWN]:
        found = group.get(name, getlink=True)
        entry = group.get(name) if isinstance(found, h5py.HardLink) else None
        shape = (
            f" {list(entry.shape)} {entry.dtype}" if isinstance(entry, h5py.Dataset) and entry.shape is not None else ""
        )
        names.append(f"{name}{'/' if isinstance(entry, h5py.Group) else ''}{shape}")
    more = f" and {len(group) - _SHOWN} more" if len(group) > _SHOWN else ""
    return ", ".join(names) + more or "nothing"


def _check_inside(dataset: "h5py.Dataset") -> None:
    if dataset.is_virtual:
        kind = "a virtual data set"
    elif dataset.external:
        kind = f"a data set whose bytes are in {dataset.external[0][0]!r}"
    else:
        return
    raise ValueError(
        f"an HDF5 file must hold its data itself: got {kind} at {dataset.name!r}. Copy the data into the file"
    )


def _path(group: "h5py.Group", name: str) -> str:
    return f"{(group.name or '').rstrip('/')}/{name}"
