"""Videos that are members of a tar, read from their places: nothing is extracted to the disk."""

import dataclasses
import io
from typing import Any, BinaryIO, cast

from vlm_rewards.schemas.formats.folder import Folder


@dataclasses.dataclass(frozen=True)
class TarVideo:
    """The place of a video, as `schemas.videos.VideoFiles`: the "folder" of that one file.

    Args:
        folder: Folder of the corpus.
        tar: Name of the tar below it.
        offset: Place of the video's first byte in the tar.
        size: Size of the video in bytes.
    """

    folder: Folder
    tar: str
    offset: int
    size: int

    @property
    def is_local(self) -> bool:
        """False: no library can open the video by a path."""
        return False

    def path(self, name: str) -> str:
        """Returns the path of the tar with the member's name, for messages."""
        return f"{self.folder.path(self.tar)}:{name}"

    def open(self, name: str) -> BinaryIO:
        """Opens the video for reading, with seeking."""
        return cast(BinaryIO, _Window(self.folder.open(self.tar), self.offset, self.size))


class _Window(io.RawIOBase):
    """A range of bytes of a file, as a file."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file = file
        self._offset = offset
        self._size = size
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        self._file.seek(self._offset + self._place)
        data = self._file.read(max(0, min(len(view), self._size - self._place)))
        view[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
