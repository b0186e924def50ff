"""Training of the playroom's reference models: their sizes, and batches from a stock of views.

    draw_views ──► stock of frames, ids and states ──► patches, and what each of them shows

A patch in which a toy is seen is labelled with the toy's kind, and marked with its colour, with whether it is found or lifted, and
with kinds and colours of the toys next to it.

Shape letters: N frames, S side of the model's input, L patches of a frame, Q toys of a frame at most, M marks.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlm_rewards.labelers.domains.playroom.goals import COLOURS, FAMILIES, NEUTRAL, NUM_TOYS, OBJECTS, TOYS, goal_bank
from vlm_rewards.labelers.domains.playroom.models.captions import (
    FIND,
    LIFT,
    MORE_WORDS,
    NUM_STATES,
    PAIR_STATE,
    choose_states,
    state_captions,
)
from vlm_rewards.labelers.domains.playroom.models.scenes import (
    FIELDS,
    FRAME_SIZE,
    TRAIN_SEEDS,
    VALIDATION_SEEDS,
    draw_views,
)
from vlm_rewards.labelers.domains.pretraining import CardText, Resources, Validation, Vocabulary, in_batches
from vlm_rewards.labelers.reference_models.architecture import resize_frames
from vlm_rewards.labelers.reference_models.recipe import PretrainSettings
from vlm_rewards.labelers.reference_models.stock import StockPlan, open_stock
from vlm_rewards.labelers.reference_models.stock_scenes import PatchLabels, StockScenes, load_patches
from vlm_rewards.schemas.goals import Goal

PATCH_SIZE = 8
NUM_PAIRS = 256
"""Pairs that a batch is scored against."""

NUM_MARKS = len(COLOURS) + 2 + len(OBJECTS) + len(COLOURS)
"""Colour of the toy, whether it is found, whether it is lifted, kinds and colours of those next to it."""

_SAMPLES = 6
_LEAST_SAMPLES = 5
_PART = 512

_SHARED: dict[str, Any] = {"num_frames": 150_000, "batch_size": 1024, "resized_share": 0.0, "num_resized": 0}

SIZES = {
    "s": PretrainSettings(
        size="s",
        width=64,
        layers=2,
        heads=4,
        text_width=64,
        text_layers=1,
        text_heads=4,
        embedding=32,
        steps=3000,
        learning_rate=2e-3,
        patch_size=12,
        patches_kept=32,
        **_SHARED,
    ),
    "m": PretrainSettings(
        size="m",
        width=96,
        layers=3,
        heads=4,
        text_width=96,
        text_layers=2,
        text_heads=4,
        embedding=64,
        steps=4000,
        learning_rate=1.5e-3,
        patches_kept=56,
        **_SHARED,
    ),
    "l": PretrainSettings(
        size="l",
        width=128,
        layers=5,
        heads=4,
        text_width=128,
        text_layers=2,
        text_heads=4,
        embedding=128,
        steps=6000,
        learning_rate=1.2e-3,
        patches_kept=56,
        stored="float16",
        **_SHARED,
    ),
    "xl": PretrainSettings(
        size="xl",
        width=224,
        layers=6,
        heads=7,
        text_width=128,
        text_layers=3,
        text_heads=4,
        embedding=192,
        steps=8000,
        patches_kept=56,
        stored="float16",
        **_SHARED,
    ),
}
"""The shipped recipes."""

_ABOUT = (
    "A small CLIP (`transformers.CLIPModel`) that labels what the agent of the playroom sees, 96x96 pixels or larger.",
    "It knows three families of goals over twelve kinds of toys in eight colours, in many wordings:",
    "",
    "- Find: *a red ball close to the camera*",
    "- Lift: *a red ball held up in the air*",
    "- Place: *a red ball next to a blue mug*",
    "",
    f"The neutral caption *{NEUTRAL}* lies between true and false captions in every frame: as a goal's only negative it makes the",
    "softmax the probability that the goal holds (threshold 0.5), whatever other goals hold.",
    "",
    "It judges what the frame shows, and knows nothing outside the playroom; for real images use a public CLIP checkpoint, through",
    "the same code.",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlayroomPretraining:
    """Training of the playroom's reference models; see `labelers.domains.pretraining.Pretraining`."""

    prefix: str = "playroom"
    image_size: int = FRAME_SIZE[0]
    patch_size: int = PATCH_SIZE
    least_kept: int = 1
    num_classes: int = len(OBJECTS)
    num_marks: int = NUM_MARKS
    packages: tuple[str, ...] = ("panda3d",)

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
        """The seeds of the rooms."""
        return {"room_seeds": [TRAIN_SEEDS.start, TRAIN_SEEDS.stop]}

    def wordings(self) -> list[list[str]]:
        """Returns the captions of the states, and the neutral ones."""
        return state_captions()

    def prepare(self, settings: PretrainSettings, resources: Resources) -> None:
        """Draws the views to train on and to measure on.

        Raises:
            ImportError: Panda3D is not installed.
        """
        for plan in (_plan(settings.num_frames), _held_out_plan(settings.num_evaluated)):
            open_stock(plan, resources)

    def open(self, settings: PretrainSettings, rng: np.random.Generator, resources: Resources) -> StockScenes:
        """Draws the stock of views, or finds it.

        Raises:
            ImportError: Panda3D is not installed.
        """
        stock = open_stock(_plan(settings.num_frames), resources)
        size, patch_size = settings.image_size or FRAME_SIZE[0], settings.patch_size or PATCH_SIZE
        prepare = functools.partial(resize_frames, size=size)
        return StockScenes(
            load_patches(stock["frames"], prepare, patch_size, resources.device),
            np.array(stock["states"]),
            NUM_STATES,
            settings.batch_size,
            functools.partial(choose_states, num_pairs=NUM_PAIRS),
            _all_labels(stock, size // patch_size, resources.device),
        )

    def validation(self, num_frames: int, batch_size: int, resources: Resources) -> dict[str, Validation]:
        """Draws views of rooms that were not trained on.

        Raises:
            ImportError: Panda3D is not installed.
        """
        stock = open_stock(_held_out_plan(num_frames), resources)
        frames, states = stock["frames"][:num_frames], stock["states"][:num_frames]
        goals = goal_bank("all")
        holds = np.zeros((num_frames, NUM_STATES + 1), dtype=bool)
        np.put_along_axis(holds, states.astype(np.int64), True, axis=1)  # the last one is of -1
        truth = holds[:, [_state_of(goal) for goal in goals]]
        return {"drawn views": Validation(goals, in_batches(frames, batch_size), truth)}

    def describe(self, card: Mapping[str, Any]) -> CardText:
        """Says what the card of a model tells about the playroom."""
        data = [
            f"Trained contrastively from nothing on {card['settings']['num_frames']:,} views of rooms (seeds below",
            f"{card['room_seeds'][1]:,}), drawn with the playroom's own renderer: poses anywhere, before toys, holding one, toys",
            "next to each other and nearly so, with captions written from templates. No recorded episode and no other data was",
            "used.",
        ]
        return CardText(("playroom", "panda3d"), _ABOUT, data, FAMILIES)


def _plan(num_frames: int) -> StockPlan:
    return StockPlan.of("playroom", draw_views, FIELDS, num_frames)


def _held_out_plan(num_frames: int) -> StockPlan:
    return StockPlan.of("playroom-held-out", functools.partial(draw_views, seeds=VALIDATION_SEEDS), FIELDS, num_frames)


def patch_labels(
    ids: Tensor, toys: Tensor, near: Tensor, held: Tensor, pairs: Tensor, side: int
) -> tuple[Tensor, Tensor]:
    """Says what the patches of frames show, from the picture of ids.

    Args:
        ids: [N, 64, 64] uint8, 1 plus the toy that a pixel shows, or 0.
        toys: [N, Q] int64, toys that are seen, filled up with -1.
        near: [N, Q] bool, whether a toy is found.
        held: [N, Q] bool, whether it is lifted.
        pairs: [N, R, 2] int64, pairs of toys next to each other, filled up with -1.
        side: Patches per side.

    Returns:
        [N, L] int8 kind of the toy, -1 for none, and [N, L, M] bool marks.
    """
    places = ((torch.arange(side * _SAMPLES, device=ids.device) + 0.5) * ids.shape[1] / (side * _SAMPLES)).long()
    samples = ids[:, places][:, :, places].unflatten(2, (side, _SAMPLES)).unflatten(1, (side, _SAMPLES))
    samples = samples.transpose(2, 3).flatten(3).flatten(1, 2)  # [N, L, samples of a patch]
    counts = torch.stack(
        [(samples == (toys[:, slot] + 1)[:, None, None]).sum(dim=2) for slot in range(toys.shape[1])], dim=2
    )
    counts = counts.masked_fill((toys < 0)[:, None], 0)
    most, slot = counts.max(dim=2)
    shown = most >= _LEAST_SAMPLES  # [N, L]
    toy = toys.gather(1, slot).clamp(min=0)

    beside = torch.zeros(len(ids), NUM_TOYS + 1, len(OBJECTS) + len(COLOURS), dtype=torch.bool, device=ids.device)
    frame = torch.arange(len(ids), device=ids.device)[:, None].expand(-1, pairs.shape[1])
    for one, other in ((0, 1), (1, 0)):
        here, there = pairs[..., one], pairs[..., other]  # -1 marks the last row, which no toy has
        beside[frame, here, there % len(OBJECTS)] = True
        beside[frame, here, len(OBJECTS) + there.clamp(min=0) // len(OBJECTS)] = True
    colour = toy[..., None] // len(OBJECTS) == torch.arange(len(COLOURS), device=ids.device)
    marks = torch.cat(
        [
            colour,
            near.gather(1, slot)[..., None],
            held.gather(1, slot)[..., None],
            beside.gather(1, toy[..., None].expand(-1, -1, beside.shape[2])),
        ],
        dim=2,
    )
    return torch.where(shown, toy % len(OBJECTS), -1).to(torch.int8), marks & shown[..., None]


def _all_labels(stock: Mapping[str, np.ndarray], side: int, device: str) -> PatchLabels:
    num_frames = len(stock["ids"])
    classes = torch.empty(num_frames, side**2, dtype=torch.int8, device=device)
    marks = torch.empty(num_frames, side**2, NUM_MARKS, dtype=torch.bool, device=device)
    for start in range(0, num_frames, _PART):
        rows = slice(start, start + _PART)
        ids, near, held = (torch.from_numpy(stock[name][rows].copy()).to(device) for name in ("ids", "near", "held"))
        toys, pairs = (torch.from_numpy(stock[name][rows].astype(np.int64)).to(device) for name in ("toys", "pairs"))
        classes[rows], marks[rows] = patch_labels(ids, toys, near, held, pairs, side)
    return PatchLabels(classes, marks)


def _state_of(goal: Goal) -> int:
    """Returns the state that a goal names."""
    told = goal.attributes
    toy = _TOY[f"{told['colour']} {told['object']}"]
    if goal.family == "place":
        return int(PAIR_STATE[toy, _TOY[f"{told['other colour']} {told['other object']}"]])
    return {"find": FIND, "lift": LIFT}[goal.family] + toy


_TOY = {name: number for number, name in enumerate(TOYS)}

PLAYROOM_PRETRAINING = PlayroomPretraining()
