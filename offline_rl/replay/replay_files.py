"""The arrays of a finished replay: whether they are as they were written, and the returns beside them."""

from pathlib import Path

import numpy as np

from vlm_rewards.offline_rl.replay.meta import read_replay_meta
from vlm_rewards.offline_rl.replay.transitions import returns_to_go
from vlm_rewards.schemas.files.digests import check_digest, check_digest_beside, digest_beside, digest_text
from vlm_rewards.schemas.folders import replacing, write_atomically

_RETURN_ROWS = 1024
_REMEDY = "Remove the folder, and train again, which builds it anew"


def check_replay_files(folder: Path) -> None:
    """Refuses a replay whose arrays are not as they were written; one of before digests were recorded is let through.

    Raises:
        ValueError: A file has changed.
    """
    for name, digest in read_replay_meta(folder).get("files", {}).items():
        if not (folder / name).is_file():
            raise ValueError(f"a replay must have the file {name}, got {folder} without. {_REMEDY}")
        check_digest(folder / name, digest, _REMEDY)


def returns_file(folder: Path, segments: np.ndarray, rewards: np.ndarray, discount: float) -> Path:
    """Writes the returns of every step of a replay, once for each discount.

    Args:
        folder: The replay.
        segments: All of its segments, records of `offline_rl.replay.writer.SEGMENT`.
        rewards: [R] float32, rewards of the replay.
        discount: Discount factor per step.

    Returns:
        The file, [R] float32.

    Raises:
        ValueError: The file that is there has changed since it was written.
    """
    path = folder / f"returns-{float(discount)!r}.npy"
    if path.is_file():
        check_digest_beside(path, "Remove it: it is written anew")
        return path
    with replacing(path) as temporary:
        returns = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=rewards.shape)
        for first in range(0, len(segments), _RETURN_ROWS):
            group = segments[first : first + _RETURN_ROWS]
            steps = np.arange(group["length"].max())
            inside = steps < group["length"][:, None]
            places = np.where(inside, group["reward"][:, None] + steps, 0)
            values = returns_to_go(np.where(inside, rewards[places], 0.0), discount)
            returns[places[inside]] = values[inside]
        returns.flush()
        write_atomically(digest_beside(path), digest_text(temporary))
    return path
