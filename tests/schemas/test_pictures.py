import io
import re
import struct
import warnings
import zlib
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image
from small_corpora import frame

from vlm_rewards.schemas.pictures import (
    decode_image,
    encode_png,
    image_extension,
    read_picture_range,
    scaled_picture,
    to_rgb,
)


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


def _by_pillow(data: bytes) -> np.ndarray | None:
    """The pixels of a picture that is decoded in full, by `Image.open`; None if it is broken."""
    try:
        picture = Image.open(io.BytesIO(data))
        picture.load()
        return to_rgb(picture)
    except Exception:  # Pillow's readers raise nearly anything on broken bytes
        return None


def _by_us(data: bytes) -> np.ndarray | None:
    try:
        return decode_image(data)
    except ValueError:
        return None


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True, "subsampling": 0}, {"comment": b"of a gripper"}], ids=str
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_jpeg_has_the_same_pixels_by_the_short_way_or_none(options, mode, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(np.concatenate([frame(0, 40), frame(3, 40)])).convert(mode)
    data = _saved(picture, "JPEG", **options, **({"exif": exif} if orientation > 1 else {}))
    expected = _by_pillow(data)
    assert expected is not None
    np.testing.assert_array_equal(decode_image(data), expected)
    np.testing.assert_array_equal(decode_image(data, writable=False), expected)
    assert decode_image(data).flags.writeable
    rng = np.random.default_rng(0)
    for _ in range(100):
        broken = bytearray(data)
        for place in rng.integers(3, min(len(data), 700), 2):
            broken[place] = rng.integers(256)
        for bent in (bytes(broken), bytes(broken[: rng.integers(3, len(broken))])):
            with warnings.catch_warnings(action="ignore"):  # Pillow's of broken EXIF
                np.testing.assert_array_equal(_by_us(bent), _by_pillow(bent))


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


def _shown_by_datasets(data: bytes) -> np.ndarray:
    """The pixels that `datasets` gives for a picture, transparency laid over white."""
    picture = datasets.Image().decode_example({"bytes": data, "path": None})
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (255, 255, 255, 255)), picture)
    return np.array(picture.convert("RGB"))


