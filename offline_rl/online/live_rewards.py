"""Live rewards: the labeler that made a corpus's labels judges every step of a vector of environments, each under its own goal.

    agent ─ actions ─► LiveRewards ─► environments ─► frames [N, H, W, 3]
      ▲                    │                            └─► FrameEmbedder ─► scores [N, G] ─► RuleState ─► rewards [N]
      └── observations, rewards, terminations, truncations, infos ◄──────────────────────────────────────┘

What the learner is told, and what it is not:

    reward       what the corpus's rule says of the frame after the action, for the environment's own goal; never the environment's
    terminated   the rule says that the goal is achieved: nothing follows, mask 0 (the paper: an episode ends at r = 1; a setting)
    truncated    the environment ended, for whatever reason: mask 1, the value of the last frame is bootstrapped
    infos        of the environments' own rewards, ends and infos nothing, but under the key "evaluation", for whoever evaluates

An environment that ends at its own success tells by the end alone what it thinks, though neither reward nor mask does. Those of
`offline_rl.environments.environments` go on instead.

Where gymnasium's autoreset modes differ, `infos["next_observations"]` is always the frame after the action:

    mode        the step t that ends an episode     the step after
    DISABLED    observation o_T                     refused, until reset(options={"reset_mask": ended}) has begun an episode
    NEXT_STEP   observation o_T                     only resets: valid False, no reward, observation o_0 of the next episode
    SAME_STEP   observation o_0 of the next episode,     an ordinary step
                next_observations and reward of o_T

Only DISABLED lets the wrapper end an episode that the environment would go on with: there the others are refused.

Shape letters: N environments, H and W sides of a frame, D size of an embedding, G goals, M steps that were scored.
"""

import dataclasses
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from vlm_rewards.labelers.domains.babyai.levels import CAMERA
from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.live import CACHE_BYTES, FrameEmbedder, LiveScores, RewardMonitor, RuleState, check_labeler
from vlm_rewards.offline_rl.environments.environments import spaces_of
from vlm_rewards.offline_rl.interfaces import Spaces
from vlm_rewards.schemas.fingerprints import Fingerprint


@dataclasses.dataclass(frozen=True, kw_only=True)
class LiveRewardSettings:
    """How live rewards are given.

    Args:
        end_at_success: A success ends the episode, as in the paper.
        asynchronous: Score in a thread beside the environments: `step` returns rewards that are not there yet (0, with "scored"
            False in the infos), and `collect` brings them. Only where success does not end the episode.
        observation: "frames", or "embeddings" for an agent that sees the model's embeddings in place of frames.
        ignore_initial_success: A goal that holds in an episode's first frame gives no success until it has ceased to hold, as in
            hindsight. False is the paper's rule, by which any action then succeeds.
        camera: Whose frames the environments show; must be the one that was labelled.
        cache_bytes: Memory for embeddings of frames seen before, in bytes; 0 for none.
        max_pending: Steps that may wait for their scores; `step` waits when there are more.

    Raises:
        ValueError: Settings exclude each other, or one is out of its range.
    """

    end_at_success: bool = True
    asynchronous: bool = False
    observation: str = "frames"
    ignore_initial_success: bool = False
    camera: str = CAMERA
    cache_bytes: int = CACHE_BYTES
    max_pending: int = 64

    def __post_init__(self) -> None:
        if self.observation not in ("frames", "embeddings"):
            raise ValueError(
                f"observation must be 'frames' or 'embeddings', got {self.observation!r}; choose one of them"
            )
        if self.asynchronous and self.end_at_success:
            raise ValueError(
                "asynchronous must be False where a success ends the episode, got True; set end_at_success=False or leave it out"
            )
        if self.asynchronous and self.observation == "embeddings":
            raise ValueError(
                "asynchronous must be False where the agent sees embeddings, got True; it needs them before it can act"
            )
        if self.max_pending < 1:
            raise ValueError(f"max_pending must be at least 1, got {self.max_pending}; 64 is a good start")


class ScoredSteps(NamedTuple):
    """Steps with their rewards, in the order in which they were taken.

    Attributes:
        tickets: [M] int64, as in the infos of `step`.
        rewards: [M] float32, for the goal that the environment had.
        successes: [M] bool, whether that goal counts as achieved in the frame after the action.
        scores: [M, G] float32 of that frame, for all goals: hindsight on live episodes costs nothing more.
    """

    tickets: np.ndarray
    rewards: np.ndarray
    successes: np.ndarray
    scores: np.ndarray


