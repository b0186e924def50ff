"""The interface of encoders: what turns frames and texts into unit vectors of one space.

    frames [H, W, 3] ──► resize ──► pixels [N, S, S, 3] ──► embed_images ──► [N, D] unit length
    texts  M strings ──► read_texts (token ids, for checks) ──► embed_texts ──► [M, D] unit length

Everything above an encoder (labels, live rewards, replay) depends on this interface alone. Another library's checkpoint, a video
model or a remote scorer is one module with an `EncoderKind` and one line that registers it: in `labelers.encoders.known`, or, from
another package, an entry point of the group `vlm_rewards.encoders`:

    [project.entry-points."vlm_rewards.encoders"]
    open-clip = "my_package.open_clip_encoder:OPEN_CLIP"

An encoder must keep three promises, on which labels that never depend on sharding, resuming or batching rest:

1. A row of `embed_images` or `embed_texts` depends on its own picture or text alone, bit for bit: neither on its neighbours, nor
   on its place, nor on N. Batches of one fixed shape, the last one padded, give that on most hardware.
2. `describe_images` and `describe_texts` name everything that changes a bit of the result.
3. Methods may be called from several threads at once.

Shape letters: N pictures, M texts, H and W sides of a frame in pixels, S sides of the encoder's input in pixels, D size of an
embedding, V frames of a video window.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

PRECISIONS = ("auto", "float32", "bfloat16")
DEFAULT_BATCH_SIZE = 64
DEFAULT_ENGINE = "torch"
"""The engine that a fingerprint does not name."""
ENGINES = (DEFAULT_ENGINE, "compile", "openvino")
"""Engines of this package: torch as it is, torch.compile, and OpenVINO on a CPU."""

EXTENSION_GROUP = "vlm_rewards.encoders"
"""The entry point group in which other packages register an `EncoderKind`."""


class TextReading(NamedTuple):
    """What an encoder's tokenizer makes of a text.

    Attributes:
        ids: Token ids without padding. Two texts with equal ids are one text to the encoder.
        unknown: Words of the text that the tokenizer does not know, in order.
        num_words: Number of tokens that are words or pieces of words, unlike start and end tokens.
        num_dropped: Number of tokens beyond those that the encoder reads.
    """

    ids: tuple[int, ...]
    unknown: tuple[str, ...] = ()
    num_words: int = 1
    num_dropped: int = 0


class Encoder(Protocol):
    """A frozen pair of functions from pictures and from texts to unit vectors of one space.

    Attributes:
        name: The model as the user named it: a reference model, a folder, a hub id, or a URL.
        pinned_name: The name that stands for exactly these weights, such as a hub id with its commit; else the name.
        engine: Engine that computes the vectors: "torch", or the name of another library, compiler or service.
        precision: Number format of the computation, such as "float32"; never "auto".
        batch_size: Rows of an image batch.
        device: Device that computes, such as "cpu", "cuda:0" or "remote".
        weights_digest: Digest of the weights, or what stands for them, such as a remote model's version.
        dim: D, size of an embedding.
        image_size: Height and width of the pixels that `embed_images` takes.
        window: V, frames that one vector looks at; 1 for pictures.
        logit_scale: The model's own factor of a cosine, the inverse of its temperature; None without one.
        logit_bias: The model's own summand of a logit; None without one.
    """

    @property
    def name(self) -> str: ...
    @property
    def pinned_name(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def device(self) -> str: ...
    @property
    def weights_digest(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def image_size(self) -> tuple[int, int]: ...
    @property
    def window(self) -> int: ...
    @property
    def logit_scale(self) -> float | None: ...
    @property
    def logit_bias(self) -> float | None: ...

    def resize(self, frame: np.ndarray) -> np.ndarray:
        """Resizes one frame `[H, W, 3]` uint8, which may be read-only, to the encoder's input `[S, S, 3]` uint8."""
        ...

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        """Embeds pictures.

        Args:
            pixels: `[N, S, S, 3]` uint8 from `resize`, or `[N, V, S, S, 3]` where the window is of several frames, the oldest
                first; N may be 0.

        Returns:
            `[N, D]` float32, unit length. Row n depends on `pixels[n]` alone, bit for bit.
        """
        ...

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embeds M texts: `[M, D]` float32, unit length. Row m depends on `texts[m]` alone, bit for bit."""
        ...

    def read_texts(self, texts: Sequence[str]) -> list[TextReading]:
        """Returns what the tokenizer makes of each text; nothing is refused here."""
        ...

    def describe_images(self) -> Mapping[str, object]:
        """Returns what image embeddings depend on, part by part, as JSON: weights, preprocessing, precision, device."""
        ...

    def describe_texts(self) -> Mapping[str, object]:
        """Returns what text embeddings depend on besides `describe_images`, as JSON: the tokenizer above all."""
        ...

    def versions(self) -> Mapping[str, str]:
        """Returns the versions of the libraries that compute the embeddings, by name."""
        ...


Resizer = Callable[[np.ndarray], np.ndarray]
"""Resizes one frame as the `resize` of an encoder does."""


@runtime_checkable
class ResizesElsewhere(Protocol):
    """What an encoder may have besides: then processes without its model can prepare its pixels.

    Attributes:
        resizer: Function or method that can be pickled.
    """

    @property
    def resizer(self) -> Resizer: ...


class EncoderLoader(Protocol):
    """Loads the encoder that a name stands for."""

    def __call__(self, name: str, *, precision: str, batch_size: int, device: str) -> Encoder:
        """Loads an encoder.

        Args:
            name: The model as the user named it.
            precision: "auto", "float32" or "bfloat16"; the encoder says which one it took.
            batch_size: Rows of an image batch.
            device: "cpu", "cuda" or "cuda:N".
        """
        ...


class EngineLoader(Protocol):
    """Loads the encoder that a name stands for, on an engine of choice."""

    def __call__(self, name: str, *, precision: str, batch_size: int, device: str, engine: str) -> Encoder:
        """Loads an encoder; see `EncoderLoader`.

        Args:
            name: The model as the user named it.
            precision: "auto", "float32" or "bfloat16".
            batch_size: Rows of an image batch.
            device: "cpu", "cuda" or "cuda:N".
            engine: One of the kind's engines.
        """
        ...


class EncoderKind(NamedTuple):
    """One kind of encoder: which names are its own, and how to load them.

    Attributes:
        name: Name of the kind, for messages.
        recognizes: Whether a model's name or folder is of this kind; cheap, and never raises.
        load: Loads it. Imports of large libraries belong inside, so that a command pays only for what it runs.
        load_on: Loads it on one of `ENGINES`; None for a kind that has an engine of its own alone.
    """

    name: str
    recognizes: Callable[[str], bool]
    load: EncoderLoader
    load_on: EngineLoader | None = None
