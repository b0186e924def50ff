"""Processes that do units beside a model, so that no interpreter stands in its way.

    process with the model                                   process of a unit (pipelines/label/unit_process.py)
    thread of the unit ── unit, part ────────────────────►   read ─► decode ─► resize ─► pixels in shared memory
         embed, see pipelines/label/lanes.py ◄── "embed", N ─┘
         embeddings in shared memory ──────────────────────► score ─► write part
    thread of the unit ◄── "done", part ────────────────────┘

Pixels are written once and fetched from there by the GPU; embeddings come back the same way. What a unit does is the same code as
without such processes, so labels have the same bytes. A process that ends before its time is replaced and its unit done again,
once.
"""

import atexit
import contextlib
import hashlib
import mmap
import os
import pickle
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Protocol

import numpy as np

from vlm_rewards.labelers.encoders.encoder import Resizer, ResizesElsewhere
from vlm_rewards.pipelines.engine.outputs import PartWriter
from vlm_rewards.pipelines.engine.settings import available_cores
from vlm_rewards.pipelines.label.encoding import FrameLabeler
from vlm_rewards.pipelines.label.lanes import page_locked
from vlm_rewards.pipelines.label.shared_batch import BatchLayout, new_memory
from vlm_rewards.pipelines.label.shared_labelers import SharedLabeler
from vlm_rewards.pipelines.label.unit_process import Start
from vlm_rewards.schemas.manifests import Unit

_MAX_ENDED = 2  # processes that one unit may cost
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_ENDS = (EOFError, ConnectionError)


class FillsUnits(Protocol):
    """What a unit's process runs; it is pickled."""

    def fill(self, labeler: FrameLabeler, unit: Unit, part: PartWriter, kept: PartWriter | None) -> None:
        """See `pipelines.label.units.LabelUnit.fill`."""
        ...


class _UnitProcess:
    """One process. Only the thread that holds it talks to it."""

    def __init__(self, start: Start, device: str) -> None:
        num_bytes = start.layout.num_bytes
        descriptor = new_memory(num_bytes)
        ours, theirs = socket.socketpair()
        try:
            self._memory = mmap.mmap(descriptor, num_bytes)
            command = [sys.executable, "-P", "-m", "vlm_rewards.pipelines.label.unit_process"]
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(descriptor)],
                pass_fds=(theirs.fileno(), descriptor),
                stdin=subprocess.PIPE,
                env={**os.environ, **dict.fromkeys(_ONE_THREAD, "1")},
            )
        finally:
            theirs.close()
            os.close(descriptor)
        self._connection = Connection(ours.detach())
        self._slots, self._embeddings = start.layout.arrays(self._memory)
        self._locked = contextlib.ExitStack()
        self._locked.enter_context(page_locked(np.frombuffer(self._memory, np.uint8), device))
        self._knows = b""
        self._start: Start | None = start

    def fill(
        self, work: bytes, unit: Unit, part: PartWriter, kept: PartWriter | None, embed: Callable[..., np.ndarray]
    ) -> None:
        """Does a unit; see `LabelUnit.fill`."""
        if self._start is not None:
            self._connection.send(self._start)
            self._start = None
        digest = hashlib.blake2b(work).digest()
        self._connection.send((None if digest == self._knows else work, unit, part, kept))
        self._knows = digest
        while True:
            answer = self._connection.recv()
            if answer[0] == "embed":
                slot, number = answer[1:]
                self._embeddings[:number] = embed(self._slots[slot, :number])
                self._connection.send("embedded")
            elif answer[0] == "failed":
                raise answer[1]
            else:
                break
        for ours, theirs in ((part, answer[1]), (kept, answer[2])):
            if ours is not None:
                ours.take(theirs)

    def end(self) -> int:
        """Ends the process and returns its status."""
        self._connection.close()
        assert self._process.stdin is not None
        self._process.stdin.close()  # with which it ends, whatever it does
        status = self._process.wait()
        self._locked.close()
        return status


