"""torch.compile: the image tower compiled by inductor, on a CPU with its weights packed, on a GPU as one CUDA graph.

    CPU    pixels ──► one compiled function, called by every thread
    GPU    pixels ──► pinned memory ──(copy stream)──► landing ──(compute stream)──► the graph's input ──► replay ──► [B, D]
                      a thread's own slot: its copies run beside other threads' and earlier passes' computation

Texts stay with torch as it is: they are few, and a second compilation would cost more than it saves. No kernel is chosen by its
time on this machine, so that every process of a run computes the same bits.
"""

import queue
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import _inductor as inductor

from vlm_rewards.labelers.encoders.engines.interface import ImageTower
from vlm_rewards.labelers.encoders.engines.patch_products import use_patch_products
from vlm_rewards.labelers.encoders.engines.torch_towers import LAUNCH_LOCK, TorchTowers
from vlm_rewards.labelers.encoders.exact_float32 import EXACT_FLOAT32
from vlm_rewards.labelers.encoders.preprocessing import Preprocessor

_SLOTS = 4
"""Passes that can be on their way to a GPU at once."""
_WARM_UPS = 3


class CompiledTowers:
    """The image tower compiled by torch.

    Args:
        model: The transformers model, in evaluation mode; it is moved to the device and precision.
        preprocessor: Preprocessor of the model.
        device: "cpu", "cuda" or "cuda:N".
        precision: "float32" or "bfloat16".
        rows: Rows of an image pass.

    Raises:
        ValueError: torch cannot compile the image tower here.
    """

    engine = "compile"

    def __init__(self, model: Any, preprocessor: Preprocessor, device: str, precision: str, rows: int) -> None:
        self.rows = rows
        self._texts = TorchTowers(model, preprocessor, device, precision, rows)
        on_gpu = device != "cpu"
        if on_gpu:
            use_patch_products(model, preprocessor.size)
        tower = ImageTower(model, preprocessor).eval()
        try:
            self._call = _compiled(tower, torch.zeros((rows, *preprocessor.size, 3), dtype=torch.uint8, device=device))
        except RuntimeError as error:
            raise ValueError(
                f"torch {torch.__version__} cannot compile the image tower of a {type(model).__name__}: got "
                f"{str(error).strip().splitlines()[0]}. Install a C++ compiler (g++), or choose the engine torch."
            ) from error
        self._graph = _Graph(self._call, rows, preprocessor.size, device) if on_gpu else None

    def image_features(self, pixels: np.ndarray) -> torch.Tensor:
        """Returns `[B, D]` of pixels `[B, S, S, 3]` uint8."""
        if not pixels.flags.writeable:  # torch only wraps arrays that it might write to
            pixels = pixels.copy()
        given = torch.from_numpy(pixels)
        if self._graph is not None:
            return self._graph(given)
        return self._call(given)

    def text_features(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Returns `[B, D]` of the tokenizer's inputs, as torch gives them."""
        return self._texts.text_features(inputs)

    def describe(self) -> dict[str, object]:
        """Returns the engine's name and version."""
        return {"name": self.engine, "version": torch.__version__}

    def versions(self) -> dict[str, str]:
        """Returns nothing beside torch."""
        return {}


def _compiled(tower: ImageTower, example: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Compiles a tower for the shape of the example; the weights become part of the program."""
    options: dict[str, Any] = {"freezing": True, "max_autotune": False}
    if hasattr(inductor.config, "deterministic"):  # kernels of one result alone are chosen by their time
        options["deterministic"] = True
    function = torch.compile(tower, dynamic=False, options=options)

    def call(pixels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), EXACT_FLOAT32:
            return function(pixels)

    call(example)
    return call


class _Slot:
    """Memory for one pass on its way to the GPU."""

    def __init__(self, shape: tuple[int, ...], device: str) -> None:
        self.pinned = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        self.landing = torch.empty(shape, dtype=torch.uint8, device=device)
        self.free = torch.cuda.Event()


class _Graph:
    """A compiled tower as a CUDA graph, for callers on several threads.

    Args:
        call: The compiled tower.
        rows: Rows of a pass.
        size: Height and width of the pixels.
        device: "cuda" or "cuda:N".
    """

    def __init__(
        self, call: Callable[[torch.Tensor], torch.Tensor], rows: int, size: tuple[int, int], device: str
    ) -> None:
        shape = (rows, *size, 3)
        self._device = device
        with torch.cuda.device(device):
            self._upload, self._compute = torch.cuda.Stream(), torch.cuda.Stream()
            self._input = torch.zeros(shape, dtype=torch.uint8, device=device)
            self._compute.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._compute):
                for _ in range(_WARM_UPS):
                    call(self._input)
            self._compute.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._compute, capture_error_mode="thread_local"):
                self._output = call(self._input)
            self._slots: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
            for _ in range(_SLOTS):
                self._slots.put(_Slot(shape, device))

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Returns `[B, D]`, on its way on the device: work that the caller's stream does with it comes after it."""
        slot = self._slots.get()
        try:
            slot.free.synchronize()  # what it held before has been read
            source = pixels
            if not pixels.is_pinned():
                source = slot.pinned.copy_(pixels)
            with torch.cuda.device(self._device), LAUNCH_LOCK:
                with torch.cuda.stream(self._upload):
                    slot.landing.copy_(source, non_blocking=True)
                    uploaded = self._upload.record_event()
                with torch.cuda.stream(self._compute):
                    self._compute.wait_event(uploaded)
                    self._input.copy_(slot.landing)
                    slot.free.record()
                    self._graph.replay()
                    features = self._output.clone()
                    done = self._compute.record_event()
                caller = torch.cuda.current_stream()
                caller.wait_event(done)
                features.record_stream(caller)
            return features
        finally:
            self._slots.put(slot)
