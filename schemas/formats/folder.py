"""The folder of a corpus: one small interface for local paths and fsspec URLs.

    Folder("corpus")            files()   a/x.parquet  b/y.parquet      read(name)  open(name)  path(name)
    Folder("s3://bucket/corpus")          passed over: b/z.csv ...      digest(name)

Formats name files by their path below the folder, with "/" between names, and access them only through this module, so
that object stores work like disks. Pickling keeps the location, not the listing.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from vlm_rewards.schemas.files.pointers import MAX_POINTER_BYTES, pointer_kind_of
from vlm_rewards.schemas.files.remote_paths import location_of
from vlm_rewards.schemas.files.stores import explaining_store_errors, is_url, open_object, store_at
from vlm_rewards.schemas.formats.listing import File, Listing, PassedOver, content_tag, list_local, list_remote
from vlm_rewards.schemas.manifests import Failure

T = TypeVar("T")

_DIGEST_KIND = "2-"
"""Prefix of digests; those of version 0.2 have none."""
_WHOLE_BYTES = 256 * 2**10
_EDGE_BYTES = 64 * 2**10
_BLOCKS = 32
_BLOCK_BYTES = 4 * 2**10
_DIGESTING_THREADS = 8
_DIGESTED_AT_A_TIME = 64


@dataclasses.dataclass(frozen=True)
class Folder:
    """A read-only folder.

    Args:
        location: A local path, or a URL that fsspec opens, such as "s3://bucket/corpus".
        only: Name of the only file or folder below it to consider; "" for all.
    """

    location: str
    only: str = ""

    @classmethod
    def at(cls, path: str | Path) -> "Folder":
        """Returns the folder at a path or URL; for a single file, its folder with all other files left out.

        Raises:
            ValueError: There is nothing at that path.
        """
        location = str(location_of(path))
        if not is_url(location):
            if Path(location).is_dir():
                return cls(location)
            if not Path(location).is_file():
                raise ValueError(f"a corpus must be a file or a folder, got {path}, which is not there. Check the path")
            return cls(str(Path(location).parent), only=Path(location).name)
        try:
            info = _info(location)
        except FileNotFoundError as error:
            raise ValueError(
                f"a corpus must be a file or a folder, got {path}, which is not there. Check the path"
            ) from error
        if info["type"] == "directory":
            return cls(location)
        parent, _, name = location.rpartition("/")
        return cls(parent, only=name)

    def __reduce__(self) -> tuple[Callable[..., "Folder"], tuple[str, str]]:
        return Folder, (self.location, self.only)  # without the listing, which may hold millions of files

    def __str__(self) -> str:
        return self.path(self.only) if self.only else self.location

    @property
    def name(self) -> str:
        """Name of the folder."""
        return Path(self.location).absolute().name if self.is_local else self.location.rstrip("/").rpartition("/")[2]

    @property
    def above(self) -> "Folder":
        """The parent folder."""
        return Folder(str(Path(self.location).absolute().parent) if self.is_local else self.location.rpartition("/")[0])

    @property
    def is_local(self) -> bool:
        """Whether the files are on a local disk, so that any library can open `path`."""
        return not is_url(self.location)

    def path(self, name: str) -> str:
        """Returns the path or URL of a file or folder below this one."""
        return os.path.join(self.location, name) if self.is_local else f"{self.location}/{name}"  # noqa: PTH118 (hot)

    def open(self, name: str) -> BinaryIO:
        """Opens a file for reading, with seeking."""
        if self.is_local:
            return Path(self.location, name).open("rb")
        return open_object(self.path(name))

    def read(self, name: str) -> bytes:
        """Returns the content of a small file."""
        if self.is_local:
            return Path(self.location, name).read_bytes()
        files, inner = store_at(self.path(name))
        with explaining_store_errors(self.path(name)):
            return cast(bytes, files.cat_file(inner))

    def has_file(self, name: str) -> bool:
        """Returns whether there is a file of this name; also one that `only` leaves out."""
        if self.is_local:
            return Path(self.location, name).is_file()
        return _kind(self.path(name)) == "file"

    def has_folder(self, name: str) -> bool:
        """Returns whether there is a folder of this name; also one that `only` leaves out."""
        if self.is_local:
            return Path(self.location, name).is_dir()
        return _kind(self.path(name)) == "directory"

    @functools.cached_property
    def is_single_file(self) -> bool:
        """Whether the folder stands for a single file."""
        return bool(self.only) and self.has_file(self.only)

    @property
    def files(self) -> tuple[File, ...]:
        """The files in the folder and below it, sorted by name, except those in `left_out`."""
        return self._listing.files

    @property
    def left_out(self) -> tuple[PassedOver, ...]:
        """Other entries below the folder, with the reason: hidden files, broken links, our own outputs; see `listing`."""
        return self._listing.left_out

    def files_ending(self, endings: Collection[str]) -> list[File]:
        """Returns the files with one of these endings, such as ".png" in lower case, sorted by name."""
        return [file for file, suffix in zip(self.files, self._suffixes, strict=True) if suffix in endings]

    @functools.cached_property
    def endings(self) -> frozenset[str]:
        """The endings of the files, in lower case."""
        return frozenset(self._suffixes)

    @functools.cached_property
    def _suffixes(self) -> tuple[str, ...]:
        return tuple(file.suffix for file in self.files)  # every format asks, perhaps of millions of files

    @functools.cached_property
    def _listing(self) -> Listing:
        if self.is_single_file:
            return Listing((File(self.only, self.size(self.only)),), ())
        return list_local(self.location, self.only) if self.is_local else list_remote(self.location, self.only)

    @functools.cached_property
    def _by_name(self) -> dict[str, File]:
        return {file.name: file for file in self.files}

    def size(self, name: str) -> int:
        """Returns the size of a file in bytes."""
        if self.is_local:
            return Path(self.location, name).stat().st_size
        return int(_info(self.path(name))["size"])

    def digest(self, name: str) -> str:
        """Returns a cheap digest of a file's content that changes when the file is replaced, also by one of the same size.

        Small files are read completely; large ones at the head, the tail and some blocks between. For a remote file the digest
        covers its size and the store's content tag (ETag), if there is one.
        """
        if self.is_local:
            return _digest_of_local_file(self.path(name))
        file = self._by_name.get(name) if "_listing" in vars(self) else None  # listed in any case, and once
        if file is None:
            info = _info(self.path(name))
            file = File(name, int(info["size"]), content_tag(info))
        if file.tag:
            return _DIGEST_KIND + hashlib.blake2b(f"{file.num_bytes} {file.tag}".encode(), digest_size=8).hexdigest()
        with self.open(name) as content:

            def read(start: int, length: int) -> bytes:
                content.seek(start)
                return content.read(length)

            return _digest(content.seek(0, os.SEEK_END), read)

    def digests(self, names: Iterable[str]) -> dict[str, str]:
        """Returns the digest of each file, see `digest`. Local files are read by some threads, since disks answer late."""
        unique = list(dict.fromkeys(names))
        if not self.is_local or len(unique) <= _DIGESTED_AT_A_TIME:
            return {name: self.digest(name) for name in unique}
        parts = [unique[start : start + _DIGESTED_AT_A_TIME] for start in range(0, len(unique), _DIGESTED_AT_A_TIME)]
        with ThreadPoolExecutor(_DIGESTING_THREADS) as pool:
            found = pool.map(lambda part: [self.digest(name) for name in part], parts)
            return dict(zip(unique, itertools.chain.from_iterable(found), strict=True))

    def digest_of_version_0_2(self, name: str) -> str:
        """Returns a file's digest as version 0.2 computed it, from size, head and tail."""
        size = self.size(name)
        with self.open(name) as file:
            head = file.read(_EDGE_BYTES)
            file.seek(max(0, size - _EDGE_BYTES))
            tail = file.read(_EDGE_BYTES)
        return hashlib.sha256(b"%d\n" % size + head + tail).hexdigest()[:16]


