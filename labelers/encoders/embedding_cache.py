"""Embeddings of the frames seen last: an identical frame is encoded once."""

import threading
from collections import OrderedDict

import numpy as np

CACHE_BYTES = 16 << 20


class EmbeddingCache:
    """Embeddings of the frames seen last, by the digest of their bytes; safe to share between threads.

    One array holds them all: thousands of small arrays that live on between the large ones of the model would keep the C
    library from giving memory back, and a process would grow with every batch.

    Args:
        dim: Size of an embedding.
        max_bytes: Memory it may take, in bytes.
    """

    def __init__(self, dim: int, max_bytes: int = CACHE_BYTES) -> None:
        self._rows = np.empty((max(1, max_bytes // (4 * dim + 200)), dim), np.float32)
        self._slots: OrderedDict[bytes, int] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._slots)

    def clear(self) -> None:
        """Forgets all frames."""
        with self._lock:
            self._slots.clear()

    def get(self, digest: bytes) -> np.ndarray | None:
        """The embedding [D] of the frame with this digest, or None."""
        with self._lock:
            slot = self._slots.get(digest)
            if slot is None:
                return None
            self._slots.move_to_end(digest)
            return self._rows[slot].copy()

    def put(self, digest: bytes, embedding: np.ndarray) -> None:
        """Keeps an embedding [D], in place of the one unused longest if the cache is full."""
        with self._lock:
            slot = self._slots.pop(digest, None)
            if slot is None:
                full = len(self._slots) == len(self._rows)
                slot = self._slots.popitem(last=False)[1] if full else len(self._slots)
            self._slots[digest] = slot
            self._rows[slot] = embedding
