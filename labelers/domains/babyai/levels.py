"""BabyAI levels: the agent's view and frame, the goal of an episode, and the goals that hold.

    seed ──► BabyAILevel ──reset, step──► Look: state [7, 7, 3], MiniGrid's encoding of the view
                                                frame [S, S, 3], MiniGrid's own egocentric render

Frames are egocentric because the view from above does not show what the agent carries. The same seed and actions give the same
bytes, so a frame met live is a frame that could have been recorded.

Shape letter: S side of a frame in pixels, 7 tiles.
"""

import contextlib
import functools
import io
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np

from vlm_rewards.labelers.domains.babyai.goals import VIEW_SIZE, goal_bank, ground_truth
from vlm_rewards.labelers.domains.domain import ExpertGaveUpError, Look
from vlm_rewards.schemas.goals import normalize_instruction

CAMERA = "egocentric"

_CACHE_BYTES = 32 << 20
_CACHED_VIEWS = 4096
_REJECTIONS = ("Sampling rejected:", "Timeout during mission generation:")


class _Frames:
    """Cache of the frames drawn last by all levels of this process: a view determines every pixel, and most views recur."""

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
    """One BabyAI level, seen through the agent's eyes: a `labelers.domains.domain.Level`.

    Args:
        name: Name of the level.
        tile_size: Pixels per grid cell; S is 7 times as many.

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
        """Mission of the level, since the last reset."""
        return self.env.unwrapped.mission

    def reset(self, seed: int) -> Look:
        """Generates the level of a seed."""
        with without_rejections():
            observation, _ = self.env.reset(seed=seed)
        return self._look(observation)

    def goals(self) -> tuple[str, ...]:
        """Returns the id of the goal that the mission asks for, if it is one of the bank: BabyAI draws a level for its mission."""
        goal_id = _goals_by_instruction().get(normalize_instruction(self.mission))
        return () if goal_id is None else (goal_id,)

    def ask(self, goal_id: str) -> None:
        """Accepts the goal of the mission alone.

        Raises:
            ValueError: The mission asks for something else.
        """
        if goal_id not in self.goals():
            raise ValueError(
                f"this level cannot be asked for the goal: got {goal_id!r}, its mission being {self.mission!r}. Reset it with "
                f"another seed"
            )

    def step(self, action: int) -> tuple[Look, float, bool, bool]:
        """Acts; also after the level has ended, which MiniGrid allows.

        Returns:
            What the agent sees then, and the level's own reward, termination and truncation.
        """
        observation, reward, terminated, truncated, _ = self.env.step(action)
        return self._look(observation), float(reward), bool(terminated), bool(truncated)

    def facts(self, look: Look) -> frozenset[str]:
        """Returns the ids of the goals that hold in a look; see `goals.ground_truth`."""
        return _facts(look.state.tobytes())

    def expert(self) -> "BabyAIExpert":
        """Returns BabyAI's own demonstrator of this episode."""
        return BabyAIExpert(self.env.unwrapped)

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
        return Look({CAMERA: frame}, view)


class BabyAIExpert:
    """BabyAI's own demonstrator, which does not know every situation: above all it does not continue after a box was opened.

    Args:
        env: The unwrapped environment, at the start of an episode.
    """

    def __init__(self, env: Any) -> None:
        self._env = env
        self._bot: Any = None

    def act(self, taken: int | None) -> int:
        """Returns the next action; see `labelers.domains.domain.Expert`.

        Raises:
            ExpertGaveUpError: The bot knows no next action.
        """
        try:
            if self._bot is None:
                self._bot = babyai_bot()(self._env)
            return int(self._bot.replan(taken))
        except Exception as error:  # the bot asserts, or raises anything, where it does not know what to do
            raise ExpertGaveUpError(f"BabyAI's bot knows no action: got {error!r}") from error


@functools.cache
def _goals_by_instruction() -> dict[str, str]:
    return {normalize_instruction(text): goal.id for goal in goal_bank() for text in goal.instructions}


@functools.cache
def _goal_ids() -> tuple[str, ...]:
    return tuple(goal.id for goal in goal_bank())


@functools.lru_cache(maxsize=_CACHED_VIEWS)
def _facts(view: bytes) -> frozenset[str]:
    """Returns the goals that hold in the bytes of a view: most views recur."""
    achieved = ground_truth(np.frombuffer(view, np.uint8).reshape(VIEW_SIZE, VIEW_SIZE, 3))
    ids = _goal_ids()
    return frozenset(ids[index] for index in np.flatnonzero(achieved))


def babyai_bot() -> Any:
    """Returns BabyAI's own demonstrator, a class that is built with `level.env.unwrapped`.

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
