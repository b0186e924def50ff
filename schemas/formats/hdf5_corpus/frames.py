"""Frames that are slices of data sets along the first axis.

data set [T, H, W, 3]   chunks of 5 frames and a quarter of a picture, compressed
read as                 [0:300] [300:600] ...      whole chunks at a time, so that each is decompressed once

A camera may lie in several pieces: robomimic's frames are obs[0:T] and then the last of next_obs.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vlm_rewards.schemas.episodes import Frame
from vlm_rewards.schemas.formats.hdf5_corpus.files import plain_errors
from vlm_rewards.schemas.formats.interface import InvalidEpisodeError
from vlm_rewards.schemas.pictures import decode_image

if TYPE_CHECKING:
    import h5py

_SLICE_FRAMES, _SLICE_BYTES = 300, 8 << 20
"""Frames and bytes that are read at a time, unless one row of chunks holds more."""
_CHUNK_ROW_BYTES = 256 << 20
"""A row of chunks of more bytes than that is not read at once: what it costs in time is saved in memory."""
MIN_SIDE = 32
"""Arrays [H, W, 3] with a shorter side are no pictures: MiniGrid's symbolic grids are such. Minari has the same rule."""


class Piece(NamedTuple):
    """Frames `start` to `stop`, exclusive, of a data set."""

    dataset: "h5py.Dataset"
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class Looks:
    """How stored pictures become frames.

    Args:
        encoded: Whether each row is an encoded picture, perhaps padded with zeros, instead of pixels.
        upside_down: Whether the first row of pixels is the lowest.
        bgr: Whether the first channel is blue.
    """

    encoded: bool = False
    upside_down: bool = False
    bgr: bool = False


@dataclasses.dataclass(frozen=True)
class SliceFrames:
    """The frames of one camera of one episode; see the module's picture.

    Args:
        pieces: Where they lie, in order.
        looks: How they are stored.
    """

    pieces: Sequence[Piece]
    looks: Looks

    def __len__(self) -> int:
        return sum(piece.stop - piece.start for piece in self.pieces)

    def __iter__(self) -> Iterator[Frame]:
        for piece in self.pieces:
            for rows in slices(piece):
                if self.looks.encoded:
                    yield from (self._encoded(row) for row in rows)
                else:
                    yield from self._turned(rows)

    def _turned(self, pixels: np.ndarray) -> np.ndarray:
        """Frames [N, H, W, 3], or one of them, upright and RGB."""
        if self.looks.upside_down:
            pixels = np.flip(pixels, axis=-3)
        if self.looks.bgr:
            pixels = pixels[..., ::-1]
        return np.ascontiguousarray(pixels)

    def _encoded(self, row: np.ndarray | bytes) -> Frame:
        # Neither JPEG nor PNG ends with a zero, so what follows the picture is padding.
        data = (row if isinstance(row, bytes) else row.tobytes()).rstrip(b"\0")
        if not (self.looks.upside_down or self.looks.bgr):
            return data
        try:
            return self._turned(decode_image(data))
        except ValueError as error:
            raise InvalidEpisodeError("undecodable image", str(error)) from error


def slices(piece: Piece) -> Iterator[np.ndarray]:
    """Reads a piece some hundred rows at a time, cut where its chunks are.

    Raises:
        InvalidEpisodeError: The file is broken there; from the iterator.
    """
    dataset = piece.dataset
    row_bytes = max(1, dataset.dtype.itemsize * int(np.prod(dataset.shape[1:], dtype=np.int64)))
    step = max(1, min(_SLICE_FRAMES, _SLICE_BYTES // row_bytes))
    depth = dataset.chunks[0] if dataset.chunks else 1
    if depth * row_bytes <= _CHUNK_ROW_BYTES:
        step = max(1, step // depth) * depth
    start = piece.start
    while start < piece.stop:
        stop = min(piece.stop, start - start % step + step)
        with plain_errors(f"rows {start} to {stop - 1} of {dataset.name!r}"):
            rows = dataset[start:stop]
        yield rows
        start = stop


def why_no_camera(dataset: "h5py.Dataset") -> str:
    """What is wrong with a data set that may have been meant as pictures; "" for pictures, "-" for what is none by any means."""
    shape: tuple[int, ...] = dataset.shape or ()
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        return "-"
    found = f"{list(shape)} {dataset.dtype}"
    if shape[3] != 3:
        return f"{found}, channels first"
    if min(shape[1], shape[2]) < MIN_SIDE:
        return f"{found}, smaller than {MIN_SIDE} x {MIN_SIDE}: a symbolic grid"
    return "" if dataset.dtype == np.uint8 else f"{found}, not uint8"
