"""The labelers of this process: one copy of a model, shared by its threads."""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator

import numpy as np
from threadpoolctl import threadpool_limits

from vlm_rewards.labelers.encoders.embedding_cache import EmbeddingCache
from vlm_rewards.labelers.encoders.encoder import Encoder
from vlm_rewards.labelers.labeler import Labeler, load_encoder
from vlm_rewards.labelers.scoring.windows import EpisodeScorer
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.engine.settings import available_cores
from vlm_rewards.pipelines.label.lanes import Lanes, lanes_of

_labelers: dict[LabelerSettings, "SharedLabeler"] = {}
_labelers_lock = threading.Lock()


@dataclasses.dataclass(frozen=True, eq=False)
class SharedLabeler:
    """A process's one copy of a labeler, with its cache of frames that were encoded before.

    Args:
        labeler: The labeler.
        cache: Embeddings by the digest of a frame's bytes.
        lanes: The devices of its model; None to embed in each thread as it comes.
        at_end: What happens when the labeler is let go.
    """

    labeler: Labeler
    cache: EmbeddingCache
    lanes: Lanes | None = None
    at_end: contextlib.ExitStack = dataclasses.field(default_factory=contextlib.ExitStack)

    @property
    def batch_size(self) -> int:
        """Rows of an image batch."""
        return self.labeler.settings.batch_size

    @property
    def window(self) -> int:
        """Frames that an embedding looks at."""
        return self.labeler.encoder.window

    @property
    def dim(self) -> int:
        """Size of an embedding."""
        return self.labeler.dim

    def frame_buffers(self) -> tuple[np.ndarray, np.ndarray]:
        """See `pipelines.label.encoding.FrameLabeler.frame_buffers`."""
        shape = (self.batch_size, *self.labeler.encoder.image_size, 3)
        return np.empty(shape, np.uint8), np.empty(shape, np.uint8)

    def resize(self, frame: np.ndarray) -> np.ndarray:
        """See `labelers.labeler.Labeler.resize`."""
        return self.labeler.resize(frame)

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """See `labelers.labeler.Labeler.embed`."""
        return self.labeler.embed(pixels) if self.lanes is None else self.lanes.embed(pixels)

    def episodes(self) -> EpisodeScorer:
        """See `labelers.labeler.Labeler.episodes`."""
        return self.labeler.episodes()


@contextlib.contextmanager
def one_run() -> Iterator[None]:
    """Context manager of a run that labels in this process: its labelers are built once and end with it.

    Afterwards torch and NumPy's BLAS have as many threads as before, and labelers that were built in the run are let go.
    """
    with _labelers_lock:
        before = set(_labelers)
    try:
        with same_threads(), threadpool_limits(limits=1, user_api="blas"):
            yield
    finally:
        with _labelers_lock:
            ended = {id(shared): shared for settings in set(_labelers) - before for shared in [_labelers.pop(settings)]}
        for shared in ended.values():
            shared.at_end.close()


@contextlib.contextmanager
def same_threads() -> Iterator[None]:
    """Context manager that restores torch's number of threads, which `shared_labeler` sets for the whole process."""
    import torch  # seconds, of which a command that only plans to import this module needs none

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def shared_labeler(
    settings: LabelerSettings, encoder: Encoder | None = None, when_loaded: Callable[[], object] | None = None
) -> SharedLabeler:
    """Returns this process's labeler for these settings, built once; the model then runs on one thread. See `one_run`.

    Args:
        settings: Settings of the labeler.
        encoder: Their model where it is loaded already; None to load it.
        when_loaded: Function that is called between loading the model and embedding the goals, which leaves a core to others.
    """
    import torch

    torch.set_num_threads(1)
    with _labelers_lock:
        if settings not in _labelers:
            encoder = load_encoder(settings) if encoder is None else encoder
            if when_loaded is not None:
                when_loaded()
            labeler = Labeler(settings, encoder)
            lanes = lanes_of(labeler.encoder, labeler.settings, available_cores())
            shared = SharedLabeler(labeler, EmbeddingCache(labeler.dim), lanes)
            _labelers[settings] = _labelers.setdefault(labeler.settings, shared)  # with nothing left open
        return _labelers[settings]
