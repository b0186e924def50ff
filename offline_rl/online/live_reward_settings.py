"""Settings of live rewards."""

import dataclasses
from typing import TypedDict

from vlm_rewards.labelers.live import CACHE_BYTES
from vlm_rewards.schemas.options import as_declared


@dataclasses.dataclass(frozen=True, kw_only=True)
class LiveRewardSettings:
    """Settings of `LiveRewards`.

    Args:
        frames: Source of the frames that are judged: "observation", "render", or the key of a Dict observation.
        observation: Observations of the agent: "frames" for the observations of the environment as they are, "embeddings" for the
            labeler's embeddings of the frames.
        end_at_success: Whether a success ends the episode, as in the paper; only with autoreset mode DISABLED.
        hide_truth: Whether the rewards, infos and terminations of the environment are hidden; see the module's docstring.
        ignore_initial_success: Whether a goal that holds in the first frame counts as achieved only after it has ceased to hold, as
            in hindsight. False is the paper's rule, by which any first action then succeeds.
        asynchronous: Whether to score in a thread beside the environments. Then `step` returns rewards of 0 and `collect` brings
            the true ones. Not possible with end_at_success or with embeddings, which both need the scores at once.
        max_pending: Number of steps that may wait for their scores; `step` waits if there are more.
        camera: Camera of the frames; must be the labelled camera if `labels` are given.
        cache_bytes: Memory for the embeddings of earlier frames, in bytes; 0 for none.

    Raises:
        ValueError: Settings exclude each other, or one is out of its range.
    """

    frames: str = "observation"
    observation: str = "frames"
    end_at_success: bool = False
    hide_truth: bool = False
    ignore_initial_success: bool = False
    asynchronous: bool = False
    max_pending: int = 64
    camera: str | None = None
    cache_bytes: int = CACHE_BYTES

    def __post_init__(self) -> None:
        as_declared(self)
        if not self.frames:
            raise ValueError(
                "frames must be 'observation', 'render' or a key of the observation, got ''. Leave it out."
            )
        if self.observation not in ("frames", "embeddings"):
            raise ValueError(f"observation must be 'frames' or 'embeddings', got {self.observation!r}. Choose one.")
        if self.asynchronous and self.end_at_success:
            raise ValueError(
                "asynchronous must be False where a success ends the episode, got True. Set end_at_success=False, or leave it out."
            )
        if self.asynchronous and self.observation == "embeddings":
            raise ValueError(
                "asynchronous must be False where the agent sees embeddings, got True. The agent needs them before it can act."
            )
        if self.max_pending < 1:
            raise ValueError(f"max_pending must be at least 1, got {self.max_pending}. 64 is a good start.")


class LiveRewardKeywords(TypedDict, total=False):
    """`LiveRewardSettings` as keyword arguments."""

    frames: str
    observation: str
    end_at_success: bool
    hide_truth: bool
    ignore_initial_success: bool
    asynchronous: bool
    max_pending: int
    camera: str | None
    cache_bytes: int
