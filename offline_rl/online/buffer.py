"""The replay buffer of an online run: the newest transitions of a vector of environments, each with its reward.

Frames and transitions are kept in two rings. A frame is stored once: the frame after an action is also the frame before the next
action, until the episode ends:

    frames          0     1     2     3  |  4     5     6
                   o_0   o_1   o_2   o_3 | o_0'  o_1'  o_2'       episode 1 ends at frame 3, with 3 transitions
    transitions     0     1     2            3     4
                 (0, 1) (1, 2) (2, 3)     (4, 5) (5, 6)           o_3 is only ever a next observation

    add            stores one step of every environment, with its reward ──► can be sampled at once
                   the step that ends an episode fills in the returns of the whole episode
    add_episode    stores a finished episode under other goals; only transitions are added, the frames are shared

The number that `add` returns is the only name of a transition. Numbers count up and are never reused.

The steps of a vector of environments alternate in the rings, so the frames of one episode do not lie next to each other. A
termination (the goal was achieved) has mask 0, a truncation (the time was over) mask 1. A step that achieves the goal has mask 0
even if the environment continues, and the steps after it count as another attempt, so that values mean the same as in a recorded
corpus. Until its episode ends, a transition has return 0 and counts as no success; 0 is a lower bound of the optimal value as long
as no reward is negative.

Shape letters as in `offline_rl.interfaces`; here B environments or transitions, T steps, K goals.
"""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vlm_rewards.offline_rl.interfaces import Batch, Spaces
from vlm_rewards.offline_rl.online.checks import check_goals, check_rewards, check_segments, check_step
from vlm_rewards.offline_rl.online.transition_rings import TransitionRings
from vlm_rewards.offline_rl.replay.replay import DEFAULT_DISCOUNT
from vlm_rewards.offline_rl.replay.transitions import returns_to_go
from vlm_rewards.schemas.files.digests import check_digest_beside, digest_beside, digest_text
from vlm_rewards.schemas.folders import replacing, write_atomically

_REMEDY = "Remove it and the checkpoint of the same step, and the run resumes from the one before."


