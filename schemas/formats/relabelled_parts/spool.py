"""The pictures of one camera in one episode as one Arrow value: in memory while small, else in an unnamed file.

frame ──► bytes ──► memory, or beyond SPOOL_BYTES a file beside the part ──► mapped ──► Parquet pages ──► let go
"""

import mmap
import tempfile
from array import array
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from vlm_rewards.schemas.episodes import IMAGE_TYPE

SPOOL_BYTES = 16 * 2**20
MAX_BYTES = 2**31 - 1
"""Most bytes of pictures in one value of a list: its offsets are int32, as readers of the column expect."""


class PictureSpool:
    """Collects pictures one by one, and returns them as one row.

    Args:
        folder: Folder of the temporary file if one is needed; the file is unnamed and disappears with the process.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offsets = array("i", [0])
        self._memory = bytearray()
        self._file: BinaryIO | None = None
        self._mapped: mmap.mmap | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes of all pictures so far."""
        return self._offsets[-1]

    def append(self, picture: bytes) -> None:
        """Adds the next picture.

        Raises:
            ValueError: There are more bytes than one value of a Parquet column can hold.
        """
        if self.num_bytes + len(picture) > MAX_BYTES:
            raise ValueError(
                f"the pictures of an episode must have at most {MAX_BYTES:,} bytes per camera in Parquet: got more in "
                f"{len(self._offsets):,} frames. Write WebDataset (--format webdataset)"
            )
        self._offsets.append(self.num_bytes + len(picture))
        if self._file is None and self.num_bytes > SPOOL_BYTES:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 (ends with this object)
            self._file.write(self._memory)
            self._memory = bytearray()
        if self._file is None:
            self._memory += picture
        else:
            self._file.write(picture)

    def row(self) -> pa.ListArray:
        """Returns one row: a list of all pictures as `IMAGE_TYPE`."""
        if self._file is None:
            data = pa.py_buffer(self._memory)
        else:
            self._file.flush()
            self._mapped = mmap.mmap(self._file.fileno(), self.num_bytes, access=mmap.ACCESS_READ)
            self._file.close()  # the map stays
            data = pa.py_buffer(self._mapped)
        count = len(self._offsets) - 1
        offsets = pa.py_buffer(np.array(self._offsets, np.int32))
        pictures = pa.BinaryArray.from_buffers(pa.binary(), count, [None, offsets, data])
        images = pa.StructArray.from_arrays([pictures, pa.nulls(count, pa.string())], fields=list(IMAGE_TYPE))
        return pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), images)

    def let_go(self) -> None:
        """Releases the memory of a file's pages; they are reread when needed."""
        if self._mapped is not None and hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            self._mapped.madvise(mmap.MADV_DONTNEED)


class LettingGo:
    """A file that is written, and lets go of the pages of spools as it goes: they have been read by then, or are read again.

    Args:
        path: The file; replaced if it exists.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._since = 0
        self.spools: list[PictureSpool] = []
        self.closed = False

    def write(self, data: bytes) -> int:
        """Writes some bytes."""
        self._since += len(data)
        if self._since > SPOOL_BYTES:
            self._since = 0
            for spool in self.spools:
                spool.let_go()
        return self._file.write(data)

    def flush(self) -> None:
        """Hands what is buffered to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        self.closed = True
