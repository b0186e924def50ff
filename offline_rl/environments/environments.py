"""Environments to fine-tune and evaluate in: frames in, a goal an episode, seeds that no corpus and no model was made of.

    settings, goals ──► make_environments ──► gymnasium.vector.SyncVectorEnv, autoreset off
                                                   observation  [N, H, W, 3] uint8, as the recorder renders
                                                   infos        goal_id of each new episode; ground truth, for evaluation alone

An episode goes on when the level says that its mission is done, and ends at the time limit. If it ended there, the learner could
tell by the end of the episode what the level thinks of it, and the level's verdict is the ground truth that it must never see. So
whoever wants an episode to end at success must judge by the frame; see `offline_rl.online.live_rewards`.

Two verdicts stand in the infos of a step. `ground_truth`: the goal holds in the frame after the action, by
`labelers.domains.babyai.goals.ground_truth`, the truth that labels are measured by. `mission_done`: the level has rewarded its
mission by now.
They agree on Find and Lift, up to an object that the agent picked up and put elsewhere, which the level looks for where it was.
On Place the level asks for more: the first object must have been put down beside the second by the last action, while the goal
also holds where others of these kinds stand side by side, whoever put them there. And the goal asks that both are in view.

Shape letters: N environments, H and W sides of a frame, A width of a continuous action.
"""

import abc
import dataclasses
import difflib
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

try:
    import gymnasium
    from gymnasium.spaces import Box, Dict, Discrete
    from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
except ImportError as error:
    raise ImportError(
        f"to play environments, gymnasium 1.1 or newer must be installed, got {error}; pip install 'vlm-rewards[babyai]'"
    ) from error

from vlm_rewards.labelers.domains.babyai.goals import VIEW_SIZE, goal_bank, ground_truth
from vlm_rewards.labelers.domains.babyai.levels import (
    CAMERA,
    HELD_OUT_SEEDS,
    LEVEL_PREFIX,
    LIVE_SEEDS,
    BabyAILevel,
    Look,
    check_levels,
    draw_seed,
)
from vlm_rewards.labelers.rewards.hindsight import original_goals
from vlm_rewards.offline_rl.interfaces import Spaces
from vlm_rewards.schemas.goals import Goal, normalize_instruction

SEEDS = {"live": LIVE_SEEDS, "held-out": HELD_OUT_SEEDS}
"""Where levels are drawn from: to fine-tune in, or to evaluate on."""

