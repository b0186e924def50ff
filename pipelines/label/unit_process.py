"""Entry point of a process that reads, decodes, scores and writes units whose frames another process embeds.

python -m vlm_rewards.pipelines.label.unit_process SOCKET MEMORY, as `pipelines.label.unit_processes` starts it

It imports neither torch nor Beam, so that it starts in a moment and dozens of them fit.
"""

import dataclasses
import mmap
import pickle
import socket
import sys
import warnings
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np

from vlm_rewards.labelers.encoders.embedding_cache import EmbeddingCache
from vlm_rewards.labelers.encoders.encoder import Resizer
from vlm_rewards.labelers.scoring.frame_scorer import FrameScorer
from vlm_rewards.labelers.scoring.windows import EpisodeScorer
from vlm_rewards.pipelines.engine.worker import live_with_the_driver
from vlm_rewards.pipelines.label.shared_batch import BatchLayout


class Start(NamedTuple):
    """What a process is told when it starts.

    Attributes:
        layout: Shapes of the memory that it shares.
        window: Frames that an embedding looks at.
        resizer: Resizes a frame to the model's input.
        scorer: Scores embeddings.
    """

    layout: BatchLayout
    window: int
    resizer: Resizer
    scorer: FrameScorer


@dataclasses.dataclass(frozen=True)
class _HalfLabeler:
    """A labeler whose model is at the other end of a connection; implements `pipelines.label.encoding.FrameLabeler`."""

    start: Start
    cache: EmbeddingCache
    connection: Connection
    slots: np.ndarray
    embeddings: np.ndarray

    @property
    def batch_size(self) -> int:
        return len(self.embeddings)

    @property
    def window(self) -> int:
        return self.start.window

    @property
    def dim(self) -> int:
        return self.start.layout.dim

    def resize(self, frame: np.ndarray) -> np.ndarray:
        return self.start.resizer(frame)

    def frame_buffers(self) -> tuple[np.ndarray, np.ndarray]:
        if self.window == 1:
            return self.slots[0], self.slots[1]
        frames = self.slots[:, :, 0]  # of windows, which are made of them when they are whole
        return np.empty_like(frames[0]), np.empty_like(frames[1])

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        number = next((index for index, slot in enumerate(self.slots) if np.may_share_memory(slot, pixels)), None)
        if number is None:
            number = 0
            self.slots[0, : len(pixels)] = pixels
        self.connection.send(("embed", number, len(pixels)))
        self.connection.recv()
        return self.embeddings[: len(pixels)].copy()

    def episodes(self) -> EpisodeScorer:
        return self.start.scorer.episodes()


def main(argv: list[str]) -> None:
    """Does units until the connection ends."""
    live_with_the_driver()
    warnings.filterwarnings("ignore", message="the file system cannot flush folders")  # the driver has said so
    connection = Connection(socket.socket(fileno=int(argv[0])).detach())
    start: Start = connection.recv()
    memory = mmap.mmap(int(argv[1]), start.layout.num_bytes)
    cache = EmbeddingCache(start.layout.dim)
    labeler = _HalfLabeler(start, cache, connection, *start.layout.arrays(memory))
    work = None
    while True:
        try:
            pickled, unit, part, kept = connection.recv()
        except EOFError:
            return
        try:
            if pickled is not None:
                work = pickle.loads(pickled)
            assert work is not None
            work.fill(labeler, unit, part, kept)
        except Exception as error:  # raised again by the process that asked
            connection.send(("failed", _as_sent(error)))
        else:
            connection.send(("done", part, kept))


def _as_sent(error: Exception) -> Exception:
    """Returns the error if it can be pickled and read again, else one with its words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # a class may do anything when it is pickled
        words = RuntimeError(f"{type(error).__name__}: {error}")
        for note in getattr(error, "__notes__", []):
            words.add_note(note)
        return words
    return error


if __name__ == "__main__":
    main(sys.argv[1:])
