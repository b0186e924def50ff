import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPImageProcessorPil,
    EfficientNetImageProcessorPil,
    Siglip2ImageProcessorPil,
    SiglipImageProcessorPil,
)

from vlm_rewards.labelers.encoders.preprocessing import Preprocessor
from vlm_rewards.schemas.pictures import to_rgb

SIZES = [
    (32, 32),
    (56, 56),
    (31, 47),
    (240, 320),
    (1, 40),
    (40, 1),
    (1, 1),
    (600, 30),
    (33, 500),
    (20, 20),
]  # height, width


def picture(mode: str, height: int, width: int) -> Image.Image:
    """A picture of random values in any of Pillow's modes."""
    random = np.random.default_rng(height * 1000 + width)
    if mode == "I;16":
        return Image.fromarray(random.integers(0, 65536, (height, width), dtype=np.uint16))
    if mode in ("I", "F"):
        values = random.integers(0, 256, (height, width))
        return Image.fromarray(values.astype(np.int32 if mode == "I" else np.float32))
    rgba = Image.fromarray(random.integers(0, 256, (height, width, 4), dtype=np.uint8), mode="RGBA")
    if mode == "P with transparency":
        palette = rgba.convert("RGB").quantize(16)
        palette.info["transparency"] = 3
        return palette
    return rgba if mode == "RGBA" else rgba.convert("RGB").convert(mode) if mode != "LA" else rgba.convert("LA")


PROCESSORS = {
    "clip": CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32),
    "clip, odd crop": CLIPImageProcessorPil(size={"shortest_edge": 37}, crop_size={"height": 32, "width": 33}),
    "clip, crop larger than the picture": CLIPImageProcessorPil(size={"shortest_edge": 20}, crop_size=33),
    "clip, crop without resize": CLIPImageProcessorPil(do_resize=False, crop_size=32),
    "clip, bilinear": CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32, resample=2),
    "clip, no normalisation": CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32, do_normalize=False),
    "clip, bytes": CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size=32, do_normalize=False, do_rescale=False
    ),
    "siglip": SiglipImageProcessorPil(size={"height": 32, "width": 32}),
    "siglip, not square": SiglipImageProcessorPil(size={"height": 24, "width": 32}, image_mean=0.4, image_std=0.2),
    "align": EfficientNetImageProcessorPil(
        size={"height": 40, "width": 40},
        do_center_crop=True,
        crop_size={"height": 32, "width": 32},
        rescale_offset=True,
    ),
    "efficientnet": EfficientNetImageProcessorPil(
        size={"height": 32, "width": 32}, rescale_factor=1 / 127.5, rescale_offset=True, include_top=False
    ),
}


@pytest.mark.parametrize("name", sorted(PROCESSORS))
@pytest.mark.parametrize("size", SIZES)
def test_pixels_equal_those_of_the_library(name: str, size: tuple[int, int]) -> None:
    preprocessor = Preprocessor.from_processor(PROCESSORS[name])
    original = picture("RGB", *size)
    expected = np.asarray(PROCESSORS[name](original, return_tensors="np")["pixel_values"], dtype=np.float32)
    got = preprocessor.normalize(preprocessor.resize(to_rgb(original))[None])
    assert got.dtype == torch.float32
    assert got.is_contiguous()
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "P with transparency", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV"]
)
@pytest.mark.parametrize("size", [(32, 32), (17, 60), (1, 40)])
def test_every_mode_becomes_rgb_as_in_the_library(mode: str, size: tuple[int, int]) -> None:
    processor = PROCESSORS["clip"]
    preprocessor = Preprocessor.from_processor(processor)
    original = picture(mode, *size)
    frame = to_rgb(original)
    assert (frame.dtype, frame.shape) == (np.uint8, (*size, 3))
    expected = np.asarray(processor(original, return_tensors="np")["pixel_values"], dtype=np.float32)
    np.testing.assert_allclose(
        preprocessor.normalize(preprocessor.resize(frame)[None]).numpy(), expected, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("mode", ["I", "F", "I;16"])
def test_modes_of_more_than_8_bits_are_refused_where_the_library_cuts_them_off(mode: str) -> None:
    with pytest.raises(ValueError, match=r"a picture must have 8 bits per value, got (16|more than 8) bits"):
        to_rgb(picture(mode, 17, 60))


def test_a_transparent_colour_of_an_rgb_picture_is_white() -> None:
    # PNG may name one transparent colour instead of an alpha channel.
    original = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8))
    original.info["transparency"] = (1, 2, 3)
    assert to_rgb(original).tolist() == [[[255, 255, 255], [4, 5, 6]]]


