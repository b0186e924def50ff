"""The devices that embed for many threads: as many batches at once as keep them busy, and full ones.

    threads, each with the frames of a unit ──► Lanes.embed ──► a free lane: (encoder of a device, a stream of its own) ──► rows
                                                      └─ while all are busy, batches that are not full wait and share one

A row of an encoder depends on its own frame alone, bit for bit, so it does not matter whose frames stand beside it.

Three lanes per GPU: while one batch is computed, the next one is on its way there, and the rows of the last one are made.
"""

import contextlib
import dataclasses
import threading
import warnings
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


@dataclasses.dataclass(eq=False)
class _Request:
    pixels: np.ndarray
    rows: np.ndarray | None = None
    error: Exception | None = None
    taken: bool = False

    @property
    def is_done(self) -> bool:
        return self.rows is not None or self.error is not None


class Lanes:
    """Embeds batches on the first device that is free; for many threads.

    Args:
        encoders: The same model on each device.
        num_per_device: Batches at a time on each.
        batch_size: Rows of a full batch.
    """

    def __init__(self, encoders: Sequence[Encoder], num_per_device: int, batch_size: int) -> None:
        self._batch_size = batch_size
        # From the end, in turns: the first batches go to all devices.
        self._free = [_Lane(one, _new_stream(one.device)) for _ in range(num_per_device) for one in encoders][::-1]
        self._waiting: list[_Request] = []
        self._changed = threading.Condition()

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """Embeds frames, see `Encoder.embed_images`; waits while all devices are busy."""
        request = _Request(pixels)
        with self._changed:
            self._waiting.append(request)
            self._changed.wait_for(lambda: request.is_done or (bool(self._free) and not request.taken))
            lane, batch = (None, []) if request.is_done else (self._free.pop(), self._take_with(request))
        if lane is not None:
            try:
                _embed_together(lane, batch)
            finally:
                with self._changed:
                    self._free.append(lane)
                    self._changed.notify_all()
        if request.error is not None:
            raise request.error
        assert request.rows is not None
        return request.rows

    def _take_with(self, request: _Request) -> list[_Request]:
        """Takes a request and those waiting that fit into its batch."""
        batch, num_rows = [request], len(request.pixels)
        for other in self._waiting:
            if other is not request and num_rows + len(other.pixels) <= self._batch_size:
                batch.append(other)
                num_rows += len(other.pixels)
        for one in batch:
            one.taken = True
            self._waiting.remove(one)
        return batch


def _embed_together(lane: _Lane, batch: Sequence[_Request]) -> None:
    try:
        together = batch[0].pixels if len(batch) == 1 else np.concatenate([one.pixels for one in batch])
        rows = lane.embed(together)
    except Exception as error:
        if len(batch) == 1:
            batch[0].error = error
        else:  # an error belongs to the frames that caused it
            for one in batch:
                _embed_together(lane, [one])
        return
    bounds = np.cumsum([len(one.pixels) for one in batch])
    for one, of_one in zip(batch, np.split(rows, bounds[:-1]), strict=True):
        one.rows = of_one


def lanes_of(encoder: Encoder, settings: LabelerSettings, cores: int) -> Lanes:
    """Returns the lanes of a loaded encoder: on the device "cuda", all GPUs of its kind, each with a copy of the model.

    Args:
        encoder: The encoder.
        settings: The settings that it was loaded for.
        cores: Lanes on a CPU, where a batch takes a core.
    """
    if not encoder.device.startswith("cuda"):
        return Lanes([encoder], cores, settings.batch_size)
    if encoder.device != _ALL_GPUS:
        return Lanes([encoder], _LANES_PER_GPU, settings.batch_size)
    import torch

    kind = torch.cuda.get_device_name(0)  # another kind of GPU rounds otherwise
    others = [number for number in range(1, torch.cuda.device_count()) if torch.cuda.get_device_name(number) == kind]
    copies = [load_encoder(dataclasses.replace(settings, device=f"cuda:{number}")) for number in others]
    return Lanes([encoder, *copies], _LANES_PER_GPU, settings.batch_size)


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
    """
    return _locked(memory, device) if device.startswith("cuda") else contextlib.nullcontext()


@contextlib.contextmanager
def _locked(memory: np.ndarray, device: str) -> Iterator[None]:
    import torch

    runtime: Any = torch.cuda.cudart()
    address = memory.ctypes.data
    with torch.cuda.device(device):
        refused = int(runtime.cudaHostRegister(address, memory.nbytes, 1))  # 1: for all devices
    if refused:
        warnings.warn(
            f"the driver of the GPU does not lock memory that processes share (error {refused}): pixels are copied once more",
            stacklevel=2,
        )
        with contextlib.suppress(RuntimeError):  # the error is remembered, and would be that of the next operation
            torch.zeros(1, device=device)
    try:
        yield
    finally:
        if not refused:
            runtime.cudaHostUnregister(address)
