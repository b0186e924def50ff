"""Windows of pixels for encoders that look at several frames at once (video models).

    frame      o_0       o_1       o_2       o_3      V = 3, causal
    window     0 0 0     0 0 1     0 1 2     1 2 3    an episode begins with its first frame repeated

A frame that could not be read is in no window: the last V readable frames are. This is not `labelers.scoring.windows`, which takes
the mean over scores or embeddings of single frames.

Shape letters: V frames of a window, S sides of the encoder's input in pixels.
"""

from collections.abc import Hashable

import numpy as np


class FrameWindows:
    """Makes the window of each frame of one episode after the other. For one thread.

    Args:
        frames: V; 1 leaves frames as they are.
    """

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self._episode: Hashable = None
        self._recent: list[np.ndarray] = []

    def push(self, episode: Hashable, pixels: np.ndarray) -> np.ndarray:
        """Adds the next readable frame of an episode.

        Args:
            episode: Id of the episode; a new id begins a new window.
            pixels: `[S, S, 3]` uint8.

        Returns:
            `[V, S, S, 3]` uint8, the oldest frame first; the pixels themselves where V is 1.
        """
        if self._frames == 1:
            return pixels
        if episode != self._episode or not self._recent:
            self._episode, self._recent = episode, [pixels] * self._frames
        else:
            self._recent = [*self._recent[1:], pixels]
        return np.stack(self._recent)
