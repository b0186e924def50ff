import numpy as np
import pytest
from relabelled_folders import GOALS

from vlm_rewards.labelers.rewards.hindsight import HindsightSettings
from vlm_rewards.offline_rl.interfaces import Spaces
from vlm_rewards.offline_rl.online.buffer import OnlineBuffer
from vlm_rewards.offline_rl.online.live_hindsight import FinishedEpisode, LiveHindsight
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.rules import RewardRule


class Scores:
    """What live hindsight reads of a labeler: its goals and its rule."""

    goals = tuple(Goal(id=name, text=f"at the {name}") for name in ("box", "ball", "key", "door"))
    rule = RewardRule(thresholds=(0.5,) * 4)


SETTINGS = HindsightSettings(goals_per_episode=10, ratio=(0.0, 0.5, 0.5), strategy="first")
NONE = np.zeros(4, np.float32)


def play(
    hindsight: LiveHindsight, rows: list[list[float]], goal: int, first: int = 0, ended: bool = True
) -> list[FinishedEpisode]:
    """One environment, one step per row of scores; transitions are numbered from `first`, and the last row may end the episode."""
    finished = []
    for step, row in enumerate(rows):
        over = np.array([ended and step == len(rows) - 1])
        finished += hindsight.add(np.array([first + step]), np.array([goal]), np.array([row], np.float32), over)
    return finished


def test_an_episode_is_stored_under_what_it_achieved_and_what_it_did_not() -> None:
    # Asked for the box, never there. At the ball after action 1, in frame o_2: steps 0 and 1 are its segment, r_1 = 1. The key
    # holds in o_1, perhaps since o_0: no achievement, and no negative either. The door was achieved before: a negative.
    hindsight = LiveHindsight(Scores(), 1, SETTINGS)  # type: ignore[arg-type]
    assert len(play(hindsight, [[0, 0, 0, 0], [0, 0, 0, 1]], goal=0)) == 1
    (episode,) = play(hindsight, [[0, 0, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]], goal=0, first=2)
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
    (episode,) = play(hindsight, [[0, 0.1, 0.9, 0], [0, 0.9, 0.1, 0], [0, 0.9, 0.1, 0]], goal=0)
    assert episode.goals.tolist() == [1]  # the ball in o_2 and o_3; the key in o_1 alone
    assert episode.rewards.tolist() == [[0.0, 0.0, 1.0]]
    assert (episode.start.tolist(), episode.stop.tolist()) == ([0], [3])


def test_what_held_from_the_first_frame_after_an_action_on_is_no_achievement() -> None:
    class Patient(Scores):
        rule = RewardRule(thresholds=(0.5,) * 4, min_frames=2)

    hindsight = LiveHindsight(Patient(), 1, SETTINGS)  # type: ignore[arg-type]
    (episode,) = play(hindsight, [[0, 0.9, 0, 0], [0, 0.9, 0.9, 0], [0, 0.9, 0.9, 0]], goal=0)
    assert episode.goals.tolist() == [2]  # the key; the ball was there all along
    assert (episode.start.tolist(), episode.stop.tolist()) == ([0], [3])


def test_a_difference_to_a_frame_without_scores_is_in_no_segment() -> None:
    class Rising(Scores):
        rule = RewardRule(thresholds=(0.5,) * 4, reward="difference")

    hindsight = LiveHindsight(Rising(), 1, SETTINGS)  # type: ignore[arg-type]
    (episode,) = play(hindsight, [[0, 0.25, 0, 0], [0, 0.75, 0, 0], [0, 0.25, 0, 0]], goal=0)
    assert (episode.goals.tolist(), episode.start.tolist(), episode.stop.tolist()) == ([1], [1], [2])
    assert episode.rewards[0, 1] == 0.5
    (episode,) = play(hindsight, [[0, 0, 0, 0]], goal=0, first=3)  # a single step, whose difference is unknown
    assert episode.goals.tolist() == []


def test_the_episodes_own_goal_and_excluded_ones_are_never_used() -> None:
    hindsight = LiveHindsight(Scores(), 1, SETTINGS, excluded=["ball"])  # type: ignore[arg-type]
    (episode,) = play(hindsight, [[0, 0, 0, 0], [1, 1, 0, 0]], goal=0)
    assert episode.goals.tolist() == []
    assert episode.store(None) == 0  # type: ignore[arg-type]


def test_environments_have_episodes_of_their_own_and_an_invalid_step_is_in_none() -> None:
    hindsight = LiveHindsight(Scores(), 2, SETTINGS)  # type: ignore[arg-type]
    rows, goals = np.stack([NONE, NONE]), np.array([0, 0])
    ended = hindsight.add(np.array([0, 1]), goals, rows, np.array([False, True]))
    assert [found.numbers.tolist() for found in ended] == [[1]]
    ended = hindsight.add(np.array([2, -1]), goals, rows, np.array([True, False]))  # environment 1 resets itself
    assert [found.numbers.tolist() for found in ended] == [[0, 2]]
    ended = hindsight.add(np.array([3, 4]), goals, rows, np.array([False, True]))
    assert [found.numbers.tolist() for found in ended] == [[4]]


def test_resuming_from_a_state_gives_the_same_episodes() -> None:
    rows = [[0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0]]
    whole, broken = (LiveHindsight(Scores(), 1, SETTINGS) for _ in range(2))  # type: ignore[arg-type]
    (one,) = play(whole, rows, goal=0)
    assert play(broken, rows[:2], goal=0, ended=False) == []
    resumed = LiveHindsight(Scores(), 1, SETTINGS)  # type: ignore[arg-type]
    resumed.load_state_dict(broken.state_dict())
    (other,) = play(resumed, rows[2:], goal=0, first=2)
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
            np.zeros(1),
            terminations=np.array([False]),
            truncations=ended,
        )
        finished = hindsight.add(numbers, np.array([0]), np.array([row], np.float32), ended)
    (episode,) = finished
    assert len(buffer) == 2
    assert episode.store(buffer) == 2
    batch = buffer.sample(200, np.random.default_rng(0))
    achieved = batch.rewards == 1
    assert achieved.any()
    assert (batch.masks[achieved] == 0).all()
    assert batch.goals[achieved].tolist() == [pytest.approx(embeddings[1])] * int(achieved.sum())
    assert (batch.observations[achieved][:, 0] == 1).all()  # the second step alone
