"""A buffer of online transitions whose rewards may come later.

    add ──► waiting for its reward ──► set_rewards ──► sampled ...................... ──► overwritten
                                                        └─ episode ends: its returns are filled in
    add_episode: a finished episode again under other goals, without a second copy of its frames ──► sampled

Frames and transitions are kept in two rings. Frames are stored once: the frame after an action is the frame before the next one,
until the episode ends:

    frames          0     1     2     3  |  4     5     6
                   o_0   o_1   o_2   o_3 | o_0'  o_1'  o_2'       episode 1 ends at frame 3, with 3 transitions
    transitions     0     1     2            3     4
                 (0, 1) (1, 2) (2, 3)     (4, 5) (5, 6)           o_3 is seen as a next observation alone

Environments of a vector take turns in the rings, so their frames lie between each other. A termination (the goal was achieved)
gives mask 0, a truncation (the time was over) mask 1. Where an environment goes on after its goal was achieved, that step has
mask 0 all the same, and what follows counts as another try, so that values mean what they do in a corpus. Until an episode has
ended and all its rewards are there, its returns are 0 and it is no success; 0 is below the optimal value wherever rewards are not
negative.

Shape letters as in `offline_rl.interfaces`; here B environments or transitions, T steps, K goals.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vlm_rewards.offline_rl.interfaces import Batch, Spaces
from vlm_rewards.offline_rl.online.checks import check_goals, check_rewards, check_segments, check_step
from vlm_rewards.offline_rl.online.open_episodes import OpenEpisodes
from vlm_rewards.offline_rl.online.transition_rings import TransitionRings
from vlm_rewards.offline_rl.replay.replay import DEFAULT_DISCOUNT
from vlm_rewards.offline_rl.replay.transitions import returns_to_go
from vlm_rewards.schemas.folders import replacing

_WAITING, _SCORED, _GONE = 0, 1, 2
_NO_EPISODE = -1  # of a transition that add_episode stored
_UNSCORED = {"reward": 0.0, "return": 0.0, "success": False, "status": _WAITING}


class OnlineBuffer:
    """Transitions from a vector of environments, the newest of them; see the module's picture.

    Args:
        spaces: What the agent sees and does.
        goal_embeddings: [G, E] float32 of unit length; goals are rows of it.
        num_environments: Environments that `add` is told of.
        capacity: Frames that are kept, about.
        capacity_transitions: Transitions that are kept, about, those of `add_episode` included; None for twice the frames.
        discount: Of the returns.
        finished_only: Sample only transitions whose episode has ended and has its returns, as Cal-QL's authors do.

    Raises:
        ValueError: A number is out of range, or the embeddings are not of the size of the spaces.
    """

    def __init__(
        self,
        spaces: Spaces,
        goal_embeddings: np.ndarray,
        *,
        num_environments: int,
        capacity: int,
        capacity_transitions: int | None = None,
        discount: float = DEFAULT_DISCOUNT,
        finished_only: bool = False,
    ) -> None:
        capacity_transitions = 2 * capacity if capacity_transitions is None else capacity_transitions
        for name, value, least in (
            ("num_environments", num_environments, 1),
            ("capacity", capacity, 4 * num_environments),
            ("capacity_transitions", capacity_transitions, 4 * num_environments),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}; raise it")
        if not 0 <= discount <= 1:
            raise ValueError(f"discount must be from 0 to 1, got {discount}; 0.99 is a good start")
        if goal_embeddings.ndim != 2 or goal_embeddings.shape[1] != spaces.goal_size:
            raise ValueError(
                f"goal_embeddings must be [G, {spaces.goal_size}], got {list(goal_embeddings.shape)}; embed the goals by the "
                f"text tower of the agent"
            )
        self.spaces = spaces
        self._goal_embeddings = np.asarray(goal_embeddings, np.float32)
        self._settings = {
            "num_environments": num_environments,
            "capacity": capacity,
            "capacity_transitions": capacity_transitions,
            "discount": discount,
            "finished_only": finished_only,
        }
        self._discount, self._finished_only = discount, finished_only
        self._rings = TransitionRings(
            spaces,
            self._goal_embeddings,
            num_environments=num_environments,
            capacity=capacity,
            capacity_transitions=capacity_transitions,
        )
        self._transitions = self._rings.transitions
        self._episodes = OpenEpisodes()
        self._last_frame = np.full(num_environments, -1, np.int64)  # of the episode that goes on
        self._episode_of = np.full(num_environments, -1, np.int64)

    def __len__(self) -> int:
        """Transitions that can be sampled."""
        return len(self._rings)

    @property
    def num_waiting(self) -> int:
        """Transitions that wait for their reward."""
        return self._episodes.num_waiting

    def add(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        next_observations: np.ndarray,
        goals: np.ndarray,
        *,
        terminations: np.ndarray,
        truncations: np.ndarray,
        states: np.ndarray | None = None,
        next_states: np.ndarray | None = None,
        valid: np.ndarray | None = None,
    ) -> np.ndarray:
        """Stores a step of every environment, which waits for its reward.

        Args:
            observations: [B, ...], before the action.
            actions: [B] or [B, A].
            next_observations: [B, ...], after the action: the episode's true last one, never that of the next episode.
            goals: [B] int, rows of the goal embeddings.
            terminations: [B] bool, whether the step achieved the goal and ended the episode.
            truncations: [B] bool, whether the episode was cut there.
            states: [B, S], with `next_states`, where the spaces have them; the environments of this package supply none.
            next_states: [B, S].
            valid: [B] bool; False where nothing was done, as in the step of an environment that resets itself.

        Returns:
            [B] int64, numbers of the transitions for `set_rewards` and `add_episode`; -1 where not valid.

        Raises:
            ValueError: A shape does not fit, or an episode goes on with another observation than the one it had come to.
        """
        terminations, truncations = np.asarray(terminations, np.bool_), np.asarray(truncations, np.bool_)
        goals = np.asarray(goals, np.int64)
        valid = np.ones(len(self._last_frame), np.bool_) if valid is None else np.asarray(valid, np.bool_)
        step: dict[str, np.ndarray | None] = {"observations": observations, "next_observations": next_observations}
        step |= {"actions": actions, "goals": goals, "terminations": terminations, "truncations": truncations}
        step |= {"valid": valid, "states": states, "next_states": next_states}
        check_step(self.spaces, len(self._last_frame), step)
        environments = np.flatnonzero(valid)
        goals, last = goals[environments], self._last_frame[environments]
        check_goals(goals, len(self._goal_embeddings))
        self._check_continued(environments, observations)
        self._make_room(2 * len(valid), len(valid))
        frames = {"observations": (observations[environments], next_observations[environments])}
        if states is not None and next_states is not None:
            frames["states"] = (states[environments], next_states[environments])
        before, after = self._rings.extend_frames(last, frames)
        for b in environments[last < 0].tolist():
            self._episode_of[b] = self._episodes.begin()
        numbers = np.full(len(valid), -1, np.int64)
        numbers[environments] = self._transitions.extend(
            len(environments),
            {
                "before": before,
                "after": after,
                "episode": self._episode_of[environments],
                "goal": goals,
                "mask": np.where(terminations[environments], 0.0, 1.0),
                "actions": actions[environments],
                **_UNSCORED,
            },
        )
        ends = terminations | truncations
        for b in environments.tolist():
            self._episodes.add(int(self._episode_of[b]), int(numbers[b]), ended=bool(ends[b]))
        self._last_frame[environments] = np.where(ends[environments], -1, after)
        return numbers

    def set_rewards(self, transitions: np.ndarray, rewards: np.ndarray, successes: np.ndarray | None = None) -> int:
        """Gives transitions their rewards, from when on they can be sampled; those overwritten since are passed over.

        Args:
            transitions: [B] int64, from `add`.
            rewards: [B] float32.
            successes: [B] bool, whether the goal is achieved: mask 0, also where the environment goes on; False if not given.

        Returns:
            How many were still there.

        Raises:
            ValueError: A transition was never added or has its reward, or a reward is not finite.
        """
        transitions, rewards = np.asarray(transitions, np.int64), np.asarray(rewards, np.float32)
        successes = np.zeros(len(transitions), np.bool_) if successes is None else np.asarray(successes, np.bool_)
        check_rewards(transitions, rewards, successes)
        if len(np.unique(transitions)) < len(transitions) or not self._rings.were_stored(transitions):
            raise ValueError(
                f"transitions must be numbers that add returned, each once, got {transitions.tolist()}; pass them on as they are"
            )
        alive = self._rings.are_alive(transitions)
        transitions, rewards, successes = transitions[alive], rewards[alive], successes[alive]
        scored = self._transitions.read("status", transitions) != _WAITING
        if scored.any():
            raise ValueError(
                f"a transition must get its reward once, got a second for {transitions[scored][0]}; score every frame once"
            )
        self._transitions.write("reward", transitions, rewards)
        self._transitions.write("mask", transitions[successes], 0.0)
        self._transitions.write("status", transitions, _SCORED)
        if not self._finished_only:
            self._rings.release(transitions)
        self._episodes.stop_waiting(self._transitions.read("episode", transitions))
        self._settle()
        return len(transitions)

    def add_episode(
        self,
        transitions: np.ndarray,
        goals: np.ndarray,
        rewards: np.ndarray,
        *,
        start: np.ndarray | None = None,
        stop: np.ndarray | None = None,
        terminated: np.ndarray | None = None,
    ) -> int:
        """Stores a finished episode again under other goals: those it achieved, and those it did not, with reward 0.

        The segments are those of `schemas.relabelled`: of goal k the steps start[k] <= t < stop[k], terminated or not.

        Args:
            transitions: [T] int64, the episode's transitions from `add`, in order.
            goals: [K] int, rows of the goal embeddings.
            rewards: [K, T] float32.
            start: [K] int; 0 if not given.
            stop: [K] int; T if not given.
            terminated: [K] bool, whether the last step achieves the goal; False if not given.

        Returns:
            How many transitions were stored, 0 where a part of the episode has been overwritten.

        Raises:
            ValueError: The shapes do not fit, the transitions are not those of one episode in order, or a segment is not one.
        """
        transitions, goals = np.asarray(transitions, np.int64), np.asarray(goals, np.int64)
        rewards = np.asarray(rewards, np.float32)
        K, T = len(goals), len(transitions)
        start = np.zeros(K, np.int64) if start is None else np.asarray(start, np.int64)
        stop = np.full(K, T, np.int64) if stop is None else np.asarray(stop, np.int64)
        terminated = np.zeros(K, np.bool_) if terminated is None else np.asarray(terminated, np.bool_)
        check_segments(T, rewards, start, stop, terminated, K)
        check_goals(goals, len(self._goal_embeddings))
        total = int((stop - start).sum())
        if total > self._settings["capacity_transitions"]:
            raise ValueError(
                f"capacity_transitions must hold an episode under all its goals, {total} transitions, got "
                f"{self._settings['capacity_transitions']}; raise the capacity"
            )
        if not self._rings.were_stored(transitions):
            raise ValueError(f"transitions must be numbers that add returned, got {transitions.tolist()}; pass them on")
        self._make_room(0, total)
        if not self._rings.are_alive(transitions).all():
            return 0
        before, after, actions = (self._transitions.read(name, transitions) for name in ("before", "after", "actions"))
        if (before[1:] != after[:-1]).any():
            raise ValueError(
                f"transitions must be those of one episode in order, got {transitions.tolist()}; sort them"
            )
        for k in range(K):
            inside = slice(start[k], stop[k])
            masks = np.ones(stop[k] - start[k], np.float32)
            masks[-1] = 0.0 if terminated[k] else 1.0
            new = self._transitions.extend(
                len(masks),
                {
                    "before": before[inside],
                    "after": after[inside],
                    "episode": _NO_EPISODE,
                    "goal": goals[k],
                    "mask": masks,
                    "actions": actions[inside],
                    "reward": rewards[k, inside],
                    "return": returns_to_go(rewards[k, inside], self._discount),
                    "success": terminated[k],
                    "status": _SCORED,
                },
            )
            self._rings.release(new)
        return total

    def sample(self, batch_size: int, generator: np.random.Generator) -> Batch:
        """Draws transitions that have their rewards, with replacement, all alike.

        Args:
            batch_size: B.
            generator: Source of randomness; its state is `generator.bit_generator.state`.

        Raises:
            ValueError: No transition can be sampled yet.
        """
        if not len(self):
            raise ValueError(
                f"the online buffer must hold a transition with its reward to sample from, got {self.num_waiting} without; wait "
                f"for the rewards, or warm up for longer"
            )
        return self._rings.sample(batch_size, generator)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Everything that a run goes on from, as arrays: views, not copies, and what was never filled is left out."""
        own = {
            "settings": self._settings,
            "counts": {
                "frames": self._rings.frames.count,
                "transitions": self._transitions.count,
                "episodes": self._episodes.count,
                "ready": len(self),
            },
            "first": {"frame": self._rings.frames.first, "transition": self._transitions.first},
            "open": self._episodes.state_dict(),
        }
        return {
            **self._rings.state_dict(),
            "last_frame": self._last_frame,
            "episode_of": self._episode_of,
            "goal_embeddings": self._goal_embeddings,
            "own": np.array(json.dumps(own)),
        }

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """The inverse.

        Raises:
            ValueError: The buffer has other settings or goals than the one that was saved.
        """
        own = json.loads(str(state["own"]))
        same_goals = np.array_equal(state["goal_embeddings"], self._goal_embeddings)
        if own["settings"] != self._settings or not same_goals:
            raise ValueError(
                f"the online buffer must be made as the saved one, with {own['settings']} and its goals, got {self._settings}"
                f"{'' if same_goals else ' and other goals'}; use the settings of the run that is resumed"
            )
        self._rings.load_state_dict(state, counts=own["counts"], first=own["first"])
        self._episodes.load_state_dict(own["open"], count=own["counts"]["episodes"])
        self._last_frame[:], self._episode_of[:] = state["last_frame"], state["episode_of"]

    def save(self, path: str | Path) -> None:
        """Writes `state_dict` as .npz, complete or not at all."""
        with replacing(Path(path)) as temporary, temporary.open("xb") as file:
            np.savez(file, **self.state_dict())  # type: ignore[arg-type]

    def load(self, path: str | Path) -> None:
        """Goes on from what `save` wrote."""
        with np.load(path, allow_pickle=False) as state:
            self.load_state_dict(state)

    def _check_continued(self, environments: np.ndarray, observations: np.ndarray) -> None:
        going_on = environments[self._last_frame[environments] >= self._rings.frames.first]
        frames = self._rings.frames.read("observations", self._last_frame[going_on])
        for b, frame in zip(going_on.tolist(), frames, strict=True):
            if not np.array_equal(frame, observations[b]):
                raise ValueError(
                    f"an observation must be the next observation of the step before, got another in environment {b}; give the "
                    f"true last observation of an episode, and valid=False for the step in which an environment resets itself"
                )

    def _make_room(self, num_frames: int, num_transitions: int) -> None:
        gone = self._rings.make_room(num_frames, num_transitions)
        if not len(gone):
            return
        waited = gone[self._transitions.read("status", gone) == _WAITING]
        self._transitions.write("status", gone, _GONE)
        self._episodes.stop_waiting(self._transitions.read("episode", waited))
        self._episodes.keep(self._rings.are_alive)
        self._settle()

    def _settle(self) -> None:
        for transitions in self._episodes.pop_settled():
            achieved = self._transitions.read("mask", transitions) == 0
            for part in np.split(transitions, np.flatnonzero(achieved) + 1):  # nothing follows a success
                rewards = self._transitions.read("reward", part)
                self._transitions.write("return", part, returns_to_go(rewards, self._discount))
                self._transitions.write("success", part, self._transitions.read("mask", part[-1:]) == 0)
            if self._finished_only:
                self._rings.release(transitions)
