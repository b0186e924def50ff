"""Levels of a domain as environments of Gymnasium; a domain's own class adds its infos, and says what is asked for."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from vlm_rewards.labelers.domains.domain import Domain, FrameSize, Look


class DomainEnvironment(gymnasium.Env):
    """A level of a domain. The reward is 1 when what is asked for is done, which ends the episode.

    The observation is the frame of the domain's first camera. Infos hold `mission`, the instruction, and `goal_id`. `reset(seed=s)`
    shows what `Domain.make` shows for seed s; `reset(options={"goal_id": ID})` asks for that goal, if the episode has it.

    Args:
        domain: The domain.
        env: Name of the level.
        frame_size: (H, W) of the frames, one of the domain's.
        render_mode: "rgb_array" or None.

    Raises:
        ImportError: What the domain needs is not installed.
        ValueError: Frames are not drawn in this size, or the render mode is unknown.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(self, domain: Domain, env: str, frame_size: FrameSize, render_mode: str | None) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"the render mode must be 'rgb_array' or None: got {render_mode!r}. Choose one of them")
        self.render_mode = render_mode
        self._camera = domain.cameras[0]
        size = (frame_size[0], frame_size[1])
        self._level = domain.make(env, frame_size=size, cameras=(self._camera,))
        self.observation_space = Box(0, 255, (*size, 3), np.uint8)
        self.action_space = Discrete(self._level.num_actions)
        self._frame = np.zeros((*size, 3), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins the episode of a seed, or without one the next of a stream of episodes.

        Raises:
            ValueError: The episode cannot be asked for the goal.
        """
        super().reset(seed=seed)
        look = self._level.reset(int(self.np_random.integers(2**31)) if seed is None else seed)
        goal_id = (options or {}).get("goal_id")
        if goal_id is not None:
            self._level.ask(goal_id)
        return self._show(look)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Acts; what an action does is said by the domain's levels."""
        look, reward, terminated, truncated = self._level.step(int(action))
        frame, infos = self._show(look)
        return frame, reward, terminated, truncated, infos

    def render(self) -> np.ndarray | None:
        """Returns the frame as it is, where the render mode is "rgb_array"."""
        return self._frame.copy() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Frees what the level holds."""
        self._level.close()

    def infos(self, look: Look) -> dict[str, Any]:
        """Returns what a domain tells beside the mission and its goal; by default nothing."""
        return {}

    def _show(self, look: Look) -> tuple[np.ndarray, dict[str, Any]]:
        self._frame = look.frames[self._camera]
        told = {"mission": self._level.mission, "goal_id": self._level.goals()[0]}
        return self._frame.copy(), {**told, **self.infos(look)}
