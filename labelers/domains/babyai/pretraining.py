"""Training of BabyAI's reference models: their sizes, and scenes generated on the fly as patches with ground truth.

    draw_scenes ──► tiles ──► patches [B, K, P]
                └──► truth of the 342 goals ──► truth of the states [B, C]

A patch is one cell of the agent's view. Of every frame the agent's cell, the cell before it, the cells with objects, and some
others are kept. A kept patch is labelled with the kind of its object, and with the kinds that stand beside it.

Shape letters: B scenes, C states (192), K patches kept, P values per patch (192).
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from vlm_rewards.labelers.domains.babyai.captions import MORE_WORDS, NEUTRAL, state_captions, state_truth
from vlm_rewards.labelers.domains.babyai.goals import (
    AGENT_CELL,
    FRONT_CELL,
    NUM_KINDS,
    VIEW_SIZE,
    goal_bank,
    ground_truth,
    kind_indices,
)
from vlm_rewards.labelers.domains.babyai.scenes import (
    TRAIN_SEEDS,
    VALIDATION_SEEDS,
    Layouts,
    draw_scenes,
    load_layouts,
    render,
    tile_table,
)
from vlm_rewards.labelers.domains.pretraining import CardText, Resources, SceneBatch, Validation, Vocabulary
from vlm_rewards.labelers.reference_models.architecture import normalise, patchify
from vlm_rewards.labelers.reference_models.recipe import PretrainSettings

PATCH_SIZE = 8
IMAGE_SIZE = PATCH_SIZE * VIEW_SIZE
NUM_PATCHES = VIEW_SIZE**2
FAMILIES = ("find", "lift", "place")

SIZES = {
    "s": PretrainSettings(
        size="s",
        width=64,
        layers=2,
        heads=4,
        text_width=64,
        text_layers=2,
        text_heads=4,
        embedding=24,
        steps=3000,
        learning_rate=2e-3,
    ),
    "m": PretrainSettings(
        size="m",
        width=128,
        layers=3,
        heads=4,
        text_width=96,
        text_layers=2,
        text_heads=4,
        embedding=128,
        steps=2000,
        learning_rate=1.5e-3,
    ),
    "l": PretrainSettings(
        size="l",
        width=192,
        layers=3,
        heads=6,
        text_width=128,
        text_layers=2,
        text_heads=4,
        embedding=256,
        steps=3000,
    ),
}
"""The shipped recipes."""

_ABOUT = (
    "A small CLIP (`transformers.CLIPModel`) that labels frames of BabyAI as its agent sees them: 56x56 pixels, 7x7 cells of",
    "8 pixels (`RGBImgPartialObsWrapper(tile_size=8)`), or larger ones such as 224x224, which its image processor resizes.",
    "It knows three families of goals over six colours and three types, in many wordings:",
    "",
    "- Find: *the agent is in front of a red ball*",
    "- Lift: *the agent carries a red ball*",
    "- Place: *a red ball is next to a blue box*",
    "",
    f"The neutral caption *{NEUTRAL[0]}* lies between true and false captions in every frame: as a goal's only",
    "negative it makes the softmax the probability that the goal holds (threshold 0.5), whatever other goals hold.",
    "",
    "It judges what the frame shows. It knows no doors, rooms or locations, and nothing outside BabyAI; for real images use a",
    "public CLIP checkpoint, through the same code.",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BabyAIPretraining:
    """Training of BabyAI's reference models; see `labelers.domains.pretraining.Pretraining`."""

    prefix: str = "reference"
    image_size: int = IMAGE_SIZE
    patch_size: int = PATCH_SIZE
    least_kept: int = 16
    num_classes: int = NUM_KINDS
    num_marks: int = NUM_KINDS
    packages: tuple[str, ...] = ("minigrid",)

    @property
    def vocabulary(self) -> Vocabulary:
        """Words besides those of the captions, and the American spelling of one."""
        return Vocabulary(MORE_WORDS.split(), {"gray": "grey"})

    @property
    def sizes(self) -> Mapping[str, PretrainSettings]:
        """The shipped recipes."""
        return SIZES

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The seeds of the layouts."""
        return {"layout_seeds": [TRAIN_SEEDS.start, TRAIN_SEEDS.stop]}

    def wordings(self) -> list[list[str]]:
        """Returns the captions of the states, and the neutral ones."""
        return state_captions()

    def prepare(self, settings: PretrainSettings, resources: Resources) -> None:
        """Does nothing: every batch is drawn anew."""

    def open(self, settings: PretrainSettings, rng: np.random.Generator, resources: Resources) -> "BabyAIScenes":
        """Loads layouts of real levels and draws the stock of resized frames.

        Raises:
            ImportError: MiniGrid is not installed.
        """
        return BabyAIScenes(settings, rng)

    def validation(self, num_frames: int, batch_size: int, resources: Resources) -> dict[str, Validation]:
        """Draws frames in layouts of seeds that were not trained on.

        Raises:
            ImportError: MiniGrid is not installed.
        """
        scenes = draw_scenes(load_layouts(VALIDATION_SEEDS), np.random.default_rng(VALIDATION_SEEDS.start), num_frames)

        def batches() -> Iterator[np.ndarray]:
            for start in range(0, num_frames, batch_size):
                yield render(scenes.tiles[start : start + batch_size])

        return {"drawn scenes": Validation(goal_bank(), batches(), ground_truth(scenes.view, scenes.carrying))}

    def describe(self, card: Mapping[str, Any]) -> CardText:
        """Says what the card of a model tells about BabyAI."""
        data = [
            "Trained contrastively from nothing on scenes drawn on the fly: walls and doors of BabyAI levels (seeds below",
            f"{card['layout_seeds'][1]:,}), objects and agent placed at random, frames rendered with MiniGrid's own tiles,",
            "captions written from templates. No recorded episode and no other data was used.",
        ]
        return CardText(("babyai", "minigrid"), _ABOUT, data, FAMILIES)


class BabyAIScenes:
    """Scenes of one training run: most drawn anew, some from a stock of larger frames that were resized.

    Args:
        settings: The recipe.
        rng: Source of the stock.
    """

    def __init__(self, settings: PretrainSettings, rng: np.random.Generator) -> None:
        self._layouts = load_layouts(TRAIN_SEEDS)
        self._resized = _Resized(self._layouts, rng, settings.num_resized if settings.resized_share else 0)
        self._table = normalise(torch.from_numpy(patchify(tile_table(PATCH_SIZE)[:, None, None])[:, 0]))
        self._num_resized = round(settings.resized_share * settings.batch_size)
        self._num_fresh = settings.batch_size - self._num_resized

    def draw(self, rng: np.random.Generator, kept: int) -> SceneBatch:
        """Draws one batch; see `labelers.domains.pretraining.Scenes`."""
        fresh = draw_scenes(self._layouts, rng, self._num_fresh)
        stock = rng.integers(len(self._resized.scenes.view), size=self._num_resized)
        view = np.concatenate([fresh.view, self._resized.scenes.view[stock]])
        carrying = np.concatenate([fresh.carrying, self._resized.scenes.carrying[stock]])

        kinds = kind_indices(view[..., 0], view[..., 1]).swapaxes(1, 2)  # [B, y, x]
        wanted = rng.random((len(view), NUM_PATCHES), dtype=np.float32) + (kinds >= 0).reshape(len(view), -1)
        for x, y in (AGENT_CELL, FRONT_CELL):
            wanted[:, y * VIEW_SIZE + x] += 2
        index = np.sort(np.argpartition(-wanted, kept - 1, axis=1)[:, :kept], axis=1)

        standing = kinds.copy()
        standing[:, AGENT_CELL[1], AGENT_CELL[0]] = -1
        present = np.zeros((len(view), VIEW_SIZE + 2, VIEW_SIZE + 2, NUM_KINDS), dtype=bool)
        present[:, 1:-1, 1:-1] = standing[..., None] == np.arange(NUM_KINDS)
        beside = present[:, :-2, 1:-1] | present[:, 2:, 1:-1] | present[:, 1:-1, :-2] | present[:, 1:-1, 2:]
        rows = np.arange(len(view))[:, None]
        where = torch.from_numpy(index)
        num_fresh = len(fresh.tiles)
        tiles = torch.from_numpy(fresh.tiles.reshape(num_fresh, -1)).long().gather(1, where[:num_fresh])
        old = self._resized.patches[torch.from_numpy(stock)[:, None], where[num_fresh:]]
        truth = state_truth(ground_truth(view, carrying))
        return SceneBatch(
            patches=torch.cat([self._table[tiles], normalise(old)]),
            places=where,
            states=np.arange(truth.shape[1]),
            truth=torch.from_numpy(truth),
            classes=torch.from_numpy(standing.reshape(len(view), -1)[rows, index]),
            marks=torch.from_numpy(beside.reshape(len(view), -1, NUM_KINDS)[rows, index]),
        )


class _Resized:
    """A stock of scenes rendered at 224x224 and resized to 56x56 with the image processor's bicubic filter."""

    def __init__(self, layouts: Layouts, rng: np.random.Generator, count: int) -> None:
        self.scenes = draw_scenes(layouts, rng, max(count, 1))
        patches = []
        for start in range(0, count, 256):
            frames = torch.from_numpy(render(self.scenes.tiles[start : start + 256], 4 * PATCH_SIZE)).permute(
                0, 3, 1, 2
            )
            small = F.interpolate(frames, (IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", antialias=True).permute(0, 2, 3, 1)
            tiles = small.unflatten(2, (VIEW_SIZE, PATCH_SIZE)).unflatten(1, (VIEW_SIZE, PATCH_SIZE)).transpose(2, 3)
            patches.append(torch.from_numpy(patchify(tiles.numpy())))
        self.patches = (
            torch.cat(patches) if patches else torch.zeros(0, NUM_PATCHES, 3 * PATCH_SIZE**2, dtype=torch.uint8)
        )


BABYAI_PRETRAINING = BabyAIPretraining()
