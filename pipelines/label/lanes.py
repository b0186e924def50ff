"""The devices that embed for other processes: as many batches at once as keep them busy, and no more.

    threads, one per process that decodes ──► Lanes.embed ──► a free lane: (encoder of a GPU, a stream of its own) ──► rows

Three lanes per GPU: while one batch is computed, the next one is on its way there, and the rows of the last one are made.
"""

import contextlib
import dataclasses
import queue
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vlm_rewards.labelers.encoders.encoder import Encoder
from vlm_rewards.labelers.labeler import load_encoder
from vlm_rewards.labelers.settings import LabelerSettings

if TYPE_CHECKING:
    import torch

_LANES_PER_GPU = 3
_ALL_GPUS = "cuda"


class _Lane(NamedTuple):
    encoder: Encoder
    stream: "torch.cuda.Stream | None"

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        if self.stream is None:
            return self.encoder.embed_images(pixels)
        import torch

        with torch.cuda.device(self.stream.device), torch.cuda.stream(self.stream):
            return self.encoder.embed_images(pixels)


class Lanes:
    """Embeds batches on the first device that is free; for many threads.

    Args:
        encoders: The same model on each device.
        num_per_device: Batches at a time on each.
    """

    def __init__(self, encoders: Sequence[Encoder], num_per_device: int) -> None:
        self._free: queue.SimpleQueue[_Lane] = queue.SimpleQueue()
        for _ in range(num_per_device):
            for encoder in encoders:  # in turns, so that the first batches go to all devices
                self._free.put(_Lane(encoder, _new_stream(encoder.device)))

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """Embeds a batch, see `Encoder.embed_images`; waits while all devices are busy."""
        lane = self._free.get()
        try:
            return lane.embed(pixels)
        finally:
            self._free.put(lane)


def lanes_of(encoder: Encoder, settings: LabelerSettings, cores: int) -> Lanes:
    """Returns the lanes of a loaded encoder: on the device "cuda", all GPUs of its kind, each with a copy of the model.

    Args:
        encoder: The encoder.
        settings: The settings that it was loaded for.
        cores: Lanes on a CPU, where a batch takes a core.
    """
    if encoder.device == "cpu":
        return Lanes([encoder], cores)
    if encoder.device != _ALL_GPUS:
        return Lanes([encoder], _LANES_PER_GPU)
    import torch

    kind = torch.cuda.get_device_name(0)  # another kind of GPU rounds otherwise
    others = [number for number in range(1, torch.cuda.device_count()) if torch.cuda.get_device_name(number) == kind]
    copies = [load_encoder(dataclasses.replace(settings, device=f"cuda:{number}")) for number in others]
    return Lanes([encoder, *copies], _LANES_PER_GPU)


def _new_stream(device: str) -> "torch.cuda.Stream | None":
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.Stream(device)


def page_locked(memory: np.ndarray, device: str) -> contextlib.AbstractContextManager[Any]:
    """Context manager in which memory is locked, so that a GPU fetches from it by itself; on a CPU, it does nothing.

    Args:
        memory: Array over all of the memory.
        device: Device that fetches from it.

    Raises:
        RuntimeError: The driver of the GPU does not lock it.
    """
    return _locked(memory) if device.startswith("cuda") else contextlib.nullcontext()


@contextlib.contextmanager
def _locked(memory: np.ndarray) -> Iterator[None]:
    import torch

    runtime: Any = torch.cuda.cudart()
    address = memory.ctypes.data
    torch.cuda.check_error(runtime.cudaHostRegister(address, memory.nbytes, 1))  # 1: for all devices
    try:
        yield
    finally:
        torch.cuda.check_error(runtime.cudaHostUnregister(address))
