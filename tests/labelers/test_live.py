import numpy as np
import pytest
from live_environments import frames, live_labeler

from vlm_rewards.labelers.live import FrameEmbedder, RewardMonitor, RuleState, check_labeler
from vlm_rewards.labelers.rewards.rewards import rewards_of_scores, successes
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.rules import RewardRule

RULES = {
    "success": RewardRule(thresholds=(0.5, 0.4)),
    "steady": RewardRule(thresholds=(0.5, 0.4), hysteresis=0.15, min_frames=3),
    "score": RewardRule(thresholds=(0.5, 0.4), reward="score"),
    "difference": RewardRule(thresholds=(0.5, 0.4), reward="difference"),
    "discounted": RewardRule(thresholds=(0.5, 0.4), reward="discounted", discount=2.0, fire_rates=(0.1, 0.3)),
}


@pytest.fixture(scope="module")
def labeler(tmp_path_factory):
    return live_labeler(tmp_path_factory.mktemp("clip"), frames(8))[0]


@pytest.mark.parametrize("name", RULES)
def test_the_rule_a_frame_at_a_time_says_what_it_says_of_whole_episodes(name):
    rule, rng = RULES[name], np.random.default_rng(0)
    episodes = [rng.random((int(rng.integers(2, 40)), 2)).astype(np.float32) for _ in range(30)]
    state, rows = RuleState(rule, 3), [1, 0, 2]
    for scores in zip(*[iter(episodes)] * 3, strict=True):  # three at a time, of different lengths, in one state
        for index, own in zip(rows, scores, strict=True):
            begun = state.begin(np.array([index]), own[:1])
            np.testing.assert_array_equal(begun[0], successes(own, rule)[0])
        for t in range(1, max(map(len, scores))):
            live = [k for k in range(3) if t < len(scores[k])]
            judged = state.step(np.array([rows[k] for k in live]), np.stack([scores[k][t] for k in live]))
            for row, k in enumerate(live):
                assert judged.rewards[row].tobytes() == rewards_of_scores(scores[k], rule)[t - 1].tobytes()
                assert judged.successes[row].tolist() == successes(scores[k], rule)[t].tolist()


def test_a_success_from_the_first_frame_on_can_be_left_out_until_it_has_ended():
    state = RuleState(RewardRule(thresholds=(0.5,)), 1, ignore_initial=True)
    env = np.array([0])
    assert state.begin(env, np.array([[0.9]], np.float32)).tolist() == [[True]]
    said = [state.step(env, np.array([[score]], np.float32)).rewards.item() for score in (0.8, 0.2, 0.7, 0.6)]
    assert said == [0, 0, 1, 1]  # the 0.8 still is the success of the start


def test_the_rule_goes_on_from_its_state():
    rng = np.random.default_rng(1)
    state, other = RuleState(RULES["steady"], 4), RuleState(RULES["steady"], 4)
    envs = np.arange(4)
    state.begin(envs, rng.random((4, 2)).astype(np.float32))
    for t in range(30):
        scores = rng.random((4, 2)).astype(np.float32)
        judged = state.step(envs, scores)
        if t >= 15:
            assert other.step(envs, scores).successes.tolist() == judged.successes.tolist()
        elif t == 14:
            other.load_state_dict(state.state_dict())


def test_an_identical_frame_is_encoded_once_and_has_the_bits_of_the_labeler(labeler):
    pool = frames(8)
    embedder = FrameEmbedder(labeler)
    expected = labeler.embed(np.stack([labeler.resize(frame) for frame in pool]))
    np.testing.assert_array_equal(embedder(pool[[0, 1, 0, 0]]), expected[[0, 1, 0, 0]])
    assert embedder.counts == {"frames": 4, "encoded": 2, "cached": 0, "passes": 1}
    np.testing.assert_array_equal(embedder(pool[[1, 2, 3, 4, 5, 6]]), expected[[1, 2, 3, 4, 5, 6]])
    # Five are new, two passes of 4; one was seen before.
    assert embedder.counts == {"frames": 10, "encoded": 7, "cached": 1, "passes": 3}
    assert embedder.seconds > 0
    assert embedder(pool[:0]).shape == (0, labeler.dim)


def test_without_a_cache_frames_are_encoded_again_to_the_same_bits(labeler):
    pool = frames(3)
    embedder = FrameEmbedder(labeler, cache_bytes=0)
    np.testing.assert_array_equal(embedder(pool), embedder(pool))
    assert embedder.counts["encoded"] == 6
    with pytest.raises(ValueError, match="cache_bytes must be at least 0, got -1"):
        FrameEmbedder(labeler, cache_bytes=-1)


