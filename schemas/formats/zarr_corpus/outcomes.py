"""Rewards, ends and successes of a replay buffer: arrays of `data` with one number per row.

data/reward     r_0 r_1 r_2 | r_0 r_1      row i is of action i and looks at frame i+1
data/done         0   0   1 |   0   0      an episode without an end is cut off (truncated) at its last step
data/success      0   0   1 |   0   0      whether the frame after action i shows what was asked for

Without actions a step lies between two frames, so that the last row of an episode is of no step.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vlm_rewards.schemas.formats.interface import InvalidEpisodeError

if TYPE_CHECKING:
    import zarr

REWARD, SUCCESS = "reward", "success"
_NAMES = {REWARD: ("reward", "rewards"), SUCCESS: ("success", "successes", "is_success")}
_DONES = ("done", "dones", "terminal", "terminals", "terminated")


def outcome_array(role: str, arrays: Mapping[str, "zarr.Array"], told: str | None) -> str | None:
    """Returns the name of the array of a role; None where there is none.

    Args:
        role: REWARD or SUCCESS.
        arrays: Arrays of `data` that are no cameras.
        told: The name that the user gave; None to look for the usual ones.

    Raises:
        ValueError: There is no array of the given name.
    """
    if told is None:
        return _first(_NAMES[role], arrays)
    if told not in arrays:
        others = ", ".join(arrays) or "none"
        raise ValueError(
            f"the option {role} must name an array of 'data': got {told!r}, and they are {others}. Correct it"
        )
    return told


def read_outcomes(
    names: Mapping[str, str], arrays: Mapping[str, "zarr.Array"], rows: Callable[[str], np.ndarray], num_steps: int
) -> dict[str, Any]:
    """Reads parts of an episode.

    Args:
        names: Names of the wanted arrays by role.
        arrays: Arrays of `data` that are no cameras.
        rows: Reads an array's rows of the episode.
        num_steps: T.

    Returns:
        Fields of `schemas.episodes.Episode` by their names.

    Raises:
        InvalidEpisodeError: An array has several numbers per row.
    """
    parts: dict[str, Any] = {}
    if REWARD in names:
        parts["rewards"] = _numbers(names[REWARD], rows)[:num_steps].astype(np.float32)
        done = _first(_DONES, arrays)
        ends = np.zeros(num_steps, np.bool_) if done is None else _numbers(done, rows)[:num_steps] != 0
        parts["terminations"] = ends
        parts["truncations"] = (np.arange(num_steps) == num_steps - 1) & ~ends
    if SUCCESS in names:
        parts["successes"] = _numbers(names[SUCCESS], rows)[:num_steps] != 0
    return parts


def _first(names: tuple[str, ...], arrays: Mapping[str, "zarr.Array"]) -> str | None:
    return next((name for name in names if name in arrays), None)


def _numbers(name: str, rows: Callable[[str], np.ndarray]) -> np.ndarray:
    values = rows(name)
    if values.size != len(values):
        raise InvalidEpisodeError(
            "invalid episode",
            f"{name} must have one number per row: got {list(values.shape[1:])}. Name another array, or convert it",
        )
    return values.reshape(-1)
