"""Rows of an array, read forward in slices, where episodes do not end where chunks do.

chunks of 4 rows    | 0 1 2 3 | 4 5 6 7 | 8 ...
episodes              0 1 2 3   4 | 5 6   7 | 8 ...
read                [0 to 8)  ; rows 5 to 7 wait for the next episode, so that their chunk is not decompressed again
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from vlm_rewards.schemas.formats.array_slices import slice_bounds
from vlm_rewards.schemas.formats.zarr_corpus.chunk_files import RowReader
from vlm_rewards.schemas.formats.zarr_corpus.stores import plain_errors

if TYPE_CHECKING:
    import zarr

_MAX_WAITING_BYTES = 16 << 20


class ArrayRows:
    """Reads one array; see the module's picture.

    Args:
        array: The array.
        read: Reader of its rows; zarr by default.
    """

    def __init__(self, array: "zarr.Array", read: RowReader | None = None) -> None:
        self.array = array
        self._read = read or (lambda start, stop: np.asarray(array[start:stop]))
        self._waiting: tuple[int, np.ndarray] | None = None  # the first of the rows, and the rows

    def slices(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Reads rows `start` to `stop`, exclusive, some hundred at a time.

        Raises:
            InvalidEpisodeError: The store is broken there; from the iterator.
        """
        if self._waiting is not None:
            first, rows = self._waiting
            if first <= start < first + len(rows):
                yield rows[start - first : stop - first]
                start = min(stop, first + len(rows))
        array = self.array
        dtype = np.dtype(array.dtype)
        for begin, end in slice_bounds(start, stop, array.shape, dtype, array.chunks):
            last = min(array.shape[0], -(-end // array.chunks[0]) * array.chunks[0]) if end == stop else end
            if (last - end) * dtype.itemsize * int(np.prod(array.shape[1:])) > _MAX_WAITING_BYTES:
                last = end
            with plain_errors(f"rows {begin} to {last - 1} of {array.name}"):
                rows = self._read(begin, last)
            if last > end:
                self._waiting = (end, rows[end - begin :])
            yield rows[: end - begin]
