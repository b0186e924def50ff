"""Interface between a domain and the training of its reference models in `labelers.reference_models.pretraining`.

    wordings()      states of frames, each with its captions ──► tokenizer, captions of every step
    open(settings)  ──► Scenes ── draw(rng, kept) ──► SceneBatch: patches, which states are true, what the patches show
    validation(n)   ──► frames with the truth of goals, for the figures of the card; perhaps of several kinds
    describe(card)  ──► what the card says of the domain

A *state* is something that a frame shows or does not show, such as "find red ball"; goals and wordings of them name states.

Shape letters: B scenes, C states of a batch, K patches kept, P values per patch, M marks, N frames, G goals.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from vlm_rewards.labelers.reference_models.recipe import PretrainSettings
from vlm_rewards.schemas.goals import Goal

if TYPE_CHECKING:
    from torch import Tensor


class Vocabulary(NamedTuple):
    """Words of the tokenizer besides those of the captions.

    Attributes:
        more_words: Words, so that they can be told apart from unknown ones.
        spellings: Other spellings of words, by what they are read as.
    """

    more_words: Sequence[str] = ()
    spellings: Mapping[str, str] = {}


class Resources(NamedTuple):
    """Resources of one training run.

    Attributes:
        device: "cpu", "cuda" or "cuda:N", where the model is trained.
        processes: Processes that draw frames, for domains that draw a stock of them.
        stock: Folder in which such a stock is kept and found again.
    """

    device: str
    processes: int
    stock: Path


class SceneBatch(NamedTuple):
    """Some patches of frames, with their ground truth; tensors may lie on the device.

    Attributes:
        patches: [B, K, P] float32, normalised pixels, channel-major as in a convolution's kernel.
        places: [B, K] int64, place of each patch in the frame, row-major.
        states: [C] int64, the states that this batch is scored against, among those of `wordings`.
        truth: [B, C] bool, which of them hold; at least one per frame.
        classes: [B, K] int64, what a patch shows, from 0; -1 where that is nothing to be learned.
        marks: [B, K, M] bool, what else holds of a patch.
    """

    patches: "Tensor"
    places: "Tensor"
    states: np.ndarray
    truth: "Tensor"
    classes: "Tensor"
    marks: "Tensor"


class Scenes(Protocol):
    """An endless supply of scenes to train on."""

    def draw(self, rng: np.random.Generator, kept: int) -> SceneBatch:
        """Draws one batch.

        Args:
            rng: Source of all randomness.
            kept: K, patches per frame.
        """


class Validation(NamedTuple):
    """Frames that nothing was trained on.

    Attributes:
        goals: G goals.
        batches: [b, H, W, 3] uint8 frames, N in all, which the model's image processor would resize.
        truth: [N, G] bool, which goals hold.
    """

    goals: Sequence[Goal]
    batches: Iterator[np.ndarray]
    truth: np.ndarray


def in_batches(frames: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Yields frames of a stock for `Validation`, at most so many at once."""
    for start in range(0, len(frames), batch_size):
        yield frames[start : start + batch_size]


class CardText(NamedTuple):
    """Text on the domain for a model's card, in Markdown.

    Attributes:
        tags: Tags for the Hugging Face hub.
        about: Lines on what the model reads.
        data: Lines on what it was trained on.
        families: Families of goals, in the order of the table of figures.
    """

    tags: Sequence[str]
    about: Sequence[str]
    data: Sequence[str]
    families: Sequence[str]


class Pretraining(Protocol):
    """Training of a domain's reference models.

    Attributes:
        prefix: Name of its models, before the size: "reference" of "reference-s".
        sizes: Recipes by the name of their size.
        image_size: Height and width of the model's input in pixels, where a recipe does not say otherwise.
        patch_size: Height and width of a patch in pixels, where a recipe does not say otherwise.
        least_kept: Smallest number of patches of a frame that show everything in it.
        num_classes: Number of classes that a patch may show; 0 for none.
        num_marks: M, number of marks of a patch.
        vocabulary: Words of the tokenizer besides those of the captions.
        packages: Packages whose versions the card names.
        provenance: Other facts on the data for the card, by name.
    """

    @property
    def prefix(self) -> str: ...

    @property
    def sizes(self) -> Mapping[str, PretrainSettings]: ...

    @property
    def image_size(self) -> int: ...

    @property
    def patch_size(self) -> int: ...

    @property
    def least_kept(self) -> int: ...

    @property
    def num_classes(self) -> int: ...

    @property
    def num_marks(self) -> int: ...

    @property
    def vocabulary(self) -> Vocabulary: ...

    @property
    def packages(self) -> Sequence[str]: ...

    @property
    def provenance(self) -> Mapping[str, Any]: ...

    def wordings(self) -> list[list[str]]:
        """Returns the captions of every state; the last list holds neutral captions, which are true of every frame alike.

        A caption that occurs twice is drawn twice as often. The cosine of a neutral caption is trained to lie between those of
        true and of false captions.
        """

    def prepare(self, settings: PretrainSettings, resources: Resources) -> None:
        """Draws what is drawn once and kept, for several runs at a time to share; does nothing where each batch is drawn anew."""

    def open(self, settings: PretrainSettings, rng: np.random.Generator, resources: Resources) -> Scenes:
        """Opens the scenes of one training run."""

    def validation(self, num_frames: int, batch_size: int, resources: Resources) -> Mapping[str, Validation]:
        """Draws frames for the figures of the card, always the same, by the title of the row of figures.

        Args:
            num_frames: N.
            batch_size: Largest number of frames drawn at once.
            resources: Resources of the training run.
        """

    def describe(self, card: Mapping[str, Any]) -> CardText:
        """Says what the card of a model tells about the domain."""
