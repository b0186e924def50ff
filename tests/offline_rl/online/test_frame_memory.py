"""The memory of an agent: the last observations of each episode, and nothing of the episode before."""

import numpy as np

from vlm_rewards.offline_rl.online.frame_memory import FrameMemory


def numbers(*values: int) -> np.ndarray:
    return np.array([[value] for value in values], np.float32)  # [N, 1]: embeddings of one number


def test_it_holds_the_last_observations_of_an_episode_and_repeats_its_first() -> None:
    memory = FrameMemory(3, numbers(0, 10))
    assert memory.seen.tolist() == [[0, 0, 0], [10, 10, 10]]
    memory.add(numbers(1, 11))
    memory.add(numbers(2, 12))
    assert memory.seen.tolist() == [[0, 1, 2], [10, 11, 12]]
    memory.add(numbers(3, 13))
    memory.begin(numbers(3, 20), np.array([False, True]))
    assert memory.seen.tolist() == [[1, 2, 3], [20, 20, 20]]
    memory.add(numbers(4, 21))
    assert memory.seen.tolist() == [[2, 3, 4], [20, 20, 21]]
    resumed = FrameMemory(3, numbers(0, 0))
    resumed.load_state_dict(memory.state_dict())
    assert resumed.seen.tolist() == memory.seen.tolist()


def test_frames_are_joined_by_their_colours_and_one_frame_stays_as_it_is() -> None:
    first, second = (np.full((2, 4, 4, 3), value, np.uint8) for value in (7, 9))
    memory = FrameMemory(2, first)
    memory.add(second)
    assert memory.seen.shape == (2, 4, 4, 6)
    assert memory.seen[0, 0, 0].tolist() == [7, 7, 7, 9, 9, 9]
    alone = FrameMemory(1, first)
    alone.add(second)
    assert alone.seen is second
