"""Reads the frames of one camera of one episode from their places in its record."""

import math
import zlib
from collections.abc import Iterator

import numpy as np

from vlm_rewards.schemas.episodes import Frame, Frames
from vlm_rewards.schemas.formats.interface import InvalidEpisodeError
from vlm_rewards.schemas.formats.rlds_corpus.examples import BYTES, BrokenMessageError, Example
from vlm_rewards.schemas.formats.rlds_corpus.features import Declared
from vlm_rewards.schemas.pictures import decode_image, decoded_frame


def count_frames(example: Example, path: str, declared: Declared) -> int:
    """Returns the number of frames of a camera in a record.

    Raises:
        ValueError: Its values are of another kind than is declared, or no whole number of frames.
    """
    if declared.kind == "image" or declared.encoding != "none":
        return len(example.of_kind(path, BYTES))
    count, size = example.num_integers(path), math.prod(size or 1 for size in declared.shape)
    if count % size:
        raise ValueError(f"{path} must have {size} values in every step, got {count} in all. Leave the episode out")
    return count // size


def camera_frames(example: Example, path: str, declared: Declared, *, reverse: bool) -> Frames:
    """Returns the frames of a camera.

    Args:
        example: The parsed record.
        path: Path of the camera's feature.
        declared: Declaration of the feature in features.json.
        reverse: Whether channels are stored in the order BGR; the frames are RGB.
    """
    if declared.kind == "image":
        pictures = _Pictures(example, path)
        return _Decoded(pictures) if reverse else pictures
    return _Arrays(example, path, declared, reverse)


def is_filler(frames: Frames) -> bool:
    """Returns whether all frames are one picture of a single colour, which writers fill in for a missing camera."""
    first: Frame | None = None
    try:
        for frame in frames:
            if first is None:
                first = frame
            elif not np.array_equal(first, frame) if isinstance(frame, np.ndarray) else first != frame:
                return False
        if first is None:
            return False
        pixels = decoded_frame(first)
    except ValueError:
        return False  # what is wrong is said when the frames are read
    return bool((pixels == pixels[0, 0]).all())


class _Pictures:
    """Encoded pictures, as they are."""

    def __init__(self, example: Example, path: str) -> None:
        self._example = example
        self._feature = example.of_kind(path, BYTES)

    def __len__(self) -> int:
        return len(self._feature)

    def __iter__(self) -> Iterator[bytes]:
        for offset, size in self._feature:
            yield self._example.read(offset, size)


class _Decoded:
    """The pixels of pictures whose channels are stored in the order BGR."""

    def __init__(self, pictures: _Pictures) -> None:
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def __iter__(self) -> Iterator[Frame]:
        for index, picture in enumerate(self._pictures):
            try:
                pixels = decode_image(picture)
            except ValueError as error:
                raise InvalidEpisodeError("undecodable image", f"frame {index}: {error}") from error
            yield np.ascontiguousarray(pixels[..., ::-1])


class _Arrays:
    """Pictures that are stored as tensors: integers, or bytes that may be compressed."""

    def __init__(self, example: Example, path: str, declared: Declared, reverse: bool) -> None:
        self._example = example
        self._path = path
        self._declared = declared
        self._shape = tuple(size or 0 for size in declared.shape)
        self._reverse = reverse
        self._count = count_frames(example, path, declared)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Frame]:
        values = self._integers() if self._declared.encoding == "none" else self._bytes()
        for pixels in values:
            frame = pixels.reshape(self._shape)
            yield np.ascontiguousarray(frame[..., ::-1]) if self._reverse else frame

    def _integers(self) -> Iterator[np.ndarray]:
        try:
            for index, values in enumerate(self._example.integer_blocks(self._path, math.prod(self._shape))):
                if values.min() < 0 or values.max() > 255:
                    wrong = values.min() if values.min() < 0 else values.max()
                    detail = f"pixels of {self._path!r} must be 0 to 255, got {wrong} in frame {index}. Leave the episode out"
                    raise InvalidEpisodeError("broken record", detail)
                yield values.astype(np.uint8)
        except BrokenMessageError as error:
            raise InvalidEpisodeError("broken record", str(error)) from error

    def _bytes(self) -> Iterator[np.ndarray]:
        for offset, size in self._example.of_kind(self._path, BYTES):
            try:
                yield decoded_tensor(self._example.read(offset, size), self._declared)
            except ValueError as error:
                raise InvalidEpisodeError("broken record", f"{self._path!r}: {error}") from error


def decoded_tensor(data: bytes, declared: Declared) -> np.ndarray:
    """Returns the values of a tensor that is stored as bytes.

    Returns:
        [N] in the declared dtype.

    Raises:
        ValueError: The bytes are not as many as shape and dtype need, or do not decompress.
    """
    dtype = np.dtype(declared.dtype)
    num_bytes = math.prod(size or 0 for size in declared.shape) * dtype.itemsize
    if declared.encoding == "zlib":
        try:
            data = zlib.decompressobj().decompress(data, num_bytes + 1)
        except zlib.error as error:
            raise ValueError(f"a compressed tensor must decompress, got {error}. Leave the episode out") from error
    if len(data) != num_bytes:
        more = "more" if len(data) > num_bytes else str(len(data))
        raise ValueError(f"a tensor {declared} must have {num_bytes} bytes, got {more}. Leave the episode out")
    return np.frombuffer(data, dtype)