class UnitProcesses:
    """Processes for the units of one labeler, started as they are needed.

    Args:
        shared: The labeler.
        resizer: Its encoder's resizing of a frame, as other processes can do it.
        number: Number of processes at most.
    """

    def __init__(self, shared: SharedLabeler, resizer: Resizer, number: int) -> None:
        labeler = shared.labeler
        frame = (*labeler.encoder.image_size, 3)
        window = shared.window
        pixels = (shared.batch_size, *((window, *frame) if window > 1 else frame))
        self._start = Start(BatchLayout(pixels, labeler.dim), window, resizer, labeler.scorer)
        self._device = labeler.encoder.device
        self._embed = shared.embed
        self._free = threading.Semaphore(number)
        self._idle: list[_UnitProcess] = []
        self._closed = False
        self._lock = threading.Lock()

    def fill(self, work: FillsUnits, unit: Unit, part: PartWriter, kept: PartWriter | None) -> None:
        """Does a unit in a process that is free; see `LabelUnit.fill`.

        Raises:
            RuntimeError: Two processes ended while they did it.
        """
        pickled = pickle.dumps(work)
        with self._free:
            for ended in range(1, _MAX_ENDED + 1):
                process = self._take()
                try:
                    process.fill(pickled, unit, part, kept, self._embed)
                except _ENDS as error:
                    status = process.end()
                    if ended == _MAX_ENDED:
                        raise RuntimeError(
                            f"a unit must be done without an end of its process, got {_MAX_ENDED} ends in unit {unit.name!r}"
                            f"{f' of {unit.shard}' if unit.shard else ''}, the last with status {status}. Take fewer decoders or "
                            f"smaller units where memory is short, or leave the file out"
                        ) from error
                    warnings.warn(
                        f"a process of a unit has ended with status {status}; unit {unit.name} is done again",
                        stacklevel=2,
                    )
                except BaseException:
                    process.end()
                    raise
                else:
                    self._give_back(process)
                    return

    def _take(self) -> _UnitProcess:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return _UnitProcess(self._start, self._device)

    def _give_back(self, process: _UnitProcess) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(process)
                return
        process.end()

    def close(self) -> None:
        """Ends the processes, those at work when their units are done."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().end()


_of_labelers: dict[SharedLabeler, UnitProcesses] = {}
_of_labelers_lock = threading.Lock()


def unit_processes(shared: SharedLabeler, number: int | None) -> UnitProcesses | None:
    """Returns the processes that do the units of a labeler; None where its own process does them in threads.

    Args:
        shared: The labeler, with whose end they end.
        number: Number of processes; None for one per core on a GPU and none on a CPU.

    Raises:
        ValueError: Processes are asked for, and the encoder resizes frames in the process of its model alone.
    """
    encoder = shared.labeler.encoder
    can_resize = isinstance(encoder, ResizesElsewhere)
    if number is None:
        number = available_cores() if can_resize and encoder.device.startswith("cuda") else 0
    if number == 0:
        return None
    if not isinstance(encoder, ResizesElsewhere):
        raise ValueError(
            f"decoders must be 0 for an encoder that resizes frames in the process of its model alone, got {number} for "
            f"{encoder.name}. Leave --decoders out, or give the encoder a resizer (labelers.encoders.encoder.ResizesElsewhere)"
        )
    with _of_labelers_lock:
        if shared not in _of_labelers:
            _of_labelers[shared] = UnitProcesses(shared, encoder.resizer, number)
            shared.at_end.callback(_end, shared)
        return _of_labelers[shared]


@atexit.register
def _end_all() -> None:
    for shared in list(_of_labelers):
        _end(shared)


def _end(shared: SharedLabeler) -> None:
    with _of_labelers_lock:
        processes = _of_labelers.pop(shared, None)
    if processes is not None:
        processes.close()
