import numpy as np
import pytest

from vlm_rewards.labelers.rewards.rewards import RuleProgress, advance, rewards_of_scores, successes
from vlm_rewards.schemas.rules import RewardRule


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)[:, None]


def test_rewards_look_at_the_next_frame() -> None:
    # frames o_0 .. o_3: only o_0 and o_2 show the goal. r_0 looks at o_1: 0. r_1 at o_2: 1. r_2 at o_3: 0. No reward for o_0.
    rewards = rewards_of_scores(column(0.9, 0.1, 0.8, 0.2), RewardRule(thresholds=(0.5,)))
    assert rewards.dtype == np.float32
    assert rewards.tolist() == [[0.0], [1.0], [0.0]]


def test_the_threshold_itself_is_not_enough() -> None:
    # Equation (2) says greater; 0.1 is compared as a float32, which the score 0.1 equals.
    scores = np.array([[0, 0], [0.1, 0.1], [0.2, 0.2]], dtype=np.float32)
    assert rewards_of_scores(scores, RewardRule(thresholds=(0.1, 0.1))).tolist() == [[0, 0], [1, 1]]
    assert rewards_of_scores(scores, RewardRule(thresholds=(0.1, 0.2))).tolist() == [[0, 0], [1, 0]]


def test_an_episode_of_one_frame_has_no_rewards() -> None:
    for reward in ("success", "score", "difference"):
        rule = RewardRule(thresholds=(0.5,) * 3, reward=reward)
        assert rewards_of_scores(np.zeros((1, 3), dtype=np.float32), rule).shape == (0, 3)


def test_a_flicker_neither_begins_nor_ends_a_success() -> None:
    # The picture of the module: .9 alone is a flicker; the success begins at the second frame over .5,
    # survives .45 > .4, ends at .2.
    scores = column(0.2, 0.9, 0.3, 0.9, 0.9, 0.45, 0.9, 0.2)
    rule = RewardRule(thresholds=(0.5,), min_frames=2, hysteresis=0.1)
    assert successes(scores, rule)[:, 0].tolist() == [False, False, False, False, True, True, True, False]


def test_without_hysteresis_a_success_ends_at_the_threshold() -> None:
    # Two frames over .5 begin it; .5 itself is not over and ends it; one frame over does not begin it again.
    rule = RewardRule(thresholds=(0.5,), min_frames=2)
    assert successes(column(0.6, 0.6, 0.5, 0.6), rule)[:, 0].tolist() == [False, True, False, False]


def naive_successes(scores: np.ndarray, threshold: float, release: float, min_frames: int) -> list[bool]:
    holds, run, result = False, 0, []
    for score in scores:
        run = run + 1 if score > threshold else 0
        holds = score > release if holds else run >= min_frames
        result.append(bool(holds))
    return result


@pytest.mark.parametrize(("hysteresis", "min_frames"), [(0.0, 1), (0.2, 1), (0.0, 3), (0.3, 2)])
def test_successes_equal_a_state_machine_and_are_causal(hysteresis: float, min_frames: int) -> None:
    scores = np.random.default_rng(0).random((200, 5)).astype(np.float32)
    rule = RewardRule(thresholds=(0.2, 0.4, 0.5, 0.6, 0.9), hysteresis=hysteresis, min_frames=min_frames)
    found = successes(scores, rule)
    for goal in range(5):
        release = np.float32(rule.thresholds[goal] - hysteresis)
        assert found[:, goal].tolist() == naive_successes(
            scores[:, goal], np.float32(rule.thresholds[goal]), release, min_frames
        )
    assert np.array_equal(successes(scores[:77], rule), found[:77])


def test_score_and_difference_by_hand() -> None:
    # .2 -> .7 -> .6: the frames after the actions are worth .7 and .6; the scores rose by .5 and fell by .1.
    scores = column(0.2, 0.7, 0.6)
    assert rewards_of_scores(scores, RewardRule(thresholds=(0.5,), reward="score")).ravel() == pytest.approx([0.7, 0.6])
    rule = RewardRule(thresholds=(0.5,), reward="difference")
    assert rewards_of_scores(scores, rule).ravel() == pytest.approx([0.5, -0.1])


def test_differences_add_up_to_the_rise_of_the_score() -> None:
    scores = np.random.default_rng(1).random((50, 4)).astype(np.float32)
    rewards = rewards_of_scores(scores, RewardRule(thresholds=(0.5,) * 4, reward="difference"))
    np.testing.assert_allclose(rewards.sum(axis=0), scores[-1] - scores[0], atol=1e-5)


def test_the_discount_of_bimi_by_hand() -> None:
    # A goal that fires in a fifth of the frames in which it does not hold: max(0, 1 - 2 x .2) = .6. One that fires in three of
    # five: max(0, 1 - 2 x .6) = 0.
    scores = np.array([[0, 0], [0.9, 0.9], [0.1, 0.1]], dtype=np.float32)
    rule = RewardRule(thresholds=(0.5, 0.5), reward="discounted", discount=2.0, fire_rates=(0.2, 0.6))
    assert rewards_of_scores(scores, rule) == pytest.approx(np.array([[0.6, 0.0], [0.0, 0.0]]))


def test_sparse_scores_cannot_be_a_dense_reward() -> None:
    with pytest.raises(
        ValueError, match=r"scores must all be known for the reward 'difference', got sparse labels; label again"
    ):
        rewards_of_scores(column(0.1, -np.inf), RewardRule(thresholds=(0.5,), reward="difference"))


@pytest.mark.parametrize("reward", ["success", "score", "difference"])
def test_a_score_that_is_no_number_is_refused(reward: str) -> None:
    with pytest.raises(
        ValueError, match="scores must be numbers, got NaN in frame 2 for goal 0; label these frames again"
    ):
        rewards_of_scores(column(0.1, 0.2, np.nan), RewardRule(thresholds=(0.5,), reward=reward))
    with pytest.raises(ValueError, match="got NaN in frame 0 for goal 0"):
        successes(column(np.nan), RewardRule(thresholds=(0.5,), min_frames=2))


def test_the_delta_of_minecraft_by_hand() -> None:
    # A goal and three negatives, N = 4: with P = .25, .5, .75 the shifted softmax is 0, .25, .5 and rises by .25 each step.
    scores = column(0.0, 0.25, 0.5)
    rewards = rewards_of_scores(scores, RewardRule(thresholds=(0.0,), reward="difference"))
    assert rewards.ravel().tolist() == [0.25, 0.25]


@pytest.mark.parametrize("min_frames", [1, 2, 3])
@pytest.mark.parametrize("hysteresis", [0.0, 0.2])
def test_blocks_of_frames_say_what_the_whole_episode_says(min_frames: int, hysteresis: float) -> None:
    rule = RewardRule(thresholds=(0.5, 0.6), min_frames=min_frames, hysteresis=hysteresis)
    scores = np.random.default_rng(0).choice(np.array([0.2, 0.45, 0.55, 0.9], np.float32), (40, 2))
    whole = successes(scores, rule)
    assert whole.any()
    assert not whole.all()
    for cut in (1, 7, 39):
        first, progress = advance(scores[:cut], rule, RuleProgress.start((2,)))
        second, _ = advance(scores[cut:], rule, progress)
        assert np.array_equal(np.concatenate([first, second]), whole), cut
