import json

import numpy as np
import pytest

from vlm_rewards.offline_rl.online.open_episodes import OpenEpisodes


def settled(of: OpenEpisodes) -> list[list[int]]:
    return [transitions.tolist() for transitions in of.pop_settled()]


def three() -> OpenEpisodes:
    """Episode 0 of transitions 0 and 2 ends there, 1 of transition 1 goes on, 2 of transition 3 ends at once."""
    of = OpenEpisodes()
    assert [of.begin(), of.begin()] == [0, 1]
    of.add(0, 0, ended=False)
    of.add(1, 1, ended=False)
    of.add(0, 2, ended=True)
    assert of.begin() == 2
    of.add(2, 3, ended=True)
    return of


def test_an_episode_is_settled_when_it_has_ended_and_none_of_it_waits() -> None:
    of = three()
    assert of.num_waiting == 4
    assert settled(of) == []
    of.stop_waiting(np.array([0, 1]))
    assert settled(of) == []  # 0 waits for one more, 1 for none, but goes on
    of.stop_waiting(np.array([2, 0]))
    assert settled(of) == [[0, 2], [3]]  # in the order in which they were begun
    assert settled(of) == []  # each once
    assert of.num_waiting == 0
    of.add(1, 4, ended=True)
    of.stop_waiting(np.array([1]))
    assert settled(of) == [[1, 4]]
    assert of.begin() == 3


def test_two_transitions_of_an_episode_at_once() -> None:
    of = three()
    of.stop_waiting(np.array([0, 2, 0]))
    assert settled(of) == [[0, 2], [3]]
    of.stop_waiting(np.zeros(0, np.int64))
    assert of.num_waiting == 1


def test_transitions_that_are_given_up_are_forgotten() -> None:
    of = three()
    of.stop_waiting(np.array([0]))  # transition 0 is given up before it has its reward
    of.keep(lambda transitions: transitions >= 1)
    of.stop_waiting(np.array([0]))
    assert settled(of) == [[2]]
    of.stop_waiting(np.array([2]))
    of.keep(lambda transitions: transitions >= 9)
    assert settled(of) == [[]]  # nothing of it is left, nor of it in memory


@pytest.mark.parametrize("scored", [[], [0], [0, 0, 2]])
def test_saved_episodes_go_on(scored: list[int]) -> None:
    of, other = three(), OpenEpisodes()
    of.stop_waiting(np.array(scored, np.int64))
    other.load_state_dict(json.loads(json.dumps(of.state_dict())), count=of.count)
    assert other.state_dict() == of.state_dict()
    assert other.num_waiting == of.num_waiting == 4 - len(scored)
    assert settled(other) == settled(of)
    assert other.begin() == of.begin() == 3


def test_what_is_saved_does_not_change_later() -> None:
    of = three()
    saved = of.state_dict()
    assert saved["0"] == {"transitions": [0, 2], "waiting": 2, "ended": True}
    of.add(1, 4, ended=False)
    assert saved["1"]["transitions"] == [1]
