"""Environments with one goal per episode, and which goal an episode is asked for.

A goal belongs to the episode that can be asked for it. `DomainEnvironment`, of a domain's level, draws levels by their seeds until
one fits: one whose mission asks, in words, for one of the goals given, or whose `Level.goals()` holds one of them, which it is then
asked for. `FrameEnvironment`, of any other environment, takes the goals that its reset names.

An episode of a domain's level continues when the level says that its mission is done, and ends at the time limit. If it ended
there, the learner could tell by the end of the episode what the level thinks of it, and the level's verdict is the ground truth
that it must never see. So whoever wants an episode to end at success must judge by the frame; see `offline_rl.online.live_rewards`.

Two verdicts are in the infos of a step of a domain's level. `ground_truth`: the goal holds in the frame after the action, by
`Level.facts`, the truth that labels are measured by, which is there too, as `facts`. `mission_done`: the level has rewarded its
mission by now. A level may ask for
more than the frame shows, such as that the agent itself has put an object beside another, so the two can differ.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

from vlm_rewards.labelers.domains.domain import Domain, FrameSize, Look, SeedRanges
from vlm_rewards.labelers.rewards.hindsight import original_goals
from vlm_rewards.schemas.goals import Goal, normalize_instruction

MAX_DRAWS = 1000
"""Levels that are drawn for one episode until one can be asked for one of the goals."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
    """The episodes of one of N environments.

    Args:
        name: Name of the environment.
        index: Index among the N.
        key: Text that determines all its levels and goals.
        seeds: Seeds by use.
        use: Range of seeds that levels are drawn from.
        max_steps: Time limit in steps; None for the environment's own.
    """

    name: str
    index: int
    key: str
    seeds: SeedRanges
    use: str
    max_steps: int | None


