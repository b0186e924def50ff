"""Frames, and the transitions between them, in two rings: the newest are kept, the oldest are given up a block at a time.

Rows have numbers that are never used twice. With a capacity of 6 and blocks of 2 a ring has 8 places, number i in place i modulo 8:

    place                    0   1   2   3   4   5   6   7
    8 rows are stored        0   1   2   3   4   5   6   7      count 8, first 0
    room is made for one             2   3   4   5   6   7      count 8, first 2: a block, rows 0 and 1, is given up
    it is stored             8       2   3   4   5   6   7      count 9, first 2: there is room for another

A transition is alive while it is kept and the frame before its action is.

Shape letters as in `offline_rl.interfaces`; here R rows.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike, DTypeLike

from vlm_rewards.offline_rl.interfaces import Batch, Spaces

FRAME_DTYPES: dict[str, np.dtype] = {"frames": np.dtype(np.uint8), "embeddings": np.dtype(np.float32)}
"""Of observations, by their kind."""


class Ring:
    """Numbered rows of named columns; see the module's picture.

    Args:
        columns: By name, the shape and the dtype of a row.
        capacity: Rows that are kept, at least.
        block: Rows that are given up at a time, so that what follows from it is done seldom.

    Attributes:
        size: Places of the arrays.
        count: Rows ever stored, which is the number of the next one.
        first: Number of the oldest row that is kept.
    """

    def __init__(self, columns: Mapping[str, tuple[tuple[int, ...], DTypeLike]], *, capacity: int, block: int) -> None:
        self.size = capacity + block
        self.count = 0
        self.first = 0
        self._block = block
        self._columns: dict[str, np.ndarray] = {
            name: np.zeros((self.size, *shape), dtype) for name, (shape, dtype) in columns.items()
        }

    @property
    def numbers(self) -> np.ndarray:
        """[R] int64, the rows that are in the arrays, those that are given up but not overwritten included."""
        return np.arange(max(0, self.count - self.size), self.count)

    def make_room(self, num_rows: int) -> bool:
        """Gives up blocks until `num_rows`, no more than the capacity, can be stored; whether any had to be."""
        before = self.first
        while self.count + num_rows - self.first > self.size:
            self.first += self._block
        return self.first > before

    def extend(self, num_rows: int, columns: Mapping[str, ArrayLike]) -> np.ndarray:
        """Stores rows, for which there is room.

        Args:
            num_rows: R.
            columns: Every column by name, [R, ...] or one value for all rows.

        Returns:
            [R] int64, their numbers.
        """
        assert columns.keys() == self._columns.keys(), "a row has a value in every column"
        assert self.count + num_rows - self.first <= self.size, "make room first"
        numbers = np.arange(self.count, self.count + num_rows)
        self.count += num_rows
        places = numbers % self.size
        for name, values in columns.items():
            self._columns[name][places] = values
        return numbers

    def read(self, name: str, numbers: np.ndarray) -> np.ndarray:
        """[R, ...], a copy of a column in the rows of these numbers."""
        return self._columns[name][numbers % self.size]

    def write(self, name: str, numbers: np.ndarray, values: ArrayLike) -> None:
        """Sets a column in the rows of these numbers to [R, ...] values, or to one."""
        self._columns[name][numbers % self.size] = values

    def state_dict(self, prefix: str) -> dict[str, np.ndarray]:
        """The columns as far as they were ever filled, as views, their names after a prefix; `count` and `first` go with them."""
        return {f"{prefix}{name}": values[: self.count] for name, values in self._columns.items()}

    def load_state_dict(self, state: Mapping[str, np.ndarray], prefix: str, *, count: int, first: int) -> None:
        """The inverse, into a ring of the same size."""
        for name, values in self._columns.items():
            saved = state[f"{prefix}{name}"]
            values[: len(saved)] = saved
        self.count, self.first = count, first


class TransitionRings:
    """The two rings, and which of the transitions can be sampled.

    Args:
        spaces: What the agent sees and does.
        goal_embeddings: [G, E] float32; the goals of transitions are rows of it.
        num_environments: Whose steps are stored together.
        capacity: Frames that are kept, at least.
        capacity_transitions: Transitions that are kept, at least, as far as their frames are.

    Attributes:
        frames: Ring of observations and, where the spaces have them, states.
        transitions: Ring of the frames before and after (their numbers), actions, goals, rewards and what follows from them.
    """

    def __init__(
        self,
        spaces: Spaces,
        goal_embeddings: np.ndarray,
        *,
        num_environments: int,
        capacity: int,
        capacity_transitions: int,
    ) -> None:
        frame: dict[str, tuple[tuple[int, ...], DTypeLike]] = {
            "observations": (spaces.observation_shape, FRAME_DTYPES[spaces.observation])
        }
        if spaces.state_size is not None:
            frame["states"] = ((spaces.state_size,), np.float32)
        self.frames = Ring(frame, capacity=capacity, block=max(2 * num_environments, capacity // 64))
        self.transitions = Ring(
            {
                "before": ((), np.int64),
                "after": ((), np.int64),
                "episode": ((), np.int64),
                "goal": ((), np.int32),
                "reward": ((), np.float32),
                "mask": ((), np.float32),
                "return": ((), np.float32),
                "success": ((), np.bool_),
                "status": ((), np.int8),
                "actions": ((), np.int64) if spaces.action_size is None else ((spaces.action_size,), np.float32),
            },
            capacity=capacity_transitions,
            block=max(num_environments, capacity_transitions // 64),
        )
        self._goal_embeddings = goal_embeddings
        self._has_states = spaces.state_size is not None
        self._ready = np.zeros(self.transitions.size, np.int64)  # what can be sampled: the first _num_ready
        self._num_ready = 0

    def __len__(self) -> int:
        """Transitions that can be sampled."""
        return self._num_ready

    def were_stored(self, transitions: np.ndarray) -> bool:
        """Whether all [R] numbers are, or once were, those of transitions."""
        return bool(((transitions >= 0) & (transitions < self.transitions.count)).all())

    def are_alive(self, transitions: np.ndarray) -> np.ndarray:
        """[R] bool, which of [R] transitions that were stored are still there with their frames."""
        kept = transitions >= self.transitions.first
        return kept & (self.transitions.read("before", transitions) >= self.frames.first)

    def make_room(self, num_frames: int, num_transitions: int) -> np.ndarray:
        """Gives up what is oldest, if it must, and samples it no more.

        Returns:
            [R] int64, all transitions in the ring that are no longer alive; empty where nothing had to be given up.
        """
        given_up = [self.frames.make_room(num_frames), self.transitions.make_room(num_transitions)]
        if not any(given_up):
            return np.zeros(0, np.int64)
        ready = self._ready[: self._num_ready]
        self._num_ready = 0
        self.release(ready[self.are_alive(ready)])
        numbers = self.transitions.numbers
        return numbers[~self.are_alive(numbers)]

    def extend_frames(
        self, last: np.ndarray, frames: Mapping[str, tuple[np.ndarray, np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Stores the frames before and after an action that are not there yet, for which there is room.

        Args:
            last: [B] int64, number of the frame before, if it was stored as the frame after another action; else -1.
            frames: By column, [B, ...] before and [B, ...] after.

        Returns:
            [B] int64, the frames before, and [B] int64, those after.
        """
        numbers = np.stack([last, last], axis=1)
        new = np.stack([last < self.frames.first, np.ones(len(last), np.bool_)], axis=1)
        numbers[new] = self.frames.extend(
            int(new.sum()), {name: np.stack(pair, axis=1)[new] for name, pair in frames.items()}
        )
        return numbers[:, 0], numbers[:, 1]

    def release(self, transitions: np.ndarray) -> None:
        """Lets [R] transitions be sampled from now on."""
        self._ready[self._num_ready : self._num_ready + len(transitions)] = transitions
        self._num_ready += len(transitions)

    def sample(self, batch_size: int, generator: np.random.Generator) -> Batch:
        """Draws B of the transitions that can be sampled, with replacement, all alike."""
        numbers = self._ready[generator.integers(0, self._num_ready, batch_size)]

        def column(name: str) -> np.ndarray:
            return self.transitions.read(name, numbers)

        def frame(name: str, which: str) -> torch.Tensor:
            return torch.from_numpy(self.frames.read(name, column(which)))

        return Batch(
            observations=frame("observations", "before"),
            actions=torch.from_numpy(column("actions")),
            rewards=torch.from_numpy(column("reward")),
            next_observations=frame("observations", "after"),
            masks=torch.from_numpy(column("mask")),
            goals=torch.from_numpy(self._goal_embeddings[column("goal")]),
            returns=torch.from_numpy(column("return")),
            successes=torch.from_numpy(column("success")),
            states=frame("states", "before") if self._has_states else None,
            next_states=frame("states", "after") if self._has_states else None,
        )

    def state_dict(self) -> dict[str, np.ndarray]:
        """The rings and what can be sampled, as views; `count` and `first` of the rings go with them."""
        return {
            **self.frames.state_dict("frames_"),
            **self.transitions.state_dict("slots_"),
            "ready": self._ready[: self._num_ready],
        }

    def load_state_dict(
        self, state: Mapping[str, np.ndarray], *, counts: Mapping[str, int], first: Mapping[str, int]
    ) -> None:
        """The inverse; `counts` of "frames" and "transitions", `first` of "frame" and "transition"."""
        self.frames.load_state_dict(state, "frames_", count=counts["frames"], first=first["frame"])
        self.transitions.load_state_dict(state, "slots_", count=counts["transitions"], first=first["transition"])
        self._num_ready = 0
        self.release(state["ready"])