def _saved(picture: Image.Image, format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format_name, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_a_picture_is_turned_as_its_exif_says(format_name, orientation):
    pixels = np.zeros((16, 8, 3), np.uint8)
    pixels[:8, :4] = (255, 0, 0)  # one quarter differs from the others: each of the eight turns shows
    pixels[:8, 4:] = (0, 255, 0)
    tag = Image.Exif()
    tag[0x0112] = orientation
    data = _saved(Image.fromarray(pixels), format_name, exif=tag, quality=100)
    decoded = decode_image(data)
    # 5 to 8 swap height and width; 6 is "turn by 90 degrees to the right": what was at the top comes to lie at the right
    assert decoded.shape == ((8, 16, 3) if orientation >= 5 else (16, 8, 3))
    if orientation == 6:
        assert decoded[1, 14].argmax() == 0
        assert decoded[6, 14].argmax() == 1
    np.testing.assert_array_equal(decoded, _shown_by_datasets(data))


_NOISE = frame(7, 12)
_ALPHA = np.dstack([_NOISE, np.arange(144, dtype=np.uint8).reshape(12, 12)])


@pytest.mark.parametrize(
    "data",
    [
        _saved(Image.fromarray(_NOISE).convert("CMYK"), "JPEG"),
        _saved(Image.fromarray(_ALPHA), "PNG"),
        _saved(Image.fromarray(_ALPHA), "WEBP", lossless=True),
        _saved(Image.fromarray(_ALPHA).convert("LA"), "PNG"),
        _saved(Image.fromarray(_NOISE).convert("P"), "PNG", transparency=3),
        _saved(Image.fromarray(_NOISE).convert("P"), "PNG"),
        _saved(Image.fromarray(_NOISE[..., 0]).convert("1"), "PNG"),
        _saved(Image.fromarray(_NOISE[..., 0]), "PNG", transparency=5),
        _saved(Image.fromarray(_NOISE[..., 0]), "BMP"),
        _saved(Image.fromarray(_NOISE), "WEBP", save_all=True, append_images=[Image.fromarray(frame(8, 12))]),
        _saved(Image.fromarray(_NOISE), "PNG", save_all=True, append_images=[Image.fromarray(frame(8, 12))]),
    ],
    ids=[
        "CMYK",
        "RGBA",
        "RGBA WebP",
        "LA",
        "P transparent",
        "P",
        "1",
        "L transparent",
        "L BMP",
        "moving WebP",
        "moving PNG",
    ],
)
def test_every_mode_is_decoded_as_datasets_shows_it(data):
    np.testing.assert_array_equal(decode_image(data), _shown_by_datasets(data))


def _png_of_16_bits(values: np.ndarray) -> bytes:
    """A PNG whose samples [H, W] or [H, W, 3] have 16 bits, laid as its standard says."""
    height, width = values.shape[:2]
    colour = 2 if values.ndim == 3 else 0
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_colours_of_16_bits_keep_their_high_byte():
    values = np.array([[[0, 255, 256], [0x1234, 0xFF00, 0xFFFF]]], np.uint16)
    data = _png_of_16_bits(values)
    assert decode_image(data).tolist() == [[[0, 0, 1], [0x12, 0xFF, 0xFF]]]
    np.testing.assert_array_equal(decode_image(data), _shown_by_datasets(data))
    assert scaled_picture(data, 0, 4000) is data


def test_depth_is_refused_or_scaled_by_the_range_that_was_stated():
    depth = np.array([[0, 450, 1000], [2000, 3000, 65535]], np.uint16)
    for data in (_png_of_16_bits(depth), _saved(Image.fromarray(depth), "PNG")):
        message = r"8 bits per value, got 16 bits, with values from 0 to 65535\. Say which values .*--picture-range BLACK:WHITE"
        with pytest.raises(ValueError, match=message):
            decode_image(data)
        with pytest.raises(
            ValueError, match=r"got 16 bits, .* 65535\. Convert it to 8 bits, so that it looks as [^-]*$"
        ):
            decode_image(data, of_corpus=False)  # no option scales a goal's picture
        # 450 of 2000 is 57.375 of 255; what lies beyond the range is white
        expected = np.array([[0, 57, 128], [255, 255, 255]])
        np.testing.assert_array_equal(scaled_picture(data, 0, 2000), np.repeat(expected[:, :, None], 3, axis=2))
        # 3000 is white and 1000 black: 2000 is half of it, 127.5, rounded to even
        near_is_white = scaled_picture(data, 3000, 1000)
        assert near_is_white[:, :, 0].tolist() == [[255, 255, 255], [128, 0, 0]]
    tag = Image.Exif()
    tag[0x0112] = 6
    lying = _saved(Image.fromarray(depth), "PNG", exif=tag)
    assert scaled_picture(lying, 0, 65535).shape == (3, 2, 3)


def test_other_pictures_are_not_scaled():
    for data in (encode_png(_NOISE), b"nothing", encode_png(_NOISE)[:40]):
        assert scaled_picture(data, 0, 10) is data


@pytest.mark.parametrize("mode", ["I", "F"])
def test_values_of_32_bits_are_refused(mode):
    with pytest.raises(ValueError, match="8 bits per value, got more than 8 bits, with values from 3 to 7"):
        to_rgb(Image.fromarray(np.array([[3, 7]], np.int32 if mode == "I" else np.float32)))


@pytest.mark.parametrize("text", ["", "1", "1:2:3", "a:b", "5:5", "0:inf", "nan:1"])
def test_a_range_is_two_different_numbers(text):
    with pytest.raises(ValueError, match=r"a range of values must be two different numbers, got .*Write BLACK:WHITE"):
        read_picture_range(text)
    assert read_picture_range("0:4000.5") == (0.0, 4000.5)
    assert read_picture_range("4000:-1") == (4000.0, -1.0)


def test_pictures_are_decoded_here_alone():
    root = Path(__file__).resolve().parent.parent.parent
    opening = re.compile(r"Image\.open\(|ImageFile\(|\bimread\(|\bcv2\b")
    found = [
        path.relative_to(root).as_posix()
        for room in ("schemas", "labelers", "pipelines", "offline_rl")
        for path in (root / room).rglob("*.py")
        if opening.search(path.read_text(encoding="utf-8"))
    ]
    assert found == []
