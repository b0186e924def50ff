"""The default engine: the towers as transformers runs them on torch."""

import contextlib
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from vlm_rewards.labelers.encoders.encoder import DEFAULT_ENGINE
from vlm_rewards.labelers.encoders.exact_float32 import EXACT_FLOAT32
from vlm_rewards.labelers.encoders.preprocessing import Preprocessor

LAUNCH_LOCK = threading.Lock()
"""One thread at a time starts a GPU's work: several would hand Python's own lock around at every operation."""


class TorchTowers:
    """The towers as transformers runs them.

    Args:
        model: The transformers model, in evaluation mode; it is moved to the device and precision.
        preprocessor: Preprocessor of the model.
        device: "cpu", "cuda" or "cuda:N".
        precision: "float32" or "bfloat16".
        rows: Rows of an image pass.
    """

    engine = DEFAULT_ENGINE

    def __init__(self, model: Any, preprocessor: Preprocessor, device: str, precision: str, rows: int) -> None:
        self.model = model.to(device=device, dtype=getattr(torch, precision))
        self.device = device
        self.rows = rows
        self._preprocessor = preprocessor

    def image_features(self, pixels: np.ndarray) -> torch.Tensor:
        """Returns `[B, D]` of pixels `[B, S, S, 3]` uint8."""
        values = self._preprocessor.normalize(pixels, self.device)
        return self._features("get_image_features", {"pixel_values": values.to(self.model.dtype)})

    def text_features(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Returns `[B, D]` of the tokenizer's inputs."""
        return self._features("get_text_features", {key: value.to(self.device) for key, value in inputs.items()})

    def describe(self) -> dict[str, object]:
        """Returns nothing: a fingerprint names other engines than this one."""
        return {}

    def versions(self) -> dict[str, str]:
        """Returns nothing beside torch."""
        return {}

    def _features(self, method: str, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Returns what a tower gives, still on the device: a GPU begins the next batch while this one is on its way."""
        with torch.inference_mode(), EXACT_FLOAT32, LAUNCH_LOCK if self.device != "cpu" else contextlib.nullcontext():
            features = getattr(self.model, method)(**inputs)
        return getattr(features, "pooler_output", features)  # transformers 5 wraps the vector in an object
