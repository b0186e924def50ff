"""The two towers of a dual encoder on a device: what an engine computes.

An engine (torch as it is, a compiler, another runtime) is one class of the interface `Towers`. Its name is part of the fingerprint,
because engines round differently.

Shape letters: B rows of a batch, S sides of the model's input in pixels, L tokens of a padded text, D size of an embedding.
"""

import contextlib
import threading
from collections.abc import Mapping
from typing import Any, Protocol

import torch

from vlm_rewards.labelers.encoders.encoder import DEFAULT_ENGINE
from vlm_rewards.labelers.encoders.exact_float32 import EXACT_FLOAT32

_LAUNCH_LOCK = threading.Lock()
"""One thread at a time starts a GPU's work: several would hand Python's own lock around at every operation."""


class Towers(Protocol):
    """What a dual encoder asks of an engine; batches always have the same shape."""

    @property
    def engine(self) -> str: ...

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalised pixels `[B, 3, S, S]` float32 on the device to `[B, D]`."""
        ...

    def text_features(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The tokenizer's inputs, `[B, L]` each, to `[B, D]`."""
        ...


class TorchTowers:
    """The towers as transformers runs them.

    Args:
        model: The transformers model in float32, in evaluation mode.
        device: "cpu", "cuda" or "cuda:N".
        precision: "float32" or "bfloat16".
    """

    engine = DEFAULT_ENGINE

    def __init__(self, model: Any, device: str, precision: str) -> None:
        self.model = model.to(device=device, dtype=getattr(torch, precision))
        self.device = device

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Returns `[B, D]` of normalised pixels `[B, 3, S, S]`."""
        return self._features("get_image_features", {"pixel_values": pixels.to(self.model.dtype)})

    def text_features(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Returns `[B, D]` of the tokenizer's inputs."""
        return self._features("get_text_features", {key: value.to(self.device) for key, value in inputs.items()})

    def _features(self, method: str, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Returns what a tower gives, still on the device: a GPU begins the next batch while this one is on its way."""
        with torch.inference_mode(), EXACT_FLOAT32, _LAUNCH_LOCK if self.device != "cpu" else contextlib.nullcontext():
            features = getattr(self.model, method)(**inputs)
        return getattr(features, "pooler_output", features)  # transformers 5 wraps the vector in an object
