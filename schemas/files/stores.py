"""Object stores behind fsspec: one connection per process, no cached listings, and errors that say what to do.

store_at("s3://bucket/labels") ──► (the store of s3://bucket, "bucket/labels")

fsspec keeps a connection per thread, and threads that read ahead come and go; a cached listing does not know what another
process wrote. Credentials and endpoints are those of the environment, as the client of each store reads them.
"""

import contextlib
import io
import os
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import fsspec
from fsspec import AbstractFileSystem

_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "s3a": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS",
    "hf": "HF_TOKEN",
}
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
_stores: dict[tuple[int, str], AbstractFileSystem] = {}
_stores_lock = threading.Lock()


class ObjectStoreError(RuntimeError):
    """An object store that cannot be used: the path, what is lacking, and the remedy.

    No OSError: a reader would take a store that does not answer for a broken file, and leave it out.
    """


class StorePermissionError(ObjectStoreError, PermissionError):
    """An object store that refuses these credentials."""


def is_url(location: str) -> bool:
    """Whether a location is behind fsspec, and not a local path."""
    return "://" in location


def protocol_of(location: str) -> str:
    """The protocol of a URL, such as "s3"."""
    return location.partition("://")[0]


def store_at(location: str) -> tuple[AbstractFileSystem, str]:
    """Finds the store of a URL, which this process connects to once.

    Args:
        location: A URL that fsspec opens.

    Returns:
        The store, and the path in it.

    Raises:
        ValueError: The protocol is unknown.
        ImportError: The library for it is not installed.
    """
    if "::" in location:  # a file system inside another one
        files, inner = fsspec.core.url_to_fs(location, use_listings_cache=False)
        return files, str(inner)
    protocol = protocol_of(location)
    host = location.removeprefix(f"{protocol}://").partition("/")[0]
    with _stores_lock:
        key = os.getpid(), f"{protocol}://{host}"
        if key not in _stores:
            _stores[key] = _connect(*key[1:])
        files = _stores[key]
    return files, str(files._strip_protocol(location))


def _connect(root: str) -> AbstractFileSystem:
    protocol = protocol_of(root)
    try:
        files, _ = fsspec.core.url_to_fs(root, use_listings_cache=False)
    except ImportError as error:
        extra = f"vlm-rewards[{_EXTRAS[protocol]}]" if protocol in _EXTRAS else "the library that it names"
        raise ImportError(
            f"{protocol}:// needs a library that is not installed ({error}). Install it: pip install {extra!r}"
        ) from error
    except ValueError as error:
        if protocol in fsspec.available_protocols():
            raise
        raise ValueError(
            f"a URL must begin with a protocol that fsspec knows, such as s3:// or gs://: got {root}. Check the path"
        ) from error
    return files


def open_object(location: str) -> BinaryIO:
    """Opens an object for reading; it can seek.

    Raises:
        FileNotFoundError: There is none.
        ObjectStoreError: See `explaining_store_errors`; also while it is read.
    """
    files, inner = store_at(location)
    with explaining_store_errors(location):
        return cast(BinaryIO, _ObjectFile(files.open(inner, "rb"), location))


class _ObjectFile(io.RawIOBase):
    """An object that is read; what its store raises meanwhile is explained."""

    def __init__(self, file: BinaryIO, location: str) -> None:
        self._file = file
        self._location = location

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        with explaining_store_errors(self._location):
            return self._file.read(size)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


@contextlib.contextmanager
def explaining_store_errors(location: str) -> Iterator[None]:
    """Context manager that explains what a store raises; that something is or is not there passes through.

    Each store's client has errors of its own, which have no base in common: so all are taken.

    Raises:
        StorePermissionError: The store refuses these credentials.
        ObjectStoreError: It cannot be reached, or something else is lacking.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError, ObjectStoreError):
        raise
    except PermissionError as error:
        raise StorePermissionError(
            f"the object store does not permit the use of {location}: got {_first_line(error)!r}. Give credentials that may "
            f"({_credentials(location)}), or another path"
        ) from error
    except Exception as error:
        raise ObjectStoreError(
            f"the object store does not answer for {location}: got {type(error).__name__} ({_first_line(error)}). Check the "
            f"network, the endpoint and the credentials ({_credentials(location)}), and run the same command again"
        ) from error


def _credentials(location: str) -> str:
    return _CREDENTIALS.get(protocol_of(location), "as its client reads them")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0].removesuffix(" None").rstrip(".")
