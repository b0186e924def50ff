import numpy as np
import pytest
from relabelled_folders import GOALS

from vlm_rewards.labelers.rewards.hindsight import HindsightSettings
from vlm_rewards.offline_rl.interfaces import Spaces
from vlm_rewards.offline_rl.online.buffer import OnlineBuffer
from vlm_rewards.offline_rl.online.live_hindsight import LiveHindsight
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.rules import RewardRule


class Scores:
    """What live hindsight reads of a labeler: its goals and its rule."""

    goals = tuple(Goal(id=name, text=f"at the {name}") for name in ("box", "ball", "key", "door"))
    rule = RewardRule(thresholds=(0.5,) * 4)


SETTINGS = HindsightSettings(goals_per_episode=10, ratio=(0.0, 0.5, 0.5), strategy="first")
NONE = np.zeros(4, np.float32)


def play(hindsight: LiveHindsight, rows: list[list[float]], goal: int, first: int = 0) -> None:
    """One environment, a step a row of scores; numbers and tickets count from `first`."""
    for step, row in enumerate(rows):
        ended = np.array([step == len(rows) - 1])
        number = np.array([first + step])
        hindsight.add(number, number + 100, np.array([goal]), ended)
        hindsight.score(number + 100, np.array([row], np.float32))


def test_an_episode_is_stored_under_what_it_achieved_and_what_it_did_not() -> None:
    # Asked for the box, never there. At the ball after action 1, in frame o_2: steps 0 and 1 are its segment, r_1 = 1. The key
    # holds in o_1, perhaps since o_0: no achievement, and no negative either. The door was achieved before: a negative.
    hindsight = LiveHindsight(Scores(), 1, SETTINGS)  # type: ignore[arg-type]
    play(hindsight, [[0, 0, 0, 0], [0, 0, 0, 1]], goal=0)
    assert len(list(hindsight.finished())) == 1
    play(hindsight, [[0, 0, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]], goal=0, first=2)
    (episode,) = hindsight.finished()
    assert episode.numbers.tolist() == [2, 3, 4]
    by_goal = {goal: k for k, goal in enumerate(episode.goals.tolist())}
    assert by_goal.keys() == {1, 3}
    ball, door = by_goal[1], by_goal[3]
    assert (episode.start[ball], episode.stop[ball], episode.terminated[ball]) == (0, 2, True)
    assert episode.rewards[ball].tolist() == [0.0, 1.0, 0.0]
    assert (episode.start[door], episode.stop[door], episode.terminated[door]) == (0, 3, False)
    assert episode.rewards[door].tolist() == [0.0, 0.0, 0.0]


def test_a_flicker_in_the_first_frame_after_an_action_is_no_success() -> None:
    class Patient(Scores):
        rule = RewardRule(thresholds=(0.5,) * 4, min_frames=2)

    hindsight = LiveHindsight(Patient(), 1, SETTINGS)  # type: ignore[arg-type]
    play(hindsight, [[0, 0.1, 0.9, 0], [0, 0.9, 0.1, 0], [0, 0.9, 0.1, 0]], goal=0)
    (episode,) = hindsight.finished()
    assert episode.goals.tolist() == [1]  # the ball in o_2 and o_3; the key in o_1 alone
    assert episode.rewards.tolist() == [[0.0, 0.0, 1.0]]
    assert (episode.start.tolist(), episode.stop.tolist()) == ([0], [3])


def test_what_held_from_the_first_frame_after_an_action_on_is_no_achievement() -> None:
    class Patient(Scores):
        rule = RewardRule(thresholds=(0.5,) * 4, min_frames=2)

    hindsight = LiveHindsight(Patient(), 1, SETTINGS)  # type: ignore[arg-type]
    play(hindsight, [[0, 0.9, 0, 0], [0, 0.9, 0.9, 0], [0, 0.9, 0.9, 0]], goal=0)
    (episode,) = hindsight.finished()
    assert episode.goals.tolist() == [2]  # the key; the ball was there all along
    assert (episode.start.tolist(), episode.stop.tolist()) == ([0], [3])


