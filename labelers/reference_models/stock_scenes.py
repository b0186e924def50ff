"""Batches from a stock of frames (`labelers.reference_models.stock`), on a CPU or a GPU.

    frames [N, H, W, 3] ──► resized, cut into patches [N, L, P] uint8, on the device ──┐
    labels of patches, on the device ──────────────────────────────────────────────────┼──► SceneBatch, on the device
    true states [N, T], on the host ──► the states of the batch [C] ───────────────────┘

Shape letters: N frames of the stock, T true states of a frame at most, B frames of a batch, C states of a batch, S side of the
model's input in pixels, L all patches of a frame, K patches kept, P values per patch, M marks.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from vlm_rewards.labelers.domains.pretraining import SceneBatch
from vlm_rewards.labelers.reference_models.architecture import normalise

NO_STATE = -1
"""What fills up the true states of a frame."""

_FRAMES = 2048


class ChooseStates(Protocol):
    """Chooses the states that a batch is scored against, always as many."""

    def __call__(self, rng: np.random.Generator, true: np.ndarray) -> np.ndarray:
        """Returns [C] int64, each state once.

        Args:
            rng: Source of all randomness.
            true: [B, T] int16, the true states of each frame, filled up with `NO_STATE`.
        """


class PatchLabels(NamedTuple):
    """What the patches of all frames show.

    Attributes:
        classes: [N, L] int8, -1 for nothing to be learned.
        marks: [N, L, M] bool.
    """

    classes: Tensor
    marks: Tensor


class StockScenes:
    """Batches from a stock: a `labelers.domains.pretraining.Scenes`.

    Patches that show something to be learned are kept before others.

    Args:
        patches: [N, L, P] uint8, on the device; see `load_patches`.
        true: [N, T] int16, the true states of each frame, filled up with `NO_STATE`.
        num_states: Number of states.
        batch_size: B.
        choose: Chooses the states of each batch.
        labels: What the patches show; None where there is nothing to be learned from them.
    """

    def __init__(
        self,
        patches: Tensor,
        true: np.ndarray,
        num_states: int,
        batch_size: int,
        choose: ChooseStates,
        labels: PatchLabels | None,
    ) -> None:
        self._patches, self._true, self._labels = patches, np.ascontiguousarray(true), labels
        self._num_states, self._batch_size, self._choose = num_states, batch_size, choose
        self._random = torch.Generator(patches.device)

    def draw(self, rng: np.random.Generator, kept: int) -> SceneBatch:
        """Draws one batch; see `labelers.domains.pretraining.Scenes`."""
        device, num_patches = self._patches.device, self._patches.shape[1]
        drawn = rng.integers(len(self._true), size=self._batch_size)
        true = self._true[drawn]
        states = self._choose(rng, true)
        column = np.full(self._num_states + 1, len(states), dtype=np.int16)  # the last one is of NO_STATE
        column[states] = np.arange(len(states))
        columns = torch.from_numpy(column[true]).to(device).long()
        truth = torch.zeros(self._batch_size, len(states) + 1, dtype=torch.bool, device=device)
        truth.scatter_(1, columns, torch.ones_like(columns, dtype=torch.bool))

        self._random.manual_seed(int(rng.integers(2**62)))
        rows = torch.from_numpy(drawn).to(device)[:, None]
        wish = torch.rand(self._batch_size, num_patches, generator=self._random, device=device)
        if self._labels is not None:
            wish += self._labels.classes[rows[:, 0]] >= 0
        places = wish.topk(kept, dim=1).indices.sort(dim=1).values
        if self._labels is None:
            classes = torch.full_like(places, -1)
            marks = torch.zeros(*places.shape, 0, dtype=torch.bool, device=device)
        else:
            classes, marks = self._labels.classes[rows, places].long(), self._labels.marks[rows, places]
        return SceneBatch(
            patches=normalise(self._patches[rows, places]),
            places=places,
            states=states,
            truth=truth[:, :-1],
            classes=classes,
            marks=marks,
        )


def cut_patches(frames: Tensor, patch_size: int) -> Tensor:
    """Cuts frames into patches, channel-major as in a convolution's kernel.

    Args:
        frames: [N, S, S, 3].
        patch_size: Height and width of a patch in pixels.

    Returns:
        [N, L, P].
    """
    num, size = frames.shape[:2]
    side = size // patch_size
    cut = frames[:, : side * patch_size, : side * patch_size].reshape(num, side, patch_size, side, patch_size, 3)
    return cut.permute(0, 1, 3, 5, 2, 4).reshape(num, side**2, 3 * patch_size**2)


def load_patches(frames: np.ndarray, prepare: Callable[[Tensor], Tensor], patch_size: int, device: str) -> Tensor:
    """Brings frames to the device, part by part, as patches of the model's input.

    Args:
        frames: [N, H, W, 3] uint8.
        prepare: Makes inputs of the model, [n, S, S, 3] uint8, of some frames, [n, H, W, 3] uint8 on the device.
        patch_size: Height and width of a patch in pixels.
        device: The device.

    Returns:
        [N, L, P] uint8.
    """
    patches: Tensor | None = None
    for start in range(0, len(frames), _FRAMES):
        part = torch.from_numpy(np.array(frames[start : start + _FRAMES])).to(device)
        cut = cut_patches(prepare(part), patch_size)
        if patches is None:  # made once: two copies need not fit
            patches = torch.empty(len(frames), *cut.shape[1:], dtype=torch.uint8, device=device)
        patches[start : start + _FRAMES] = cut
    assert patches is not None
    return patches
