"""Checks on what is given to the online buffer; nothing is stored before all of them have passed.

Shape letters as in `offline_rl.online.buffer`.
"""

from collections.abc import Mapping

import numpy as np

from vlm_rewards.offline_rl.interfaces import Spaces
from vlm_rewards.offline_rl.online.transition_rings import FRAME_DTYPES


def check_step(spaces: Spaces, num_environments: int, values: Mapping[str, np.ndarray | None]) -> None:
    """Refuses a step of a vector of environments that does not fit the spaces of the agent.

    Args:
        spaces: Observations and actions of the agent.
        num_environments: B.
        values: Arguments of `OnlineBuffer.add` by name; None if one is not given.

    Raises:
        ValueError: A shape or dtype does not fit, or states are missing or superfluous.
    """
    action = () if spaces.action_size is None else (spaces.action_size,)
    rows = {"observations": spaces.observation_shape, "next_observations": spaces.observation_shape, "actions": action}
    states = ("states", "next_states")
    for name, value in values.items():
        expected = (num_environments, *rows.get(name, ()))
        if name not in states and value is not None and np.shape(value) != expected:
            raise ValueError(
                f"{name} must be {list(expected)}, got {list(np.shape(value))}. Give one row per environment."
            )
    dtype = FRAME_DTYPES[spaces.observation]
    dtypes = [np.asarray(values[name]).dtype for name in ("observations", "next_observations")]
    if dtypes != [dtype, dtype]:
        raise ValueError(f"observations must be {dtype}, got {dtypes[0]} and {dtypes[1]}. Convert them.")
    wanted = None if spaces.state_size is None else (num_environments, spaces.state_size)
    for name in states:
        value = values[name]
        got = None if value is None else np.shape(value)
        if got != wanted:
            raise ValueError(
                f"states and next_states must be {wanted}, got {got}. Give what the agent was trained with."
            )


def check_goals(goals: np.ndarray, num_goals: int) -> None:
    """Refuses [B] goal numbers that are not all from 0 to num_goals - 1.

    Raises:
        ValueError: A number is out of range.
    """
    if not ((goals >= 0) & (goals < num_goals)).all():
        raise ValueError(
            f"goals must be numbers from 0 to {num_goals - 1}, got {goals.tolist()}. Add their embeddings."
        )


def check_rewards(rewards: np.ndarray) -> None:
    """Refuses [B] rewards that are not all finite.

    Raises:
        ValueError: A reward is NaN or infinite.
    """
    if not np.isfinite(rewards).all():
        raise ValueError(f"rewards must be finite, got {rewards.tolist()}. Score these frames again.")


def check_segments(
    num_steps: int, rewards: np.ndarray, start: np.ndarray, stop: np.ndarray, terminated: np.ndarray, num_goals: int
) -> None:
    """Refuses arguments of `OnlineBuffer.add_episode` that do not describe an episode under other goals.

    Args:
        num_steps: T.
        rewards: [K, T] float32.
        start: [K] int.
        stop: [K] int.
        terminated: [K] bool.
        num_goals: K.

    Raises:
        ValueError: A shape does not fit, a reward is not finite, or a segment is not 0 <= start < stop <= T.
    """
    shapes = [rewards.shape, start.shape, stop.shape, terminated.shape]
    if shapes != [(num_goals, num_steps), *[(num_goals,)] * 3] or not np.isfinite(rewards).all():
        raise ValueError(
            f"an episode of {num_steps} steps under {num_goals} goals must have finite rewards [{num_goals}, {num_steps}] and a "
            f"start, stop and terminated for every goal, got rewards {list(rewards.shape)}. Score all its frames for all the goals."
        )
    if not ((start >= 0) & (start < stop) & (stop <= num_steps)).all():
        raise ValueError(
            f"segments must be 0 <= start < stop <= {num_steps}, got start {start.tolist()} and stop {stop.tolist()}. Cut them "
            f"inside the episode."
        )
