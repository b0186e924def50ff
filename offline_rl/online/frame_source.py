"""Sources of a vector environment's frames, and the effect of its autoreset mode on the last frame of an episode.

    source           frames [N, H, W, 3] uint8
    "observation"    the observations themselves
    "render"         what the environments render; not with SAME_STEP, where the last frame is gone before it can be rendered
    a key            that part of a Dict observation

With SAME_STEP an environment that ends an episode returns the first observation of the next one, and the last one apart:

    observations     o_0'  of the next episode        ──► with_final ──►   o_T   where an episode ended
    final_obs        o_T   where an episode ended                          the observations elsewhere

Shape letters: N environments, H and W sides of a frame.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Space
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate


def autoreset_mode_of(env: VectorEnv) -> AutoresetMode:
    """Returns the autoreset mode that a vector environment says it has.

    Raises:
        ValueError: It says none.
    """
    if "autoreset_mode" not in env.metadata:
        raise ValueError(
            f"autoreset_mode must be in the metadata of the vector environment, got {sorted(env.metadata)}. Set "
            f"env.metadata['autoreset_mode'] to the gymnasium.vector.AutoresetMode that it has."
        )
    return AutoresetMode(env.metadata["autoreset_mode"])


class FrameSource:
    """The frames that N environments show; see the module's table.

    Args:
        env: Vector environment.
        source: "observation", "render" or a key of a Dict observation.

    Raises:
        ValueError: There are no RGB frames at this source.
    """

    def __init__(self, env: VectorEnv, source: str) -> None:
        self._env = env
        self._source = source
        if source != "render":
            _check_space(env, source)
        elif env.render_mode != "rgb_array":
            raise ValueError(
                f"render_mode must be 'rgb_array' where frames are rendered, got {env.render_mode!r}. Make the environments with "
                f"render_mode='rgb_array'."
            )
        elif autoreset_mode_of(env) is AutoresetMode.SAME_STEP:
            raise ValueError(
                "autoreset_mode must not be SAME_STEP where frames are rendered, got SAME_STEP. Make the vector environment with "
                "autoreset_mode=AutoresetMode.NEXT_STEP."
            )

    def __call__(self, observations: Any) -> np.ndarray:
        """Returns the frames of these observations, or the frames that the environments render now.

        Args:
            observations: [N, ...], what the environments returned last.

        Returns:
            [N, H, W, 3] uint8.

        Raises:
            ValueError: What is rendered is not that.
        """
        if self._source == "observation":
            return observations
        if self._source != "render":
            return observations[self._source]
        frames = np.array(self._env.render())
        if frames.ndim != 4 or frames.shape[3] != 3 or len(frames) != self._env.num_envs or frames.dtype != np.uint8:
            raise ValueError(
                f"rendered frames must be [{self._env.num_envs}, H, W, 3] uint8, got {list(frames.shape)} {frames.dtype}. Render "
                f"RGB frames, or take them from the observation."
            )
        return frames

    def with_final(self, observations: Any, infos: Mapping[str, Any], ended: np.ndarray) -> Any:
        """Returns the observations after the actions, whether or not an episode ended there.

        Args:
            observations: [N, ...], as returned by a step with SAME_STEP.
            infos: Infos of that step.
            ended: [N] bool, whether an episode ended.

        Raises:
            ValueError: The last observation of an episode is not in the infos.
        """
        space = self._env.single_observation_space
        rows = list(iterate(self._env.observation_space, observations))
        for index in np.flatnonzero(ended):
            if "final_obs" not in infos or infos["final_obs"][index] is None:
                raise ValueError(
                    f"final_obs must be in the infos of a step that ends and begins an episode, got {sorted(infos)} in environment "
                    f"{index}. Make the vector environment with autoreset_mode=AutoresetMode.NEXT_STEP."
                )
            rows[index] = infos["final_obs"][index]
        return concatenate(space, rows, create_empty_array(space, self._env.num_envs))


def _check_space(env: VectorEnv, source: str) -> None:
    whole = env.single_observation_space
    space: Space | None = whole if source == "observation" else whole.get(source) if isinstance(whole, Dict) else None
    if not (isinstance(space, Box) and len(space.shape) == 3 and space.shape[2] == 3 and space.dtype == np.uint8):
        raise ValueError(
            f"the frames {source!r} must be RGB, Box [H, W, 3] uint8, got the observation {whole}. Set frames to 'render' or to "
            f"the key of a Dict observation."
        )
