"""Opens Parquet files, and measures what they become in memory before they are decoded.

a small file      read in one go; the pages of its compressed columns are measured one by one
a large file      its chunks are as large as the footer says; their dictionaries as large as their own headers say
"""

import functools
import os
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.parquet_corpus.layout import UnknownLayoutError, leaf_paths
from vlm_rewards.schemas.formats.parquet_corpus.pages import dictionary_bytes, pages

SMALL_SPELLED_OUT_BYTES = 8 * 2**20
"""Most bytes of all rows together, of a file whose dictionaries need no look."""
MAX_PAGE_BYTES = 2**30
"""Most bytes of a page, which is decompressed as a whole."""
_BUFFER_BYTES = 2**20
_WHOLE_BYTES = 2**18
_INDEX_BYTES = 2**16  # beside 4 bytes per value: headers and levels of pages that hold indices into a dictionary
_MODEST_BYTES = 2**14  # of a chunk in an object store, where a look costs a request
_UNKNOWN_BYTES = 2**31  # as much as a page can be


class ChunkSizes:
    """Bytes that the column chunks of a file become, see the module's picture.

    Args:
        metadata: Footer of the file.
        source: The file.
        data: Its content, where it was read in one go.
        is_local: Whether a look into the file costs no request.
    """

    def __init__(self, metadata: pq.FileMetaData, source: pa.NativeFile, data: bytes | None, is_local: bool) -> None:
        self._metadata = metadata
        self._source = source
        self._data = data
        self._is_local = is_local
        self._largest: dict[tuple[int, int], int] = {}
        self._pages: dict[tuple[int, int], tuple[int, int]] = {}

    @functools.cached_property
    def is_small(self) -> bool:
        """Whether the file is one row group that stays small even if each row names its largest value."""
        metadata = self._metadata
        if self._data is None or metadata.num_row_groups != 1:
            return False
        limit = SMALL_SPELLED_OUT_BYTES // max(1, metadata.num_rows)
        return len(self._data) <= limit and sum(self.of_chunk(0, i) for i in range(metadata.num_columns)) <= limit

    def of_chunk(self, group: int, column: int) -> int:
        """Returns the bytes of all pages of a chunk."""
        chunk = self._metadata.row_group(group).column(column)
        if self._data is None:
            size: int = max(chunk.total_uncompressed_size, chunk.total_compressed_size)
            return size
        if chunk.compression == "UNCOMPRESSED":
            return min(chunk.total_compressed_size, len(self._data))
        return self._measured(self._data, group, column)[0]

    def of_largest_value(self, group: int, column: int) -> int:
        """Returns the most bytes of a value that a chunk holds once and may name often: those of its dictionary."""
        if (group, column) not in self._largest:
            chunk = self._metadata.row_group(group).column(column)
            if not self._is_local and chunk.total_uncompressed_size <= _MODEST_BYTES:
                return max(0, chunk.total_uncompressed_size)
            try:
                self._largest[group, column] = dictionary_bytes(self._source, chunk)
            except (pa.ArrowException, OSError):  # told by whoever reads the column
                self._largest[group, column] = _UNKNOWN_BYTES
        return self._largest[group, column]

    def of_largest_page(self, group: int, column: int) -> int:
        """Returns the bytes of a chunk's largest page; of a file that is not small, of its dictionary."""
        chunk = self._metadata.row_group(group).column(column)
        if self._data is None:
            return self.of_largest_value(group, column)
        return 0 if chunk.compression == "UNCOMPRESSED" else self._measured(self._data, group, column)[1]

    def _measured(self, data: bytes, group: int, column: int) -> tuple[int, int]:
        """Returns the bytes of all pages and of the largest."""
        if (group, column) not in self._pages:
            try:
                sizes = [page.num_bytes for page in pages(data, self._metadata.row_group(group).column(column))]
            except pa.ArrowInvalid:  # told by whoever reads the column
                sizes = [_UNKNOWN_BYTES]
            self._pages[group, column] = sum(sizes), max(sizes, default=0)
        return self._pages[group, column]


