"""The playroom for Gymnasium: `gymnasium.make("vlm-rewards/Playroom-Find-v0")`."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from vlm_rewards.labelers.domains.domain import Look
from vlm_rewards.labelers.domains.playroom.domain import PLAYROOM
from vlm_rewards.labelers.domains.playroom.goals import CAMERA
from vlm_rewards.labelers.domains.playroom.world import ACTIONS


class PlayroomEnvironment(gymnasium.Env):
    """A room in which the agent is asked to find, lift or place a toy. The reward is 1 when that is done, which ends the episode.

    The observation is what the agent sees. Infos hold `mission`, the instruction, `goal_id`, and `achieved`, the ids of all goals
    that hold. `reset(seed=s)` shows the room that `Domain.make` shows for seed s; the option `{"goal_id": "find-red-ball"}` asks
    for that goal, if the room has it. Actions: 0 left, 1 right, 2 forward, 3 back, 4 grab, 5 drop.

    Args:
        env: Name of the level.
        frame_size: (H, W) of the frames: one of (96, 96), (224, 224), (64, 64), (128, 128) and (160, 160).
        render_mode: "rgb_array" or None.

    Raises:
        ImportError: Panda3D is not installed.
        ValueError: Frames are not drawn in this size, or the render mode is unknown.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 8}  # noqa: RUF012

    def __init__(
        self, env: str, frame_size: tuple[int, int] = PLAYROOM.frame_sizes[0], render_mode: str | None = None
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"the render mode must be 'rgb_array' or None: got {render_mode!r}. Choose one of them")
        self.render_mode = render_mode
        size = (frame_size[0], frame_size[1])
        self._level = PLAYROOM.make(env, frame_size=size, cameras=(CAMERA,))
        self.observation_space = Box(0, 255, (*size, 3), np.uint8)
        self.action_space = Discrete(len(ACTIONS))
        self._frame = np.zeros((*size, 3), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Takes the room of a seed, or without one the next of a stream of rooms.

        Raises:
            ValueError: The room cannot be asked for the goal.
        """
        super().reset(seed=seed)
        look = self._level.reset(int(self.np_random.integers(2**31)) if seed is None else seed)
        goal_id = (options or {}).get("goal_id")
        if goal_id is not None:
            self._level.ask(goal_id)
        self._frame = look.frames[CAMERA]
        return self._frame.copy(), self._infos(look)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Acts; see `labelers.domains.playroom.world`."""
        look, reward, terminated, truncated = self._level.step(int(action))
        self._frame = look.frames[CAMERA]
        return self._frame.copy(), reward, terminated, truncated, self._infos(look)

    def render(self) -> np.ndarray | None:
        """Returns the frame as it is, where the render mode is "rgb_array"."""
        return self._frame.copy() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Frees the room."""
        self._level.close()

    def _infos(self, look: Look) -> dict[str, Any]:
        return {
            "mission": self._level.mission,
            "goal_id": self._level.goals()[0],
            "achieved": sorted(self._level.facts(look)),
        }
