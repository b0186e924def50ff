"""Memory of an agent in N live environments: the last observations of each episode, joined as in a replay.

    observations of one environment    o_0          o_1          o_2          o_3  | o_0'
    seen with a frame_stack of 3       o_0 o_0 o_0  o_0 o_0 o_1  o_0 o_1 o_2  o_1 o_2 o_3 | o_0' o_0' o_0'

Shape letters: N environments, n frames in memory.
"""

from collections import deque

import numpy as np


class FrameMemory:
    """The last observations of N environments.

    Args:
        frame_stack: n, the number of observations that are seen at once.
        observations: [N, ...], the first observations of episodes in all environments.
    """

    def __init__(self, frame_stack: int, observations: np.ndarray) -> None:
        self._last = deque([observations] * frame_stack, maxlen=frame_stack)

    @property
    def seen(self) -> np.ndarray:
        """What the agent sees: [N, ...] with the last axis n times as long, the oldest observation first."""
        return self._last[0] if len(self._last) == 1 else np.concatenate(list(self._last), axis=-1)

    def add(self, observations: np.ndarray) -> None:
        """Takes in the observations [N, ...] after a step."""
        self._last.append(observations)

    def begin(self, observations: np.ndarray, begun: np.ndarray) -> None:
        """Takes in the first observations of episodes: of [N, ...] those where begun [N] bool is true; forgets what was before."""
        shape = (len(begun), *[1] * (observations.ndim - 1))
        for index, before in enumerate(self._last):
            self._last[index] = np.where(begun.reshape(shape), observations, before)

    def state_dict(self) -> np.ndarray:
        """Returns everything needed to resume: [n, N, ...]."""
        return np.stack(self._last)

    def load_state_dict(self, state: np.ndarray) -> None:
        """Restores what `state_dict` returned."""
        self._last.extend(state)
