"""The frames of TFRecord files: where records lie, and whether their bytes are those that were written.

    ┌─────────────┬───────────────────┬─────────────┬─────────────────┐
    │ length: u64 │ check of it: u32  │ length bytes│ check of: u32   │   little-endian; a check is a masked CRC-32C
    └─────────────┴───────────────────┴─────────────┴─────────────────┘

A file is walked from length to length. The data of a small record is read once into memory; of a large one it is checked piece
by piece and then read from the file, so that memory is bounded by _BUFFERED_BYTES whatever a record holds.
"""

import io
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import google_crc32c

from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.rlds_corpus.examples import Bytes

_HEAD = struct.Struct("<QI")
_CHECK = struct.Struct("<I")
_BUFFERED_BYTES = 32 * 2**20
_PIECE_BYTES = 2**20
_MASK_DELTA = 0xA282EAD8


class BrokenFileError(Exception):
    """The file cannot be walked further."""


class BrokenRecordError(Exception):
    """The bytes of a record are not those that were written; the records after it can be read."""


class Record(NamedTuple):
    """A record of a file.

    Attributes:
        number: Number of the record in the file, from 0.
        start: Byte offset of its length.
        num_bytes: Size of its data in bytes.
    """

    number: int
    start: int
    num_bytes: int

    @property
    def data_start(self) -> int:
        """Byte offset of its data."""
        return self.start + _HEAD.size

    @property
    def stop(self) -> int:
        """Byte offset where the next record begins."""
        return self.data_start + self.num_bytes + _CHECK.size


def masked_crc(crc: int) -> int:
    """Returns the form in which TFRecord files hold a CRC-32C."""
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def walk_records(file: BinaryIO) -> Iterator[Record]:
    """Walks over the records of a file, by their lengths; their data is sought, not read.

    Raises:
        BrokenFileError: A length is not the one that was written, or the file ends within a record.
    """
    size = file.seek(0, os.SEEK_END)
    number = start = 0
    while start < size:
        file.seek(start)
        head = file.read(_HEAD.size)
        where = f"record {number} at byte {start}"
        if len(head) < _HEAD.size:
            raise BrokenFileError(f"ends within {where}, after {size} bytes")
        num_bytes, check = _HEAD.unpack(head)
        expected = masked_crc(google_crc32c.value(head[:8]))
        if check != expected:
            raise BrokenFileError(
                f"has a wrong checksum for the length of {where} (stored {check:08x}, computed {expected:08x})"
            )
        record = Record(number, start, num_bytes)
        if record.stop > size:
            raise BrokenFileError(f"ends within {where}, which has {num_bytes} bytes, after {size} bytes")
        yield record
        number, start = number + 1, record.stop


def open_record(folder: Folder, name: str, file: BinaryIO, record: Record) -> tuple[Bytes, int]:
    """Checks the data of a record.

    Args:
        folder: The corpus's folder.
        name: Name of the file below it.
        file: The open file.
        record: One of its records.

    Returns:
        What holds the data, in memory where it is small, and the offset in it where the data begins. It can be read after `file`
        was closed.

    Raises:
        BrokenRecordError: The checksum is wrong.
    """
    file.seek(record.data_start)
    if record.num_bytes <= _BUFFERED_BYTES:
        data = file.read(record.num_bytes)
        crc = google_crc32c.value(data)
        opened: tuple[Bytes, int] = (io.BytesIO(data), 0)
    else:
        crc = _crc_of(file, record.num_bytes)
        opened = (SteadyFile(folder, name), record.data_start)
    file.seek(record.data_start + record.num_bytes)
    (check,) = _CHECK.unpack(file.read(_CHECK.size))
    if check != masked_crc(crc):
        raise BrokenRecordError(
            f"the checksum of record {record.number} at byte {record.start} is wrong: stored {check:08x}, computed "
            f"{masked_crc(crc):08x}"
        )
    return opened


def write_checksum(file: BinaryIO, record: Record) -> None:
    """Writes the checksum of a record whose data was overwritten in a file that is open for reading and writing."""
    file.seek(record.data_start)
    check = _CHECK.pack(masked_crc(_crc_of(file, record.num_bytes)))
    file.seek(record.data_start + record.num_bytes)
    file.write(check)


def _crc_of(file: BinaryIO, num_bytes: int) -> int:
    """Returns the CRC-32C of the next bytes, read piece by piece."""
    crc, left = 0, num_bytes
    while left:
        piece = file.read(min(left, _PIECE_BYTES))
        crc, left = google_crc32c.extend(crc, piece), left - len(piece)
    return crc


class SteadyFile:
    """A file of a folder that is opened when it is read: frames outlive the pass that found them.

    Args:
        folder: The folder.
        name: Name of the file.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder = folder
        self._name = name
        self._file: BinaryIO | None = None

    def seek(self, offset: int, /) -> int:
        """Moves to a byte offset."""
        if self._file is None:
            self._file = self._folder.open(self._name)
        return self._file.seek(offset)

    def read(self, size: int, /) -> bytes:
        """Returns the next bytes."""
        assert self._file is not None, "seek before you read"
        return self._file.read(size)
