"""Loads an engine's towers and checks them against the default engine in float32.

4 fixed pictures ──► float32, torch as it is ──► [4, D] ──┐
                 └─► the engine, in its precision ──► [4, D] ──┴─► cosines ≥ MIN_COSINES, or the engine is refused
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from vlm_rewards.labelers.encoders.encoder import DEFAULT_ENGINE
from vlm_rewards.labelers.encoders.engines.interface import Towers
from vlm_rewards.labelers.encoders.engines.torch_towers import TorchTowers
from vlm_rewards.labelers.encoders.preprocessing import Preprocessor

MIN_COSINES = {"float32": 1 - 1e-5, "bfloat16": 0.999}
"""Least cosine of an engine's vectors to those of torch in float32, by the engine's precision."""

_CHECKED = 4


class LoadedTowers(NamedTuple):
    """An engine's towers, checked.

    Attributes:
        towers: The towers.
        features: `[N, D]` features of some pictures, as the towers gave them.
    """

    towers: Towers
    features: Any


def load_towers(
    engine: str, model: Any, preprocessor: Preprocessor, *, device: str, precision: str, rows: int
) -> LoadedTowers:
    """Loads the towers of a model on an engine.

    Args:
        engine: "torch", "compile" or "openvino".
        model: The transformers model in float32, in evaluation mode; the engine takes it over.
        preprocessor: Preprocessor of the model.
        device: "cpu", "cuda" or "cuda:N".
        precision: "float32" or "bfloat16".
        rows: Rows of an image pass.

    Raises:
        ValueError: The engine is not to be had here, cannot compute the model, or computes something else.
    """
    if engine == DEFAULT_ENGINE:
        torch_towers = TorchTowers(model, preprocessor, device, precision, rows)
        return LoadedTowers(torch_towers, torch_towers.image_features(np.zeros((1, *preprocessor.size, 3), np.uint8)))
    if engine == "openvino" and device != "cpu":
        raise ValueError(
            f"the engine openvino computes on the CPU: got the device {device!r}. Choose the engine compile."
        )
    pixels = check_pixels(preprocessor.size)
    expected = TorchTowers(model, preprocessor, device, "float32", rows).image_features(pixels)
    towers = _load(engine, model, preprocessor, device, precision, rows)
    padded = np.zeros((towers.rows, *pixels.shape[1:]), dtype=np.uint8)
    given = min(_CHECKED, towers.rows)
    padded[:given] = pixels[:given]
    features = towers.image_features(padded)[:given]
    check_agreement(engine, precision, features, expected[:given])
    return LoadedTowers(towers, features)


def _load(engine: str, model: Any, preprocessor: Preprocessor, device: str, precision: str, rows: int) -> Towers:
    if engine == "compile":
        from vlm_rewards.labelers.encoders.engines.compiled_towers import CompiledTowers

        return CompiledTowers(model, preprocessor, device, precision, rows)
    from vlm_rewards.labelers.encoders.engines.openvino_towers import OpenVinoTowers

    return OpenVinoTowers(model, preprocessor, precision, rows)


def check_pixels(size: tuple[int, int]) -> np.ndarray:
    """Returns four pictures `[4, S, S, 3]` uint8: noise, blocks of colour, a gradient and grey."""
    height, width = size
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    blocks = random.integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(-(-height // 8), axis=0)
    blocks = blocks.repeat(-(-width // 8), axis=1)[:height, :width]
    gradient = np.broadcast_to(np.linspace(0, 255, width).astype(np.uint8)[:, None], (height, width, 3))
    return np.stack([noise, blocks, gradient, np.full((height, width, 3), 128, dtype=np.uint8)])


def check_agreement(engine: str, precision: str, got: torch.Tensor, expected: torch.Tensor) -> None:
    """Refuses an engine whose vectors are not those of torch in float32, within `MIN_COSINES`.

    Args:
        engine: The engine's name.
        precision: Its precision.
        got: `[N, D]` vectors that it gives.
        expected: `[N, D]` vectors of torch in float32.

    Raises:
        ValueError: A cosine is too low, or the shapes differ.
    """
    least = float("nan")
    if got.shape == expected.shape and got.ndim == 2:
        one, two = got.cpu().double(), expected.cpu().double()
        least = float(torch.nn.functional.cosine_similarity(one, two).min())
    if not least >= MIN_COSINES[precision]:
        raise ValueError(
            f"the engine {engine} computes other embeddings than torch in float32: got a cosine of {least:.6f} in {precision}, "
            f"where {MIN_COSINES[precision]:g} is the least. Choose the engine torch."
        )
