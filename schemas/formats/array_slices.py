"""Chunked arrays of pictures [N, H, W, 3]: tells which are cameras, and reads them in slices.

chunks of 5 frames   |     |     |     |     |     |     |
read                 [0             300)[300           600)      whole chunks at a time, so that each is decompressed once
"""

from collections.abc import Iterator, Sequence

import numpy as np

_SLICE_FRAMES, _SLICE_BYTES = 300, 16 << 20
"""Frames and bytes that are read at a time, unless one row of chunks holds more."""
_CHUNK_ROW_BYTES = 256 << 20
"""A row of chunks of more bytes than that is not read at once: what it costs in time is saved in memory."""
MIN_SIDE = 32
"""Arrays [H, W, 3] with a shorter side are no pictures: MiniGrid's symbolic grids are such. Minari has the same rule."""


def slice_bounds(
    start: int, stop: int, shape: Sequence[int], dtype: np.dtype, chunks: Sequence[int] | None
) -> Iterator[tuple[int, int]]:
    """Yields the slices in which to read a range of rows.

    Args:
        start: First row.
        stop: End of the range, exclusive.
        shape: Shape of the array.
        dtype: Dtype of the array.
        chunks: Shape of its chunks; None if it is not chunked.

    Yields:
        Start and end of each slice; slices end at chunk boundaries.
    """
    row_bytes = max(1, dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64)))
    step = max(1, min(_SLICE_FRAMES, _SLICE_BYTES // row_bytes))
    depth = chunks[0] if chunks else 1
    if depth * row_bytes <= _CHUNK_ROW_BYTES:
        step = max(1, step // depth) * depth
    while start < stop:
        end = min(stop, start - start % step + step)
        yield start, end
        start = end


def why_no_camera(shape: Sequence[int], dtype: np.dtype) -> str:
    """Says what is wrong with an array that may have been meant as pictures.

    Returns:
        "" for pictures, "-" for an array that is clearly not pictures.
    """
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        return "-"
    found = f"{list(shape)} {dtype}"
    if shape[3] != 3:
        return f"{found}, channels first"
    if min(shape[1], shape[2]) < MIN_SIDE:
        return f"{found}, smaller than {MIN_SIDE} x {MIN_SIDE}: a symbolic grid"
    return "" if dtype == np.uint8 else f"{found}, not uint8"
