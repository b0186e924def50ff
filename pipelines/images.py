"""Pixels to pictures, uint8 frames [H, W, 3] to PNG bytes; back again by `labelers.pictures`."""

import io

import numpy as np
from PIL import Image

from labelers.pictures import decode_image, image_extension

__all__ = ["decode_image", "encode_png", "image_extension"]

_PNG_LEVEL = 3


def encode_png(frame: np.ndarray) -> bytes:
    """Encodes a frame as PNG, without loss; the same frame gives the same bytes.

    Args:
        frame: [H, W, 3] uint8, RGB.

    Raises:
        ValueError: The frame has another shape or dtype.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(f"a frame must be [H, W, 3] uint8, got {list(frame.shape)} {frame.dtype}; convert it")
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue()
