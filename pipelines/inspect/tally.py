"""What episodes hold, counted one by one: lengths, actions, rewards, instructions, truth, and which frame is missing."""

from collections import Counter
from collections.abc import Iterable
from typing import TypeVar

import numpy as np

from vlm_rewards.schemas.episodes import Episode
from vlm_rewards.schemas.goals import normalize_instruction

N = TypeVar("N", int, float)


class Tally:
    """Counts over episodes.

    Attributes:
        lengths: Number of episodes by their number of frames.
        num_steps: Number of steps of all episodes.
        cameras: Number of episodes that have a camera, by its name.
        missing_frames: Number of episodes by the frame that they lack: "none", "first" or "last"; or "no actions", where nothing
            tells.
        action_range: Least and greatest of discrete actions; None for none.
        reward_range: Least and greatest reward; None for none.
        instructions: Number of episodes by instruction, in the first spelling.
        num_without_instruction: Number of episodes without an instruction.
        num_changing: Number of episodes with several instructions.
        num_with_truth: Number of episodes with ground truth.
        achieved: Number of frames in which a goal holds, by its id.
    """

    def __init__(self) -> None:
        self.lengths: Counter[int] = Counter()
        self.num_steps = 0
        self.cameras: Counter[str] = Counter()
        self.missing_frames: Counter[str] = Counter()
        self.action_range: tuple[int, int] | None = None
        self.reward_range: tuple[float, float] | None = None
        self.instructions: Counter[str] = Counter()
        self.num_without_instruction = 0
        self.num_changing = 0
        self.num_with_truth = 0
        self.achieved: Counter[str] = Counter()
        self._spellings: dict[str, str] = {}

    def add(self, episode: Episode) -> None:
        """Counts what an episode holds, its instruction apart."""
        self.add_frames(episode)
        self.num_steps += episode.num_steps
        self.missing_frames[_missing_frame(episode)] += 1
        if episode.actions is not None and episode.actions.ndim == 1 and len(episode.actions):
            self.action_range = _wider(self.action_range, int(episode.actions.min()), int(episode.actions.max()))
        if episode.rewards is not None and len(episode.rewards):
            self.reward_range = _wider(self.reward_range, float(episode.rewards.min()), float(episode.rewards.max()))
        if episode.achieved_goals is not None:
            self.num_with_truth += 1
            self.achieved.update(goal for goals in episode.achieved_goals for goal in goals)

    def add_frames(self, episode: Episode) -> None:
        """Counts the frames of an episode of which nothing else could be read."""
        self.lengths[episode.num_frames] += 1
        self.cameras.update(episode.images.keys())

    def add_instructions(self, texts: Iterable[str | None]) -> None:
        """Counts the instruction of an episode, or several; or that it has none."""
        keys = {key: text or "" for text in texts if (key := normalize_instruction(text or ""))}
        self.instructions.update(self._spellings.setdefault(key, text) for key, text in keys.items())
        self.num_without_instruction += not keys
        self.num_changing += len(keys) > 1

    @property
    def num_episodes(self) -> int:
        """Number of episodes."""
        return self.lengths.total()

    @property
    def num_frames(self) -> int:
        """Number of frames of all episodes."""
        return sum(length * count for length, count in self.lengths.items())

    @property
    def median_length(self) -> float:
        """Median number of frames of an episode."""
        lengths = np.array(sorted(self.lengths))
        return float(np.median(np.repeat(lengths, [self.lengths[length] for length in lengths])))


def _missing_frame(episode: Episode) -> str:
    if episode.actions is None:
        return "no actions"
    return "first" if episode.lacks_first_frame else "none" if episode.has_final_frame else "last"


def _wider(bounds: tuple[N, N] | None, low: N, high: N) -> tuple[N, N]:
    return (low, high) if bounds is None else (min(bounds[0], low), max(bounds[1], high))
