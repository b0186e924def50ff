"""Members of tar files: walked by their headers, and read by their places.

Reading never extracts to disk, loads no pickles and follows no links.
"""

import io
import json
import tarfile
import tokenize
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from vlm_rewards.schemas.formats.interface import InvalidEpisodeError

_HEADER_ERRORS = (tarfile.TarError, ValueError, OverflowError)


class BrokenTarError(Exception):
    """The tar cannot be walked further."""


def walk(file: BinaryIO, start: int = 0, stop: int = -1) -> Iterator[tarfile.TarInfo]:
    """Walks over the members of a range of a tar file in order, by their headers; their data is sought, not read.

    Args:
        file: The tar file.
        start: Byte offset of the first header.
        stop: Byte offset where the range ends, exclusive; -1 for the end of the file.

    Raises:
        BrokenTarError: The file is no tar, is cut short or broken.
    """
    file.seek(0, io.SEEK_END)
    size = file.tell()
    file.seek(start)
    try:
        tar = tarfile.TarFile(fileobj=file, mode="r")
    except _HEADER_ERRORS as error:
        raise BrokenTarError(f"has no readable header at byte {start} ({error})") from error
    while True:
        try:
            member = tar.next()
        except _HEADER_ERRORS as error:
            raise BrokenTarError(f"breaks at byte {tar.offset} ({error})") from error
        tar.members = []  # type: ignore[attr-defined]  # or it keeps a record of every member ever seen
        if member is None:
            break
        # tar.offset is now where the next header should be: after the data, where this member has some.
        if tar.offset > member.offset_data and member.offset_data + member.size > size:
            raise BrokenTarError(f"ends within {member.name!r}")
        if not member.isdir():
            yield member
        if 0 <= stop <= tar.offset:
            return
    # tarfile takes broken headers and missing ones for the end: only zeros to the end of the file are one.
    file.seek(tar.offset)
    end = file.read(tarfile.BLOCKSIZE)
    if len(end) < tarfile.BLOCKSIZE:
        raise BrokenTarError(f"ends at byte {tar.offset} without a tar's end mark")
    while end:
        if end.strip(b"\0"):
            raise BrokenTarError(f"has bytes that are no member after byte {tar.offset}")
        end = file.read(2**20)


def split_name(name: str) -> tuple[str, str]:
    """Returns a member's key and suffix, as WebDataset splits them: at the first dot of the file's name."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    key, _, suffix = base.partition(".")
    return folder + slash + key, suffix


def check_size(member: tarfile.TarInfo, max_bytes: int) -> None:
    """Refuses a member that is too large to be read.

    Raises:
        InvalidEpisodeError: It is.
    """
    if member.size > max_bytes:
        raise InvalidEpisodeError(
            "oversized member",
            f"{member.name!r} must have at most {max_bytes} bytes, got {member.size}. Split the episode",
        )


def read_member(file: BinaryIO, member: tarfile.TarInfo, max_bytes: int) -> bytes:
    """Reads a member's data.

    Raises:
        InvalidEpisodeError: It has more than `max_bytes`.
    """
    check_size(member, max_bytes)
    file.seek(member.offset_data)
    return file.read(member.size)


def parse_record(data: bytes, name: str) -> dict:
    """Parses a sample's JSON.

    Raises:
        InvalidEpisodeError: It is no JSON, or lacks num_frames or cameras.
    """
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        detail = f"{name!r} must be JSON, got {data[:40]!r} ({error}). Write this member again"
        raise InvalidEpisodeError("broken member", detail) from error
    count = record.get("num_frames") if isinstance(record, dict) else None
    cameras = record.get("cameras") if isinstance(record, dict) else None
    if not isinstance(count, int) or not isinstance(cameras, list) or not all(isinstance(c, str) for c in cameras):
        raise InvalidEpisodeError(
            "broken member", f"{name!r} must hold num_frames and cameras, got {data[:80]!r}. Add them"
        )
    return record


def parse_array(data: bytes, name: str) -> np.ndarray:
    """Parses a .npy file like np.load without pickles, but checks the size that the header claims before it believes it.

    Raises:
        InvalidEpisodeError: It is no array of numbers.
    """
    try:
        buffer = io.BytesIO(data)
        version = np.lib.format.read_magic(buffer)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(buffer)
        if dtype.kind not in "biuf":
            raise ValueError(f"dtype {dtype} is not one of numbers")
        count = int(np.prod(shape, dtype=object))
        if count * dtype.itemsize != len(data) - buffer.tell():
            raise ValueError(f"{len(data) - buffer.tell()} bytes are not the {list(shape)} {dtype} of the header")
        values = np.frombuffer(data, dtype, count, buffer.tell())
        return values.reshape(shape, order="F" if fortran else "C")
    except (ValueError, TypeError, SyntaxError, EOFError, OverflowError, tokenize.TokenError) as error:
        detail = f"{name!r} must be a .npy array of numbers, got {data[:16]!r} ({error}). Write this member again, with numpy.save"
        raise InvalidEpisodeError("broken member", detail) from error
