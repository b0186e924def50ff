"""OpenVINO on a CPU: the image tower traced by torch, converted and compiled by it; texts stay with torch, in float32.

OpenVINO is not part of the installation: `pip install vlm-rewards[openvino]`.
"""

import contextlib
import os
import queue
import sys
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

import numpy as np
import torch

from vlm_rewards.labelers.encoders.engines.interface import ImageTower
from vlm_rewards.labelers.encoders.engines.torch_towers import TorchTowers
from vlm_rewards.labelers.encoders.exact_float32 import EXACT_FLOAT32
from vlm_rewards.labelers.encoders.preprocessing import Preprocessor

MAX_ROWS = 16
"""Rows of a pass at most: larger ones are no faster, and the last pass of a unit is padded to this many."""

_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
_TELEMETRY = "openvino_telemetry"


class OpenVinoTowers:
    """The image tower compiled by OpenVINO.

    Args:
        model: The transformers model in float32 on the CPU, in evaluation mode.
        preprocessor: Preprocessor of the model.
        precision: "float32" or "bfloat16", of the image tower.
        rows: Rows of an image pass that are asked for; `MAX_ROWS` at most are taken.

    Raises:
        ValueError: OpenVINO is not installed, or cannot convert or compile the image tower.
    """

    engine = "openvino"

    def __init__(self, model: Any, preprocessor: Preprocessor, precision: str, rows: int) -> None:
        self.rows = min(rows, MAX_ROWS)
        self._texts = TorchTowers(model, preprocessor, "cpu", "float32", self.rows)
        self._version = _installed_version()
        openvino = _import_quietly()
        try:
            self._compiled = _compile(
                openvino, ImageTower(model, preprocessor), preprocessor.size, self.rows, precision
            )
        except RuntimeError as error:
            raise ValueError(
                f"OpenVINO {self._version} cannot compute the image tower of a {type(model).__name__}: got "
                f"{str(error).strip().splitlines()[0]}. Choose the engine torch or compile."
            ) from error
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def image_features(self, pixels: np.ndarray) -> torch.Tensor:
        """Returns `[B, D]` float32 of pixels `[B, S, S, 3]` uint8."""
        with self._request() as request:
            found = request.infer({0: np.ascontiguousarray(pixels)}, share_inputs=True)
            return torch.from_numpy(np.array(found[0], dtype=np.float32))

    def text_features(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Returns `[B, D]` float32 of the tokenizer's inputs, as torch gives them."""
        return self._texts.text_features(inputs)

    def describe(self) -> dict[str, object]:
        """Returns the engine's name and version, and the rows of a pass."""
        return {"name": self.engine, "version": self._version, "rows": self.rows}

    def versions(self) -> dict[str, str]:
        """Returns the version of OpenVINO."""
        return {"openvino": self._version}

    @contextlib.contextmanager
    def _request(self) -> Iterator[Any]:
        """Context manager of a request that no other thread has: as many are made as are ever needed at once."""
        try:
            request = self._idle.get_nowait()
        except queue.Empty:
            request = self._compiled.create_infer_request()
        try:
            yield request
        finally:
            self._idle.put(request)


def _installed_version() -> str:
    try:
        return version("openvino")
    except PackageNotFoundError:
        raise ValueError(
            "the engine openvino needs the package openvino: got none. Install it with 'pip install vlm-rewards[openvino]', or "
            "choose the engine torch or compile."
        ) from None


def _import_quietly() -> ModuleType:
    """Imports OpenVINO without its telemetry, which would tell its makers of every import; it then takes its own stub of it."""
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    absent = _TELEMETRY not in sys.modules
    if absent:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # an import of it fails
    try:
        import openvino
    finally:
        if absent:
            del sys.modules[_TELEMETRY]
    return openvino


def _compile(openvino: ModuleType, tower: ImageTower, size: tuple[int, int], rows: int, precision: str) -> Any:
    """Returns an image tower that OpenVINO has compiled for one shape of input."""
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    example = torch.zeros((1, *size, 3), dtype=torch.uint8)
    with torch.no_grad(), EXACT_FLOAT32, warnings.catch_warnings():
        # Of sizes that become constants: the input has one shape, and what was traced is checked against the model.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        traced = torch.jit.trace(tower.eval(), example, check_trace=False, strict=False)
    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(traced, example_input=example)  # the frontend holds no reference: it must stay
    network = frontend.convert(frontend.load(decoder))
    network.reshape({0: [rows, *size, 3]})
    network.validate_nodes_and_infer_types()
    threads = len(os.sched_getaffinity(0))
    settings = {
        "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
        "INFERENCE_NUM_THREADS": threads,  # one per stream, and one stream per caller
        "NUM_STREAMS": threads,
        "ENABLE_CPU_PINNING": False,
    }
    return openvino.Core().compile_model(network, "CPU", settings)
