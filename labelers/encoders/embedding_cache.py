"""Embeddings of the frames seen last: an identical frame is encoded once.

    frames ─► digest ─► FrameLookup.find ─┬─ in the cache, or on its way: its slot ───────────┬─► slots, in order
                                          └─ new: decode, resize, encode ─► FrameLookup.fill ─┘

Used by the label pipeline, over the encoded bytes of frames, and by live rewards, over their pixels.

Shape letters: N frames, D size of an embedding.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np

CACHE_BYTES = 16 << 20


def frame_digest(frame: bytes | np.ndarray) -> bytes:
    """Returns the key of a frame, encoded bytes or pixels [H, W, 3]: 16 bytes that other frames do not share."""
    if isinstance(frame, bytes):
        return hashlib.blake2b(frame, digest_size=16).digest()
    shape = f"{frame.shape} {frame.dtype}".encode()
    return hashlib.blake2b(np.ascontiguousarray(frame).data, digest_size=16, key=shape).digest()


class EmbeddingCache:
    """Embeddings of the frames seen last, by the digest of their bytes; safe to share between threads.

    One array holds them all: thousands of small arrays that live on between the large ones of the model would keep the C
    library from giving memory back, and a process would grow with every batch.

    Args:
        dim: Size of an embedding.
        max_bytes: Bound of its memory, in bytes.
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
        """Returns the embedding [D] of the frame with this digest, or None."""
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


class Slot:
    """The place of a frame's embedding: identical frames share one.

    Attributes:
        digest: Key of the frame.
        embedding: [D] float32, None until it is known.
        error: Reason why the frame cannot be decoded; None where it can.
    """

    __slots__ = ("digest", "embedding", "error")

    def __init__(self, digest: bytes, embedding: np.ndarray | None) -> None:
        self.digest = digest
        self.embedding = embedding
        self.error: str | None = None


class FrameLookup:
    """Tells new frames from those whose embedding is known or on its way. For one thread; the cache may be shared.

    Args:
        cache: Embeddings of frames seen before; None for none.
    """

    def __init__(self, cache: EmbeddingCache | None) -> None:
        self._cache = cache
        self._on_the_way: dict[bytes, Slot] = {}

    def find(self, digest: bytes) -> tuple[Slot, bool]:
        """Returns the frame's slot, and whether the frame is new: then the caller must encode it."""
        embedding = None if self._cache is None else self._cache.get(digest)
        if embedding is not None:
            return Slot(digest, embedding), False
        slot = self._on_the_way.get(digest)
        if slot is not None:
            return slot, False
        slot = self._on_the_way[digest] = Slot(digest, None)
        return slot, True

    def fill(self, slots: Sequence[Slot], embeddings: np.ndarray) -> None:
        """Puts the embeddings [N, D] of N new frames into their slots and the cache."""
        for slot, embedding in zip(slots, embeddings, strict=True):
            slot.embedding = embedding
            if self._cache is not None:
                self._cache.put(slot.digest, embedding)

    def forget_all_but(self, slots: Iterable[Slot]) -> None:
        """Forgets frames that were on their way, except these: from now on only the cache knows them."""
        self._on_the_way = {slot.digest: slot for slot in slots}
