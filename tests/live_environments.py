"""Scripted environments and a labeler of a real tiny CLIP whose verdicts on their frames are known."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from tiny_models import save_tiny_clip

from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.schemas.goals import Goal

GOALS = (Goal("ball", "a red ball"), Goal("box", "a blue box"))


def frames(num: int, size: int = 32) -> np.ndarray:
    """Pictures that differ."""
    return np.random.default_rng(0).integers(0, 256, (num, size, size, 3), dtype=np.uint8)


def live_labeler(folder: Path, pool: np.ndarray, **changes: Any) -> tuple[Labeler, np.ndarray]:
    """A labeler, and which goals hold in which frames of the pool [F, G]: about half of the frames, by the threshold."""
    model = str(folder if (folder / "config.json").is_file() else save_tiny_clip(folder))
    given: dict[str, Any] = {
        "model": model,
        "goals": GOALS,
        "formula": "cosine",
        "precision": "float32",
        "batch_size": 4,
    }
    scores = Labeler.build(LabelerSettings(**given, threshold=0.0))(pool)
    ordered = np.sort(scores, axis=0)
    middle = len(pool) // 2
    thresholds = tuple(float(value) for value in (ordered[middle - 1] + ordered[middle]) / 2)
    labeler = Labeler.build(LabelerSettings(**given, threshold=thresholds, **changes))
    return labeler, scores > np.array(thresholds, np.float32)


class ScriptedEnv(gymnasium.Env):
    """Shows given frames one after the other, whatever the action, and ends with the last one.

    Args:
        script: F frames.
        goal_ids: The goals of its episodes, in turn.
        end: "terminated", "truncated", or "never".
        reward: Of every step.
        info: Of every step.
    """

    def __init__(
        self,
        script: np.ndarray,
        goal_ids: Sequence[str] = ("ball",),
        end: str = "truncated",
        reward: float = 0.0,
        info: dict[str, Any] | None = None,
    ) -> None:
        self.script, self.goal_ids, self.end, self.given_reward = script, goal_ids, end, reward
        self.info = {} if info is None else info
        self.observation_space = Box(0, 255, script.shape[1:], np.uint8)
        self.action_space = Discrete(3)
        self.episode, self.t = -1, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self.script[0], {"goal_id": self.goal_ids[self.episode % len(self.goal_ids)], **self.info}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        is_last = self.t >= len(self.script) - 1 and self.end != "never"
        frame = self.script[self.t % len(self.script)]
        return (
            frame,
            self.given_reward,
            is_last and self.end == "terminated",
            is_last and self.end == "truncated",
            self.info,
        )


def vector(*envs: gymnasium.Env, mode: AutoresetMode = AutoresetMode.DISABLED) -> SyncVectorEnv:
    """These environments in a vector."""
    return SyncVectorEnv([lambda env=env: env for env in envs], autoreset_mode=mode)  # type: ignore[misc]


class ShapesEnv(gymnasium.Env):
    """Frames in a Dict, which it also renders, and actions that the observation shows."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.observation_space = Dict({"camera": Box(0, 255, (8, 8, 3), np.uint8), "speed": Box(-1, 1, (2,))})
        self.action_space = Box(-1, 1, (2,), np.float32)
        self.shade = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.shade = int(self.np_random.integers(100))
        return self._observation(), {}

    def step(self, action):
        self.shade += 1
        self.last_action = action
        return self._observation(), 1.0, self.shade % 10 == 0, False, {}

    def render(self):
        return np.full((6, 6, 3), self.shade, np.uint8)

    def _observation(self):
        return {"camera": np.full((8, 8, 3), self.shade, np.uint8), "speed": np.zeros(2, np.float32)}


gymnasium.register("Shapes-v0", ShapesEnv)