class OnlineBuffer:
    """The newest transitions of a vector of environments; see the module's picture.

    Args:
        spaces: Observations and actions of the agent.
        goal_embeddings: [G, E] float32 of unit length, one row per goal; transitions name a goal by its row.
        num_environments: B, the environments of a step.
        capacity: Approximate number of frames to keep.
        capacity_transitions: Approximate number of transitions to keep, including those of `add_episode`; None for twice the
            number of frames.
        discount: Discount factor of the returns.
        finished_only: Sample only transitions whose episode has ended and that have their return, as Cal-QL's authors do.

    Raises:
        ValueError: A number is out of range, or the embeddings do not have the goal size of the spaces.
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
                raise ValueError(f"{name} must be at least {least}, got {value}. Raise it.")
        if not 0 <= discount <= 1:
            raise ValueError(f"discount must be from 0 to 1, got {discount}. 0.99 is a good start.")
        if goal_embeddings.ndim != 2 or goal_embeddings.shape[1] != spaces.goal_size:
            raise ValueError(
                f"goal_embeddings must be [G, {spaces.goal_size}], got {list(goal_embeddings.shape)}. Embed the goals "
                f"with the text encoder that the agent was trained with."
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
        # The running episode of each environment: its last frame (-1 between episodes), its first transition, and all that are
        # still in the ring.
        self._last_frame = np.full(num_environments, -1, np.int64)
        self._began = np.full(num_environments, -1, np.int64)
        self._running: list[list[int]] = [[] for _ in range(num_environments)]

    def __len__(self) -> int:
        """Returns the number of transitions that can be sampled."""
        return len(self._rings)

    def add(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        next_observations: np.ndarray,
        goals: np.ndarray,
        rewards: np.ndarray,
        *,
        terminations: np.ndarray,
        truncations: np.ndarray,
        successes: np.ndarray | None = None,
        states: np.ndarray | None = None,
        next_states: np.ndarray | None = None,
        valid: np.ndarray | None = None,
    ) -> np.ndarray:
        """Stores one step of every environment.

        Args:
            observations: [B, ...], before the action.
            actions: [B] or [B, A].
            next_observations: [B, ...], after the action: the true last frame of an episode, never the first of the next one.
            goals: [B] int, rows of the goal embeddings.
            rewards: [B] float32; those of rows that are not valid are ignored.
            terminations: [B] bool, whether the step achieved the goal and ended the episode.
            truncations: [B] bool, whether the episode was cut off there.
            successes: [B] bool, whether the step achieved the goal, also where the environment continues; None for terminations.
            states: [B, S], with `next_states`, if the spaces have states; the environments of this package have none.
            next_states: [B, S].
            valid: [B] bool; False for an environment that took no step, as one that resets itself. None for all True.

        Returns:
            [B] int64, the numbers of the transitions, for `add_episode`; -1 where not valid.

        Raises:
            ValueError: A shape does not fit, a reward is not finite, or an observation is not the next observation of the step
                before.
        """
        terminations, truncations = np.asarray(terminations, np.bool_), np.asarray(truncations, np.bool_)
        goals, rewards = np.asarray(goals, np.int64), np.asarray(rewards, np.float32)
        successes = terminations if successes is None else np.asarray(successes, np.bool_)
        valid = np.ones(len(self._last_frame), np.bool_) if valid is None else np.asarray(valid, np.bool_)
        step: dict[str, np.ndarray | None] = {"observations": observations, "next_observations": next_observations}
        step |= {"actions": actions, "goals": goals, "rewards": rewards, "successes": successes, "valid": valid}
        step |= {"terminations": terminations, "truncations": truncations, "states": states, "next_states": next_states}
        check_step(self.spaces, len(self._last_frame), step)
        environments = np.flatnonzero(valid)
        goals, rewards, last = goals[environments], rewards[environments], self._last_frame[environments]
        check_goals(goals, len(self._goal_embeddings))
        check_rewards(rewards)
        self._check_continued(environments, observations)

        self.make_room()
        frames = {"observations": (observations[environments], next_observations[environments])}
        if states is not None and next_states is not None:
            frames["states"] = (states[environments], next_states[environments])
        before, after = self._rings.extend_frames(last, frames)
        achieved, ended = (terminations | successes)[environments], (terminations | truncations)[environments]
        numbers = np.full(len(valid), -1, np.int64)
        numbers[environments] = self._transitions.extend(
            len(environments),
            {
                "before": before,
                "after": after,
                "goal": goals,
                "mask": np.where(achieved, 0.0, 1.0),
                "actions": actions[environments],
                "reward": rewards,
                "return": 0.0,
                "success": False,
            },
        )
        if not self._finished_only:
            self._rings.release(numbers[environments])

        # Episodes that end here get their returns, in the order in which they began.
        begins = environments[last < 0]
        self._began[begins] = numbers[begins]
        self._last_frame[environments] = np.where(ended, -1, after)
        for b in environments.tolist():
            self._running[b].append(int(numbers[b]))
        for b in sorted(environments[ended].tolist(), key=self._began.__getitem__):
            self._finish(np.array(self._running[b], np.int64))
            self._running[b] = []
        return numbers

    def make_room(self) -> None:
        """Gives up the oldest transitions that the next `add` would give up; an update in between draws none of them."""
        # The worst case: every environment begins an episode, with two new frames.
        self._make_room(2 * len(self._running), len(self._running))

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
        """Stores a finished episode under other goals: goals that it achieved, and goals that it did not, with reward 0.

        Goal k gets the steps start[k] <= t < stop[k], as in `schemas.relabelled`.

        Args:
            transitions: [T] int64, the numbers of the episode's transitions from `add`, in order.
            goals: [K] int, rows of the goal embeddings.
            rewards: [K, T] float32.
            start: [K] int, the first step of each goal; None for 0.
            stop: [K] int, the step after the last one; None for T.
            terminated: [K] bool, whether the last step achieves the goal; None for False.

        Returns:
            The number of transitions stored; 0 if a part of the episode has been overwritten.

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
                f"{self._settings['capacity_transitions']}. Raise the capacity."
            )
        if not self._rings.were_stored(transitions):
            raise ValueError(
                f"transitions must be numbers that add returned, got {transitions.tolist()}. Pass them unchanged."
            )
        self._make_room(0, total)
        if not self._rings.are_alive(transitions).all():
            return 0
        before, after, actions = (self._transitions.read(name, transitions) for name in ("before", "after", "actions"))
        if (before[1:] != after[:-1]).any():
            raise ValueError(
                f"transitions must be those of one episode in order, got {transitions.tolist()}. Sort them."
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
                    "goal": goals[k],
                    "mask": masks,
                    "actions": actions[inside],
                    "reward": rewards[k, inside],
                    "return": returns_to_go(rewards[k, inside], self._discount),
                    "success": terminated[k],
                },
            )
            self._rings.release(new)
        return total

    def sample(self, batch_size: int, generator: np.random.Generator) -> Batch:
        """Draws transitions uniformly, with replacement.

        Args:
            batch_size: Number of transitions.
            generator: Random generator; its state is `generator.bit_generator.state`.

        Raises:
            ValueError: No transition can be sampled yet.
        """
        if not len(self):
            running = sum(len(transitions) for transitions in self._running)
            raise ValueError(
                f"the online buffer must hold a transition to sample, got none, and {running} of episodes that have not ended. "
                f"Warm up for longer, or set finished_only=False."
            )
        return self._rings.sample(batch_size, generator)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Returns everything needed to resume, as arrays: views, not copies, without the rows that were never filled."""
        own = {
            "settings": self._settings,
            "counts": {"frames": self._rings.frames.count, "transitions": self._transitions.count},
            "first": {"frame": self._rings.frames.first, "transition": self._transitions.first},
            "running": self._running,
        }
        return {
            **self._rings.state_dict(),
            "last_frame": self._last_frame,
            "began": self._began,
            "goal_embeddings": self._goal_embeddings,
            "own": np.array(json.dumps(own)),
        }

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Restores what `state_dict` returned.

        Raises:
            ValueError: The settings or goals of this buffer differ from those of the saved one.
        """
        own = json.loads(str(state["own"]))
        same_goals = np.array_equal(state["goal_embeddings"], self._goal_embeddings)
        if own["settings"] != self._settings or not same_goals:
            raise ValueError(
                f"the online buffer must be made as the saved one, with {own['settings']} and its goals, got {self._settings}"
                f"{'' if same_goals else ' and other goals'}. Use the settings of the run that is resumed."
            )
        self._rings.load_state_dict(state, counts=own["counts"], first=own["first"])
        self._last_frame[:], self._began[:] = state["last_frame"], state["began"]
        self._running = own["running"]

    def save(self, path: str | Path) -> None:
        """Writes `state_dict` as .npz, complete or not at all, and its digest beside it."""
        with replacing(Path(path)) as temporary:
            with temporary.open("xb") as file:
                np.savez(file, **self.state_dict())  # type: ignore[arg-type]
            write_atomically(digest_beside(Path(path)), digest_text(temporary))

    def load(self, path: str | Path) -> None:
        """Restores what `save` wrote.

        Raises:
            ValueError: The file is not one that `save` wrote, it has changed since, or see `load_state_dict`.
        """
        if Path(path).is_file():
            check_digest_beside(Path(path), _REMEDY)
        try:
            with np.load(path, allow_pickle=False) as state:
                arrays = dict(state)
        except (OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path} must be a saved buffer, got {type(error).__name__}: {error}. {_REMEDY}"
            ) from error
        self.load_state_dict(arrays)

    def _check_continued(self, environments: np.ndarray, observations: np.ndarray) -> None:
        continued = environments[self._last_frame[environments] >= self._rings.frames.first]
        frames = self._rings.frames.read("observations", self._last_frame[continued])
        for b, frame in zip(continued.tolist(), frames, strict=True):
            if not np.array_equal(frame, observations[b]):
                raise ValueError(
                    f"an observation must be the next observation of the step before, got another in environment {b}. Give the "
                    f"true last observation of an episode, and valid=False for the step in which an environment resets itself."
                )

    def _make_room(self, num_frames: int, num_transitions: int) -> None:
        if self._rings.make_room(num_frames, num_transitions):
            for b, transitions in enumerate(self._running):
                numbers = np.array(transitions, np.int64)
                self._running[b] = numbers[self._rings.are_alive(numbers)].tolist()

    def _finish(self, transitions: np.ndarray) -> None:
        """Fills in the returns of an episode that has ended, from its transitions that are still in the ring."""
        achieved = self._transitions.read("mask", transitions) == 0
        for part in np.split(transitions, np.flatnonzero(achieved) + 1):  # no value flows back across a success
            rewards = self._transitions.read("reward", part)
            self._transitions.write("return", part, returns_to_go(rewards, self._discount))
            self._transitions.write("success", part, self._transitions.read("mask", part[-1:]) == 0)
        if self._finished_only:
            self._rings.release(transitions)
