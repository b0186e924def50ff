import numpy as np
import pytest

from vlm_rewards.offline_rl.interfaces import Spaces
from vlm_rewards.offline_rl.online.checks import check_goals, check_rewards, check_segments, check_step

SPACES = Spaces(observation="frames", observation_shape=(8, 8, 3), goal_size=3, num_actions=41)
CONTINUOUS = Spaces(observation="embeddings", observation_shape=(2,), goal_size=3, action_size=2, state_size=4)


def step(spaces: Spaces = SPACES, **given: object) -> dict:
    """A step of two environments that fits these spaces, but for what is given."""
    frames = np.zeros((2, *spaces.observation_shape), np.uint8 if spaces is SPACES else np.float32)
    flags = np.zeros(2, np.bool_)
    good = {"observations": frames, "next_observations": frames, "goals": np.zeros(2, np.int64)}
    good |= {"actions": np.zeros(2, np.int64) if spaces is SPACES else np.zeros((2, 2), np.float32)}
    good |= {"terminations": flags, "truncations": flags, "valid": flags}
    good |= {"states": None, "next_states": None} if spaces is SPACES else {"states": np.zeros((2, 4))}
    return {**good, "next_states": good["states"], **given}


def test_a_step_that_fits() -> None:
    check_step(SPACES, 2, step())
    check_step(CONTINUOUS, 2, step(CONTINUOUS))


@pytest.mark.parametrize(
    ("name", "value", "shape"),
    [
        ("observations", np.zeros((8, 8, 3), np.uint8), r"\[2, 8, 8, 3\], got \[8, 8, 3\]"),
        ("next_observations", np.zeros((2, 8, 8), np.uint8), r"\[2, 8, 8, 3\], got \[2, 8, 8\]"),
        ("actions", np.zeros((2, 2)), r"\[2\], got \[2, 2\]"),
        ("goals", np.zeros(1), r"\[2\], got \[1\]"),
        ("terminations", np.zeros(3), r"\[2\], got \[3\]"),
        ("truncations", np.zeros(3), r"\[2\], got \[3\]"),
        ("valid", np.zeros(()), r"\[2\], got \[\]"),
    ],
)
def test_a_shape_that_does_not_fit(name: str, value: np.ndarray, shape: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be {shape}. Give one row per environment"):
        check_step(SPACES, 2, step(**{name: value}))


def test_continuous_actions_have_a_width() -> None:
    with pytest.raises(ValueError, match=r"actions must be \[2, 2\], got \[2\]"):
        check_step(CONTINUOUS, 2, step(CONTINUOUS, actions=np.zeros(2)))


def test_observations_are_never_converted_in_silence() -> None:
    with pytest.raises(ValueError, match="observations must be uint8, got float64 and uint8. Convert them"):
        check_step(SPACES, 2, step(observations=np.zeros((2, 8, 8, 3))))
    with pytest.raises(ValueError, match="observations must be float32, got float32 and float64"):
        check_step(CONTINUOUS, 2, step(CONTINUOUS, next_observations=np.zeros((2, 2))))


def test_states_are_given_where_the_agent_knows_them() -> None:
    with pytest.raises(ValueError, match=r"states and next_states must be None, got \(2, 4\)"):
        check_step(SPACES, 2, step(states=np.zeros((2, 4))))
    with pytest.raises(ValueError, match=r"states and next_states must be \(2, 4\), got None. Give what the agent was"):
        check_step(CONTINUOUS, 2, step(CONTINUOUS, next_states=None))
    with pytest.raises(ValueError, match=r"must be \(2, 4\), got \(2, 3\)"):
        check_step(CONTINUOUS, 2, step(CONTINUOUS, states=np.zeros((2, 3))))


def test_goals_are_rows_of_the_embeddings() -> None:
    check_goals(np.array([0, 1]), 2)
    check_goals(np.zeros(0, np.int64), 2)
    for goals in ([0, 2], [-1]):
        with pytest.raises(ValueError, match="goals must be numbers from 0 to 1, got .*. Add their embeddings"):
            check_goals(np.array(goals), 2)


def test_rewards_are_finite() -> None:
    check_rewards(np.array([0, -1.5]))
    for rewards in ([0, np.nan], [np.inf, 0]):
        with pytest.raises(ValueError, match="rewards must be finite, got .*. Score these frames again"):
            check_rewards(np.array(rewards))


def test_segments_are_of_the_episode() -> None:
    good = {"rewards": np.zeros((2, 3)), "start": np.array([0, 1]), "stop": np.array([3, 2])}
    good |= {"terminated": np.array([False, True])}

    def check(**given: np.ndarray) -> None:
        check_segments(3, num_goals=2, **{**good, **given})

    check()
    for name, value in (
        ("rewards", np.zeros((3, 2))),
        ("rewards", np.full((2, 3), np.nan)),
        ("start", np.array([0])),
        ("stop", np.array([3, 3, 3])),
        ("terminated", np.array([False])),
    ):
        with pytest.raises(ValueError, match=r"3 steps under 2 goals must have finite rewards \[2, 3\] and a start"):
            check(**{name: value})
    for start, stop in (([-1, 0], [3, 3]), ([0, 2], [3, 2]), ([0, 0], [4, 3])):
        with pytest.raises(ValueError, match="segments must be 0 <= start < stop <= 3, got start .* Cut them inside"):
            check(start=np.array(start), stop=np.array(stop))
