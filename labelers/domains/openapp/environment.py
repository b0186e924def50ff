"""OpenApp for Gymnasium: `gymnasium.make("vlm-rewards/OpenApp-v0")`."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from vlm_rewards.labelers.domains.openapp.domain import OPENAPP
from vlm_rewards.labelers.domains.openapp.levels import CAMERA, NUM_ACTIONS


class OpenAppEnvironment(gymnasium.Env):
    """A phone that is asked for an app. The reward is 1 when the app is in front, which ends the episode.

    The observation is the screen. Infos hold `mission`, the instruction, `goal_id`, and `app`, the app in front ("" where there is
    none). `reset(seed=s)` shows the phone that `Domain.make` shows for seed s; `reset(options={"goal_id": "open-chess"})` asks for
    that app, if the phone has it.

    Args:
        env: Name of the level.
        frame_size: (H, W) of the frames: one of (160, 96), (96, 96), (160, 160), (224, 224) and (320, 192).
        render_mode: "rgb_array" or None.

    Raises:
        ValueError: Frames are not drawn in this size, or the render mode is unknown.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self, env: str, frame_size: tuple[int, int] = OPENAPP.frame_sizes[0], render_mode: str | None = None
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"the render mode must be 'rgb_array' or None: got {render_mode!r}. Choose one of them")
        self.render_mode = render_mode
        size = (frame_size[0], frame_size[1])
        self._level = OPENAPP.make(env, frame_size=size, cameras=(CAMERA,))
        self.observation_space = Box(0, 255, (*size, 3), np.uint8)
        self.action_space = Discrete(NUM_ACTIONS)
        self._frame = np.zeros((*size, 3), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Takes the phone of a seed, or without one the next of a stream of phones.

        Raises:
            ValueError: The phone cannot be asked for the goal.
        """
        super().reset(seed=seed)
        look = self._level.reset(int(self.np_random.integers(2**31)) if seed is None else seed)
        goal_id = (options or {}).get("goal_id")
        if goal_id is not None:
            self._level.ask(goal_id)
        self._frame = look.frames[CAMERA]
        return self._frame.copy(), self._infos(look.state)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Acts; see `labelers.domains.openapp.levels`."""
        look, reward, terminated, truncated = self._level.step(int(action))
        self._frame = look.frames[CAMERA]
        return self._frame.copy(), reward, terminated, truncated, self._infos(look.state)

    def render(self) -> np.ndarray | None:
        """Returns the frame as it is, where the render mode is "rgb_array"."""
        return self._frame.copy() if self.render_mode == "rgb_array" else None

    def _infos(self, app: str | None) -> dict[str, Any]:
        return {"mission": self._level.mission, "goal_id": self._level.goals()[0], "app": app or ""}
