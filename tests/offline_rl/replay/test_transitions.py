import numpy as np
import pytest
from labelled_corpora import relabelled

from vlm_rewards.offline_rl.replay.transitions import returns_to_go, transitions


def test_a_success_masks_what_follows() -> None:
    cut = transitions(relabelled(), 0)  # by hand, as in the module's picture
    assert cut.observations.tolist() == [1, 2, 3]
    assert cut.actions.tolist() == [10, 20, 30]
    assert cut.rewards.tolist() == [0, 0, 1]
    assert cut.next_observations.tolist() == [2, 3, 4]
    assert cut.masks.tolist() == [1, 1, 0]
    assert cut.ends.tolist() == [False, False, True]
    assert (cut.rewards.dtype, cut.masks.dtype, cut.observations.dtype) == (np.float32, np.float32, np.int64)


def test_the_end_of_the_recording_ends_a_segment_and_masks_nothing() -> None:
    cut = transitions(relabelled(), 1)
    assert cut.observations.tolist() == [0, 1, 2, 3, 4]
    assert cut.rewards.tolist() == [0] * 5
    assert cut.masks.tolist() == [1] * 5
    assert cut.ends.tolist() == [False] * 4 + [True]


def test_continuous_actions_keep_their_width() -> None:
    actions = np.arange(10, dtype=np.float32).reshape(5, 2)
    assert transitions(relabelled(actions=actions), 0).actions.tolist() == [[2, 3], [4, 5], [6, 7]]


def test_an_episode_without_actions_is_refused() -> None:
    with pytest.raises(ValueError, match="an episode must have actions to learn from, got none in 'a'"):
        transitions(relabelled(actions=None), 0)


def test_returns_by_hand() -> None:
    # 1 + 0.5 * 0 + 0.25 * 2; 0 + 0.5 * 2; 2
    assert returns_to_go(np.array([1, 0, 2]), 0.5).tolist() == [1.5, 1, 2]
    both = returns_to_go(np.array([[0, 1, 0], [4, 0, 0]]), 0.5)  # the zeros after an end change nothing
    assert both.tolist() == [[0.5, 1, 0], [4, 0, 0]]
    assert both.dtype == np.float32
    assert returns_to_go(np.array([3.0]), 0.9).tolist() == [3]
    assert returns_to_go(np.ones(2000), 0.99)[0] == pytest.approx((1 - 0.99**2000) / 0.01, rel=1e-6)
