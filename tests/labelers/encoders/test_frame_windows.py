import numpy as np

from vlm_rewards.labelers.encoders.frame_windows import FrameWindows


def pixels(value: int) -> np.ndarray:
    return np.full((1, 1, 3), value, np.uint8)


def test_a_window_holds_the_last_frames_of_its_episode_and_begins_with_the_first_repeated() -> None:
    windows = FrameWindows(3)
    found = [
        windows.push(episode, pixels(value))[:, 0, 0, 0].tolist()
        for episode, value in zip("aaaab", range(5), strict=True)
    ]
    assert found == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [4, 4, 4]]


def test_a_window_of_one_frame_is_the_frame() -> None:
    frame = pixels(1)
    assert FrameWindows(1).push("a", frame) is frame
