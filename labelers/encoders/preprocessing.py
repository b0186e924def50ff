"""Pixels as a checkpoint's own image processor prepares them: a lean copy of it, checked against it when built.

    picture ──► to_rgb ──► frame [H, W, 3] ──► resize ──► pixels [S, S, 3] uint8 ──► normalize ──► [B, 3, S, S] float32

What stands before `normalize` is bytes: small to keep, exact to compare. The arithmetic is that of the Pillow back end of
transformers' image processors; the torchvision back end is not bit-equal to it and is never used.

Shape letters: B pictures, H and W sides of a frame in pixels, S sides of the model's input in pixels.
"""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import torch

TOLERANCE = 1e-5
"""Largest difference of a normalised pixel from the checkpoint's own processor."""

_CHECKED_KEYS = ("do_pad", "reducing_gap")  # steps that the lean copy leaves out: they must be off


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessor:
    """The operations of a checkpoint's image processor, as numbers.

    Args:
        processor: Class name of the image processor that this is a copy of.
        shortest_edge: Target of the shorter side, with the longer in proportion; None if `resize_to` is set or
            nothing is resized.
        resize_to: Target height and width, or None.
        crop_to: Height and width of the centre crop, zeros where the frame is smaller; None for no crop.
        resample: Pillow's number of the resampling filter.
        scale: Factor per channel: `normalised = pixel * scale + shift`.
        shift: Summand per channel.

    Raises:
        ValueError: The size of the result would depend on the frame's.
    """

    processor: str
    shortest_edge: int | None
    resize_to: tuple[int, int] | None
    crop_to: tuple[int, int] | None
    resample: int
    scale: tuple[float, float, float]
    shift: tuple[float, float, float]

    def __post_init__(self) -> None:
        if self.crop_to is None and self.resize_to is None:
            raise ValueError(
                f"an image processor must give pictures of one size, got {self.processor} with shortest_edge="
                f"{self.shortest_edge} and no centre crop; set size to height and width, or a crop_size"
            )

    @classmethod
    def from_processor(cls, processor: Any) -> "Preprocessor":
        """Copies a transformers image processor of the Pillow back end, and checks the copy on synthetic pictures.

        Args:
            processor: Image processor, such as `CLIPImageProcessorPil` or `SiglipImageProcessorPil`.

        Raises:
            ValueError: The processor has another back end, is for variable resolution (NaFlex), has settings that this copy
                does not know, or gives pixels that differ from the copy's.
        """
        name = type(processor).__name__
        if getattr(processor, "max_num_patches", None) is not None:
            raise ValueError(
                f"an image processor must give pictures of one size, got {name} (NaFlex), whose patches follow the frame's "
                f"shape; use a fixed-resolution SigLIP 2 checkpoint, such as google/siglip2-base-patch16-224"
            )
        if getattr(processor, "backend", None) != "pil":
            raise ValueError(
                f"an image processor must be of transformers' Pillow back end, got {name}; load it with backend='pil'"
            )
        switched_on = [key for key in _CHECKED_KEYS if getattr(processor, key, None)]
        if switched_on:
            raise ValueError(
                f"an image processor must resize, crop, rescale and normalise only, got {name} with {switched_on[0]}; "
                f"switch it off in preprocessor_config.json"
            )
        size = {key: int(value) for key, value in dict(processor.size or {}).items()} if processor.do_resize else {}
        if set(size) not in ({"shortest_edge"}, {"height", "width"}, set()):
            raise ValueError(
                f"size of an image processor must be shortest_edge, or height and width, got {size} of {name}; "
                f"change preprocessor_config.json"
            )
        crop = dict(processor.crop_size) if getattr(processor, "do_center_crop", False) else {}
        scale, shift = _affine(processor)
        preprocessor = cls(
            processor=name,
            shortest_edge=size.get("shortest_edge"),
            resize_to=(size["height"], size["width"]) if "height" in size else None,
            crop_to=(int(crop["height"]), int(crop["width"])) if crop else None,
            resample=int(processor.resample),
            scale=scale,
            shift=shift,
        )
        preprocessor.check_against(processor)
        return preprocessor

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the model's input, in pixels."""
        size = self.crop_to or self.resize_to
        assert size is not None
        return size

    def resize(self, frame: np.ndarray) -> np.ndarray:
        """Resizes and crops one frame to the model's input size.

        Args:
            frame: `[H, W, 3]` uint8.

        Returns:
            `[S, S, 3]` uint8; the frame itself if it has that size already and the processor would leave it as it is.

        Raises:
            ValueError: The frame is not `[H, W, 3]` uint8 with at least one pixel.
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
            raise ValueError(
                f"a frame must be [H, W, 3] uint8, got {list(frame.shape)} {frame.dtype}; convert pictures with to_rgb"
            )
        height, width = target = self._resized(frame.shape[0], frame.shape[1])
        if target != frame.shape[:2]:
            picture = Image.fromarray(np.ascontiguousarray(frame))
            frame = np.asarray(picture.resize((width, height), resample=Image.Resampling(self.resample)))
        return frame if self.crop_to is None else _center_crop(frame, self.crop_to)

    def normalize(self, pixels: np.ndarray, device: str = "cpu") -> "torch.Tensor":
        """Turns bytes into the model's input, `pixel * scale + shift` per channel.

        Args:
            pixels: `[B, S, S, 3]` uint8.
            device: Device of the computation: bytes travel there, a quarter of what floats would.

        Returns:
            `[B, 3, S, S]` float32 on the device, within 1e-5 of the checkpoint's own processor, which rounds between its steps.

        Raises:
            ValueError: The pixels are not `[B, S, S, 3]` uint8.
        """
        self.check_pixels(pixels)
        import torch  # not needed by processes that only resize

        if not pixels.flags.writeable:  # torch only wraps arrays that it might write to
            pixels = pixels.copy()
        planes = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2)
        scale, shift = (
            torch.tensor(value, dtype=torch.float32, device=device).view(1, 3, 1, 1)
            for value in (self.scale, self.shift)
        )
        return planes.to(torch.float32, memory_format=torch.contiguous_format).mul_(scale).add_(shift)

    def check_pixels(self, pixels: np.ndarray) -> None:
        """Refuses what is no batch of the model's input.

        Raises:
            ValueError: The pixels are not `[B, S, S, 3]` uint8.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (*self.size, 3):
            raise ValueError(
                f"pixels must be [B, {self.size[0]}, {self.size[1]}, 3] uint8, got {list(pixels.shape)} {pixels.dtype}; "
                f"resize every frame first"
            )

    def check_against(self, processor: Any) -> None:
        """Compares this copy with the processor on synthetic pictures of several shapes.

        Raises:
            ValueError: A pixel differs by more than 1e-5.
        """
        height, width = self.size
        random = np.random.default_rng(0)
        for shape in ((height, width), (2 * height + 3, width + 17), (height // 2 + 1, 2 * width - 1), (7, 5)):
            frame = random.integers(0, 256, (*shape, 3), dtype=np.uint8)
            expected = np.asarray(processor(Image.fromarray(frame), return_tensors="np")["pixel_values"])
            got = self.normalize(self.resize(frame)[None]).numpy()
            if expected.shape != got.shape or not np.abs(expected - got).max() <= TOLERANCE:
                difference = np.abs(expected - got).max() if expected.shape == got.shape else "the shape"
                raise ValueError(
                    f"preprocessing must equal the checkpoint's own {self.processor} within {TOLERANCE}, got a difference of "
                    f"{difference} on a picture of {list(shape)} ({list(expected.shape)} there, {list(got.shape)} here); "
                    f"this processor does something vlm-rewards does not know: report it with preprocessor_config.json"
                )

    def describe(self) -> dict[str, object]:
        """Returns what the pixels depend on, as JSON, for the fingerprint."""
        return {"backend": "pillow", **dataclasses.asdict(self)}

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if self.resize_to is not None:
            return self.resize_to
        if self.shortest_edge is None:
            return height, width
        # Integer truncation of the longer side, as in transformers; torchvision rounds differently.
        longest = int(self.shortest_edge * max(height, width) / min(height, width))
        return (longest, self.shortest_edge) if width <= height else (self.shortest_edge, longest)


def _center_crop(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns the centre of the frame; where the frame is smaller, zeros around it, the odd row or column above and to the left.

    A side that is too small is padded by ceil((crop - side) / 2) in front, which is where floor((side - crop) / 2) begins.
    """
    tops = [(side - crop) // 2 for side, crop in zip(frame.shape[:2], size, strict=True)]
    if min(tops) >= 0:
        return frame[tops[0] : tops[0] + size[0], tops[1] : tops[1] + size[1]]
    padded = np.zeros((*size, 3), dtype=np.uint8)
    source = tuple(slice(max(top, 0), max(top, 0) + crop) for top, crop in zip(tops, size, strict=True))
    inner = frame[source]
    y, x = (max(-top, 0) for top in tops)
    padded[y : y + inner.shape[0], x : x + inner.shape[1]] = inner
    return padded


def _affine(processor: Any) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Returns scale and shift per channel: rescaling, offset, mean and standard deviation in one step, in float64."""
    scale = np.ones(3)
    shift = np.zeros(3)
    if processor.do_rescale:
        scale = scale * processor.rescale_factor
        if getattr(processor, "rescale_offset", False):
            shift = shift - 1.0
    if processor.do_normalize:
        mean, std = (
            np.broadcast_to(np.asarray(value, float), (3,)) for value in (processor.image_mean, processor.image_std)
        )
        scale, shift = scale / std, (shift - mean) / std
    if getattr(processor, "include_top", False):  # EfficientNet divides by the standard deviation once more
        std = np.broadcast_to(np.asarray(processor.image_std, float), (3,))
        scale, shift = scale / std, shift / std
    if not all(math.isfinite(value) for value in (*scale, *shift)):
        raise ValueError(
            f"image_std of an image processor must not be zero, got {processor.image_std}; fix preprocessor_config.json"
        )
    one, two = tuple(scale.tolist()), tuple(shift.tolist())
    return (one[0], one[1], one[2]), (two[0], two[1], two[2])