def test_a_full_cache_forgets_and_still_is_right(labeler):
    pool = frames(8)
    embedder = FrameEmbedder(labeler, cache_bytes=3 * (4 * labeler.dim + 200))
    first = embedder(pool)
    np.testing.assert_array_equal(embedder(pool[::-1]), first[::-1])
    assert embedder.counts["cached"] == 3


def test_a_labeler_of_another_fingerprint_is_refused_naming_the_part(labeler, tmp_path):
    labels = Fingerprint({**labeler.fingerprint.parts, "camera": "egocentric", "sparse": True})
    check_labeler(labeler, labels, "egocentric")
    # How the corpus was read and decoded is in the fingerprint of its labels, and says nothing of live frames.
    read = {"corpus_options": {"channels": "bgr"}, "decoders": {"av1": "libdav1d 1.5"}}
    check_labeler(labeler, Fingerprint({**labels.parts, **read}), "egocentric")
    with pytest.raises(ValueError, match="other channels"):  # any other part that the labeler does not have
        check_labeler(labeler, Fingerprint({**labels.parts, "channels": "bgr"}), "egocentric")
    with pytest.raises(
        ValueError, match=r'got other camera \(camera is "egocentric" there and "top" here\); take the labeler'
    ):
        check_labeler(labeler, labels, "top")
    other, _ = live_labeler(tmp_path, frames(8), hysteresis=0.01)
    with pytest.raises(
        ValueError, match=r"labels that the agent was trained on must have the same fingerprint .* other rule"
    ):
        check_labeler(other, labels, "egocentric")


def test_a_reward_that_is_never_positive_stops_the_run():
    monitor = RewardMonitor(RewardRule(thresholds=(0.5, 0.8)), 2)
    envs, goals = np.array([0, 1]), np.array([0, 1])
    nothing, no = np.zeros(2, np.float32), np.zeros(2, np.bool_)

    def add(count, successes, rewards):
        for _ in range(count):
            monitor.begin(envs)
            monitor.add(envs, goals, np.array([0.25, 0.7], np.float32), rewards, successes, ~no)

    add(9, no, nothing)
    monitor.check(after_episodes=19)  # 18 episodes are too few to say
    add(1, no, nothing)
    message = r"got none in 20 steps and 20 ended episodes, where the highest score was -0.1000 from .* Calibrate"
    with pytest.raises(ValueError, match=message):
        monitor.check(after_episodes=20)
    other = RewardMonitor(RewardRule(thresholds=(0.5, 0.8)), 2)
    other.load_state_dict(monitor.state_dict())
    assert other.counts == {"steps": 20, "episodes": 20, "episodes_with_success": 0, "positive_rewards": 0}
    add(1, np.array([True, False]), np.array([1, 0], np.float32))
    monitor.check(after_episodes=20)
    assert monitor.counts == {"steps": 22, "episodes": 22, "episodes_with_success": 1, "positive_rewards": 1}


def test_a_reward_that_is_never_positive_stops_a_run_of_episodes_that_never_end():
    monitor = RewardMonitor(RewardRule(thresholds=(0.5,)), 2)
    assert monitor.complaint() is None  # nothing has happened yet
    envs, goals, no = np.array([0, 1]), np.array([0, 0]), np.zeros(2, np.bool_)

    def add(rewards):
        monitor.add(envs, goals, np.array([0.25, 0.375], np.float32), np.array(rewards, np.float32), no, no)

    for _ in range(12_499):
        add([0, 0])
    monitor.check()  # 24,998 steps
    add([0, 0])
    with pytest.raises(ValueError, match=r"got none in 25,000 steps and 0 ended episodes, .* -0.1250 from its goal's"):
        monitor.check()
    add([0, 0.5])
    monitor.check()
    assert monitor.complaint() is None


def test_a_monitor_goes_on_from_a_state_of_before_steps_were_counted():
    monitor = RewardMonitor(RewardRule(thresholds=(0.5,)), 1)
    state = monitor.state_dict()
    del state["counts"]["steps"]
    monitor.load_state_dict(state)
    assert monitor.counts == {"steps": 0, "episodes": 0, "episodes_with_success": 0, "positive_rewards": 0}


def test_an_embedder_apart_shares_the_cache_and_counts_for_itself(labeler):
    pool, embedder = frames(4), FrameEmbedder(labeler)
    embedder(pool[:2])
    apart = embedder.apart()
    np.testing.assert_array_equal(apart(pool), FrameEmbedder(labeler)(pool))
    assert apart.counts == {"frames": 4, "encoded": 2, "cached": 2, "passes": 1}
    assert embedder.counts == {"frames": 2, "encoded": 2, "cached": 0, "passes": 1}
    embedder(pool[2:])
    assert embedder.counts == {"frames": 4, "encoded": 2, "cached": 2, "passes": 1}  # the other one encoded them
    without = FrameEmbedder(labeler, cache_bytes=0).apart()
    without(pool), without(pool)
    assert without.counts["encoded"] == 8