class GoalEnvironment(gymnasium.Env, abc.ABC):
    """An environment whose observation is a frame and whose episodes each have a goal; use `make_environments`.

    Args:
        stream: The episodes that it plays.
        goals: Goals that episodes may be asked for.
    """

    def __init__(self, stream: Stream, goals: tuple[Goal, ...]) -> None:
        self.goals = goals
        self._of = stream
        self._stream = stream.key
        self._episode = -1
        self._actions: list[Any] = []
        self._last: np.ndarray | None = None
        self._resting = False

    @abc.abstractmethod
    def begin(self, seed: int) -> tuple[np.ndarray, Goal | None, dict[str, Any]]:
        """Begins the episode of a seed: first frame, goal (None where none of the goals fits the level) and infos."""

    @abc.abstractmethod
    def act(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Takes one step, as in gymnasium, with a frame as the observation."""

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins the next episode of the stream, or the first of stream `seed`, or resumes `options["episode_states"]`; or rests.

        Raises:
            ValueError: No level asks for one of the goals.
        """
        self._resting = bool((options or {}).get("resting", {self._of.index: False})[self._of.index])
        if self._resting:
            assert self._last is not None, "only what has played may rest"
            return self._last, {}
        super().reset(seed=seed)
        state = (options or {}).get("episode_states", {self._of.index: None})[self._of.index]
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
        """Acts; the time limit truncates. An environment that rests does nothing."""
        if self._resting:
            assert self._last is not None
            return self._last, 0.0, False, False, {}
        self._actions.append(np.asarray(action).tolist())
        frame, reward, terminated, truncated, info = self.act(action)
        self._last = frame
        return frame, reward, terminated, truncated or len(self._actions) == self._of.max_steps, info

    def episode_state(self) -> dict[str, Any]:
        """Returns what this episode can be resumed from, as JSON: its place in the stream and its actions, which are replayed."""
        return {"stream": self._stream, "episode": self._episode, "actions": list(self._actions)}

    def _draw(self) -> tuple[np.ndarray, dict[str, Any]]:
        for attempt in range(MAX_DRAWS):
            key = f"{self._of.name}/{self._stream}/{self._episode}/{attempt}"
            seed = self._of.seeds.draw(self._of.use, key)
            frame, goal, info = self.begin(seed)
            if goal is not None:
                return frame, {"goal_id": goal.id, "level_seed": seed, **info}
        raise ValueError(
            f"{self._of.name} can be asked for none of the {len(self.goals)} goals: got none in {MAX_DRAWS} levels, the last with "
            f"{_asked(info)}. Give other goals, or another environment"
        )


class DomainEnvironment(GoalEnvironment):
    """A level of a domain that continues when its mission is done; see the module's docstring.

    Args:
        stream: The episodes that it plays.
        goals: Goals that episodes may be asked for.
        domain: The domain of the level.
        frame_size: (H, W) of its frames.
        camera: Camera whose frames it shows.
    """

    def __init__(
        self, stream: Stream, goals: tuple[Goal, ...], domain: Domain, frame_size: FrameSize, camera: str
    ) -> None:
        super().__init__(stream, goals)
        self._camera = camera
        self._level = domain.make(stream.name, frame_size=frame_size, cameras=(camera,))
        self._missions = original_goals(goals)
        self._judged = {goal.id for bank in domain.banks for goal in domain.goals(bank)}
        self._goal = goals[0]
        self._done = False
        self.observation_space = Box(0, 255, (*frame_size, 3), np.uint8)
        self.action_space = Discrete(self._level.num_actions)

    def begin(self, seed: int) -> tuple[np.ndarray, Goal | None, dict[str, Any]]:
        """Draws a level, and which of the goals it is asked for."""
        look = self._level.reset(seed)
        goal = self._choose(seed)
        info: dict[str, Any] = {"mission": self._level.mission}
        if goal is None:
            return look.frames[self._camera], None, info
        self._goal, self._done = goal, False
        return look.frames[self._camera], goal, info | self._verdicts(look)

    def act(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Takes one step, never terminated; the level's reward is given when its mission is done for the first time."""
        look, reward, _, truncated = self._level.step(int(action))
        reward = 0.0 if self._done else reward
        self._done = self._done or reward > 0
        return look.frames[self._camera], reward, False, truncated, self._verdicts(look)

    def close(self) -> None:
        """Closes the level."""
        self._level.close()

    def _choose(self, seed: int) -> Goal | None:
        """Returns the goal that the mission asks for in words, else one that the level can be asked for; None if there is none."""
        found = self._missions.get(normalize_instruction(self._level.mission))
        if found is not None:
            return self.goals[found]
        possible = set(self._level.goals())
        goals = [goal for goal in self.goals if goal.id in possible]
        if not goals:
            return None
        goal = goals[int(np.random.default_rng(seed).integers(len(goals)))]
        self._level.ask(goal.id)
        return goal

    def _verdicts(self, look: Look) -> dict[str, Any]:
        infos: dict[str, Any] = {"mission_done": self._done}
        if self._goal.id in self._judged:
            infos["facts"] = self._level.facts(look)
            infos["ground_truth"] = self._goal.id in infos["facts"]
        return infos


class FrameEnvironment(GoalEnvironment):
    """Any gymnasium environment with frames. Its episodes end as the environment itself ends them.

    An episode gets one of the goals that the environment names as `goal_ids` in the infos of its reset, drawn by its seed; of all
    goals where it names none. Of a Dict observation the frame alone reaches the agent: states are for offline training alone.

    Args:
        stream: The episodes that it plays.
        goals: Goals that episodes may be asked for.
        frames: Place of its frames, see `EnvironmentSettings`.

    Raises:
        ValueError: There is no frame where the settings say.
    """

    def __init__(self, stream: Stream, goals: tuple[Goal, ...], frames: str) -> None:
        super().__init__(stream, goals)
        self._frames = frames
        self._env = gymnasium.make(stream.name, render_mode="rgb_array" if frames == "render" else None)
        self.action_space = self._env.action_space
        self.observation_space = self._frame_space(frames)

    def begin(self, seed: int) -> tuple[np.ndarray, Goal | None, dict[str, Any]]:
        """Resets the environment and draws a goal that it can be asked for."""
        observation, reset_info = self._env.reset(seed=seed)
        info = dict(reset_info)
        allowed = info.pop("goal_ids", None)
        goals = self.goals if allowed is None else [goal for goal in self.goals if goal.id in set(allowed)]
        goal = goals[int(np.random.default_rng(seed).integers(len(goals)))] if goals else None
        return self._frame(observation), goal, info if goals else info | {"goal_ids": tuple(allowed)}

    def act(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Takes one step of the environment."""
        discrete = isinstance(self.action_space, Discrete)
        observation, reward, terminated, truncated, info = self._env.step(int(action) if discrete else action)
        # A vector of environments would take None, such as a truth that no one knows, for False.
        known = {name: value for name, value in info.items() if value is not None}
        return self._frame(observation), float(reward), bool(terminated), bool(truncated), known

    def close(self) -> None:
        """Closes the environment."""
        self._env.close()

    def _frame(self, observation: Any) -> np.ndarray:
        if self._frames == "render":
            return np.asarray(self._env.render())
        return observation if self._frames == "observation" else observation[self._frames]

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
                    f"frames must be 'observation', 'render' or a key of {self._of.name}'s observation, got {frames!r}; its keys "
                    f"are {', '.join(keys) or 'none'}"
                )
            return space[frames]
        return space


def _asked(info: Mapping[str, Any]) -> str:
    """Describes the goals that the level of these infos can be asked for."""
    return f"the goal_ids {list(info['goal_ids'])}" if "goal_ids" in info else f"the mission {info['mission']!r}"
