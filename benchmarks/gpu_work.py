"""What the benchmark of a GPU works on: models of two shapes, pixels, and the arithmetic that a picture costs."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor

SIDE = 224


class Shape(NamedTuple):
    """The shape of a CLIP: sizes of its image tower, and of its text tower's width, heads and the common space."""

    title: str
    patch: int
    width: int
    layers: int
    heads: int
    text_width: int
    text_heads: int
    embedding: int

    @property
    def gflop(self) -> float:
        """10^9 operations per picture: products of weights (2 per weight and token) and of attention (4 per pair and channel)."""
        tokens = (SIDE // self.patch) ** 2 + 1
        layer = 24 * tokens * self.width**2 + 4 * tokens**2 * self.width
        return (self.layers * layer + 2 * (tokens - 1) * 3 * self.patch**2 * self.width) / 1e9


SHAPES = {
    "vit-b32": Shape("ViT-B/32", 32, 768, 12, 12, 512, 8, 512),
    "vit-l14": Shape("ViT-L/14", 14, 1024, 24, 16, 768, 12, 768),
    "tiny": Shape("a tiny ViT", 32, 64, 2, 2, 64, 2, 32),
}


def save_clip(folder: Path, shape: Shape, tokenizer: object) -> Path:
    """Saves a CLIP with random weights: its speed is that of a trained one of its shape, its scores are not.

    Args:
        folder: Folder to write; left as it is where it exists.
        shape: Its shape.
        tokenizer: A tokenizer of 77 tokens.
    """
    if folder.is_dir():
        return folder
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = {
        **ids,
        "vocab_size": len(tokenizer),  # type: ignore[arg-type]
        "hidden_size": shape.text_width,
        "intermediate_size": 4 * shape.text_width,
        "num_attention_heads": shape.text_heads,
        "num_hidden_layers": min(12, shape.layers),
        "projection_dim": shape.embedding,
    }
    vision = {
        "hidden_size": shape.width,
        "intermediate_size": 4 * shape.width,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "patch_size": shape.patch,
        "projection_dim": shape.embedding,
    }
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=shape.embedding)).save_pretrained(
        folder
    )
    CLIPProcessor(CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIDE), tokenizer).save_pretrained(
        folder
    )
    return folder


def random_pixels(number: int) -> np.ndarray:
    """Returns `[N, 224, 224, 3]` uint8 of noise."""
    return np.random.default_rng(0).integers(0, 256, (number, SIDE, SIDE, 3), np.uint8)


def seconds_per_call(call: Callable[[], object], seconds: float, wait: Callable[[], object]) -> float:
    """Measures a call over and over for some seconds, after two that do not count.

    Calls that only hand work to a device are waited for in groups of a tenth of the time: a queue of them takes as long to do as it
    is long, however soon it was filled.

    Args:
        call: The call.
        seconds: Seconds to measure for.
        wait: Waits until the device has done all that was asked of it.
    """
    call()
    wait()
    started = time.perf_counter()
    call()
    wait()
    group = max(1, int(seconds / 10 / (time.perf_counter() - started)))
    number, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for _ in range(group):
            call()
        wait()
        number += group
    return (time.perf_counter() - started) / number
