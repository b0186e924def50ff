"""A bounded sample of frames with false positives: which goals fire there, and which hold.

    frames with false positives ──► key = hash of (episode, frame) ──► the K frames of the lowest keys, G bits each

A table of goals by goals takes memory by the square of the number of goals; a sample takes 2 G bits per frame. Which frames are
in the sample depends on their keys alone, so samples merge in any order and grouping to the same sample. A sample that holds all
frames is exact.

Shapes: K frames, G goals.
"""

import dataclasses
import functools
import hashlib

import numpy as np
from scipy import sparse

MAX_SAMPLE_BYTES = 8 << 20
"""Size of a sample: 3,355 frames of 10,000 goals. The time to count pairs of goals in it grows with the number of goals."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FrameSample:
    """The frames of lowest key among those with a false positive; samples of different frames add up.

    Args:
        num_goals: G.
        num_frames: Number of frames with a false positive, in the sample or not.
        keys: [K] uint64, rising.
        fires: [K, G / 8] uint8, one bit per goal: the goal fires falsely.
        holds: [K, G / 8] uint8, one bit per goal: the goal holds.
        max_bytes: Largest size of `fires` and `holds` together.
    """

    num_goals: int
    num_frames: int
    keys: np.ndarray
    fires: np.ndarray
    holds: np.ndarray
    max_bytes: int

    @property
    def is_complete(self) -> bool:
        """Whether the sample holds every frame with a false positive."""
        return len(self.keys) == self.num_frames

    def __add__(self, other: "FrameSample") -> "FrameSample":
        keys = np.concatenate([self.keys, other.keys])
        kept = np.argsort(keys, kind="stable")[: _capacity(self.num_goals, self.max_bytes)]
        fires, holds = (np.concatenate([getattr(part, name) for part in (self, other)]) for name in ("fires", "holds"))
        return dataclasses.replace(
            self,
            num_frames=self.num_frames + other.num_frames,
            keys=keys[kept],
            fires=fires[kept],
            holds=holds[kept],
        )

    @functools.cached_property
    def fired(self) -> np.ndarray:
        """[G] int64: frames of the sample in which each goal fires falsely."""
        return np.diff(self._fires.indptr).astype(np.int64)

    def pairs(self, goals: slice) -> sparse.csr_array:
        """Counts frames in which these goals fire falsely, by the goals that hold there: one row per goal, [G] int64 each."""
        return self._fires[goals] @ self._holds

    @functools.cached_property
    def _fires(self) -> sparse.csr_array:  # [G, K]
        return _unpacked(self.fires, self.num_goals).T.tocsr()

    @functools.cached_property
    def _holds(self) -> sparse.csr_array:  # [K, G]
        return _unpacked(self.holds, self.num_goals)


def sample_frames(
    fires: sparse.csr_array, holds: sparse.csr_array, keys: np.ndarray, max_bytes: int = MAX_SAMPLE_BYTES
) -> FrameSample:
    """Samples the frames of one block.

    Args:
        fires: [F, G] of 0 and 1: the goal fires falsely in the frame.
        holds: [F, G] of 0 and 1: the goal holds.
        keys: [F] uint64, one per frame, from `frame_keys`.
        max_bytes: Largest size of the sample.
    """
    frames = np.flatnonzero(np.diff(fires.indptr))
    num_goals = fires.shape[1]
    kept = frames[np.argsort(keys[frames], kind="stable")[: _capacity(num_goals, max_bytes)]]
    return FrameSample(
        num_goals=num_goals,
        num_frames=len(frames),
        keys=keys[kept],
        fires=_bits(fires, kept),
        holds=_bits(holds, kept),
        max_bytes=max_bytes,
    )


def frame_keys(episode_id: str, frames: np.ndarray) -> np.ndarray:
    """Hashes frames of an episode to [F] uint64, spread evenly, the same on every machine.

    Source: the finalizer of splitmix64 (Steele et al. 2014), seeded with a BLAKE2 digest of the episode's id.
    """
    seed = np.uint64(int.from_bytes(hashlib.blake2b(episode_id.encode(), digest_size=8).digest(), "little"))
    keys = seed + np.asarray(frames).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def _capacity(num_goals: int, max_bytes: int) -> int:
    return max(1, max_bytes // (2 * -(-num_goals // 8)))


def _bits(matrix: sparse.csr_array, rows: np.ndarray) -> np.ndarray:
    packed = np.zeros((len(rows), -(-matrix.shape[1] // 8)), dtype=np.uint8)
    for place, row in enumerate(rows.tolist()):
        columns = matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]
        dense = np.zeros(matrix.shape[1], dtype=bool)
        dense[columns] = True
        packed[place] = np.packbits(dense)
    return packed


def _unpacked(bits: np.ndarray, num_goals: int) -> sparse.csr_array:
    rows = [np.flatnonzero(np.unpackbits(row, count=num_goals)) for row in bits]
    indptr = np.cumsum([0, *(len(row) for row in rows)])
    indices = np.concatenate([np.zeros(0, dtype=np.int64), *rows])
    return sparse.csr_array((np.ones(len(indices), dtype=np.int64), indices, indptr), shape=(len(bits), num_goals))
