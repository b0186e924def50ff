"""Episodes in which every frame, action, reward and state tells its place in time, also after lossy pictures and video.

frame of o_t, camera c      1000 * episode + t + 500 * c in 16 blocks, black or white: 0 is black
action a_t                  [t, episode]            the action taken in o_t
reward r_t                  t + 1                   looks at o_(t+1)
state of o_t                [t]
"""

from collections.abc import Sequence

import numpy as np

from vlm_rewards.schemas.episodes import Episode, Frame, Frames
from vlm_rewards.schemas.pictures import decoded_frame

SIZE, BLOCK = 64, 16
CAMERAS = ("front", "wrist")
LENGTHS = (5, 3, 8, 4)


def paint(number: int) -> np.ndarray:
    """A frame [64, 64, 3] that shows a number below 2^16, bit after bit from the upper left."""
    bits = (number >> np.arange(16)) & 1
    blocks = (255 * bits).astype(np.uint8).reshape(SIZE // BLOCK, SIZE // BLOCK)
    return np.repeat(np.kron(blocks, np.ones((BLOCK, BLOCK), np.uint8))[:, :, None], 3, axis=2)


def number_in(frame: Frame) -> int:
    """The number that a frame shows."""
    middles = decoded_frame(frame)[BLOCK // 2 :: BLOCK, BLOCK // 2 :: BLOCK].mean(axis=2)
    return int(((middles.reshape(-1) > 127) << np.arange(16)).sum())


def planted_episode(number: int, num_steps: int, cameras: Sequence[str] = CAMERAS, episode_id: str = "") -> Episode:
    """Episode of T steps and T + 1 frames, arrays, with all that an episode may hold."""
    ends = np.arange(num_steps) == num_steps - 1
    return Episode(
        episode_id=episode_id or f"episode-{number:04d}",
        images={
            camera: [paint(1000 * number + t + 500 * place) for t in range(num_steps + 1)]
            for place, camera in enumerate(cameras)
        },
        actions=np.array([[t, number] for t in range(num_steps)], np.float32),
        rewards=np.arange(1, num_steps + 1, dtype=np.float32),
        terminations=ends,
        truncations=np.zeros(num_steps, np.bool_),
        states=np.arange(num_steps + 1, dtype=np.float32)[:, None],
        instruction=f"put cup {number} in the sink",
        achieved_goals=[["cup"] * (t == num_steps) for t in range(num_steps + 1)],
    )


def planted_episodes(cameras: Sequence[str] = CAMERAS, ids: Sequence[str] = ("", "", "", "")) -> list[Episode]:
    """Four episodes of 5, 3, 8 and 4 steps."""
    return [
        planted_episode(number, length, cameras, episode_id)
        for number, (length, episode_id) in enumerate(zip(LENGTHS, ids, strict=True))
    ]


def times_in(frames: Frames, episode: int, camera: int) -> list[int]:
    """The places in time that frames show, after a check of their episode and camera."""
    return [number_in(frame) - 1000 * episode - 500 * camera for frame in frames]