def test_transparency_is_laid_over_white() -> None:
    # Opaque red stays; fully transparent red is white; alpha 51 = 1/5: 255 for red, 4/5 * 255 = 204 for green and blue.
    pixels = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [255, 0, 0, 51]]], dtype=np.uint8)
    assert to_rgb(Image.fromarray(pixels, mode="RGBA")).tolist() == [[[255, 0, 0], [255, 255, 255], [255, 204, 204]]]


def test_grey_is_repeated() -> None:
    assert to_rgb(Image.fromarray(np.array([[7, 200]], dtype=np.uint8))).tolist() == [[[7, 7, 7], [200, 200, 200]]]


def test_a_frame_of_the_right_size_is_not_touched() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.shares_memory(Preprocessor.from_processor(PROCESSORS["clip"]).resize(frame), frame)


def test_resize_crops_the_centre() -> None:
    # 2 x 4 pixels, shortest edge 2, crop 2: columns 1 and 2 remain.
    preprocessor = Preprocessor.from_processor(CLIPImageProcessorPil(size={"shortest_edge": 2}, crop_size=2))
    frame = np.arange(8, dtype=np.uint8).reshape(2, 4, 1).repeat(3, axis=2)
    assert preprocessor.resize(frame)[..., 0].tolist() == [[1, 2], [5, 6]]


def test_normalize_by_hand() -> None:
    # mean 0.5, deviation 0.25: byte 0 is (0 - 0.5) / 0.25 = -2, byte 255 is 2, byte 51 = 0.2 * 255 is -1.2. Channels come first.
    preprocessor = Preprocessor.from_processor(
        SiglipImageProcessorPil(size={"height": 1, "width": 1}, image_mean=[0.5] * 3, image_std=[0.25] * 3)
    )
    got = preprocessor.normalize(np.array([[[[0, 51, 255]]]], dtype=np.uint8))
    assert got.shape == (1, 3, 1, 1)
    np.testing.assert_allclose(got.flatten().numpy(), [-2, -1.2, 2], atol=1e-6)


def test_normalize_takes_read_only_and_strided_pixels_without_changing_them() -> None:
    preprocessor = Preprocessor.from_processor(PROCESSORS["clip"])
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    before = pixels.copy()
    expected = preprocessor.normalize(pixels)
    pixels.flags.writeable = False
    assert torch.equal(preprocessor.normalize(pixels), expected)
    assert torch.equal(preprocessor.normalize(pixels[::2]), expected[::2])
    assert np.array_equal(pixels, before)


def test_description_is_json_of_what_matters() -> None:
    description = Preprocessor.from_processor(PROCESSORS["siglip"]).describe()
    assert description["backend"] == "pillow"
    assert description["processor"] == "SiglipImageProcessorPil"
    assert (description["resize_to"], description["crop_to"], description["resample"]) == ((32, 32), None, 3)


class RoundingProcessor(CLIPImageProcessorPil):
    """A processor that does something else: it rounds."""

    def rescale(self, image: np.ndarray, scale: float, **kwargs: object) -> np.ndarray:
        return super().rescale(image, scale, **kwargs).round(2)


class OtherBackend(CLIPImageProcessorPil):
    """A processor of another back end."""

    @property
    def backend(self) -> str:
        return "torchvision"


@pytest.mark.parametrize(
    ("processor", "match"),
    [
        (Siglip2ImageProcessorPil(), r"must give pictures of one size, got Siglip2ImageProcessorPil \(NaFlex\)"),
        (OtherBackend(), "must be of transformers' Pillow back end, got OtherBackend"),
        (
            CLIPImageProcessorPil(do_pad=True, pad_size={"height": 9, "width": 9}),
            "got CLIPImageProcessorPil with do_pad",
        ),
        (
            SiglipImageProcessorPil(size={"shortest_edge": 8, "longest_edge": 9}),
            "must be shortest_edge, or height and width",
        ),
        (SiglipImageProcessorPil(size={"shortest_edge": 8}), "must give pictures of one size, got .* shortest_edge=8"),
        (SiglipImageProcessorPil(do_resize=False), "must give pictures of one size, got .* shortest_edge=None"),
        (SiglipImageProcessorPil(image_std=[0.5, 0, 0.5]), "image_std of an image processor must not be zero"),
        (
            RoundingProcessor(),
            "must equal the checkpoint's own RoundingProcessor within 1e-05, got a difference of 0.0",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_processors_that_cannot_be_matched_are_refused(processor: CLIPImageProcessorPil, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Preprocessor.from_processor(processor)


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_not_a_frame_is_refused(frame: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"a frame must be \[H, W, 3\] uint8, got"):
        Preprocessor.from_processor(PROCESSORS["clip"]).resize(frame)


def test_pixels_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"pixels must be \[B, 32, 32, 3\] uint8, got \[2, 31, 32, 3\] uint8"):
        Preprocessor.from_processor(PROCESSORS["clip"]).normalize(np.zeros((2, 31, 32, 3), dtype=np.uint8))