class _Step(NamedTuple):
    """A step of all environments, to be judged."""

    stepped: np.ndarray  # indices of the environments that took a step
    begun: np.ndarray  # indices of those that began an episode
    ended: np.ndarray  # indices of those that the environment ended
    goals: np.ndarray  # [N] goals while stepping
    tickets: np.ndarray  # of the stepped


class LiveRewards(VectorWrapper):
    """Replaces the rewards of a vector of environments by those of a labeler; see the module's docstring.

    The infos of `reset` and `step` have:

        goal_indices       [N] int64, the goal of each environment's episode among the labeler's goals; in SAME_STEP that of the
                           transition is in `transition_goals`
        transition_goals   [N] int64, the goal under which the step was taken and judged
        next_observations  [N, ...], what is seen after the action, also where an observation is of the next episode
        valid              [N] bool, False where the step only reset the environment: no transition
        tickets            [N] int64, numbers of the transitions from 0, -1 where not valid
        scored             [N] bool, whether reward and success are known
        successes          [N] bool, whether the goal counts as achieved after the action
        scores             [N, G] float32 of the frames after the action, for all goals; NaN in rows that are not scored
        evaluation         the environments' own rewards, terminations, truncations and infos: for evaluation alone

    `reset` has goal_indices, evaluation, and initial_successes [N] bool: where the goal holds in the first frame already.

    Args:
        env: A vector environment whose observation is a frame, [H, W, 3] uint8, with `goal_id` in the infos of every reset.
        labeler: The one that the corpus was labelled with.
        settings: How rewards are given.
        labels: Fingerprint of the labels that the agent was trained on, camera and sparseness included; None for an agent that
            was trained on no labels.
        spaces: What the agent was trained on; None to leave that unchecked.

    Attributes:
        labeler, settings: As given.
        spaces: What an agent in here sees and does.
        goal_indices: [N] int64, the goals now.
        embedder: With counts of frames, encoded frames and passes of the model, and the seconds spent.
        monitor: What the rewards have been so far; `monitor.check` stops a run that learns from nothing.
        seconds_waited: In steps and `collect`, for scores; without `asynchronous` all seconds of scoring.

    Raises:
        ValueError: Observations, actions, labeler or autoreset mode do not fit.
    """

    def __init__(
        self,
        env: VectorEnv,
        labeler: Labeler,
        settings: LiveRewardSettings | None = None,
        *,
        labels: Fingerprint | None = None,
        spaces: Spaces | None = None,
    ) -> None:
        super().__init__(env)
        settings = LiveRewardSettings() if settings is None else settings
        if labels is not None:
            check_labeler(labeler, labels, settings.camera)
        self.labeler = labeler
        self.settings = settings
        self.spaces = spaces_of(env, labeler.dim, settings.observation)
        if spaces is not None:
            spaces.check_equal(self.spaces, "the live environment")
        self._mode = AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        if settings.end_at_success and self._mode is not AutoresetMode.DISABLED:
            raise ValueError(
                f"autoreset_mode must be DISABLED where a success ends the episode, got {self._mode.name}; make the vector "
                f"environment with autoreset_mode=AutoresetMode.DISABLED, or set end_at_success=False"
            )
        if settings.observation == "embeddings":
            self.single_observation_space = Box(-1.0, 1.0, (labeler.dim,), np.float32)
            self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.embedder = FrameEmbedder(labeler, settings.cache_bytes)
        self.seconds_waited = 0.0
        self.goal_indices = np.full(self.num_envs, -1, np.int64)
        self._index_of = {goal.id: index for index, goal in enumerate(labeler.goals)}
        self._scores = LiveScores(labeler, self.num_envs)
        self._rule = RuleState(labeler.rule, self.num_envs, ignore_initial=settings.ignore_initial_success)
        self._ended = np.ones(self.num_envs, np.bool_)
        self._num_transitions = 0
        self.monitor = RewardMonitor(labeler.rule, self.num_envs)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="live-rewards") if settings.asynchronous else None
        self._pending: deque[Future[ScoredSteps]] = deque()
        self._ready: list[ScoredSteps] = []

    @property
    def goal_embeddings(self) -> np.ndarray:
        """[N, D] float32, the embeddings of the goals now: what an agent is asked for."""
        return self.labeler.goal_embeddings[self.goal_indices]

    def statistics(self) -> dict[str, float]:
        """Counts of embedder and monitor so far, and seconds of embedding frames and of waiting for it: what these environments
        cost. Frames that an evaluation embeds by `embedder.apart()` are not among them, though they may be found in its cache.
        """
        seconds = {"seconds_scoring": self.embedder.seconds, "seconds_waited": self.seconds_waited}
        return {**self.embedder.counts, **self.monitor.counts, **seconds}

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins episodes, all or those of `options["reset_mask"]`; seeds as the environment takes them.

        Returns:
            Observations, of all environments, and infos.

        Raises:
            ValueError: An episode has no goal, or one that the labels do not score.
        """
        options = None if options is None else dict(options)  # gymnasium takes the mask out
        mask = np.ones(self.num_envs, np.bool_) if options is None else options.get("reset_mask")
        mask = np.ones(self.num_envs, np.bool_) if mask is None else np.array(mask)
        frames, infos = self.env.reset(seed=seed, options=options)
        self._take_goals(infos, mask)
        begun = np.flatnonzero(mask)
        initial = np.zeros(self.num_envs, np.bool_)
        step = _Step(begun[:0], begun, begun[:0], self.goal_indices.copy(), begun[:0])
        observations = frames
        if self._worker is None:
            embeddings = self._embed(frames)
            _, holds = self._judge(step, embeddings[:0], embeddings[begun])
            initial[begun] = holds[np.arange(len(begun)), self.goal_indices[begun]]
            observations = frames if self.settings.observation == "frames" else embeddings
        else:
            self._submit(step, frames[:0], frames[begun])
        self._ended[mask] = False
        return observations, {
            "goal_indices": self.goal_indices.copy(),
            "initial_successes": initial,
            "evaluation": {"infos": infos},
        }

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Steps all environments and judges the frames after the actions.

        Returns:
            Observations, rewards [N] float32, terminations [N] bool, truncations [N] bool, infos.

        Raises:
            ValueError: An environment has ended and was not reset, or a new episode has no goal that the labels score.
        """
        if self._mode is not AutoresetMode.NEXT_STEP and self._ended.any():
            raise ValueError(
                f"environments must be reset before they are stepped again, got {np.flatnonzero(self._ended).tolist()} that have "
                f"ended; call reset(options={{'reset_mask': terminations | truncations}})"
            )
        resetting = self._ended.copy()
        frames, rewards, terminations, truncations, infos = self.env.step(actions)
        valid = ~resetting
        ended = (terminations | truncations) & valid
        after, begun = frames, resetting
        if self._mode is AutoresetMode.SAME_STEP and ended.any():
            after, begun = frames.copy(), ended
            for index in np.flatnonzero(ended):
                after[index] = infos["final_obs"][index]
        goals = self.goal_indices.copy()
        self._take_goals(infos, begun)
        tickets = np.where(valid, self._num_transitions + np.cumsum(valid) - 1, -1)
        self._num_transitions += int(valid.sum())
        stepped = np.flatnonzero(valid)
        out: dict[str, Any] = {
            "goal_indices": self.goal_indices.copy(),
            "transition_goals": goals,
            "valid": valid,
            "tickets": tickets,
            "scored": np.zeros(self.num_envs, np.bool_),
            "successes": np.zeros(self.num_envs, np.bool_),
            "scores": np.full((self.num_envs, len(self.labeler.goals)), np.nan, np.float32),
        }
        own = np.zeros(self.num_envs, np.float32)
        step = _Step(stepped, np.flatnonzero(begun), np.flatnonzero(ended), goals, tickets[stepped])
        observations, seen_after = frames, after
        if self._worker is None:
            embeddings = self._embed(np.concatenate([after, frames[begun]]))
            scored, _ = self._judge(step, embeddings[stepped], embeddings[self.num_envs :])
            own[stepped] = scored.rewards
            for name, values in (("scored", True), ("successes", scored.successes), ("scores", scored.scores)):
                out[name][stepped] = values
            if self.settings.observation == "embeddings":
                observations = seen_after = embeddings[: self.num_envs]
                if after is not frames:
                    observations = seen_after.copy()
                    observations[begun] = embeddings[self.num_envs :]
        else:
            self._submit(step, after[stepped], frames[begun])
        out["next_observations"] = seen_after
        out["evaluation"] = {
            "rewards": rewards,
            "terminations": terminations,
            "truncations": truncations,
            "infos": infos,
        }
        succeeded = out["successes"] & self.settings.end_at_success
        self._ended = np.zeros_like(ended) if self._mode is AutoresetMode.SAME_STEP else ended | succeeded
        return observations, own, succeeded, ended & ~succeeded, out

    def collect(self, *, wait: bool = False) -> ScoredSteps:
        """Brings the steps that were scored since the last call, with `asynchronous`.

        Args:
            wait: For all steps that were taken. Without it, which steps come depends on the machine's pace.

        Raises:
            Exception: Whatever went wrong while scoring.
        """
        start = time.perf_counter()
        while self._pending and (wait or self._pending[0].done()):
            self._ready.append(self._pending.popleft().result())
        self.seconds_waited += time.perf_counter() - start
        num_goals = len(self.labeler.goals)
        empty = ScoredSteps(
            np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.bool_), np.zeros((0, num_goals), np.float32)
        )
        ready, self._ready = self._ready, []
        return ScoredSteps(*(np.concatenate(parts) for parts in zip(empty, *ready, strict=True)))

    def state_dict(self) -> dict[str, Any]:
        """What a run goes on from, beside the agent: the environments' episodes, their scores so far, and counts.

        Environments must be those of `make_environments`, which replay their actions. The cache is not kept: it changes no bit of
        a reward, but frames seen before are encoded once more.

        Raises:
            ValueError: Scores are still to be collected.
        """
        if self._pending or self._ready:
            raise ValueError(
                f"all scores must be collected before saving, got {len(self._pending)} steps pending; call collect(wait=True)"
            )
        return {
            "episodes": list(self.env.call("episode_state")),
            "goal_indices": self.goal_indices.copy(),
            "ended": self._ended.copy(),
            "rule": self._rule.state_dict(),
            "scores": self._scores.state_dict(),
            "monitor": self.monitor.state_dict(),
            "num_transitions": self._num_transitions,
            "costs": {
                "counts": dict(self.embedder.counts),
                "seconds": self.embedder.seconds,
                "seconds_waited": self.seconds_waited,
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> np.ndarray:
        """Goes on from a state.

        Returns:
            The observations at which the environments stood.
        """
        self.collect(wait=True)  # of episodes that end here
        frames, infos = self.env.reset(options={"episode_states": state["episodes"]})
        self._take_goals(infos, np.ones(self.num_envs, np.bool_))
        assert np.array_equal(self.goal_indices, state["goal_indices"])
        self._ended = state["ended"].copy()
        self._rule.load_state_dict(state["rule"])
        self._scores.load_state_dict(state["scores"])
        self.monitor.load_state_dict(state["monitor"])
        self._num_transitions = state["num_transitions"]
        costs = state["costs"]
        self.embedder.counts, self.embedder.seconds = dict(costs["counts"]), costs["seconds"]
        self.seconds_waited = costs["seconds_waited"]
        return frames if self.settings.observation == "frames" else self._embed(frames)

    def close(self, **kwargs: Any) -> None:
        """Ends the thread and closes the environments."""
        if self._worker is not None:
            self._worker.shutdown(cancel_futures=True)
        super().close(**kwargs)

    def _take_goals(self, infos: Mapping[str, Any], begun: np.ndarray) -> None:
        for index in np.flatnonzero(begun):
            goal_id = infos["goal_id"][index] if "goal_id" in infos else None
            if goal_id not in self._index_of:
                known = ", ".join(list(self._index_of)[:3])
                raise ValueError(
                    f"goal_id in the infos of a reset must be one of the {len(self._index_of)} goals of the labels ({known}, ...), "
                    f"got {goal_id!r} in environment {index}; make the environments with goals of these labels, or label with it"
                )
            self.goal_indices[index] = self._index_of[goal_id]

    def _embed(self, frames: np.ndarray) -> np.ndarray:
        start = time.perf_counter()
        embeddings = self.embedder(frames)
        self.seconds_waited += time.perf_counter() - start
        return embeddings

    def _submit(self, step: _Step, after: np.ndarray, first: np.ndarray) -> None:
        assert self._worker is not None
        start = time.perf_counter()
        while len(self._pending) >= self.settings.max_pending:
            self._ready.append(self._pending.popleft().result())
        self.seconds_waited += time.perf_counter() - start

        def work() -> ScoredSteps:
            embeddings = self.embedder(np.concatenate([after, first]))
            return self._judge(step, embeddings[: len(after)], embeddings[len(after) :])[0]

        self._pending.append(self._worker.submit(work))

    def _judge(self, step: _Step, after: np.ndarray, first: np.ndarray) -> tuple[ScoredSteps, np.ndarray]:
        """Embeddings of the frames after the actions and of first frames to rewards, and to successes in the first frames."""
        scores = self._scores.step(step.stepped, after)
        rewards, successes = self._rule.step(step.stepped, scores)
        goals = step.goals[step.stepped]
        rows = np.arange(len(goals))
        scored = ScoredSteps(step.tickets, rewards[rows, goals], successes[rows, goals], scores)
        over = np.isin(step.stepped, step.ended) | (scored.successes & self.settings.end_at_success)
        self.monitor.add(step.stepped, goals, scores[rows, goals], scored.rewards, scored.successes, over)
        self.monitor.begin(step.begun)
        return scored, self._rule.begin(step.begun, self._scores.begin(step.begun, first))
