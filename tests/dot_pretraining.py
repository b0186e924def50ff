"""How a tiny CLIP learns to read the toy domain of tests/dot_domain.py, in seconds."""

import itertools
from typing import ClassVar

import numpy as np
import torch
from dot_domain import COLOURS, CORNERS, GOALS, DotLevel

from vlm_rewards.labelers.domains.domain import Look
from vlm_rewards.labelers.domains.pretraining import CardText, SceneBatch, Validation, Vocabulary
from vlm_rewards.labelers.reference_models.architecture import normalise, patchify
from vlm_rewards.labelers.reference_models.recipe import PretrainSettings

PLACES = list(itertools.product(COLOURS, range(4), range(4)))


def _scenes():
    """One frame of every colour and cell [48, 32, 32, 3], and which goals hold [48, 12]."""
    level, frames, truth = DotLevel((32, 32), ("top",)), [], []
    for level.colour, *cell in PLACES:
        level.cell = tuple(cell)
        look: Look = level._look()
        frames.append(look.frames["top"])
        truth.append([goal.id in level.facts(look) for goal in GOALS.values()])
    return np.stack(frames), np.array(truth)


class DotScenes:
    """Every colour and cell as often as any other; goals that hold nowhere in a batch are scored in half of the batches."""

    def __init__(self, settings):
        frames, self.truth = _scenes()
        self.patches = normalise(torch.from_numpy(patchify(frames.reshape(-1, 4, 8, 4, 8, 3).swapaxes(2, 3))))
        self.num = settings.batch_size

    def draw(self, rng, kept):
        drawn = rng.integers(len(PLACES), size=self.num)
        cell = np.array([4 * row + column for _, row, column in PLACES])[drawn]
        wish = rng.random((self.num, 16))
        wish[np.arange(self.num), cell] += 1
        places = np.sort(np.argsort(-wish, axis=1)[:, :kept], axis=1)
        goals = self.truth[drawn]
        scored = np.flatnonzero(goals.any(axis=0) | (rng.random() < 0.5))
        truth = np.concatenate([goals, ~goals.any(axis=1, keepdims=True)], axis=1)
        states = np.append(scored, len(GOALS))
        colour = np.array([list(COLOURS).index(colour) for colour, *_ in PLACES])[drawn]
        shown = places == cell[:, None]
        return SceneBatch(
            patches=self.patches[drawn][torch.arange(self.num)[:, None], torch.from_numpy(places)],
            places=torch.from_numpy(places),
            states=states,
            truth=torch.from_numpy(truth[:, states]),
            classes=torch.from_numpy(np.where(shown, colour[:, None], -1)),
            marks=torch.from_numpy((shown & goals.any(axis=1)[:, None])[..., None]),
        )


class DotPretraining:
    """How the toy domain's model is trained."""

    prefix = "dot"
    image_size, patch_size, least_kept = 32, 8, 4
    num_classes, num_marks = len(COLOURS), 1
    vocabulary = Vocabulary(["agent"], {})
    packages: tuple[str, ...] = ()
    provenance: ClassVar = {"cells": 16}
    sizes: ClassVar = {
        "tiny": PretrainSettings(
            size="tiny",
            width=32,
            layers=2,
            heads=4,
            text_width=32,
            text_layers=1,
            text_heads=2,
            embedding=24,
            steps=300,
            batch_size=64,
            patches_kept=8,
            learning_rate=2e-3,
            warmup_steps=20,
            num_evaluated=48,
        )
    }

    def wordings(self):
        return [[goal.text, *goal.instructions] for goal in GOALS.values()] + [["the dot is in no corner"], ["a dot"]]

    def prepare(self, settings, resources):
        pass

    def open(self, settings, rng, resources):
        return DotScenes(settings)

    def validation(self, num_frames, batch_size, resources):
        frames, truth = _scenes()
        return {"drawn scenes": Validation(list(GOALS.values()), iter([frames[:num_frames]]), truth[:num_frames])}

    def describe(self, card):
        corners = {corner.split()[0]: None for corner in CORNERS}
        return CardText(["dot"], ["Reads dots."], [f"Trained on {card['cells']} cells."], list(corners))


DOT_PRETRAINING = DotPretraining()