MAX_DRAWS = 1000
"""Levels that are drawn for one episode until the mission is one of the goals."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnvironmentSettings:
    """Which environments to make.

    Args:
        envs: Registered names, or MODULE:NAME where a module must be imported first, as in `gymnasium.make`; environment i is of
            name i modulo their number. BabyAI levels are shown through the agent's eyes; other environments must have frames, see
            `frames`.
        num_envs: N, at least one of each name.
        seeds: "live" to fine-tune in, "held-out" to evaluate on.
        seed: Of all levels and goals; two seeds share no stream.
        tile_size: Pixels a grid cell of BabyAI; the corpus's, see `fit_to_corpus`.
        max_steps: Time limit; None for the environment's own.
        frames: Of environments other than BabyAI: "observation" where the observation is the frame, "render" for what the
            environment renders, else the key of a Dict observation.
        camera: Whose frames they are, as the corpus names it; None where no one has said. BabyAI levels show "egocentric" alone.
        frame_shape: (H, W, 3) that the frames must have; None for any.

    Raises:
        ValueError: A setting is out of its range, or an environment is unknown.
    """

    envs: tuple[str, ...]
    num_envs: int = 8
    seeds: str = "live"
    seed: int = 0
    tile_size: int = 8
    max_steps: int | None = None
    frames: str = "observation"
    camera: str | None = None
    frame_shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "envs", tuple(self.envs))
        if not self.envs:
            raise ValueError(
                "envs must name at least one environment, got none; name one, such as 'BabyAI-GoToLocal-v0'"
            )
        for name in self.envs:
            _check_name(name)
        for field, least in (("num_envs", 1), ("seed", 0), ("tile_size", 1), ("max_steps", 1)):
            value = getattr(self, field)
            if value is not None and value < least:
                raise ValueError(f"{field} must be at least {least}, got {value}; choose another")
        if self.num_envs < len(self.envs):
            raise ValueError(
                f"num_envs must be at least the number of environments named, {len(self.envs)}, got {self.num_envs}: some would "
                f"never be played; raise it, or name fewer"
            )
        if self.seeds not in SEEDS:
            raise ValueError(f"seeds must be one of {', '.join(SEEDS)}, got {self.seeds!r}; choose one of them")
        if self.camera not in (None, CAMERA) and self.shows_babyai:
            raise ValueError(
                f"camera must be {CAMERA!r} for BabyAI levels, which are shown through the agent's eyes, got {self.camera!r}; "
                f"leave it out"
            )
        if not self.frames:
            raise ValueError("frames must be 'observation', 'render' or a key of the observation, got ''; leave it out")

    @property
    def shows_babyai(self) -> bool:
        """Whether a level of BabyAI is among them."""
        return any(name.startswith(LEVEL_PREFIX) for name in self.envs)


def make_environments(settings: EnvironmentSettings, goals: Sequence[Goal]) -> SyncVectorEnv:
    """Makes N environments, stepped one after the other in this process, which at these sizes is faster than in processes.

    Autoreset is off: `reset(options={"reset_mask": ended})` begins new episodes in those that ended. Which levels and goals an
    environment meets, in which order, depends on `settings.seed`, its index and its number of episodes alone, not on when the
    others end. `reset(seed=s)` begins another stream of episodes; the same seed gives the same episodes at any index. An
    environment that is reset with a True in `options["resting"]`, [N] bool, begins none: it shows its last frame until it is reset
    again, at no cost.

    Args:
        settings: Which environments.
        goals: What episodes may ask for; BabyAI levels are drawn until the mission asks for one of them, other environments
            get one of them at random.

    Returns:
        The vector environment. `call("episode_state")` gives what `reset(options={"episode_states": ...})` goes on from.

    Raises:
        ValueError: There are no goals, an environment has no such frames, or they are of another shape than `frame_shape`.
    """
    if not goals:
        raise ValueError("goals must be at least one, got none; give the goals of the labels, or fewer held-out kinds")

    def maker(index: int) -> Callable[[], GoalEnvironment]:
        name = settings.envs[index % len(settings.envs)]
        kind = BabyAIEnvironment if name.startswith(LEVEL_PREFIX) else FrameEnvironment
        return lambda: kind(name, tuple(goals), settings, index)

    envs = SyncVectorEnv([maker(index) for index in range(settings.num_envs)], autoreset_mode=AutoresetMode.DISABLED)
    shown = envs.single_observation_space.shape
    if settings.frame_shape not in (None, shown):
        envs.close()
        raise ValueError(
            f"frames of {settings.envs[0]} must have the shape of the corpus's, {list(settings.frame_shape or ())}, got "
            f"{None if shown is None else list(shown)}; choose others with --frames, or resize them as the recorder did"
        )
    return envs


class GoalEnvironment(gymnasium.Env, abc.ABC):
    """An environment whose observation is a frame and whose episodes each have a goal; use `make_environments`.

    Args:
        name: Registered name.
        goals: What episodes may ask for.
        settings: As for `make_environments`.
        index: Which of the N environments it is.
    """

    def __init__(self, name: str, goals: tuple[Goal, ...], settings: EnvironmentSettings, index: int) -> None:
        self.name = name
        self.goals = goals
        self.settings = settings
        self.index = index
        self._stream = f"{settings.seed}/{index}"
        self._episode = -1
        self._actions: list[Any] = []
        self._last: np.ndarray | None = None
        self._resting = False

    @abc.abstractmethod
    def begin(self, seed: int) -> tuple[np.ndarray, Goal | None, dict[str, Any]]:
        """Draws the level of a seed: first frame, goal (None: draw another level) and infos."""

    @abc.abstractmethod
    def act(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step, as gymnasium's, with a frame for an observation."""

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins the next episode of the stream, the first of stream `seed`, or goes on from `options["episode_states"]`; or rests.

        Raises:
            ValueError: No level asks for one of the goals.
        """
        self._resting = bool((options or {}).get("resting", {self.index: False})[self.index])
        if self._resting:
            assert self._last is not None, "only what has played may rest"
            return self._last, {}
        super().reset(seed=seed)
        state = (options or {}).get("episode_states", {self.index: None})[self.index]
        if state is not None:
            self._stream, self._episode = state["stream"], state["episode"]
        elif seed is not None:
            self._stream, self._episode = str(seed), 0
        else:
            self._episode += 1
        self._actions = []
        frame, info = self._draw()
        for action in state["actions"] if state is not None else ():
            frame, _, _, _, step_info = self.step(np.asarray(action, self.action_space.dtype))  # as it was taken
            info |= step_info
        self._last = frame
        return frame, info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Acts; the time limit truncates. One that rests does nothing."""
        if self._resting:
            assert self._last is not None
            return self._last, 0.0, False, False, {}
        self._actions.append(np.asarray(action).tolist())
        frame, reward, terminated, truncated, info = self.act(action)
        self._last = frame
        return frame, reward, terminated, truncated or len(self._actions) == self.settings.max_steps, info

    def episode_state(self) -> dict[str, Any]:
        """What this episode can be gone on from, as JSON: its place in the stream and its actions, which are replayed."""
        return {"stream": self._stream, "episode": self._episode, "actions": list(self._actions)}

    def _draw(self) -> tuple[np.ndarray, dict[str, Any]]:
        for attempt in range(MAX_DRAWS):
            key = f"{self.name}/{self._stream}/{self._episode}/{attempt}"
            seed = draw_seed(SEEDS[self.settings.seeds], key)
            frame, goal, info = self.begin(seed)
            if goal is not None:
                return frame, {"goal_id": goal.id, "level_seed": seed, **info}
        raise ValueError(
            f"{self.name} must have missions that ask for one of the {len(self.goals)} goals, got none in {MAX_DRAWS} levels, the "
            f"last being {info['mission']!r}; give other goals, or another level"
        )


