"""Memory that two processes share: pixels from the one that decodes, embeddings from the one with the model.

    bytes   0 ............................. pixels, two slots of [B, S, S, 3] or [B, V, S, S, 3] uint8
            rounded up to 4096 ............ embeddings [B, D] float32

One slot is filled while the other one is embedded.

Shape letters: B rows of a batch, V frames of a window, S sides of the model's input in pixels, D size of an embedding.
"""

import math
import mmap
import os
import tempfile
from typing import NamedTuple

import numpy as np

_SLOTS = 2
_PAGE = 4096


class BatchLayout(NamedTuple):
    """Shapes of shared memory.

    Attributes:
        pixels: Shape of a slot: B and the shape of one frame or window.
        dim: D.
    """

    pixels: tuple[int, ...]
    dim: int

    @property
    def num_bytes(self) -> int:
        """Size of the memory."""
        return self._start + 4 * self.pixels[0] * self.dim

    @property
    def _start(self) -> int:
        return -(-_SLOTS * math.prod(self.pixels) // _PAGE) * _PAGE

    def arrays(self, memory: mmap.mmap) -> tuple[np.ndarray, np.ndarray]:
        """Returns the slots, one array, and the embeddings in the memory."""
        slots = np.frombuffer(memory, np.uint8, _SLOTS * math.prod(self.pixels)).reshape(_SLOTS, *self.pixels)
        rows = np.frombuffer(memory, np.float32, self.pixels[0] * self.dim, self._start)
        return slots, rows.reshape(self.pixels[0], self.dim)


def new_memory(num_bytes: int) -> int:
    """Returns the descriptor of new memory without a name: it ends with the processes that have it, however they end."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("vlm-rewards")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, num_bytes)
    return descriptor
