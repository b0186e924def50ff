import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image
from small_corpora import frame

from vlm_rewards.schemas.pictures import decode_image, encode_png, image_extension


def _encode(pixels: np.ndarray, format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=format_name, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("format_name", "options", "extension"),
    [("PNG", {}, "png"), ("BMP", {}, "bmp"), ("WEBP", {"lossless": True}, "webp")],
)
def test_lossless_formats_give_the_pixels_back(format_name, options, extension):
    pixels = frame(0, 16)
    data = _encode(pixels, format_name, **options)
    assert image_extension(data) == extension
    np.testing.assert_array_equal(decode_image(data), pixels)


def test_jpeg_is_decoded_as_pillow_decodes_it():
    data = _encode(frame(0, 16), "JPEG")
    assert image_extension(data) == "jpg"
    np.testing.assert_array_equal(decode_image(data), np.array(Image.open(io.BytesIO(data)).convert("RGB")))


def test_grey_and_transparent_pictures_become_rgb():
    grey = np.array([[0, 255], [7, 100]], np.uint8)
    np.testing.assert_array_equal(decode_image(_encode(grey, "PNG")), np.stack([grey] * 3, axis=-1))
    clear = np.zeros((2, 2, 4), np.uint8)  # black, but wholly transparent: what lies behind it is white
    np.testing.assert_array_equal(decode_image(_encode(clear, "PNG")), np.full((2, 2, 3), 255, np.uint8))


def test_png_is_lossless_and_always_the_same():
    pixels = frame(3, 24)
    assert encode_png(pixels) == encode_png(pixels.copy())
    np.testing.assert_array_equal(decode_image(encode_png(pixels)), pixels)


def test_only_frames_are_encoded():
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)):
        with pytest.raises(ValueError, match=r"a frame must be \[H, W, 3\] uint8, got"):
            encode_png(wrong)


@pytest.mark.parametrize("data", [b"", b"not a picture", b"GIF89a....", b"%PDF-1.4"])
def test_other_formats_are_refused(data):
    with pytest.raises(ValueError, match="a picture must be PNG, JPEG, WebP or BMP, got"):
        decode_image(data)


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_pictures_cut_short_are_refused(format_name, share):
    data = _encode(frame(0, 64), format_name)
    with pytest.raises(ValueError, match="a picture must"):
        decode_image(data[: max(12, int(len(data) * share))])


def test_a_picture_too_large_is_refused_before_it_is_decoded_and_without_a_warning():
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)  # 10 GB of pixels, in 57 bytes
    bomb = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", b"")):
        bomb += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(
            ValueError, match="at most 64000000 pixels, got 60000 x 60000, a picture too large to be one"
        ):
            decode_image(bomb)


def test_the_limit_can_be_set():
    data = encode_png(frame(0, 8))
    assert decode_image(data, max_pixels=64).shape == (8, 8, 3)
    with pytest.raises(ValueError, match="at most 63 pixels, got 8 x 8, .*; scale it down or leave it out"):
        decode_image(data, max_pixels=63)


def test_broken_bytes_never_raise_anything_else():
    rng = np.random.default_rng(0)
    for format_name in ("PNG", "JPEG", "WEBP", "BMP"):
        data = bytearray(_encode(frame(0, 24), format_name))
        for _ in range(60):
            broken = bytearray(data)
            for place in rng.integers(2, len(data), 4):
                broken[place] = rng.integers(256)
            try:
                decoded = decode_image(bytes(broken), max_pixels=10_000)
            except ValueError:
                continue
            assert decoded.dtype == np.uint8
            assert decoded.shape[2] == 3