class BabyAIEnvironment(GoalEnvironment):
    """A BabyAI level that goes on when its mission is done; see the module's docstring."""

    def __init__(self, name: str, goals: tuple[Goal, ...], settings: EnvironmentSettings, index: int) -> None:
        super().__init__(name, goals, settings, index)
        self._level = BabyAILevel(name, settings.tile_size)
        self._missions = original_goals(goals)
        self._columns = {goal.id: column for column, goal in enumerate(goal_bank())}
        self._goal = goals[0]
        self._done = False
        side = VIEW_SIZE * settings.tile_size
        self.observation_space = Box(0, 255, (side, side, 3), np.uint8)
        self.action_space = Discrete(self._level.num_actions)

    def begin(self, seed: int) -> tuple[np.ndarray, Goal | None, dict[str, Any]]:
        """Draws a level; its mission says the goal."""
        look = self._level.reset(seed)
        found = self._missions.get(normalize_instruction(self._level.mission))
        info: dict[str, Any] = {"mission": self._level.mission}
        if found is None:
            return look.frame, None, info
        self._goal, self._done = self.goals[found], False
        return look.frame, self._goal, info | self._verdicts(look)

    def act(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step, never terminated; the level's reward is given when its mission is done for the first time."""
        look, reward, _, truncated = self._level.step(int(action))
        reward = 0.0 if self._done else reward
        self._done = self._done or reward > 0
        return look.frame, reward, False, truncated, self._verdicts(look)

    def close(self) -> None:
        """Closes the level."""
        self._level.close()

    def _verdicts(self, look: Look) -> dict[str, Any]:
        infos: dict[str, Any] = {"mission_done": self._done}
        if self._goal.id in self._columns:
            infos["ground_truth"] = bool(ground_truth(look.view)[self._columns[self._goal.id]])
        return infos


class FrameEnvironment(GoalEnvironment):
    """Any environment with frames; each episode gets one of the goals. It ends as the environment itself ends.

    Of a Dict observation the frame alone reaches the agent: states are for offline training alone.

    Raises:
        ValueError: There is no frame where the settings say.
    """

    def __init__(self, name: str, goals: tuple[Goal, ...], settings: EnvironmentSettings, index: int) -> None:
        super().__init__(name, goals, settings, index)
        self._env = gymnasium.make(name, render_mode="rgb_array" if settings.frames == "render" else None)
        self.action_space = self._env.action_space
        self.observation_space = self._frame_space(settings.frames)

    def begin(self, seed: int) -> tuple[np.ndarray, Goal | None, dict[str, Any]]:
        """Resets the environment and draws a goal."""
        observation, info = self._env.reset(seed=seed)
        goal = self.goals[int(np.random.default_rng(seed).integers(len(self.goals)))]
        return self._frame(observation), goal, dict(info)

    def act(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step of the environment."""
        discrete = isinstance(self.action_space, Discrete)
        observation, reward, terminated, truncated, info = self._env.step(int(action) if discrete else action)
        # A vector of environments would take None, such as a truth that no one knows, for False.
        known = {name: value for name, value in info.items() if value is not None}
        return self._frame(observation), float(reward), bool(terminated), bool(truncated), known

    def close(self) -> None:
        """Closes the environment."""
        self._env.close()

    def _frame(self, observation: Any) -> np.ndarray:
        if self.settings.frames == "render":
            return np.asarray(self._env.render())
        return observation if self.settings.frames == "observation" else observation[self.settings.frames]

    def _frame_space(self, frames: str) -> gymnasium.Space:
        space = self._env.observation_space
        if frames == "render":
            self._env.reset(seed=0)
            picture = self._frame(None)
            return Box(0, 255, picture.shape, picture.dtype.type)
        if frames != "observation":
            keys = list(space.spaces) if isinstance(space, Dict) else []
            if frames not in keys:
                raise ValueError(
                    f"frames must be 'observation', 'render' or a key of {self.name}'s observation, got {frames!r}; its keys are "
                    f"{', '.join(keys) or 'none'}"
                )
            return space[frames]
        return space


def spaces_of(env: VectorEnv, goal_size: int, observation: str = "frames", frame_size: int | None = None) -> Spaces:
    """What an agent in these environments sees and does.

    Args:
        env: Whose observation is a frame.
        goal_size: Of a goal's embedding.
        observation: "frames" or "embeddings".
        frame_size: D of a frame's embedding, for "embeddings"; None for the goal's.

    Raises:
        ValueError: The observation is no uint8 RGB frame, or actions are neither discrete from 0 nor a vector in [-1, 1].
    """
    space, actions = env.single_observation_space, env.single_action_space
    if not (isinstance(space, Box) and len(space.shape) == 3 and space.shape[2] == 3 and space.dtype == np.uint8):
        raise ValueError(
            f"the observation must be an RGB frame, Box [H, W, 3] uint8, got {space}; choose the frame with "
            f"--frames: render, or the key of a Dict observation"
        )
    num_actions = int(actions.n) if isinstance(actions, Discrete) and actions.start == 0 else None
    action_size = int(actions.shape[0]) if isinstance(actions, Box) and len(actions.shape) == 1 else None
    if num_actions is None and action_size is None:
        raise ValueError(
            f"actions must be Discrete from 0 or Box [A], got {actions}; wrap the environment so that they are"
        )
    if isinstance(actions, Box) and not ((actions.low == -1).all() and (actions.high == 1).all()):
        raise ValueError(
            f"continuous actions must be from -1 to 1, got {actions}; register the environment in gymnasium's RescaleAction, and "
            f"scale the corpus's actions alike"
        )
    return Spaces(
        observation=observation,
        observation_shape=space.shape
        if observation == "frames"
        else (goal_size if frame_size is None else frame_size,),
        goal_size=goal_size,
        num_actions=num_actions,
        action_size=action_size,
    )


def _check_name(name: str) -> None:
    module, _, registered = name.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"the module of an environment must be importable, got {name!r}: {error}; install it, or put its folder on "
                "PYTHONPATH"
            ) from error
    if name.startswith(LEVEL_PREFIX):
        check_levels((name,))
    elif registered not in gymnasium.registry:
        close = difflib.get_close_matches(registered, list(gymnasium.registry), n=3, cutoff=0.4)
        raise ValueError(
            f"an environment must be registered with gymnasium, got {name!r}; "
            f"{'did you mean ' + ' or '.join(close) + '?' if close else 'name the module that registers it: MODULE:NAME'}"
        )
