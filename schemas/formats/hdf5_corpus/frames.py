"""Reads frames that are slices of data sets along the first axis.

See `schemas.formats.array_slices` for the slices. A camera may consist of several pieces: robomimic's frames are
obs[0:T] and then the last of next_obs.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vlm_rewards.schemas.episodes import Frame
from vlm_rewards.schemas.formats.array_slices import slice_bounds, why_no_camera
from vlm_rewards.schemas.formats.hdf5_corpus.files import plain_errors
from vlm_rewards.schemas.formats.interface import InvalidEpisodeError
from vlm_rewards.schemas.pictures import decode_image

if TYPE_CHECKING:
    import h5py


class Piece(NamedTuple):
    """Frames `start` to `stop`, exclusive, of a data set."""

    dataset: "h5py.Dataset"
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class Looks:
    """Conversion of stored pictures to frames.

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
        pieces: Places of the frames, in order.
        looks: Conversion of the stored pictures.
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
        """Returns frames [N, H, W, 3], or one of them, upright and RGB."""
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
    for start, stop in slice_bounds(piece.start, piece.stop, dataset.shape, dataset.dtype, dataset.chunks):
        with plain_errors(f"rows {start} to {stop - 1} of {dataset.name!r}"):
            rows = dataset[start:stop]
        yield rows


def why_not_pictures(dataset: "h5py.Dataset") -> str:
    """Says what is wrong with a data set that may have been meant as pictures; see `why_no_camera`."""
    return why_no_camera(dataset.shape or (), dataset.dtype)
