from pathlib import Path

import numpy as np
import pytest
from relabelled_folders import GOALS, one_camera, write_relabelled

from vlm_rewards.offline_rl.interfaces import Spaces
from vlm_rewards.offline_rl.online.buffer import OnlineBuffer
from vlm_rewards.offline_rl.replay.builder import build_replay
from vlm_rewards.offline_rl.replay.mixed_batches import mixed_sample

SPACES = Spaces(observation="frames", observation_shape=(8, 8, 3), goal_size=3, num_actions=41)


def test_half_offline_half_online(tmp_path: Path) -> None:
    replay = build_replay(write_relabelled(tmp_path / "relabelled", [[one_camera()]]), tmp_path / "replay", goals=GOALS)
    ring = OnlineBuffer(SPACES, GOALS.embeddings, num_environments=1, capacity=10)
    with pytest.raises(ValueError, match="must hold a transition to sample"):
        mixed_sample(replay, ring, 10, np.random.default_rng(0))
    gray = np.full((1, 8, 8, 3), 100, np.uint8)
    no = np.array([False])
    ring.add(gray, np.array([1]), gray, np.array([0]), np.array([1.0]), terminations=no, truncations=no)
    batch = mixed_sample(replay, ring, 10, np.random.default_rng(0))
    assert (batch.observations[:, 0, 0, 0] == 100).tolist() == [False] * 5 + [True] * 5
    assert batch.states is None
    for share, count in ((1.0, 0), (0.0, 10), (0.75, 2)):  # round(7.5) is 8, to the even number
        drawn = mixed_sample(replay, ring, 10, np.random.default_rng(0), offline_share=share)
        assert int((drawn.observations[:, 0, 0, 0] == 100).sum()) == count
    with pytest.raises(ValueError, match="offline_share must be from 0 to 1, got 2"):
        mixed_sample(replay, ring, 10, np.random.default_rng(0), offline_share=2)
    other = Spaces(observation="frames", observation_shape=(8, 8, 3), goal_size=3, num_actions=7)
    with pytest.raises(
        ValueError, match="the online buffer must have the num_actions that the agent was trained on, 41, got 7"
    ):
        mixed_sample(
            replay, OnlineBuffer(other, GOALS.embeddings, num_environments=1, capacity=10), 4, np.random.default_rng()
        )