def _pointer(folder: Folder, name: str) -> str | None:
    """Returns a message that a file is a pointer, with its name; None if it is not a pointer."""
    if not folder.has_file(name) or folder.size(name) > MAX_POINTER_BYTES:
        return None
    kind = pointer_kind_of(folder.read(name))
    return kind and f"the {kind} pointer {name}, which stands for a file that was not downloaded. Run git lfs pull"


@contextlib.contextmanager
def telling_pointers(folder: Folder) -> Iterator[None]:
    """Context manager that adds to an error that a file of the folder is a pointer, if one is.

    Raises:
        ValueError: The block raised it.
    """
    try:
        yield
    except ValueError as error:
        told = next((words for file in folder.files if (words := _pointer(folder, file.name))), None)
        if told is None:
            raise
        raise ValueError(f"a corpus must hold its files, got {told}") from error


def tell_pointers(folder: Folder, items: Iterable[T | Failure]) -> Iterator[T | Failure]:
    """Yields the items unchanged, except that the failure of a shard that is a pointer says so."""
    for item in items:
        if isinstance(item, Failure) and item.scope == "shard" and (told := _pointer(folder, item.shard)):
            yield dataclasses.replace(item, reason="pointer", detail=f"a shard must be whole, got {told}")
        else:
            yield item


def _info(location: str) -> dict[str, Any]:
    """Returns a store's information about an object or a folder.

    Raises:
        FileNotFoundError: It does not exist.
    """
    files, inner = store_at(location)
    with explaining_store_errors(location):
        return cast(dict[str, Any], files.info(inner))


def _kind(location: str) -> str | None:
    try:
        return str(_info(location)["type"])
    except FileNotFoundError:
        return None


def _digest_of_local_file(path: str) -> str:
    opened = os.open(path, os.O_RDONLY)  # not a file object, which takes three times as long
    try:
        return _digest(os.fstat(opened).st_size, lambda start, length: os.pread(opened, length, start))
    finally:
        os.close(opened)


def _digest(size: int, read: Callable[[int, int], bytes]) -> str:
    """Returns the digest of a file.

    Args:
        size: Its size in bytes.
        read: Reads bytes of it, by start and length.
    """
    digest = hashlib.blake2b(b"%d\n" % size, digest_size=8)
    for start, length in _sampled(size):
        digest.update(read(start, length))
    return _DIGEST_KIND + digest.hexdigest()


def _sampled(size: int) -> list[tuple[int, int]]:
    """Returns start and length of the pieces of a file that its digest reads."""
    if size <= _WHOLE_BYTES:
        return [(0, size)]
    inner = size - 2 * _EDGE_BYTES - _BLOCK_BYTES
    blocks = [(_EDGE_BYTES + inner * number // (_BLOCKS - 1), _BLOCK_BYTES) for number in range(_BLOCKS)]
    return [(0, _EDGE_BYTES), *blocks, (size - _EDGE_BYTES, _EDGE_BYTES)]
