"""Finds pictures in tar files and streams frames from there."""

import dataclasses
from array import array
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from vlm_rewards.schemas.formats.folder import Folder


@dataclasses.dataclass
class Source:
    """Source of the pictures of a pass; opens the file if it is not open."""

    folder: Folder
    name: str
    file: BinaryIO | None = None

    def read(self, offset: int, size: int) -> bytes:
        """Reads a range of bytes."""
        if self.file is None or self.file.closed:
            self.file = self.folder.open(self.name)
        self.file.seek(offset)
        return self.file.read(size)


class PicturePlaces:
    """Places of the pictures of one camera in the tar, by frame."""

    def __init__(self) -> None:
        self._places = array("q")  # frame, offset and size of each
        self._sorted_to = -1  # frames so far came in order, up to this one
        self._seen: set[int] | None = None

    def __len__(self) -> int:
        return len(self._places) // 3

    def add(self, frame: int, offset: int, size: int) -> bool:
        """Adds a frame and returns whether it is new; a repeated one is left out."""
        if self._seen is None and frame <= self._sorted_to:
            self._seen = set(self._places[::3])
        if self._seen is not None:
            if frame in self._seen:
                return False
            self._seen.add(frame)
        self._sorted_to = frame
        self._places.extend((frame, offset, size))
        return True

    def places(self) -> np.ndarray:
        """Returns [N, 3] int64: frame, offset and size, in the order of the frames."""
        places = np.array(self._places, np.int64).reshape(-1, 3)
        return places[np.argsort(places[:, 0], kind="stable")]


class TarFrames:
    """The pictures of one camera of one sample, read from their places."""

    def __init__(self, source: Source, places: np.ndarray) -> None:
        self._source = source
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[bytes]:
        for _, offset, size in self._places:
            yield self._source.read(int(offset), int(size))