def test_a_difference_to_a_frame_without_scores_is_in_no_segment() -> None:
    class Rising(Scores):
        rule = RewardRule(thresholds=(0.5,) * 4, reward="difference")

    hindsight = LiveHindsight(Rising(), 1, SETTINGS)  # type: ignore[arg-type]
    play(hindsight, [[0, 0.25, 0, 0], [0, 0.75, 0, 0], [0, 0.25, 0, 0]], goal=0)
    (episode,) = hindsight.finished()
    assert (episode.goals.tolist(), episode.start.tolist(), episode.stop.tolist()) == ([1], [1], [2])
    assert episode.rewards[0, 1] == 0.5
    play(hindsight, [[0, 0, 0, 0]], goal=0, first=3)  # a single step, whose difference is unknown
    (episode,) = hindsight.finished()
    assert episode.goals.tolist() == []


def test_the_episodes_own_goal_and_excluded_ones_are_never_used() -> None:
    hindsight = LiveHindsight(Scores(), 1, SETTINGS, excluded=["ball"])  # type: ignore[arg-type]
    play(hindsight, [[0, 0, 0, 0], [1, 1, 0, 0]], goal=0)
    (episode,) = hindsight.finished()
    assert episode.goals.tolist() == []
    assert episode.store(None) == 0  # type: ignore[arg-type]


def test_an_episode_waits_for_its_scores() -> None:
    hindsight = LiveHindsight(Scores(), 2, SETTINGS)  # type: ignore[arg-type]
    hindsight.add(np.array([0, 1]), np.array([7, 8]), np.array([0, 0]), np.array([False, True]))
    hindsight.add(np.array([2, -1]), np.array([9, -1]), np.array([0, 0]), np.array([True, False]))
    assert hindsight.numbers_of(np.array([9, 7])).tolist() == [2, 0]
    hindsight.score(np.array([7, 8]), np.stack([NONE, NONE]))
    assert [found.numbers.tolist() for found in hindsight.finished()] == [[1]]
    hindsight.score(np.array([9, -1]), np.stack([NONE, NONE]))
    assert [found.numbers.tolist() for found in hindsight.finished()] == [[0, 2]]
    assert list(hindsight.finished()) == []


def test_going_on_from_a_state_gives_the_same_episodes() -> None:
    rows = [[0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0]]
    whole, broken = (LiveHindsight(Scores(), 1, SETTINGS) for _ in range(2))  # type: ignore[arg-type]
    play(whole, rows, goal=0)
    for step, row in enumerate(rows):
        if step == 2:
            state = broken.state_dict()
            broken = LiveHindsight(Scores(), 1, SETTINGS)  # type: ignore[arg-type]
            broken.load_state_dict(state)
        number = np.array([step])
        broken.add(number, number, np.array([0]), np.array([step == 2]))
        broken.score(number, np.array([row], np.float32))
    (one,), (other,) = whole.finished(), broken.finished()
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a, b)


def test_the_buffer_samples_what_hindsight_stored() -> None:
    spaces = Spaces(observation="embeddings", observation_shape=(2,), goal_size=3, num_actions=2)
    embeddings = np.concatenate([GOALS.embeddings, np.eye(3, dtype=np.float32)[:2]])
    buffer = OnlineBuffer(spaces, embeddings, num_environments=1, capacity=20)
    hindsight = LiveHindsight(Scores(), 1, SETTINGS)  # type: ignore[arg-type]
    for step, row in enumerate([[0, 0, 0, 0], [0, 1, 0, 0]]):
        frame = np.array([[step, 0]], np.float32)
        ended = np.array([step == 1])
        numbers = buffer.add(
            frame,
            np.array([1]),
            frame + np.array([[1, 0]], np.float32),
            np.array([0]),
            terminations=np.array([False]),
            truncations=ended,
        )
        buffer.set_rewards(numbers, np.zeros(1, np.float32))
        hindsight.add(numbers, numbers, np.array([0]), ended)
        hindsight.score(numbers, np.array([row], np.float32))
    (episode,) = hindsight.finished()
    assert len(buffer) == 2
    assert episode.store(buffer) == 2
    batch = buffer.sample(200, np.random.default_rng(0))
    achieved = batch.rewards == 1
    assert achieved.any()
    assert (batch.masks[achieved] == 0).all()
    assert batch.goals[achieved].tolist() == [pytest.approx(embeddings[1])] * int(achieved.sum())
    assert (batch.observations[achieved][:, 0] == 1).all()  # the second step alone
