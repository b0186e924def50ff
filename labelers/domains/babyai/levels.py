"""BabyAI levels as the recorder and live environments see them: which seeds, what the agent sees, its frame, nothing printed.

    seed ──► BabyAILevel ──reset, step──► Look: view [7, 7, 3], MiniGrid's encoding, for goals.ground_truth
                                                frame [S, S, 3], MiniGrid's own egocentric render

Frames are egocentric because the view from above does not show what the agent carries. Whoever renders through this class gets
the same bytes for the same seed and actions, so a frame met live is a frame that could have been recorded.

Seeds are split so that no two uses ever share a level: reference models are made on those below RECORDED_SEEDS.

Shape letter: S side of a frame in pixels, 7 tiles.
"""

import contextlib
import difflib
import hashlib
import io
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

CAMERA = "egocentric"
LEVEL_PREFIX = "BabyAI-"

RECORDED_SEEDS = range(2_000_000, 2**31)
"""Levels of recorded corpora."""

LIVE_SEEDS = range(2**31, 3 * 2**30)
"""Levels in which an agent is fine-tuned."""

HELD_OUT_SEEDS = range(3 * 2**30, 2**32)
"""Levels in which agents are evaluated."""

_CACHE_BYTES = 32 << 20
_REJECTIONS = ("Sampling rejected:", "Timeout during mission generation:")


class Look(NamedTuple):
    """What the agent sees at one time.

    Attributes:
        view: [7 (x), 7 (y), 3] uint8, MiniGrid's encoding of the visible cells.
        frame: [S, S, 3] uint8, RGB, the same as a picture; not to be written to.
    """

    view: np.ndarray
    frame: np.ndarray


class _Frames:
    """The frames drawn last, of all levels of this process: a view tells every pixel, and most views come back."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._frames: OrderedDict[tuple[int, bytes], np.ndarray] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: tuple[int, bytes]) -> np.ndarray | None:
        with self._lock:
            frame = self._frames.get(key)
            if frame is not None:
                self._frames.move_to_end(key)
            return frame

    def put(self, key: tuple[int, bytes], frame: np.ndarray) -> None:
        frame.flags.writeable = False
        with self._lock:
            if key not in self._frames:
                self._frames[key] = frame
                self._bytes += frame.nbytes
            while self._bytes > self._max_bytes:
                self._bytes -= self._frames.popitem(last=False)[1].nbytes


_FRAMES = _Frames(_CACHE_BYTES)


class BabyAILevel:
    """One BabyAI level, seen through the agent's eyes.

    Args:
        name: One of `level_names()`.
        tile_size: Pixels a grid cell; S is 7 times as many.

    Attributes:
        env: The gymnasium environment.
        num_actions: Number of discrete actions.

    Raises:
        ImportError: MiniGrid is not installed.
    """

    def __init__(self, name: str, tile_size: int = 8) -> None:
        gymnasium, wrappers, _ = _import_minigrid()
        self.env = gymnasium.make(name, disable_env_checker=True)
        self.num_actions = int(self.env.action_space.n)
        self._tile_size = tile_size
        self._camera = wrappers.RGBImgPartialObsWrapper(self.env, tile_size=tile_size)

    @property
    def mission(self) -> str:
        """What the level asks for, since the last reset."""
        return self.env.unwrapped.mission

    def reset(self, seed: int) -> Look:
        """Draws the level of a seed."""
        with without_rejections():
            observation, _ = self.env.reset(seed=seed)
        return self._look(observation)

    def step(self, action: int) -> tuple[Look, float, bool, bool]:
        """Acts; also after the level has ended, which MiniGrid allows.

        Returns:
            What the agent sees then, and the level's own reward, termination and truncation.
        """
        observation, reward, terminated, truncated, _ = self.env.step(action)
        return self._look(observation), float(reward), bool(terminated), bool(truncated)

    def close(self) -> None:
        """Closes the environment."""
        self.env.close()

    def _look(self, observation: dict[str, Any]) -> Look:
        view = observation["image"]
        key = (self._tile_size, view.tobytes())
        frame = _FRAMES.get(key)
        if frame is None:
            frame = self._camera.observation(observation)["image"]
            _FRAMES.put(key, frame)
        return Look(view, frame)


def level_names() -> list[str]:
    """Names of all BabyAI levels that are registered.

    Raises:
        ImportError: MiniGrid is not installed.
    """
    gymnasium, _, _ = _import_minigrid()
    return sorted(name for name in gymnasium.registry if name.startswith(LEVEL_PREFIX))


def check_levels(names: Sequence[str]) -> None:
    """Refuses names that are no BabyAI levels.

    Raises:
        ValueError: There is no name, or one is unknown.
        ImportError: MiniGrid is not installed.
    """
    if not names:
        raise ValueError("envs must name at least one level, got none; name one, such as 'BabyAI-GoToLocal-v0'")
    known = level_names()
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            raise ValueError(
                f"a level must be one of MiniGrid's {len(known)} {LEVEL_PREFIX}... levels, got {name!r}; "
                f"{'did you mean ' + ' or '.join(close) + '?' if close else 'take one, such as ' + known[0]}"
            )


def draw_seed(seeds: range, key: str) -> int:
    """The seed of this range that belongs to a key: a pure function, by SHA-256."""
    digest = hashlib.sha256(key.encode()).digest()
    return seeds[int.from_bytes(digest[:8], "big") % len(seeds)]


def babyai_bot() -> Any:
    """BabyAI's own demonstrator, a class that is built with `level.env.unwrapped`.

    Raises:
        ImportError: MiniGrid is not installed.
    """
    return _import_minigrid()[2]


_stdout_lock = threading.Lock()  # standard output belongs to the whole process, not to a thread


@contextlib.contextmanager
def without_rejections() -> Iterator[None]:
    """Holds back what BabyAI prints when it draws a level anew; all else is printed."""
    printed = io.StringIO()
    try:
        with _stdout_lock, contextlib.redirect_stdout(printed):
            yield
    finally:
        lines = printed.getvalue().splitlines(keepends=True)
        sys.stdout.write("".join(line for line in lines if not line.startswith(_REJECTIONS)))


def _import_minigrid() -> tuple[Any, Any, Any]:
    try:
        import gymnasium
        import minigrid.wrappers
        from minigrid.utils.baby_ai_bot import BabyAIBot
    except ImportError as error:
        raise ImportError(
            "to play BabyAI levels, minigrid must be installed, got none; pip install 'vlm-rewards[babyai]'"
        ) from error
    return gymnasium, minigrid.wrappers, BabyAIBot
