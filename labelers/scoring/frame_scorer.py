"""Scores embeddings against the targets of a labeler: all that a process needs that computes no embeddings itself.

Shape letters: N frames, C candidates, D size of an embedding, G goals.
"""

import dataclasses

import numpy as np

from vlm_rewards.labelers.scoring.formulas import Context, score_frames
from vlm_rewards.labelers.scoring.windows import EpisodeScorer, WindowSettings

_UNIT_TOLERANCE = 1e-3
_CHECK_ROWS = 1024  # embeddings whose lengths are checked at once, which bounds the memory of that


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FrameScorer:
    """The scoring half of a labeler: plain arrays and numbers, so that it can be sent to another process.

    Args:
        formula: Name of a formula.
        candidates: `[C, D]` float64, unit length in float32; the first G are the goals.
        context: Other inputs of the formula.
        window: Window of frames that a score looks at.
    """

    formula: str
    candidates: np.ndarray
    context: Context
    window: WindowSettings

    @property
    def dim(self) -> int:
        """D."""
        return self.candidates.shape[1]

    def score(self, embeddings: np.ndarray) -> np.ndarray:
        """Scores frames one by one, without their windows.

        Args:
            embeddings: `[N, D]` float32, unit length.

        Returns:
            `[N, G]` float32. Each row depends on its embedding alone, bit for bit.

        Raises:
            ValueError: The embeddings are not `[N, D]` float32, or not finite and of unit length.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.dim or embeddings.dtype != np.float32:
            raise ValueError(
                f"embeddings must be [N, {self.dim}] float32, got {list(embeddings.shape)} {embeddings.dtype}; embed the "
                f"frames with this labeler's model"
            )
        for start in range(0, len(embeddings), _CHECK_ROWS):
            rows = embeddings[start : start + _CHECK_ROWS]
            lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
            bad = ~(np.abs(lengths - 1.0) <= _UNIT_TOLERANCE)
            if bad.any():
                index = int(bad.argmax())
                raise ValueError(
                    f"embeddings must be finite and of unit length, got length {lengths[index]} in row {start + index}; embed the "
                    f"frames again"
                )
        return score_frames(self.formula, embeddings, self.candidates, self.context)

    def episodes(self) -> EpisodeScorer:
        """Returns what scores the frames of episodes in order, each by its window."""
        return EpisodeScorer(self.score, self.window)
