"""A ring of online transitions whose rewards may come later, and how its batches are mixed with those of a replay.

    add ──► waiting for its reward ──► set_rewards ──► sampled ...................... ──► overwritten
                                                        └─ episode ends: its returns are filled in
    add_episode: a finished episode again under other goals, without a second copy of its frames ──► sampled

Frames are stored once. The frame after an action is the frame before the next one, until the episode ends:

    frames          0     1     2     3  |  4     5     6
                   o_0   o_1   o_2   o_3 | o_0'  o_1'  o_2'       episode 1 ends at frame 3, with 3 transitions
    transitions     0     1     2            3     4
                 (0, 1) (1, 2) (2, 3)     (4, 5) (5, 6)           o_3 is seen as a next observation alone

Environments of a vector take turns in one ring, so their frames lie between each other. A termination (the goal was achieved)
gives mask 0, a truncation (the time was over) mask 1. Until an episode has ended and all its rewards are there, its returns are 0
and it is no success; 0 is below the optimal value wherever rewards are not negative.

Shape letters as in `offline_rl.batches`; here B environments or transitions, T steps, K goals.
"""

import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from offline_rl.batches import Batch, Spaces
from offline_rl.replay import DEFAULT_DISCOUNT, DEFAULT_MIX, ReplayData
from offline_rl.transitions import returns_to_go

_WAITING, _SCORED, _DEAD = 0, 1, 2


