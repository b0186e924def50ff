"""Paths in object stores, with the few operations that outputs need: what `pathlib.Path` is on a disk.

location_of("labels")             Path("labels")
location_of("s3://bucket/labels") RemotePath("s3://bucket/labels")   / "parts" / "a.parquet"

An object is complete or absent, since a store takes it over as a whole. There are no folders, no renames and no locks: what
must be made by one run alone is made with `create`.
"""

import contextlib
import dataclasses
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

from vlm_rewards.schemas.files.stores import explaining_store_errors, is_url, protocol_of, store_at

WRITABLE = ("s3", "s3a", "gs", "gcs")
"""Protocols of stores that outputs can be written to: their objects are replaced as a whole."""
_MANGLED = re.compile(r"[a-z][a-z0-9+]+:/[^/]")


@dataclasses.dataclass(frozen=True, order=True)
class RemotePath:
    """A path in an object store.

    Args:
        url: Its URL, without "/" at its end.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> "RemotePath":
        return RemotePath(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """Last name of the path."""
        return self.url.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """Last name without its ending."""
        return Path(self.name).stem

    @property
    def parent(self) -> "RemotePath":
        """The path above; of a bucket, itself."""
        above = self.url.rpartition("/")[0]
        return self if above.endswith(":/") else RemotePath(above)

    def is_file(self) -> bool:
        """Whether there is an object of this name."""
        return self.num_bytes() is not None

    def is_dir(self) -> bool:
        """Whether there are objects below this path."""
        return bool(self.entries())

    def num_bytes(self) -> int | None:
        """Size of the object; None where there is none."""
        files, inner = store_at(self.url)
        with explaining_store_errors(self.url):
            try:
                info = files.info(inner)
            except FileNotFoundError:
                return None
        return int(info["size"]) if info["type"] == "file" else None

    def entries(self) -> list[str]:
        """Names of objects and folders right below this path, in order; none where the bucket is not there either."""
        files, inner = store_at(self.url)
        with explaining_store_errors(self.url):
            try:
                found = files.ls(inner, detail=False)
            except FileNotFoundError:
                return []
        own = inner.rstrip("/")
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found if path.rstrip("/") != own)

    def holds_something(self) -> bool:
        """Whether there is an object of this name or below it; some stores keep folders whose objects were removed."""
        files, inner = store_at(self.url)
        with explaining_store_errors(self.url):
            return self.is_file() or any(any(names) for _, _, names in files.walk(inner))

    def files_below(self) -> dict[str, int]:
        """Sizes of all objects below this path by their names from here on, listed at once."""
        files, inner = store_at(self.url)
        with explaining_store_errors(self.url):
            try:
                found = files.find(inner, detail=True)
            except FileNotFoundError:
                return {}
        prefix = inner.rstrip("/") + "/"
        names = {
            path.removeprefix(prefix): int(info["size"]) for path, info in found.items() if path.startswith(prefix)
        }
        return {
            name: size for name, size in names.items() if name and not name.endswith("/")
        }  # without marks of folders

    def read_bytes(self) -> bytes:
        """The bytes of an object.

        Raises:
            FileNotFoundError: There is none.
        """
        files, inner = store_at(self.url)
        with explaining_store_errors(self.url):
            return cast(bytes, files.cat_file(inner))

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The text of an object; see `read_bytes`."""
        return self.read_bytes().decode(encoding, errors)

    def read_each(self, names: Iterable[str]) -> dict[str, bytes]:
        """The bytes of objects below this path by their names, read side by side; those that are not there are left out."""
        files, inner = store_at(self.url)
        paths = {f"{inner.rstrip('/')}/{name}": name for name in names}
        if not paths:
            return {}
        with explaining_store_errors(self.url):
            found = files.cat(list(paths), on_error="return")
            for content in found.values():
                if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                    raise content
        return {paths[path]: content for path, content in found.items() if isinstance(content, bytes)}

    def write_bytes(self, content: bytes) -> None:
        """Makes or replaces an object."""
        files, inner = store_at(self.url)
        with self._writing():
            files.pipe_file(inner, content)

    def upload(self, path: Path) -> None:
        """Makes or replaces an object by a file of this machine."""
        files, inner = store_at(self.url)
        with self._writing():
            files.put_file(str(path), inner)

    def create(self, content: bytes) -> bool:
        """Makes an object that is not there yet.

        Returns:
            Whether this call made it. A store that has no such operation replaces what another run made at the same time, so
            read it back.
        """
        files, inner = store_at(self.url)
        with self._writing():
            try:
                with files.open(inner, "xb") as file:
                    file.write(content)
            except FileExistsError:
                return False
            except PermissionError:
                raise
            except OSError:  # some servers name it so that it cannot be told from other errors
                if self.is_file():
                    return False
                files.pipe_file(inner, content)  # says what the error is
        return True

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes an object.

        Raises:
            FileNotFoundError: There is none, and `missing_ok` is not set.
        """
        files, inner = store_at(self.url)
        with explaining_store_errors(self.url):
            try:
                files.rm_file(inner)
            except FileNotFoundError:
                if not missing_ok:
                    raise

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with explaining_store_errors(self.url):
                yield
        except FileNotFoundError as error:  # of the bucket
            raise FileNotFoundError(
                f"an output must be in a bucket that is there, got {self.url} ({error}). Check the path, or make the bucket"
            ) from error


Location = Path | RemotePath
"""Where an output is: on a disk, or in an object store."""


def location_of(path: str | Path | RemotePath) -> Location:
    """The location that a path or URL names.

    Raises:
        ValueError: The URL went through `pathlib.Path`, which makes one slash of two.
    """
    if isinstance(path, RemotePath):
        return path
    if isinstance(path, str) and is_url(path):
        return RemotePath(path.rstrip("/"))
    if isinstance(path, Path) and _MANGLED.match(str(path)):
        raise ValueError(
            f"a URL must be given as text, since pathlib.Path drops one of its slashes: got {path}. Give it as a str"
        )
    return Path(path)


def local_path(path: str | Path, what: str) -> Path:
    """The local path of an output that can only be written to a disk.

    Args:
        path: What was given.
        what: What the output is, such as "a report".

    Raises:
        ValueError: It is a URL.
    """
    return _on_disk(path, f"{what} must be written to", "Write it to a local folder and copy it")


def local_input(path: str | Path, what: str) -> Path:
    """The local path of an input that can only be read from a disk.

    Args:
        path: What was given.
        what: What the input is, such as "an agent".

    Raises:
        ValueError: It is a URL.
    """
    return _on_disk(path, f"{what} must be read from", "Copy it to a local folder and give that")


def _on_disk(path: str | Path, rule: str, remedy: str) -> Path:
    if is_url(str(path)) or _MANGLED.match(str(path)):
        raise ValueError(f"{rule} a disk of this machine: got {path}. {remedy}")
    return Path(path)


def check_writable(location: Location) -> None:
    """Refuses stores that outputs cannot be written to.

    Raises:
        ValueError: It is one.
    """
    if isinstance(location, RemotePath) and protocol_of(location.url) not in WRITABLE:
        known = ", ".join(f"{name}://" for name in WRITABLE)
        raise ValueError(
            f"an output must be a local folder or begin with one of {known}: got {location}. Write it to a local folder and copy "
            "it there"
        )


@contextlib.contextmanager
def local_copy(path: Location) -> Iterator[Path]:
    """Context manager that gives a file on this machine: the file itself, or a copy of an object that is removed afterwards.

    Raises:
        FileNotFoundError: There is no such object.
    """
    if isinstance(path, Path):
        yield path
        return
    files, inner = store_at(path.url)
    with tempfile.TemporaryDirectory(prefix="vlm-rewards-") as folder:
        copy = Path(folder, path.name)
        with explaining_store_errors(path.url):
            files.get_file(inner, str(copy))
        yield copy


def create_file(path: Location, text: str) -> bool:
    """Writes a text (UTF-8) to a new file.

    Returns:
        Whether it was new; a file that is there stays as it is.
    """
    if isinstance(path, RemotePath):
        return path.create(text.encode())
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def size_of(path: Location) -> int | None:
    """Size of a file in bytes; None where there is none."""
    if isinstance(path, RemotePath):
        return path.num_bytes()
    return path.stat().st_size if path.is_file() else None
