"""Zarr stores of replay buffers: found by their layout, opened as folders or as zip files.

    pusht.zarr/data/img [N, H, W, 3]   pusht.zarr/data/action [N, A]   pusht.zarr/meta/episode_ends [E]

zarr gives zeros for a chunk whose file is not there. So a copy that broke off would read as black frames: the files of all chunks
are looked for before pictures are read.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import itertools
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.interface import InvalidEpisodeError

if TYPE_CHECKING:
    import zarr

ENDS = "meta/episode_ends"
ZIPS = (".zarr.zip",)
_SAMPLED = 16
_BROKEN = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error)
"""Errors of zarr and its codecs on broken stores."""


class UnreadableStoreError(ValueError):
    """Raised for a store that cannot be opened or is not a replay buffer."""


@dataclasses.dataclass(frozen=True)
class Store:
    """One store of a corpus.

    Args:
        folder: The corpus's folder.
        name: Path of the zip file below it, or of the store's folder with "/" at its end; "" where the corpus is the store.
    """

    folder: Folder
    name: str

    @property
    def label(self) -> str:
        """Its name, for messages."""
        return self.name.rstrip("/") or self.folder.name

    @property
    def stem(self) -> str:
        """Prefix of its episodes' ids: its name without the ending."""
        name = self.label
        for ending in (*ZIPS, ".zarr"):
            name = name.removesuffix(ending)
        return name

    @property
    def is_zip(self) -> bool:
        """Whether it is a zip file."""
        return self.name.endswith(ZIPS)

    @functools.cached_property
    def root(self) -> "zarr.Group":
        """Its root group.

        Raises:
            UnreadableStoreError: It cannot be opened.
        """
        import zarr  # here, since it takes a while to load

        with self._plain_errors("the root"):
            path = self.folder.path(self.name.rstrip("/"))
            if not self.is_zip:
                return zarr.open_group(path, mode="r")
            if not self.folder.is_local:
                return zarr.open_group(f"zip::{path}", mode="r")
            return zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r")

    @functools.cached_property
    def ends(self) -> np.ndarray:
        """[E] int64: the row after the last of each episode.

        Raises:
            UnreadableStoreError: They are not there, or do not rise.
        """
        array = self.array(ENDS)
        if array is None:
            raise UnreadableStoreError(
                f"a replay buffer must have {ENDS}: got {', '.join(sorted(self.root)) or 'nothing'} in {self}. Convert it"
            )
        is_one_file = (array.shards or array.chunks)[0] >= array.shape[0]
        with self._plain_errors(chunk_file(array, (0,)) if is_one_file else ENDS):
            ends = np.asarray(array[:])
        if ends.ndim != 1 or ends.dtype.kind not in "iu" or (np.diff(ends, prepend=0) < 1).any():
            raise UnreadableStoreError(
                f"{ENDS} must be whole numbers that rise: got {ends.dtype} {ends.reshape(-1)[:8].tolist()} in {self}. Record "
                "the buffer again"
            )
        if not len(ends):
            raise UnreadableStoreError(f"a replay buffer must hold episodes: got none in {self}. Leave it out")
        return ends.astype(np.int64)

    def __str__(self) -> str:
        return self.folder.path(self.name.rstrip("/")) if self.name else str(self.folder)

    def array(self, path: str) -> "zarr.Array | None":
        """Returns the array at a path; None where there is none."""
        import zarr

        with self._plain_errors(path):
            found = self.root.get(path)
        return found if isinstance(found, zarr.Array) else None

    def data(self) -> dict[str, "zarr.Array"]:
        """Returns the arrays in the group `data`, in the order of their names.

        Raises:
            UnreadableStoreError: There is no such group, or a codec is not installed.
        """
        import zarr
        from numcodecs.errors import UnknownCodecError

        with self._plain_errors("data"):
            group = self.root.get("data")
            if not isinstance(group, zarr.Group):
                raise ValueError(f"it has no group 'data', but {', '.join(sorted(self.root)) or 'nothing'}")
            try:
                return self._arrays(group)
            except UnknownCodecError:
                if importlib.util.find_spec("imagecodecs") is None:
                    raise
            # UMI's pictures are JPEG XL, which is known to zarr once this package says so.
            importlib.import_module("imagecodecs.numcodecs").register_codecs()
            return self._arrays(group)

    def _arrays(self, group: "zarr.Group") -> dict[str, "zarr.Array"]:
        import zarr

        if not self.is_zip:
            return dict(sorted(group.arrays()))
        # Zarr lists no zip file behind a URL, so its own list of names tells.
        matches = map(re.compile(r"data/([^/]+)/(\.zarray|zarr\.json)").fullmatch, sorted(self.chunk_files))
        found = {match[1]: group.get(match[1]) for match in matches if match}
        return {name: array for name, array in sorted(found.items()) if isinstance(array, zarr.Array)}

    @functools.cached_property
    def chunk_files(self) -> frozenset[str]:
        """Names of the files of the store, below it."""
        if self.is_zip:
            with self.folder.open(self.name) as opened, zipfile.ZipFile(opened) as file:
                return frozenset(file.namelist())
        return frozenset(
            file.name.removeprefix(self.name) for file in self.folder.files if file.name.startswith(self.name)
        )

    def missing_chunk(self, array: "zarr.Array", start: int, stop: int) -> str | None:
        """Returns the name of a file that is not there, of those that hold the rows `start` to `stop`, exclusive; None for none."""
        shape = array.shards or array.chunks
        rows = range(start // shape[0], (stop - 1) // shape[0] + 1)
        others = [range(-(-size // chunk)) for size, chunk in zip(array.shape[1:], shape[1:], strict=True)]
        for place in itertools.product(rows, *others):
            name = chunk_file(array, place)
            if name not in self.chunk_files:
                return name
        return None

    def content_files(self, arrays: Sequence["zarr.Array"]) -> list[str]:
        """Returns the names of files whose digests tell another content of the store: some chunks of each array, and its ends."""
        if self.is_zip:
            return [self.name]
        chosen: list[str] = []
        for path in (*(array.path for array in arrays), ENDS):
            names = sorted(name for name in self.chunk_files if name.startswith(f"{path}/"))
            names.sort(key=lambda name: not name.endswith("zarr.json"))  # what describes the array comes first
            count = min(_SAMPLED, len(names))
            chosen += [names[index * len(names) // count] for index in range(count)]
        return [self.name + name for name in dict.fromkeys(chosen)]

    @contextlib.contextmanager
    def _plain_errors(self, what: str) -> Iterator[None]:
        from numcodecs.errors import UnknownCodecError

        try:
            yield
        except (FileNotFoundError, PermissionError, UnreadableStoreError):
            raise
        except UnknownCodecError as error:
            raise UnreadableStoreError(
                f"a zarr store must be of codecs that are installed: got {self} ({error}). "
                "Install them, for UMI with pip install imagecodecs"
            ) from error
        except _BROKEN as error:
            raise UnreadableStoreError(
                f"a zarr store must be whole: got {what} of {self}, which is not ({_in_words(error)}). Copy it again"
            ) from error


def find_stores(folder: Folder) -> list[Store]:
    """Returns the replay buffers in a folder, in order."""
    names: dict[str, None] = {}
    for file in folder.files:
        if file.name.endswith(ZIPS):
            names[file.name] = None
        elif f"/{ENDS}/" in f"/{file.name}":
            before = f"/{file.name}".partition(f"/{ENDS}/")[0]
            names[f"{before}/".removeprefix("/")] = None
    return [Store(folder, name) for name in names]


@contextlib.contextmanager
def plain_errors(what: str) -> Iterator[None]:
    """Context manager that turns zarr's errors on broken chunks into an InvalidEpisodeError.

    Args:
        what: Name of what is read, for the message.
    """
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except _BROKEN as error:
        detail = f"{what} must be readable: got an error of zarr ({_in_words(error)}). Copy the store again"
        raise InvalidEpisodeError("unreadable data", detail) from error


def chunk_file(array: "zarr.Array", place: tuple[int, ...]) -> str:
    """Returns the name of a chunk's file, below the store.

    Args:
        array: The array.
        place: Place of the chunk among the others, along each axis.
    """
    return f"{array.path}/{array.metadata.encode_chunk_key(place)}"


def _in_words(error: BaseException) -> Any:
    return error or type(error).__name__
