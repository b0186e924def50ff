from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from live_environments import ScriptedEnv, ShapesEnv, frames, vector

from vlm_rewards.offline_rl.online.frame_source import FrameSource, autoreset_mode_of

POOL = frames(4)


class GrayscaleEnv(gymnasium.Env):
    """Renders one channel."""

    render_mode = "rgb_array"
    observation_space = Box(0, 1, (2,))
    action_space = Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        return np.zeros(2, np.float32), {}

    def render(self) -> Any:
        return np.zeros((4, 4), np.uint8)


class LastFramesLostEnv(VectorEnv):
    """Says that it resets in the same step, without the last observations."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012
    num_envs = 1
    single_observation_space = Box(0, 255, (2, 2, 3), np.uint8)
    observation_space = Box(0, 255, (1, 2, 2, 3), np.uint8)


def test_the_observations_themselves() -> None:
    env = vector(ScriptedEnv(POOL))
    observations, _ = env.reset()
    np.testing.assert_array_equal(FrameSource(env, "observation")(observations), POOL[:1])


def test_a_part_of_the_observation_or_what_is_rendered() -> None:
    env = vector(ShapesEnv("rgb_array"), ShapesEnv("rgb_array"))
    observations, _ = env.reset(seed=[1, 2])
    np.testing.assert_array_equal(FrameSource(env, "camera")(observations), observations["camera"])
    rendered = FrameSource(env, "render")(observations)
    assert (rendered.shape, rendered.dtype) == ((2, 6, 6, 3), np.uint8)
    assert rendered[:, 0, 0, 0].tolist() == observations["camera"][:, 0, 0, 0].tolist()


@pytest.mark.parametrize("source", ["observation", "speed", "wrist"])
def test_what_is_no_rgb_frame_is_refused(source: str) -> None:
    with pytest.raises(
        ValueError, match=rf"the frames '{source}' must be RGB, Box \[H, W, 3\] uint8, .* Set frames to 'r"
    ):
        FrameSource(vector(ShapesEnv()), source)


def test_frames_that_cannot_be_rendered_are_refused() -> None:
    with pytest.raises(
        ValueError, match="render_mode must be 'rgb_array' where frames are rendered, got None. Make the"
    ):
        FrameSource(vector(ShapesEnv()), "render")
    with pytest.raises(
        ValueError, match="autoreset_mode must not be SAME_STEP where frames are rendered, got SAME_STEP"
    ):
        FrameSource(vector(ShapesEnv("rgb_array"), mode=AutoresetMode.SAME_STEP), "render")
    gray = vector(GrayscaleEnv())
    with pytest.raises(
        ValueError, match=r"rendered frames must be \[1, H, W, 3\] uint8, got \[1, 4, 4\] uint8. Render RGB"
    ):
        FrameSource(gray, "render")(gray.reset()[0])


def test_the_last_observation_of_an_episode_is_put_back_in_its_place() -> None:
    env = vector(ShapesEnv(), ShapesEnv(), mode=AutoresetMode.SAME_STEP)
    env.reset(seed=[1, 2])
    while True:
        observations, _, ended, _, infos = env.step(np.zeros((2, 2), np.float32))
        if ended.any():
            break
    after = FrameSource(env, "camera").with_final(observations, infos, ended)
    for index in range(2):
        expected = (
            infos["final_obs"][index] if ended[index] else {key: observations[key][index] for key in observations}
        )
        for key in ("camera", "speed"):
            np.testing.assert_array_equal(after[key][index], expected[key])
    assert after["camera"][ended][0, 0, 0, 0] % 10 == 0  # the episode ends at a shade that ten divides


def test_a_last_observation_that_is_nowhere_is_refused() -> None:
    env = LastFramesLostEnv()
    observations = np.zeros((1, 2, 2, 3), np.uint8)
    with pytest.raises(
        ValueError, match=r"final_obs must be in the infos .* got \['lives'\] in environment 0. Make the"
    ):
        FrameSource(env, "observation").with_final(observations, {"lives": np.ones(1)}, np.array([True]))


def test_environments_that_do_not_say_when_they_reset_are_refused() -> None:
    env = vector(ScriptedEnv(POOL), mode=AutoresetMode.SAME_STEP)
    assert autoreset_mode_of(env) is AutoresetMode.SAME_STEP
    env.metadata = {"render_fps": 10}
    with pytest.raises(
        ValueError, match=r"autoreset_mode must be in the metadata .* got \['render_fps'\]. Set env.meta"
    ):
        autoreset_mode_of(env)