class _File(pq.ParquetFile):
    """A Parquet file that converts its schema once.

    Attributes:
        sizes: Bytes of its chunks.
        dictionaries: Numbers of the columns that are read as dictionaries.
    """

    sizes: ChunkSizes
    dictionaries: frozenset[int] = frozenset()

    @functools.cached_property
    def schema_arrow(self) -> pa.Schema:
        """Schema of the file."""
        return super().schema_arrow


def open_file(folder: Folder, name: str) -> pq.ParquetFile:
    """Opens a file for streaming; it is closed when nothing refers to it any more.

    Several `iter_batches` of one file may go side by side if all have the same batch size, which pyarrow keeps in the file.
    Pictures that a file holds once and names often stay so: they are read as a dictionary, or 3 MB become gigabytes.
    """
    source, data = _open_source(folder, name)
    options = {"buffer_size": _BUFFER_BYTES if data is None else 0, "page_checksum_verification": True}
    # Not memory-mapped: a file cut short while it is read would end the process. Not read ahead: a row group may be huge.
    file = _File(source, pre_buffer=False, **options)
    sizes = ChunkSizes(file.metadata, source, data, folder.is_local or data is not None)
    repeated = _repeated_pictures(file.metadata)
    if repeated and not sizes.is_small:
        file = _File(
            source, metadata=file.metadata, read_dictionary=list(repeated.values()), pre_buffer=False, **options
        )
        file.dictionaries = frozenset(repeated)
    file.sizes = sizes
    return file


def check_pages(file: Any, columns: Iterable[str]) -> None:
    """Refuses a file with a page that is too large to be decompressed.

    Args:
        file: The file, see `open_file`.
        columns: Columns to check, or leaves of them.

    Raises:
        UnknownLayoutError: A page is larger than MAX_PAGE_BYTES.
    """
    wanted = tuple(columns)
    for column, path in enumerate(leaf_paths(file)):
        if any(path == name or path.startswith(f"{name}.") for name in wanted):
            for group in range(file.num_row_groups):
                num_bytes = file.sizes.of_largest_page(group, column)
                if MAX_PAGE_BYTES < num_bytes < _UNKNOWN_BYTES:
                    raise UnknownLayoutError(
                        f"a page must have at most {MAX_PAGE_BYTES:,} bytes when it is decompressed, got {num_bytes:,} in column "
                        f"{path!r}. Write the file anew with smaller pages"
                    )


def _open_source(folder: Folder, name: str) -> tuple[pa.NativeFile, bytes | None]:
    """Opens a file; a small one is read at once, and its content returned."""
    if not folder.is_local:
        remote = folder.open(name)
        if remote.seek(0, os.SEEK_END) > _WHOLE_BYTES:
            return pa.PythonFile(remote, "r"), None
        remote.seek(0)
        data = remote.read()
        return pa.BufferReader(data), data
    path = folder.path(name)
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (hot)
        if os.fstat(file.fileno()).st_size <= _WHOLE_BYTES:
            data = file.readall()
            return pa.BufferReader(data), data
    return pa.OSFile(path), None  # cheaper to open than a path


def _repeated_pictures(metadata: pq.FileMetaData) -> dict[int, str]:
    """Returns the leaf columns of bytes with all values of some row group in a dictionary, by their number."""
    columns = {index: metadata.schema.column(index) for index in range(metadata.num_columns)}
    return {
        index: column.path
        for index, column in columns.items()
        if column.physical_type == "BYTE_ARRAY" and column.logical_type.type == "NONE"
        if any(names_all(metadata.row_group(g).column(index)) for g in range(metadata.num_row_groups))
    }


def names_all(chunk: pq.ColumnChunkMetaData) -> bool:
    """Returns whether a chunk holds all its values in a dictionary, by the size of what follows it."""
    if not chunk.has_dictionary_page:
        return False
    of_pages = chunk.total_compressed_size - (chunk.data_page_offset - chunk.dictionary_page_offset)
    return bool(of_pages <= 4 * chunk.num_values + _INDEX_BYTES)
