"""Batches of a replay as plain torch data, for a training loop of one's own.

    ReplayData ──► torch_batches(replay, batch_size, seed) ──► DataLoader(..., batch_size=None, num_workers=W) ──► dicts of tensors

Batch i depends on the seed and i alone. W workers take turns, so the batches and their order are the same for every W:

    batch       0   1   2   3   4   5  ...
    worker      0   1   2   0   1   2          W = 3
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from vlm_rewards.offline_rl.replay.replay import ReplayData
from vlm_rewards.schemas.goals import DEFAULT_SHARES


class ReplayBatches(IterableDataset):
    """Batches of a replay as dicts of tensors with the names of `Batch`; made by `torch_batches`."""

    def __init__(
        self, replay: ReplayData, batch_size: int, seed: int, mix: Sequence[float], start: int, num_batches: int | None
    ) -> None:
        self._replay = replay
        self._batch_size = batch_size
        self._seed = seed
        self._mix = tuple(mix)
        self._numbers = start, None if num_batches is None else start + num_batches

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        start, stop = self._numbers
        for number in itertools.islice(itertools.count(start), first, None, step):
            if stop is not None and number >= stop:
                return
            batch = self._replay.sample(self._batch_size, np.random.default_rng([self._seed, number]), self._mix)
            yield {name: value for name, value in batch._asdict().items() if value is not None}


def torch_batches(
    replay: ReplayData,
    batch_size: int,
    seed: int,
    *,
    mix: Sequence[float] = DEFAULT_SHARES,
    start: int = 0,
    num_batches: int | None = None,
) -> ReplayBatches:
    """Returns the batches of a replay as a torch dataset; see the module's picture.

    Args:
        replay: Open replay.
        batch_size: Transitions per batch.
        seed: Seed of the draws, at least 0.
        mix: Shares of original, hindsight and negative goals.
        start: Number of the first batch, to resume a loop.
        num_batches: Number of batches; None for no end.

    Returns:
        An iterable dataset of dicts from the fields of `Batch` to tensors; absent states are left out.

    Raises:
        ValueError: A number is out of range, or the mix is not one of the replay.
    """
    for name, value, least in (("batch_size", batch_size, 1), ("seed", seed, 0), ("start", start, 0)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}. Raise it.")
    replay.mix_in_force(mix)
    return ReplayBatches(replay, batch_size, seed, mix, start, num_batches)
