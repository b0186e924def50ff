import numpy as np
import pytest

from vlm_rewards.offline_rl.interfaces import Spaces
from vlm_rewards.offline_rl.online.transition_rings import Ring, TransitionRings

SPACES = Spaces(observation="embeddings", observation_shape=(1,), goal_size=2, num_actions=3, state_size=1)
GOALS = np.eye(2, dtype=np.float32)


def ring() -> Ring:
    return Ring({"value": ((), np.int64), "pair": ((2,), np.float32)}, capacity=6, block=2)


def rings(capacity: int = 8, capacity_transitions: int = 8) -> TransitionRings:
    return TransitionRings(
        SPACES, GOALS, num_environments=1, capacity=capacity, capacity_transitions=capacity_transitions
    )


def store(to: TransitionRings, last: list[int], before: list[float], after: list[float]) -> np.ndarray:
    """Steps from frames of these values to frames of those, whose states are ten times as much."""
    values = np.array([before, after], np.float32)[..., None]
    frames = to.extend_frames(
        np.array(last, np.int64), {"observations": (values[0], values[1]), "states": (10 * values[0], 10 * values[1])}
    )
    columns = {"before": frames[0], "after": frames[1], "goal": 1, "mask": 1, "actions": 2}
    return to.transitions.extend(len(last), {**columns, "reward": before, "return": after, "success": True})


def test_the_picture_of_the_module() -> None:
    of = ring()
    assert not of.make_room(6)
    numbers = of.extend(6, {"value": np.arange(6) * 10, "pair": 0.5})
    assert numbers.tolist() == [0, 1, 2, 3, 4, 5]
    assert not of.make_room(2)  # capacity 6 and a block of 2 are 8 places
    of.extend(2, {"value": [60, 70], "pair": [[1, 2], [3, 4]]})
    assert (of.count, of.first) == (8, 0)
    assert of.make_room(1)
    assert (of.count, of.first) == (8, 2)
    assert of.extend(1, {"value": 80, "pair": 0}).tolist() == [8]
    assert not of.make_room(1)  # a whole block was given up
    # 0 is overwritten by 8, 1 is given up but still there
    assert of.read("value", np.array([8, 1, 7])).tolist() == [80, 10, 70]
    assert of.read("pair", np.array([5, 7])).tolist() == [[0.5, 0.5], [3, 4]]
    assert of.state_dict("x_")["x_value"].tolist() == [80, 10, 20, 30, 40, 50, 60, 70]  # by place


def test_room_for_many_rows_takes_many_blocks() -> None:
    of = ring()
    of.extend(7, {"value": 0, "pair": 0})
    assert of.make_room(6)  # 7 + 6 - 8 = 5 rows too many, of which blocks of 2 make 6
    assert of.first == 6
    assert of.extend(6, {"value": 1, "pair": 0}).tolist() == list(range(7, 13))
    assert of.extend(0, {"value": [], "pair": 0}).tolist() == []


def test_what_is_read_is_a_copy_and_what_is_written_stays() -> None:
    of = ring()
    numbers = of.extend(3, {"value": [1, 2, 3], "pair": 0})
    of.read("value", numbers)[:] = 9
    of.write("value", numbers[1:], [7, 8])
    assert of.read("value", numbers).tolist() == [1, 7, 8]


def test_a_ring_refuses_rows_without_room_or_with_other_columns() -> None:
    of = ring()
    with pytest.raises(AssertionError, match="make room first"):
        of.extend(9, {"value": 0, "pair": 0})
    with pytest.raises(AssertionError, match="a row has a value in every column"):
        of.extend(1, {"value": 0})


def test_a_frame_that_is_there_is_not_stored_again() -> None:
    of = rings()
    before, after = of.extend_frames(
        np.array([-1, -1]),
        {
            "observations": (np.array([[1], [5]], np.float32), np.array([[2], [6]], np.float32)),
            "states": (np.zeros((2, 1)), np.zeros((2, 1))),
        },
    )
    assert (before.tolist(), after.tolist()) == ([0, 2], [1, 3])  # environment by environment
    store(of, [-1, 3], [7, 6], [8, 7])  # the first one has begun anew, the second goes on from frame 3
    assert of.frames.read("observations", np.arange(7))[:, 0].tolist() == [1, 2, 5, 6, 7, 8, 7]
    assert of.frames.read("states", np.arange(4, 7))[:, 0].tolist() == [70, 80, 70]
    assert of.transitions.read("before", np.arange(2)).tolist() == [4, 3]
    assert of.transitions.read("after", np.arange(2)).tolist() == [5, 6]


def test_a_transition_lives_as_long_as_its_frames() -> None:
    of = rings(capacity=8, capacity_transitions=20)  # frames in blocks of 2
    first = store(of, [-1], [0], [1])
    again = store(of, [1], [1], [2])
    for value in range(2, 9):
        store(of, [value], [value], [value + 1])
    of.release(np.concatenate([again, first, np.array([8])]))
    assert not of.make_room(0, 1)  # 10 frames in 10 places
    assert of.make_room(1, 0)  # frames 0 and 1 are given up
    assert of.are_alive(np.arange(9)).tolist() == [False] * 2 + [True] * 7
    assert len(of) == 1
    assert set(of.sample(20, np.random.default_rng(0)).observations[:, 0].tolist()) == {8}
    assert not of.make_room(2, 0)  # for two there is room
    assert of.make_room(3, 0)
    assert of.are_alive(np.arange(9)).tolist() == [False] * 4 + [True] * 5


def test_numbers_that_were_never_given() -> None:
    of = rings()
    store(of, [-1, -1], [1, 5], [2, 6])
    assert of.were_stored(np.array([0, 1]))
    assert of.were_stored(np.zeros(0, np.int64))
    assert not of.were_stored(np.array([0, 2]))
    assert not of.were_stored(np.array([-1]))


def test_a_sample_joins_transitions_and_frames() -> None:
    of = rings()
    of.release(store(of, [-1, -1], [1, 5], [2, 6])[1:])
    batch = of.sample(3, np.random.default_rng(0))
    # Stored in that order: reward and observation 5, return and next observation 6, states ten times as much.
    want = {"observations": [5], "next_observations": [6], "states": [50], "next_states": [60], "goals": [0, 1]}
    want |= {"rewards": 5, "returns": 6, "masks": 1, "actions": 2, "successes": True}
    assert {name: values.tolist() for name, values in batch._asdict().items()} == {
        name: [value] * 3 for name, value in want.items()
    }


def test_saved_rings_go_on() -> None:
    of, other = rings(), rings()
    for value in range(30):
        of.make_room(2, 1)
        of.release(store(of, [value], [value], [value + 1]) if value else store(of, [-1], [0], [1]))
    counts = {"frames": of.frames.count, "transitions": of.transitions.count}
    first = {"frame": of.frames.first, "transition": of.transitions.first}
    other.load_state_dict(of.state_dict(), counts=counts, first=first)
    for each in (of, other):
        each.make_room(2, 1)
        each.release(store(each, [30], [30], [31]))
    for name, values in of.state_dict().items():
        assert np.array_equal(values, other.state_dict()[name]), name
    assert (
        of.sample(9, np.random.default_rng(1)).rewards.tolist()
        == other.sample(9, np.random.default_rng(1)).rewards.tolist()
    )
