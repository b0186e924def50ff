"""Two ring buffers: frames, and the transitions between them. The newest rows are kept; the oldest are given up in blocks.

Row numbers are never reused. With a capacity of 6 and blocks of 2, a ring has 8 places, and row i is in place i modulo 8:

    place                       0   1   2   3   4   5   6   7
    8 rows are stored           0   1   2   3   4   5   6   7      count 8, first 0
    room is made for one more           2   3   4   5   6   7      count 8, first 2: a block, rows 0 and 1, is given up
    it is stored                8       2   3   4   5   6   7      count 9, first 2: there is room for another

How a transition finds its frames, and how a draw finds a transition:

    frames         0     1     2     3          o_0 .. o_3, each stored once
                   ▲     ▲▲    ▲▲    ▲
    transitions    before, after: (0, 1) (1, 2) (2, 3)       goal, action, reward, mask, return, success beside them
                              ▲
    ready          [5, 0, 7, 2, ...]  numbers of the transitions that can be sampled; a draw is a uniform place in this list

A transition is alive while it and the frame before its action are kept; for an agent that sees n frames at once, also the n - 1
frames before that one. Every frame then knows the one before it in its episode, the first frame of an episode itself.

Shape letters as in `offline_rl.interfaces`; here R rows.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike, DTypeLike

from vlm_rewards.offline_rl.interfaces import Batch, Spaces

FRAME_DTYPES: dict[str, np.dtype] = {"frames": np.dtype(np.uint8), "embeddings": np.dtype(np.float32)}
"""Dtype of an observation by its kind."""


class Ring:
    """Numbered rows with named columns; see the module's first picture.

    Args:
        columns: Shape and dtype of a row, by column name.
        capacity: Minimum number of rows that are kept.
        block: Number of rows that are given up at a time, so that its consequences are seldom computed.

    Attributes:
        size: Number of places in the arrays.
        count: Number of rows ever stored, which is the number of the next row.
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

    def make_room(self, num_rows: int) -> bool:
        """Gives up blocks until `num_rows` (at most the capacity) fit; returns whether any were given up."""
        before = self.first
        while self.count + num_rows - self.first > self.size:
            self.first += self._block
        return self.first > before

    def extend(self, num_rows: int, columns: Mapping[str, ArrayLike]) -> np.ndarray:
        """Stores rows that there is room for.

        Args:
            num_rows: R.
            columns: Every column by name, [R, ...] or one value for all rows.

        Returns:
            [R] int64, the row numbers.
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
        """Returns [R, ...], a copy of a column for the given row numbers."""
        return self._columns[name][numbers % self.size]

    def write(self, name: str, numbers: np.ndarray, values: ArrayLike) -> None:
        """Sets a column for the given row numbers to [R, ...] values, or to one value."""
        self._columns[name][numbers % self.size] = values

    def state_dict(self, prefix: str) -> dict[str, np.ndarray]:
        """Returns views of the filled part of each column, keyed by prefix and name; `count` and `first` are saved beside them."""
        return {f"{prefix}{name}": values[: self.count] for name, values in self._columns.items()}

    def load_state_dict(self, state: Mapping[str, np.ndarray], prefix: str, *, count: int, first: int) -> None:
        """Restores what `state_dict` returned, into a ring of the same size."""
        for name, values in self._columns.items():
            saved = state[f"{prefix}{name}"]
            values[: len(saved)] = saved
        self.count, self.first = count, first


class TransitionRings:
    """The ring of frames, the ring of transitions, and the list of transitions that can be sampled; see the module's pictures.

    Args:
        spaces: Observations and actions of the agent.
        goal_embeddings: [G, E] float32; transitions name a goal by its row.
        num_environments: Number of environments whose steps are stored together.
        capacity: Minimum number of frames to keep.
        capacity_transitions: Minimum number of transitions to keep, as long as their frames are kept.

    Attributes:
        frames: Ring of observations and, if the spaces have them, states.
        transitions: Ring of the frame numbers before and after, goals, actions, rewards and the values computed from them.
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
        self._frame_stack = spaces.frame_stack
        if self._frame_stack > 1:
            frame["previous"] = ((), np.int64)
        if spaces.state_size is not None:
            frame["states"] = ((spaces.state_size,), np.float32)
        self.frames = Ring(frame, capacity=capacity, block=max(2 * num_environments, capacity // 64))
        self.transitions = Ring(
            {
                "before": ((), np.int64),
                "after": ((), np.int64),
                "goal": ((), np.int32),
                "reward": ((), np.float32),
                "mask": ((), np.float32),
                "return": ((), np.float32),
                "success": ((), np.bool_),
                "actions": ((), np.int64) if spaces.action_size is None else ((spaces.action_size,), np.float32),
            },
            capacity=capacity_transitions,
            block=max(num_environments, capacity_transitions // 64),
        )
        self._goal_embeddings = goal_embeddings
        self._has_states = spaces.state_size is not None
        self._ready = np.zeros(self.transitions.size, np.int64)  # the first _num_ready can be sampled
        self._num_ready = 0

    def __len__(self) -> int:
        """Returns the number of transitions that can be sampled."""
        return self._num_ready

    def were_stored(self, transitions: np.ndarray) -> bool:
        """Returns whether each of the [R] numbers is, or once was, the number of a transition."""
        return bool(((transitions >= 0) & (transitions < self.transitions.count)).all())

    def are_alive(self, transitions: np.ndarray) -> np.ndarray:
        """Returns [R] bool, which of the [R] stored transitions are still there with their frames."""
        kept = transitions >= self.transitions.first
        frames = self.transitions.read("before", transitions)
        kept &= frames >= self.frames.first
        for _ in range(self._frame_stack - 1):
            frames = self._previous(frames)
            kept &= frames >= self.frames.first
        return kept

    def make_room(self, num_frames: int, num_transitions: int) -> bool:
        """Gives up the oldest rows if needed, and stops sampling what depends on them; returns whether any were given up."""
        given_up = [self.frames.make_room(num_frames), self.transitions.make_room(num_transitions)]
        if not any(given_up):
            return False
        ready = self._ready[: self._num_ready]
        self._num_ready = 0
        self.release(ready[self.are_alive(ready)])
        return True

    def extend_frames(
        self, last: np.ndarray, frames: Mapping[str, tuple[np.ndarray, np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Stores the frames before and after an action that are not stored yet; there must be room for them.

        Args:
            last: [B] int64, number of the frame before, if it is stored as the frame after the previous action; else -1.
            frames: Pairs of [B, ...] before and [B, ...] after, by column.

        Returns:
            [B] int64, the frames before, and [B] int64, those after.
        """
        # One row per environment: (before, after). `after` is always new, `before` only at the start of an episode or where the
        # ring has given it up; new frames get their numbers environment by environment, before and then after.
        numbers = np.stack([last, last], axis=1)
        new = np.stack([last < self.frames.first, np.ones(len(last), np.bool_)], axis=1)
        columns: dict[str, ArrayLike] = {name: np.stack(pair, axis=1)[new] for name, pair in frames.items()}
        if self._frame_stack > 1:
            columns["previous"] = 0
        numbers[new] = self.frames.extend(int(new.sum()), columns)
        if self._frame_stack > 1:
            before, after = numbers.T
            self.frames.write("previous", before[new[:, 0]], before[new[:, 0]])
            self.frames.write("previous", after, before)
        return numbers[:, 0], numbers[:, 1]

    def _previous(self, frames: np.ndarray) -> np.ndarray:
        """Returns the frames before [R] frames in their episodes; those that are given up stand for all before them."""
        return np.where(frames < self.frames.first, frames, self.frames.read("previous", frames))

    def release(self, transitions: np.ndarray) -> None:
        """Makes the [R] transitions available to `sample`."""
        self._ready[self._num_ready : self._num_ready + len(transitions)] = transitions
        self._num_ready += len(transitions)

    def sample(self, batch_size: int, generator: np.random.Generator) -> Batch:
        """Draws transitions uniformly, with replacement, among those that can be sampled."""
        numbers = self._ready[generator.integers(0, self._num_ready, batch_size)]

        def column(name: str) -> np.ndarray:
            return self.transitions.read(name, numbers)

        def frame(name: str, which: str) -> torch.Tensor:
            return torch.from_numpy(self.frames.read(name, column(which)))

        def seen(which: str) -> torch.Tensor:
            if self._frame_stack == 1:
                return frame("observations", which)
            stack = [column(which)]
            for _ in range(self._frame_stack - 1):
                stack.insert(0, self._previous(stack[0]))
            return torch.from_numpy(np.concatenate([self.frames.read("observations", one) for one in stack], axis=-1))

        return Batch(
            observations=seen("before"),
            actions=torch.from_numpy(column("actions")),
            rewards=torch.from_numpy(column("reward")),
            next_observations=seen("after"),
            masks=torch.from_numpy(column("mask")),
            goals=torch.from_numpy(self._goal_embeddings[column("goal")]),
            returns=torch.from_numpy(column("return")),
            successes=torch.from_numpy(column("success")),
            states=frame("states", "before") if self._has_states else None,
            next_states=frame("states", "after") if self._has_states else None,
        )

    def state_dict(self) -> dict[str, np.ndarray]:
        """Returns views of both rings and of the list `ready`; `count` and `first` of the rings are saved beside them."""
        return {
            **self.frames.state_dict("frames_"),
            **self.transitions.state_dict("slots_"),
            "ready": self._ready[: self._num_ready],
        }

    def load_state_dict(
        self, state: Mapping[str, np.ndarray], *, counts: Mapping[str, int], first: Mapping[str, int]
    ) -> None:
        """Restores what `state_dict` returned.

        Args:
            state: The arrays.
            counts: Counts of the rings, under "frames" and "transitions".
            first: First rows of the rings, under "frame" and "transition".
        """
        self.frames.load_state_dict(state, "frames_", count=counts["frames"], first=first["frame"])
        self.transitions.load_state_dict(state, "slots_", count=counts["transitions"], first=first["transition"])
        self._num_ready = 0
        self.release(state["ready"])
