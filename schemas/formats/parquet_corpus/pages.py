"""Reads the headers of pages, which say how large a page becomes before it is decompressed.

    column chunk     header | dictionary | header | data | header | data | ...      each header in Thrift's compact protocol:
                                                                                    type, size decompressed, size in the file, ...

What a footer says of a chunk is a sum that nothing holds the pages to, and gives no size of a compressed dictionary, of which each
row may name the largest value.
"""

from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

_HEADER_BYTES = 2**10
_DICTIONARY = 2


class Page(NamedTuple):
    """A page, as its header describes it.

    Attributes:
        is_dictionary: Whether it holds the chunk's dictionary.
        num_bytes: Size when it is decompressed.
        stop: Place of the byte after it, from where its header starts.
    """

    is_dictionary: bool
    num_bytes: int
    stop: int


def dictionary_bytes(source: pa.NativeFile, chunk: pq.ColumnChunkMetaData) -> int:
    """Returns the size of a chunk's dictionary when it is decompressed, which its first page may be; 0 without one.

    Raises:
        ArrowInvalid: There is no header of a page.
    """
    page = _page(source.read_at(_HEADER_BYTES, _start(chunk)), 0, is_whole=False)
    return page.num_bytes if page.is_dictionary else 0


def pages(data: bytes, chunk: pq.ColumnChunkMetaData) -> Iterator[Page]:
    """Yields the pages of a chunk in order.

    Args:
        data: The whole file.
        chunk: The chunk.

    Raises:
        ArrowInvalid: What follows a page is no header of a page.
    """
    place = _start(chunk)
    stop = min(place + chunk.total_compressed_size, len(data))
    while place < stop:
        page = _page(data, place, is_whole=True)
        yield page
        place += page.stop


def _start(chunk: pq.ColumnChunkMetaData) -> int:
    """Returns where the pages of a chunk start, as Arrow finds them."""
    start: int = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
        start = chunk.dictionary_page_offset
    return start


def _page(data: bytes, start: int, *, is_whole: bool) -> Page:
    """Reads a header; no further than its sizes unless it is wanted whole, which tells where it ends."""
    numbers = [-1, -1, -1, -1]  # by the number of the field; -1 where it is missing
    try:
        place, field = start, 0
        while data[place] and (is_whole or min(numbers[1:]) < 0):
            kind, delta = data[place] & 15, data[place] >> 4
            place += 1
            if delta:
                field += delta
            else:
                number, place = _number(data, place)
                field = (number >> 1) ^ -(number & 1)
            if kind == 5 and 0 < field < 4:
                number, place = _number(data, place)
                numbers[field] = (number >> 1) ^ -(number & 1)
            else:
                place = _after(data, place, kind, 0)
    except IndexError:
        numbers = [-1]
    if start < 0 or min(numbers[1:], default=-1) < 0:
        raise pa.ArrowInvalid("a page must begin with its header: got other bytes. Copy the file again from its source")
    return Page(numbers[1] == _DICTIONARY, numbers[2], place + 1 - start + numbers[3])


def _number(data: bytes, place: int) -> tuple[int, int]:
    """Returns an unsigned number of seven bits per byte, and the place after it."""
    number = shift = 0
    while shift < 64:
        byte = data[place]
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place
        shift += 7
    raise IndexError(place)


def _after(data: bytes, place: int, kind: int, depth: int) -> int:
    """Returns the place after a value of a kind of the compact protocol."""
    if kind in (1, 2):  # true and false, which the kind tells
        return place
    if kind == 3:
        return place + 1
    if kind in (4, 5, 6):
        return _number(data, place)[1]
    if kind == 7:
        return place + 8
    if kind == 8:
        length, place = _number(data, place)
        return place + length
    if kind == 12 and depth < 8:
        while data[place]:
            inner, delta = data[place] & 15, data[place] >> 4
            place += 1
            if not delta:
                place = _number(data, place)[1]
            place = _after(data, place, inner, depth + 1)
        return place + 1
    raise IndexError(kind)  # lists, sets and maps are in no header of a page
