"""Training of OpenApp's reference models: their sizes, and batches from a stock of screens.

    draw_screens ──► stock of frames and states ──► whole, or framed as square screens ──► stretched to S x S ──► patches

The models stretch a screen to a square, as their image processor does with every frame: nothing is cut off. Some screens are put
into a square first, as the domain's square frames are. Nothing is taught about patches.

Shape letters: S side of the model's input in pixels, N frames.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlm_rewards.labelers.domains.openapp.apps import APPS, goal_of
from vlm_rewards.labelers.domains.openapp.models.captions import MORE_WORDS, NEUTRAL, NUM_STATES, OPEN, state_captions
from vlm_rewards.labelers.domains.openapp.models.scenes import (
    FIELDS,
    TRAIN_SEEDS,
    VALIDATION_SEEDS,
    draw_screens,
    screen_rows,
)
from vlm_rewards.labelers.domains.openapp.simulator import FRAME_COLOUR
from vlm_rewards.labelers.domains.pretraining import CardText, Resources, Validation, Vocabulary, in_batches
from vlm_rewards.labelers.reference_models.architecture import resize_frames
from vlm_rewards.labelers.reference_models.recipe import PretrainSettings
from vlm_rewards.labelers.reference_models.stock import StockPlan, open_stock
from vlm_rewards.labelers.reference_models.stock_scenes import StockScenes, load_patches

IMAGE_SIZE = 160
PATCH_SIZE = 16
FAMILIES = ("common", "diverse")
FRAMED_EVERY = 5

_SHARED: dict[str, Any] = {
    "heads": 4,
    "text_width": 32,
    "text_layers": 1,
    "text_heads": 4,
    "stretch": True,
    "resized_share": 0.0,
    "num_resized": 0,
}
_SMALL: dict[str, Any] = {"num_frames": 16_384, "batch_size": 128, "warmup_steps": 60, "num_evaluated": 1024, **_SHARED}

SIZES = {
    "xs": PretrainSettings(
        size="xs",
        width=32,
        layers=1,
        embedding=6,
        steps=400,
        learning_rate=3e-3,
        image_size=48,
        patches_kept=9,
        **_SMALL,
    ),
    "s": PretrainSettings(
        size="s",
        width=32,
        layers=1,
        embedding=8,
        steps=600,
        learning_rate=3e-3,
        image_size=64,
        patches_kept=12,
        **_SMALL,
    ),
    "l": PretrainSettings(
        size="l",
        width=48,
        layers=2,
        embedding=16,
        steps=1500,
        learning_rate=2e-3,
        image_size=80,
        patches_kept=16,
        num_frames=80_000,
        **_SHARED,
    ),
}
"""The shipped recipes."""

_ABOUT = (
    "A small CLIP (`transformers.CLIPModel`) that labels screens of OpenApp's phones: 160x96 pixels, and square ones that show the",
    "screen in their middle. Its image processor stretches every frame to a square.",
    "It knows one goal per app, in many wordings:",
    "",
    "- *the chess app is open on the phone*",
    "",
    f"The neutral caption *{NEUTRAL[0]}* lies between true and false captions in every frame: among a goal's negatives it makes",
    "the softmax the probability that the app is in front (threshold 0.5).",
    "",
    "It judges what the screen shows: an app on its way to the front, or under a message, is not open. It knows OpenApp's 60 apps",
    "and no others; for real screens use a public CLIP checkpoint, through the same code.",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenAppPretraining:
    """Training of OpenApp's reference models; see `labelers.domains.pretraining.Pretraining`."""

    prefix: str = "openapp"
    image_size: int = IMAGE_SIZE
    patch_size: int = PATCH_SIZE
    least_kept: int = 1
    num_classes: int = 0
    num_marks: int = 0
    packages: tuple[str, ...] = ("pillow",)

    @property
    def vocabulary(self) -> Vocabulary:
        """Words besides those of the captions."""
        return Vocabulary(MORE_WORDS.split(), {})

    @property
    def sizes(self) -> Mapping[str, PretrainSettings]:
        """The shipped recipes."""
        return SIZES

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The seeds of the phones."""
        return {"phone_seeds": [TRAIN_SEEDS.start, TRAIN_SEEDS.stop]}

    def wordings(self) -> list[list[str]]:
        """Returns the captions of the states, and the neutral ones."""
        return state_captions()

    def prepare(self, settings: PretrainSettings, resources: Resources) -> None:
        """Draws the screens to train on and to measure on."""
        for plan in (_plan(settings.num_frames), _held_out_plan(settings.num_evaluated)):
            open_stock(plan, resources)

    def open(self, settings: PretrainSettings, rng: np.random.Generator, resources: Resources) -> StockScenes:
        """Draws the stock of screens, or finds it."""
        stock = open_stock(_plan(settings.num_frames), resources)
        patches = load_patches(
            stock["frames"],
            functools.partial(model_inputs, size=settings.image_size or IMAGE_SIZE),
            settings.patch_size or PATCH_SIZE,
            resources.device,
        )
        return StockScenes(
            patches, np.array(stock["states"]), NUM_STATES, settings.batch_size, lambda rng, true: _ALL_STATES, None
        )

    def validation(self, num_frames: int, batch_size: int, resources: Resources) -> dict[str, Validation]:
        """Draws screens of phones that were not trained on, easy and hard ones apart."""
        stock = open_stock(_held_out_plan(num_frames), resources)
        found = {}
        for title, hard in (("drawn screens", False), ("drawn screens of hard phones", True)):
            rows = screen_rows(len(stock["frames"]), hard)[:num_frames]
            frames, states = stock["frames"][rows], stock["states"][rows]
            truth = np.zeros((len(rows), len(APPS)), dtype=bool)
            for app, state in OPEN.items():
                truth[:, list(APPS).index(app)] = (states == state).any(axis=1)
            goals = [goal_of(app) for app in APPS.values()]
            found[title] = Validation(goals, in_batches(frames, batch_size), truth)
        return found

    def describe(self, card: Mapping[str, Any]) -> CardText:
        """Says what the card of a model tells about OpenApp."""
        data = [
            "Trained contrastively from nothing on single screens of easy and hard phones, drawn with OpenApp's own code (seeds",
            f"below {card['phone_seeds'][1]:,}): apps in front, scrolled, under messages and notes, on their way, side by side,",
            "home pages, drawers and folders, with captions written from templates. No recorded episode and no other data was",
            "used.",
        ]
        return CardText(("openapp", "android"), _ABOUT, data, FAMILIES)


def _plan(num_frames: int) -> StockPlan:
    return StockPlan.of("openapp", draw_screens, FIELDS, num_frames)


def _held_out_plan(num_frames: int) -> StockPlan:
    """Half of the screens are of easy phones, half of hard ones."""
    draw = functools.partial(draw_screens, seeds=VALIDATION_SEEDS)
    return StockPlan.of("openapp-held-out", draw, FIELDS, 2 * num_frames)


def model_inputs(frames: Tensor, size: int) -> Tensor:
    """Stretches screens to the model's input; every fifth is put into a square before, as the domain's square frames are.

    Args:
        frames: [N, H, W, 3] uint8, higher than wide.
        size: S.

    Returns:
        [N, S, S, 3] uint8.
    """
    height, width = frames.shape[1:3]
    inputs = resize_frames(frames, size)
    framed = frames[::FRAMED_EVERY]
    squares = torch.empty(len(framed), height, height, 3, dtype=torch.uint8, device=frames.device)
    squares[:] = torch.tensor(FRAME_COLOUR, dtype=torch.uint8, device=frames.device)
    left = (height - width) // 2
    squares[:, :, left : left + width] = framed
    inputs = inputs.clone() if inputs is frames else inputs
    inputs[::FRAMED_EVERY] = resize_frames(squares, size)
    return inputs


_ALL_STATES = np.arange(NUM_STATES)

OPENAPP_PRETRAINING = OpenAppPretraining()
