import itertools

import numpy as np
import pytest
from scipy import sparse

from vlm_rewards.labelers.quality.frame_samples import FrameSample, frame_keys, sample_frames

FIRES = np.array([[1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 1, 0]])
HOLDS = np.array([[0, 0, 1], [1, 1, 1], [0, 0, 1], [1, 0, 0]])
KEYS = np.array([5, 1, 3, 9], np.uint64)
TWO_FRAMES = 4  # bytes: 3 goals take a byte for what fires and one for what holds


def _sample(rows: list[int], max_bytes: int = 1 << 20) -> FrameSample:
    fires, holds = (sparse.csr_array(part[rows]) for part in (FIRES, HOLDS))
    return sample_frames(fires, holds, KEYS[rows], max_bytes)


def test_a_sample_of_all_frames_counts_every_pair() -> None:
    sample = _sample([0, 1, 2, 3])
    assert sample.keys.tolist() == [3, 5, 9]  # of the frames with a false positive, in the order of their keys
    assert sample.num_frames == 3
    assert sample.is_complete
    assert sample.fired.tolist() == [2, 2, 0]
    # Goal 0 fires in frames 0 and 2, where goal 2 holds; goal 1 in frames 2 and 3, where goals 2 and 0 hold.
    assert sample.pairs(slice(0, 3)).toarray().tolist() == [[0, 0, 2], [1, 0, 1], [0, 0, 0]]
    assert sample.pairs(slice(1, 2)).toarray().tolist() == [[1, 0, 1]]


def test_a_full_sample_keeps_the_frames_of_lowest_key() -> None:
    sample = _sample([0, 1, 2, 3], TWO_FRAMES)
    assert sample.keys.tolist() == [3, 5]  # frames 2 and 0
    assert not sample.is_complete
    assert sample.num_frames == 3
    assert sample.pairs(slice(0, 3)).toarray().tolist() == [[0, 0, 2], [0, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize("max_bytes", [TWO_FRAMES, 1 << 20])
def test_samples_merge_in_any_order(max_bytes: int) -> None:
    whole = _sample([0, 1, 2, 3], max_bytes)
    for order in itertools.permutations(range(4)):
        a, b, c, d = (_sample([row], max_bytes) for row in order)
        for merged in (((a + b) + c) + d, (a + b) + (c + d)):
            assert merged.num_frames == whole.num_frames
            for name in ("keys", "fires", "holds"):
                np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))


def test_keys_are_spread_and_the_same_everywhere() -> None:
    keys = frame_keys("episode-7", np.arange(10_000))
    assert keys[:2].tolist() == frame_keys("episode-7", np.arange(2)).tolist()
    assert len(set(keys.tolist()) | set(frame_keys("episode-8", np.arange(10_000)).tolist())) == 20_000
    # A quarter of the keys lies in each quarter of the range, within five standard deviations.
    shares = np.bincount((keys >> np.uint64(62)).astype(int), minlength=4)
    assert np.abs(shares - 2500).max() < 5 * np.sqrt(10_000 * 0.25 * 0.75)
