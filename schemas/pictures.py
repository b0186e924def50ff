"""Picture files to pixels and back: PNG, JPEG, WebP and BMP bytes to uint8 [H, W, 3], and such frames to PNG bytes."""

import io

import numpy as np
from PIL import BmpImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

MAX_PIXELS = 64_000_000
_PNG_LEVEL = 3

_OPENERS = {
    "png": PngImagePlugin.PngImageFile,
    "jpg": JpegImagePlugin.JpegImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
}


def image_extension(data: bytes) -> str:
    """The file name extension of a picture, by its first bytes.

    Returns:
        "png", "jpg", "webp" or "bmp".

    Raises:
        ValueError: It is none of these.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith(b"BM"):
        return "bmp"
    raise ValueError(
        f"a picture must be PNG, JPEG, WebP or BMP, got {len(data)} bytes that start with {data[:8]!r}. "
        "Convert it to PNG"
    )


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes one picture, in full or not at all; of an animation, the first picture.

    The size is read from the picture's header and checked before any pixel is decoded.

    Args:
        data: PNG, JPEG, WebP or BMP bytes.
        max_pixels: A picture of more pixels is refused as too large to be one.

    Returns:
        [H, W, 3] uint8, RGB, as `to_rgb` converts other modes.

    Raises:
        ValueError: The bytes are of another format, cut short or broken, or the picture is too large.
    """
    # The format's own class, not Image.open: that one warns of large pictures before we can look at the size.
    opener = _OPENERS[image_extension(data)]
    try:
        picture = opener(io.BytesIO(data))
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on broken bytes
        raise _undecodable(data, error) from error
    width, height = picture.size
    if width * height > max_pixels:
        raise ValueError(
            f"a picture must have at most {max_pixels} pixels, got {width} x {height}, a picture too large to be one; "
            "scale it down or leave it out"
        )
    try:
        picture.load()
    except MemoryError:
        raise
    except Exception as error:
        raise _undecodable(data, error) from error
    return to_rgb(picture)


def to_rgb(picture: Image.Image) -> np.ndarray:
    """Turns a picture of any mode into a frame, transparency laid over white, as transformers' processors do.

    Args:
        picture: Grey, palette, CMYK, 16-bit, RGBA, ...: any mode that Pillow converts to RGB.

    Returns:
        `[H, W, 3]` uint8, 0..255.
    """
    if "A" in picture.getbands() or picture.info.get("transparency") is not None:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return np.array(picture.convert("RGB"))


def encode_png(frame: np.ndarray) -> bytes:
    """Encodes a frame as PNG, without loss; the same frame gives the same bytes.

    Args:
        frame: [H, W, 3] uint8, RGB.

    Raises:
        ValueError: The frame has another shape or dtype.
    """
    _check_pixels(frame)
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue()


def encoded_frame(frame: bytes | np.ndarray) -> bytes:
    """A frame as a picture's bytes: as it is if it is encoded, otherwise as PNG.

    Raises:
        ValueError: The frame is an array of another shape or dtype than [H, W, 3] uint8.
    """
    return frame if isinstance(frame, bytes) else encode_png(frame)


def decoded_frame(frame: bytes | np.ndarray) -> np.ndarray:
    """A frame as pixels [H, W, 3] uint8, RGB.

    Raises:
        ValueError: The frame is encoded and does not decode, or is an array of another shape or dtype.
    """
    if isinstance(frame, bytes):
        return decode_image(frame)
    _check_pixels(frame)
    return frame


def _check_pixels(frame: np.ndarray) -> None:
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(f"a frame must be [H, W, 3] uint8, got {list(frame.shape)} {frame.dtype}; convert it")


def _undecodable(data: bytes, error: Exception) -> ValueError:
    reason = str(error) or type(error).__name__
    return ValueError(
        f"a picture must decode in full, got {len(data)} bytes that do not ({reason}). Take it from a copy that is whole, or "
        "leave it out"
    )
