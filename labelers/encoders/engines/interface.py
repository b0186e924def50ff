"""The interface of an engine: what computes the two towers of a dual encoder on a device.

    pixels [B, S, S, 3] uint8 ──► image_features ──► [B, D]        texts' inputs [B, L] ──► text_features ──► [B, D]

An engine (torch as it is, a compiler, another runtime) is one class of the interface `Towers` and one line in
`labelers.encoders.engines.loading`. Engines round differently, so an engine other than the default names itself and its version in
the fingerprint.

Shape letters: B rows of a pass, S sides of the model's input in pixels, L tokens of a padded text, D size of an embedding.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from vlm_rewards.labelers.encoders.preprocessing import Preprocessor


class Towers(Protocol):
    """The two towers of a dual encoder; its methods may be called from several threads at once.

    Attributes:
        engine: Name of the engine, one of `labelers.encoders.encoder.ENGINES`.
        rows: B, rows of every image pass: a fixed shape, so that a row's bits depend on its own picture alone.
    """

    @property
    def engine(self) -> str: ...
    @property
    def rows(self) -> int: ...

    def image_features(self, pixels: np.ndarray) -> torch.Tensor:
        """Returns `[B, D]` of pixels `[B, S, S, 3]` uint8, B always `rows`; it may still be on its way on the device."""
        ...

    def text_features(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Returns `[B, D]` of the tokenizer's inputs, `[B, L]` each; B and L are always the same."""
        ...

    def describe(self) -> Mapping[str, object]:
        """Returns what the engine adds to the fingerprint, as JSON; empty for the default engine."""
        ...

    def versions(self) -> Mapping[str, str]:
        """Returns the versions of the libraries that the engine computes with beside torch, by name."""
        ...


class ImageTower(nn.Module):
    """Bytes to features as one module, which a compiler or converter takes as a whole.

    Args:
        model: The transformers model, on its device.
        preprocessor: Preprocessor of the model, for its scale and shift of pixels.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, model: Any, preprocessor: Preprocessor) -> None:
        super().__init__()
        self.model = model
        for name in ("scale", "shift"):
            value = torch.tensor(getattr(preprocessor, name), dtype=torch.float32, device=model.device)
            self.register_buffer(name, value.view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Returns `[B, D]` of pixels `[B, S, S, 3]` uint8."""
        values = pixels.permute(0, 3, 1, 2).to(torch.float32) * self.scale + self.shift
        features = self.model.get_image_features(pixel_values=values.to(self.model.dtype))
        return getattr(features, "pooler_output", features)  # transformers 5 wraps the vector in an object
