"""Picture files to pixels and back: PNG, JPEG, WebP and BMP bytes to uint8 [H, W, 3], and such frames to PNG bytes.

Every picture of this project is decoded here, to what `datasets.Image` shows of it: turned as its EXIF says. Pictures of more
than 8 bits per value, as of depth cameras, are refused, or scaled by a range that was stated (`scaled_picture`).
"""

import contextlib
import io
import struct

import numpy as np
from PIL import BmpImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

MAX_PIXELS = 64_000_000
_PNG_LEVEL = 3

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transformations that make a picture upright, by its EXIF orientation."""
_SEGMENT, _FRAME = struct.Struct(">BBH"), struct.Struct(">BHHB")
_FRAMES, _SCAN = {0xC0, 0xC1, 0xC2}, 0xDA
_JFIF, _JFIF_BYTES = 0xE0, 16
_PLAIN = {_JFIF, 0xC4, 0xDB, 0xDD, 0xFE}
"""Segments of a JPEG file that say nothing about its look beside the pixels: JFIF, tables, restarts and comments."""
_OPENERS = {
    "png": PngImagePlugin.PngImageFile,
    "jpg": JpegImagePlugin.JpegImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
}


def image_extension(data: bytes) -> str:
    """Returns the file name extension of a picture, by its first bytes.

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


def decode_image(
    data: bytes, *, max_pixels: int = MAX_PIXELS, of_corpus: bool = True, writable: bool = True
) -> np.ndarray:
    """Decodes one picture, in full or not at all; of an animation, the first picture.

    The size is read from the picture's header and checked before any pixel is decoded.

    Args:
        data: PNG, JPEG, WebP or BMP bytes.
        max_pixels: A picture of more pixels is refused as too large to be one.
        of_corpus: Whether the picture belongs to a corpus, so that a range may be stated for it.
        writable: Whether the pixels must be writable, which costs small pictures a copy.

    Returns:
        [H, W, 3] uint8, RGB, as `to_rgb` converts other modes.

    Raises:
        ValueError: The bytes are of another format, cut short or broken, or the picture is too large or has more than 8 bits per
            value.
    """
    size = _plain_jpeg_size(data)
    if size is not None and size[0] * size[1] <= max_pixels:
        with contextlib.suppress(ValueError, OSError):  # what is broken, the other way says in words
            picture = Image.frombytes("RGB", size, data, "jpeg", "RGB", "")
            return np.array(picture) if writable else np.asarray(picture)
    return to_rgb(_loaded(data, max_pixels), of_corpus)


def scaled_picture(data: bytes, black: float, white: float) -> bytes | np.ndarray:
    """Scales a picture of more than 8 bits per value.

    Args:
        data: PNG, JPEG, WebP or BMP bytes.
        black: Value that becomes 0, and so do values below it.
        white: Value that becomes 255, and so do values above it; may be less than `black`.

    Returns:
        [H, W, 3] uint8, grey; of other pictures, and of what does not decode, the bytes as they are, for `decode_image` to judge.
    """
    try:
        if not _is_deep(_opened(data, MAX_PIXELS)):
            return data
        values = np.asarray(_turned(_loaded(data, MAX_PIXELS)), np.float64)
    except ValueError:
        return data
    shades = np.clip((values - black) / (white - black), 0, 1)
    return np.repeat(np.rint(shades * 255).astype(np.uint8)[:, :, None], 3, axis=2)


def read_picture_range(text: str) -> tuple[float, float]:
    """Reads the values that are black and white from a word such as "0:4000".

    Raises:
        ValueError: It is not two different numbers.
    """
    try:
        black, white = (float(value) for value in text.split(":"))
    except ValueError:
        black = white = 0.0
    if black == white or not np.isfinite([black, white]).all():
        raise ValueError(
            f"a range of values must be two different numbers, got {text!r}. Write BLACK:WHITE, such as 0:4000"
        )
    return black, white


def _plain_jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Returns the width and height of a JPEG in colour without EXIF and the like, of which only the pixels count.

    Pillow decodes such a picture in one go, to the same pixels; what it does beside is a quarter of the time of small ones.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    size: tuple[int, int] | None = None
    place = 2
    while len(data) >= place + 10:
        lead, marker, length = _SEGMENT.unpack_from(data, place)
        if lead != 0xFF:
            return None
        if marker == _SCAN:
            return size
        if marker in _FRAMES and size is None:
            bits, height, width, num_colours = _FRAME.unpack_from(data, place + 4)
            size = (width, height)
            if bits != 8 or num_colours != 3 or not width * height:
                return None
        elif marker not in _PLAIN or (marker == _JFIF and length < _JFIF_BYTES):
            return None
        place += 2 + length
    return None


def _turned(picture: Image.Image) -> Image.Image:
    turn = _TURNS.get(picture.getexif().get(_ORIENTATION, 1))
    return picture if turn is None else picture.transpose(turn)


def _is_deep(picture: Image.Image) -> bool:
    """Returns whether its values have more than 8 bits: Pillow would cut them off at 255."""
    return picture.mode in ("I", "F") or picture.mode.startswith("I;")


def _opened(data: bytes, max_pixels: int) -> Image.Image:
    """Returns the picture, of which only the header is read."""
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
    return picture


def _loaded(data: bytes, max_pixels: int) -> Image.Image:
    picture = _opened(data, max_pixels)
    try:
        picture.load()
        picture.getexif()
    except MemoryError:
        raise
    except Exception as error:
        raise _undecodable(data, error) from error
    return picture


def to_rgb(picture: Image.Image, of_corpus: bool = True) -> np.ndarray:
    """Turns a picture of any mode into a frame: as its EXIF says, and transparency laid over white, as transformers' processors do.

    Args:
        picture: Grey, palette, CMYK, RGBA, ...: any mode of 8 bits per value that Pillow converts to RGB.
        of_corpus: Whether a range may be stated for it, see `decode_image`.

    Returns:
        `[H, W, 3]` uint8, 0..255.

    Raises:
        ValueError: Its values have more than 8 bits.
    """
    if _is_deep(picture):
        low, high = picture.getextrema()
        bits = "16 bits" if picture.mode.startswith("I;16") else "more than 8 bits"
        remedy = "Convert it to 8 bits, so that it looks as the corpus's pictures do"
        if of_corpus:
            remedy = "Say which values are black and white: --picture-range BLACK:WHITE, or convert it to 8 bits"
        raise ValueError(
            f"a picture must have 8 bits per value, got {bits}, with values from {low:g} to {high:g}. {remedy}"
        )
    picture = _turned(picture)
    if "A" in picture.getbands() or picture.info.get("transparency") is not None:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))  # to convert would copy it


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
    """Returns a frame as a picture's bytes: as it is if it is encoded, otherwise as PNG.

    Raises:
        ValueError: The frame is an array of another shape or dtype than [H, W, 3] uint8.
    """
    return frame if isinstance(frame, bytes) else encode_png(frame)


def decoded_frame(frame: bytes | np.ndarray, *, writable: bool = True) -> np.ndarray:
    """Returns a frame as pixels [H, W, 3] uint8, RGB.

    Args:
        frame: A picture's bytes, or pixels, which are returned as they are.
        writable: Whether decoded pixels must be writable, see `decode_image`.

    Raises:
        ValueError: The frame is encoded and does not decode, or is an array of another shape or dtype.
    """
    if isinstance(frame, bytes):
        return decode_image(frame, writable=writable)
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