class OnlineBuffer:
    """A ring of transitions from a vector of environments; see the module's picture.

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
        # Whole blocks are given up at a time, so that finding what is dead costs little a step.
        self._blocks = {
            "frame": max(2 * num_environments, capacity // 64),
            "transition": max(num_environments, capacity_transitions // 64),
        }
        frames, slots = capacity + self._blocks["frame"], capacity_transitions + self._blocks["transition"]
        dtype = np.uint8 if spaces.observation == "frames" else np.float32
        self._frames: dict[str, np.ndarray] = {"observations": np.zeros((frames, *spaces.observation_shape), dtype)}
        if spaces.state_size is not None:
            self._frames["states"] = np.zeros((frames, spaces.state_size), np.float32)
        self._slots: dict[str, np.ndarray] = {
            "before": np.zeros(slots, np.int64),
            "after": np.zeros(slots, np.int64),
            "episode": np.zeros(slots, np.int64),
            "goal": np.zeros(slots, np.int32),
            "reward": np.zeros(slots, np.float32),
            "mask": np.zeros(slots, np.float32),
            "return": np.zeros(slots, np.float32),
            "success": np.zeros(slots, np.bool_),
            "status": np.full(slots, _DEAD, np.int8),
            "actions": np.zeros(slots, np.int64)
            if spaces.action_size is None
            else np.zeros((slots, spaces.action_size), np.float32),
        }
        self._ready = np.zeros(
            slots, np.int64
        )  # numbers of the transitions that can be sampled, the first counts["ready"]
        self._counts = {"frames": 0, "transitions": 0, "episodes": 0, "ready": 0}
        self._first = {"frame": 0, "transition": 0}  # what is before is dead
        self._last_frame = np.full(num_environments, -1, np.int64)
        self._episode_of = np.full(num_environments, -1, np.int64)
        self._open: dict[int, dict] = {}  # by episode that is not settled: its transitions, and whether it has ended

    def __len__(self) -> int:
        """Transitions that can be sampled."""
        return self._counts["ready"]

    @property
    def num_waiting(self) -> int:
        """Transitions that wait for their reward."""
        return int((self._slots["status"] == _WAITING).sum())

    def add(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        next_observations: np.ndarray,
        goals: np.ndarray,
        *,
        terminations: np.ndarray,
        truncations: np.ndarray,
        rewards: np.ndarray | None = None,
        states: np.ndarray | None = None,
        next_states: np.ndarray | None = None,
        valid: np.ndarray | None = None,
    ) -> np.ndarray:
        """Stores a step of every environment.

        Args:
            observations: [B, ...], before the action.
            actions: [B] or [B, A].
            next_observations: [B, ...], after the action: the episode's true last one, never that of the next episode.
            goals: [B] int, rows of the goal embeddings.
            terminations: [B] bool, whether the step achieved the goal and ended the episode.
            truncations: [B] bool, whether the episode was cut there.
            rewards: [B] float32; None if they come later.
            states: [B, S], with `next_states`, where the spaces have them.
            next_states: [B, S].
            valid: [B] bool; False where nothing was done, as in the step of an environment that resets itself.

        Returns:
            [B] int64, numbers of the transitions for `set_rewards` and `add_episode`; -1 where not valid.

        Raises:
            ValueError: A shape does not fit, or an episode goes on with another observation than the one it had come to.
        """
        valid = np.ones(len(self._last_frame), np.bool_) if valid is None else np.asarray(valid, np.bool_)
        ends = np.asarray(terminations, np.bool_) | np.asarray(truncations, np.bool_)
        self._check(observations, actions, next_observations, goals, terminations, truncations, rewards, valid)
        self._check_states(states, next_states)
        goals = np.asarray(goals, np.int64)
        self._check_goals(goals[valid])
        self._check_continued(observations, valid)
        self._make_room(2 * len(valid), len(valid))
        numbers = np.full(len(valid), -1, np.int64)
        for b in np.flatnonzero(valid):
            state = None if states is None else states[b]
            next_state = None if next_states is None else next_states[b]
            before = self._last_frame[b]
            if before < 0 or before < self._first["frame"]:
                before = self._store(observations[b], state)
                if self._last_frame[b] < 0:
                    self._episode_of[b] = self._begin()
            after = self._store(next_observations[b], next_state)
            episode = int(self._episode_of[b])
            numbers[b] = self._write(before, after, actions[b], goals[b], 0.0 if terminations[b] else 1.0, episode)
            self._open[episode]["transitions"].append(int(numbers[b]))
            self._open[episode]["waiting"] += 1
            self._last_frame[b] = -1 if ends[b] else after
            if ends[b]:
                self._open[episode]["ended"] = True
                self._open[episode]["terminated"] = bool(terminations[b])
        if rewards is not None:
            self.set_rewards(numbers[valid], np.asarray(rewards)[valid])
        return numbers

    def set_rewards(self, transitions: np.ndarray, rewards: np.ndarray) -> int:
        """Gives transitions their rewards, from when on they can be sampled; those overwritten since are passed over.

        Args:
            transitions: [B] int64, from `add`.
            rewards: [B] float32.

        Returns:
            How many were still there.

        Raises:
            ValueError: A transition was never added or has its reward, or a reward is not finite.
        """
        transitions, rewards = np.asarray(transitions, np.int64), np.asarray(rewards, np.float32)
        if transitions.shape != rewards.shape or not np.isfinite(rewards).all():
            raise ValueError(
                f"rewards must be a finite number a transition, got {rewards.tolist()} for {len(transitions)}; score them again"
            )
        if len(np.unique(transitions)) < len(transitions) or not self._were_added(transitions):
            raise ValueError(
                f"transitions must be numbers that add returned, each once, got {transitions.tolist()}; pass them on as they are"
            )
        slots = transitions % len(self._ready)
        alive = self._alive(transitions)
        scored = alive & (self._slots["status"][slots] != _WAITING)
        if scored.any():
            raise ValueError(
                f"a transition must get its reward once, got a second for {transitions[scored][0]}; score every frame once"
            )
        self._slots["reward"][slots[alive]] = rewards[alive]
        self._slots["status"][slots[alive]] = _SCORED
        if not self._finished_only:
            self._release(transitions[alive])
        for episode in np.unique(self._slots["episode"][slots[alive]]).tolist():
            self._open[episode]["waiting"] -= int((self._slots["episode"][slots[alive]] == episode).sum())
        self._settle()
        return int(alive.sum())

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
        if rewards.shape != (K, T) or not np.isfinite(rewards).all() or {len(start), len(stop), len(terminated)} != {K}:
            raise ValueError(
                f"an episode of {T} steps under {K} goals must have finite rewards [{K}, {T}] and a start, stop and terminated for "
                f"every goal, got rewards {list(rewards.shape)}; score all its frames for all the goals"
            )
        if not ((start >= 0) & (start < stop) & (stop <= T)).all():
            raise ValueError(f"segments must be 0 <= start < stop <= {T}, got {start.tolist()} and {stop.tolist()}")
        self._check_goals(goals)
        total = int((stop - start).sum())
        if total > self._settings["capacity_transitions"]:
            raise ValueError(
                f"capacity_transitions must hold an episode under all its goals, {total} transitions, got "
                f"{self._settings['capacity_transitions']}; raise it"
            )
        if not self._were_added(transitions):
            raise ValueError(f"transitions must be numbers that add returned, got {transitions.tolist()}; pass them on")
        self._make_room(0, total)
        if not self._alive(transitions).all():
            return 0
        slots = transitions % len(self._ready)
        if (self._slots["before"][slots[1:]] != self._slots["after"][slots[:-1]]).any():
            raise ValueError(
                f"transitions must be those of one episode in order, got {transitions.tolist()}; sort them"
            )
        for k in range(K):
            inside = slots[start[k] : stop[k]]
            values = returns_to_go(rewards[k, start[k] : stop[k]], self._discount)
            new = np.array(
                [
                    self._write(before, after, action, goals[k], 1.0, -1)
                    for before, after, action in zip(
                        *(self._slots[name][inside] for name in ("before", "after", "actions")), strict=True
                    )
                ]
            )
            places = new % len(self._ready)
            self._slots["reward"][places] = rewards[k, start[k] : stop[k]]
            self._slots["return"][places] = values
            self._slots["success"][places] = terminated[k]
            self._slots["mask"][places[-1]] = 0.0 if terminated[k] else 1.0
            self._slots["status"][places] = _SCORED
            self._release(new)
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
        slots = self._ready[generator.integers(0, len(self), batch_size)] % len(self._ready)
        frames = {name: self._slots[name][slots] % len(self._frames["observations"]) for name in ("before", "after")}
        states = self._frames.get("states")
        return Batch(
            observations=torch.from_numpy(self._frames["observations"][frames["before"]]),
            actions=torch.from_numpy(self._slots["actions"][slots]),
            rewards=torch.from_numpy(self._slots["reward"][slots]),
            next_observations=torch.from_numpy(self._frames["observations"][frames["after"]]),
            masks=torch.from_numpy(self._slots["mask"][slots]),
            goals=torch.from_numpy(self._goal_embeddings[self._slots["goal"][slots]]),
            returns=torch.from_numpy(self._slots["return"][slots]),
            successes=torch.from_numpy(self._slots["success"][slots]),
            states=None if states is None else torch.from_numpy(states[frames["before"]]),
            next_states=None if states is None else torch.from_numpy(states[frames["after"]]),
        )

    def state_dict(self) -> dict[str, np.ndarray]:
        """Everything that a run goes on from, as arrays; what was never filled is left out."""
        num_frames = min(self._counts["frames"], len(self._frames["observations"]))
        num_slots = min(self._counts["transitions"], len(self._ready))
        own = {
            "settings": self._settings,
            "counts": self._counts,
            "first": self._first,
            "open": {str(episode): record for episode, record in self._open.items()},
        }
        return {
            **{f"frames_{name}": values[:num_frames].copy() for name, values in self._frames.items()},
            **{f"slots_{name}": values[:num_slots].copy() for name, values in self._slots.items()},
            "ready": self._ready[: len(self)].copy(),
            "last_frame": self._last_frame.copy(),
            "episode_of": self._episode_of.copy(),
            "goal_embeddings": self._goal_embeddings.copy(),
            "own": np.array(json.dumps(own)),
        }

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
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
        for prefix, arrays in (("frames", self._frames), ("slots", self._slots)):
            for name, values in arrays.items():
                saved = state[f"{prefix}_{name}"]
                values[: len(saved)] = saved
        self._slots["status"][len(state["slots_status"]) :] = _DEAD
        self._ready[: len(state["ready"])] = state["ready"]
        self._last_frame[:], self._episode_of[:] = state["last_frame"], state["episode_of"]
        self._counts, self._first = own["counts"], own["first"]
        self._open = {int(episode): record for episode, record in own["open"].items()}

    def save(self, path: str | Path) -> None:
        """Writes `state_dict` as .npz, complete or not at all."""
        path = Path(path)
        temporary = path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex}")
        try:
            with temporary.open("wb") as file:
                np.savez(file, **self.state_dict())  # type: ignore[arg-type]
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def load(self, path: str | Path) -> None:
        """Goes on from what `save` wrote."""
        with np.load(path, allow_pickle=False) as state:
            self.load_state_dict(dict(state))

    def _check(
        self, observations: np.ndarray, actions: np.ndarray, next_observations: np.ndarray, *rest: np.ndarray | None
    ) -> None:
        count = len(self._last_frame)
        shape = (count, *self.spaces.observation_shape)
        wanted = (count,) if self.spaces.action_size is None else (count, self.spaces.action_size)
        for name, value, expected in (
            ("observations", observations, shape),
            ("next_observations", next_observations, shape),
            ("actions", actions, wanted),
            *(
                (name, value, (count,))
                for name, value in zip(("goals", "terminations", "truncations", "rewards", "valid"), rest, strict=True)
                if value is not None
            ),
        ):
            if np.shape(value) != expected:
                raise ValueError(
                    f"{name} must be {list(expected)}, got {list(np.shape(value))}; give a row an environment"
                )
        if observations.dtype != self._frames["observations"].dtype or next_observations.dtype != observations.dtype:
            raise ValueError(
                f"observations must be {self._frames['observations'].dtype}, got {observations.dtype} and "
                f"{next_observations.dtype}; convert them"
            )

    def _check_states(self, *states: np.ndarray | None) -> None:
        size = self.spaces.state_size
        wanted = None if size is None else (len(self._last_frame), size)
        for state in states:
            if (None if state is None else np.shape(state)) != wanted:
                got = None if state is None else np.shape(state)
                raise ValueError(
                    f"states and next_states must be {wanted}, got {got}; give what the agent was trained with"
                )

    def _check_continued(self, observations: np.ndarray, valid: np.ndarray) -> None:
        for b in np.flatnonzero(valid & (self._last_frame >= self._first["frame"])):
            last = self._last_frame[b] % len(self._frames["observations"])
            if not np.array_equal(self._frames["observations"][last], observations[b]):
                raise ValueError(
                    f"an observation must be the next observation of the step before, got another in environment {b}; give the "
                    f"true last observation of an episode, and valid=False for the step in which an environment resets itself"
                )

    def _check_goals(self, goals: np.ndarray) -> None:
        count = len(self._goal_embeddings)
        if goals.size and not (goals.min() >= 0 and goals.max() < count):
            raise ValueError(f"goals must be numbers from 0 to {count - 1}, got {goals.tolist()}; add their embeddings")

    def _were_added(self, transitions: np.ndarray) -> bool:
        return not transitions.size or bool(transitions.min() >= 0 and transitions.max() < self._counts["transitions"])

    def _alive(self, transitions: np.ndarray) -> np.ndarray:
        recent = transitions >= self._first["transition"]
        return recent & (self._slots["before"][transitions % len(self._ready)] >= self._first["frame"])

    def _begin(self) -> int:
        episode = self._counts["episodes"]
        self._counts["episodes"] += 1
        self._open[episode] = {"transitions": [], "waiting": 0, "ended": False, "terminated": False}
        return episode

    def _store(self, observation: np.ndarray, state: np.ndarray | None) -> int:
        frame = self._counts["frames"]
        self._counts["frames"] += 1
        place = frame % len(self._frames["observations"])
        self._frames["observations"][place] = observation
        if state is not None:
            self._frames["states"][place] = state
        return frame

    def _write(self, before: int, after: int, action: np.ndarray, goal: int, mask: float, episode: int) -> int:
        number = self._counts["transitions"]
        self._counts["transitions"] += 1
        values = {"before": before, "after": after, "actions": action, "goal": goal, "mask": mask, "episode": episode}
        values |= {"reward": 0.0, "return": 0.0, "success": False, "status": _WAITING}
        for name, value in values.items():
            self._slots[name][number % len(self._ready)] = value
        return number

    def _release(self, transitions: np.ndarray) -> None:
        self._ready[len(self) : len(self) + len(transitions)] = transitions
        self._counts["ready"] += len(transitions)

    def _settle(self) -> None:
        for episode in [number for number, record in self._open.items() if record["ended"] and not record["waiting"]]:
            record = self._open.pop(episode)
            transitions = np.array(record["transitions"], np.int64)
            transitions = transitions[self._alive(transitions)]
            slots = transitions % len(self._ready)
            self._slots["return"][slots] = returns_to_go(self._slots["reward"][slots], self._discount)
            self._slots["success"][slots] = record["terminated"]
            if self._finished_only:
                self._release(transitions)

    def _make_room(self, num_frames: int, num_transitions: int) -> None:
        moved = False
        for name, size, count in (
            ("frame", len(self._frames["observations"]), self._counts["frames"] + num_frames),
            ("transition", len(self._ready), self._counts["transitions"] + num_transitions),
        ):
            while count - self._first[name] > size:
                self._first[name] += self._blocks[name]
                moved = True
        if not moved:
            return
        alive = np.arange(max(0, self._counts["transitions"] - len(self._ready)), self._counts["transitions"])
        dead = alive[~self._alive(alive)]
        waiting = dead[self._slots["status"][dead % len(self._ready)] == _WAITING]
        for episode in self._slots["episode"][waiting % len(self._ready)].tolist():
            self._open[episode]["waiting"] -= 1
        self._slots["status"][dead % len(self._ready)] = _DEAD
        for record in self._open.values():
            if record["transitions"] and not self._alive(np.array(record["transitions"][:1])).all():
                numbers = np.array(record["transitions"])
                record["transitions"] = numbers[self._alive(numbers)].tolist()
        ready = self._ready[: len(self)]
        kept = ready[self._alive(ready)]
        self._ready[: len(kept)] = kept
        self._counts["ready"] = len(kept)
        self._settle()


def mixed_sample(
    offline: ReplayData,
    online: OnlineBuffer,
    batch_size: int,
    generator: np.random.Generator,
    *,
    offline_share: float = 0.5,
    mix: Sequence[float] = DEFAULT_MIX,
) -> Batch:
    """A batch of offline transitions, then online ones: the symmetric sampling of RLPD (Ball et al. 2023, section 4.1).

    Args:
        offline: The replay of the corpus.
        online: The buffer of the run.
        batch_size: B, of which round(offline_share * B) are offline.
        generator: Source of randomness.
        offline_share: 0..1.
        mix: Shares of the kinds of goals in the offline part.

    Raises:
        ValueError: The share is none, the two hold other observations or actions, or there is nothing to sample yet.
    """
    if not 0 <= offline_share <= 1:
        raise ValueError(f"offline_share must be from 0 to 1, got {offline_share}; 0.5 is the field's choice")
    offline.spaces.check_equal(online.spaces, "the online buffer")
    num_offline = round(offline_share * batch_size)
    if num_offline == batch_size:
        return offline.sample(batch_size, generator, mix)
    recent = online.sample(batch_size - num_offline, generator)
    if num_offline == 0:
        return recent
    pairs = zip(offline.sample(num_offline, generator, mix), recent, strict=True)
    return Batch._make(None if old is None or new is None else torch.cat([old, new]) for old, new in pairs)
