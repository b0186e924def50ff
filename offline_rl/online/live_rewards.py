"""Live rewards: a labeler judges every step of a vector of environments, each environment under its own goal.

    agent ─ actions ─► LiveRewards ─► environments ─► frames [N, H, W, 3]
      ▲                    │                            └─► StepJudge: embeddings ─► scores [N, G] ─► rule ─► rewards [N]
      └── observations, rewards, terminations, truncations, infos ◄───────────────────────────────────┘

It wraps any gymnasium vector environment that shows frames, as observations or by `render`:

    envs = LiveRewards(gymnasium.make_vec("CartPole-v1", 4, render_mode="rgb_array"), labeler, frames="render")

The reward of a step looks at the frame after the action, whatever the autoreset mode of the environments:

    mode        the step that ends an episode            the step after it
    DISABLED    observation o_T, reward of o_T           refused until reset(options={"reset_mask": ended}) begins an episode
    NEXT_STEP   observation o_T, reward of o_T           only resets: observation o_0 of the next episode, reward 0
    SAME_STEP   observation o_0 of the next episode,     an ordinary step
                reward of o_T; infos["final_obs"] has o_T

Infos follow gymnasium's convention: they describe the observation that is returned, and `final_info` describes `final_obs`.

    goal        [N] text of the goal of the running episode: what to ask the agent for
    goal_id     [N] its id
    score       [N] float32, score of the observation's frame for this goal; NaN while it is not known (`asynchronous`)

With `hide_truth` the learner is told nothing that the environment thinks of its own goal: no reward, no infos, and an environment
that ends an episode by itself is a truncation, whatever it calls it. Fine-tuning sets it; an environment that terminates at its own
success would otherwise tell by the termination. `environment_rewards` and `environment_infos` keep what is hidden, for evaluation.

`collect` returns steps as complete transitions for a learner, with the scores of all goals. Only there do the rewards arrive that
were `asynchronous`.

Shape letters: N environments, H and W sides of a frame, D size of an embedding, G goals.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Unpack

import numpy as np

try:
    from gymnasium.spaces import Box
    from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
    from gymnasium.vector.utils import batch_space, iterate
except ImportError as error:
    raise ImportError(
        f"live rewards need gymnasium 1.1 or newer, got {error}. Install it with: pip install 'gymnasium>=1.1'"
    ) from error

from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.live import FrameEmbedder, RewardMonitor, check_labeler
from vlm_rewards.offline_rl.environments.environments import spaces_of
from vlm_rewards.offline_rl.interfaces import Spaces
from vlm_rewards.offline_rl.online.episode_goals import EpisodeGoals
from vlm_rewards.offline_rl.online.frame_source import FrameSource, autoreset_mode_of
from vlm_rewards.offline_rl.online.live_reward_settings import LiveRewardKeywords, LiveRewardSettings
from vlm_rewards.offline_rl.online.step_judge import FramesToJudge, StepJudge, Verdict
from vlm_rewards.offline_rl.online.truth_rewards import TruthScores
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.options import build_settings, shows_settings


class LiveStep(NamedTuple):
    """One step of N environments, with its rewards: N transitions.

    Attributes:
        observations: [N, ...], what the agent saw before the action.
        actions: [N, ...], as given.
        next_observations: [N, ...], after the action; never of the next episode.
        goals: [N] int64, indices of the labeler's goals: the goals under which the step was taken.
        rewards: [N] float32.
        terminations: [N] bool, as returned by `step`.
        truncations: [N] bool, as returned by `step`.
        successes: [N] bool, whether the goal counts as achieved after the action.
        scores: [N, G] float32 of the frames after the action, for all goals; NaN where not valid.
        valid: [N] bool; False where the environment only reset itself: there is no transition, and the other values mean nothing.
    """

    observations: Any
    actions: Any
    next_observations: Any
    goals: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray
    successes: np.ndarray
    scores: np.ndarray
    valid: np.ndarray


class LiveRewards(VectorWrapper):
    """Vector wrapper that replaces the rewards of the environments by those of a labeler; see the module's docstring.

    Args:
        env: Vector environment that shows frames. It may name the goal of each episode, as `goal_id`, or
            those that it can be asked for, as `goal_ids`, in the infos of its resets.
        labeler: Labeler of the rewards.
        goals: Ids of the goals that an episode may ask for; None for all goals of the labeler. Where the environment names no goal,
            one of them is drawn.
        labels: Fingerprint of the labels that the agent was trained on, with camera and sparseness. The labeler must have it. None
            for an agent that was trained on no labels.
        spaces: Spaces of the agent, which the environments must have; None to leave that unchecked.
        truth: Scores by ground truth that take the place of the labeler's, to compare with; None for the labeler's.
        fields: Fields of `LiveRewardSettings`.

    Attributes:
        labeler: Labeler, as given.
        settings: Settings, made of the fields.
        environment_rewards: [N], rewards of the environments themselves in the last step.
        environment_infos: Infos of the environments themselves, of the last step or reset.

    Raises:
        ValueError: The environments show no frames as the settings say, their autoreset mode is not known or does not fit, a goal
            is unknown, or labels or spaces differ.

    Example:
        >>> import gymnasium, vlm_rewards as vr
        >>> labeler = vr.load_labeler("reference-s", ["a red ball", "a green box"], negatives={"explicit": ["a wall"]})
        >>> envs = gymnasium.make_vec("CartPole-v1", 2, render_mode="rgb_array")
        >>> envs = vr.LiveRewards(envs, labeler, frames="render")
        >>> observations, infos = envs.reset(seed=0)
        >>> infos["goal"].shape
        (2,)
        >>> observations, rewards, terminations, truncations, infos = envs.step(envs.action_space.sample())
        >>> rewards.shape, infos["score"].shape
        ((2,), (2,))
    """

    @shows_settings(LiveRewardSettings)
    def __init__(
        self,
        env: VectorEnv,
        labeler: Labeler,
        *,
        goals: Sequence[str] | None = None,
        labels: Fingerprint | None = None,
        spaces: Spaces | None = None,
        truth: TruthScores | None = None,
        **fields: Unpack[LiveRewardKeywords],
    ) -> None:
        super().__init__(env)
        (settings,) = build_settings(fields, LiveRewardSettings)
        self.labeler = labeler
        self.settings = settings
        if labels is not None:
            check_labeler(labeler, labels, settings.camera)
        if spaces is not None:
            spaces.check_equal(self.spaces, "the live environment")
        self._mode = autoreset_mode_of(env)
        if (settings.end_at_success or truth is not None) and self._mode is not AutoresetMode.DISABLED:
            raise ValueError(
                f"autoreset_mode must be DISABLED where a success ends the episode or truth rewards, got {self._mode.name}. Make "
                f"the vector environment with autoreset_mode=AutoresetMode.DISABLED, or set end_at_success=False and truth=None."
            )
        self._truth = truth
        self._frames = FrameSource(env, settings.frames)
        if settings.observation == "embeddings":
            self.single_observation_space = Box(-1.0, 1.0, (labeler.dim,), np.float32)
            self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self._goals = EpisodeGoals(labeler.goals, self.num_envs, goals)
        self._goal_embeddings = labeler.goal_embeddings
        self._texts = np.array([goal.text for goal in labeler.goals], object)
        self._ids = np.array([goal.id for goal in labeler.goals], object)
        self._judge = StepJudge(
            labeler,
            self.num_envs,
            cache_bytes=settings.cache_bytes,
            ignore_initial=settings.ignore_initial_success,
            end_at_success=settings.end_at_success,
            max_pending=settings.max_pending if settings.asynchronous else 0,
            rule=None if truth is None else truth.rule,
            embeds=truth is None or settings.observation == "embeddings",
        )
        self.environment_rewards = np.zeros(self.num_envs)
        self.environment_infos: dict[str, Any] = {}
        self._ended = np.ones(
            self.num_envs, np.bool_
        )  # environments whose episode has ended and that were not reset yet
        self._seen: Any = None  # observations that were returned last
        self._score = np.full(self.num_envs, np.nan, np.float32)  # of these, each for its goal
        self._last: LiveStep | None = None  # not collected
        self._waiting: deque[tuple[LiveStep, Future[Verdict]]] = deque()  # the same, with `asynchronous`

    @property
    def goal_indices(self) -> np.ndarray:
        """[N] int64, the goals of the running episodes as indices of the labeler's goals."""
        return self._goals.indices

    @property
    def current_goals(self) -> tuple[Goal, ...]:
        """The goals of the running episodes, one per environment."""
        return tuple(self.labeler.goals[index] for index in self.goal_indices)

    @property
    def goal_embeddings(self) -> np.ndarray:
        """[N, D] float32, text embeddings of the goals of the running episodes."""
        return self._goal_embeddings[self.goal_indices]

    @property
    def spaces(self) -> Spaces:
        """Returns the observations and actions of an agent here; raises ValueError where no agent of this package can act."""
        return spaces_of(self.env, self.labeler.dim, self.settings.observation)

    @property
    def embedder(self) -> FrameEmbedder:
        """The embedder of the frames, with its cache and counts."""
        return self._judge.embedder

    @property
    def monitor(self) -> RewardMonitor:
        """Statistics of the rewards so far; `monitor.check` stops a run that can learn nothing."""
        return self._judge.monitor

    def statistics(self) -> dict[str, float]:
        """Returns counts of frames, passes of the model and rewards, and the seconds spent on embedding frames and waiting for it.

        Frames that an evaluation embeds through `embedder.apart()` are not counted, though they may be found in the shared cache.
        """
        seconds = {"seconds_scoring": self.embedder.seconds, "seconds_waited": self._judge.seconds_waited}
        return {**self.embedder.counts, **self.monitor.counts, **seconds}

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins episodes, in all environments or in those of `options["reset_mask"]`.

        Args:
            seed: Seed, as the environment takes it; goals are drawn from it too.
            options: Options, as the environment takes them.

        Returns:
            Observations of all environments, and infos.

        Raises:
            ValueError: The environment names a goal that may not be asked for, or renders no frames.
        """
        options = None if options is None else dict(options)  # gymnasium removes the mask from it
        mask = None if options is None else options.get("reset_mask")
        begun = np.arange(self.num_envs) if mask is None else np.flatnonzero(mask)
        observations, self.environment_infos = self.env.reset(seed=seed, options=options)
        self._goals.seed(seed, begun)
        self._goals.begin(begun, self.environment_infos)
        frames = self._frames(observations)
        nobody = begun[:0]
        asked = self._frames_to_judge(nobody, frames, np.zeros(0, np.bool_), self.goal_indices, begun, frames)
        if self.settings.asynchronous:
            self._judge.submit(asked)
            self._score[begun] = np.nan
        else:
            verdict = self._judge.judge(asked)
            self._score[begun] = verdict.first_scores
            if self.settings.observation == "embeddings":
                observations = (
                    np.zeros((self.num_envs, self.labeler.dim), np.float32) if self._seen is None else self._seen.copy()
                )
                observations[begun] = verdict.first
        self._ended[begun] = False
        self._seen = observations
        return observations, self._infos()

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Steps all environments and judges the frames after the actions.

        Returns:
            Observations, rewards [N] float32 (0 where an environment only resets itself), terminations [N] bool, truncations [N]
            bool, and infos.

        Raises:
            ValueError: An episode has ended and its environment was not reset, or a new episode asks for a goal that it may not.
        """
        if self._mode is not AutoresetMode.NEXT_STEP and self._ended.any():
            raise ValueError(
                f"environments must be reset before they are stepped again, got {np.flatnonzero(self._ended).tolist()} that have "
                f"ended. Call reset(options={{'reset_mask': terminations | truncations}})."
            )
        # What each environment does in this step: it takes the action (valid), ends its episode (ended), begins one (begun).
        #   NEXT_STEP   one that ended in the step before only begins: it takes no action
        #   SAME_STEP   one that ends begins at once: `observations` is of the next episode, `after` of the one that ended
        valid, goals, before = ~self._ended, self.goal_indices.copy(), self._seen
        observations, self.environment_rewards, terminations, truncations, infos = self.env.step(actions)
        self.environment_infos = infos
        ended = (terminations | truncations) & valid
        begun = ended if self._mode is AutoresetMode.SAME_STEP else ~valid
        overwritten = self._mode is AutoresetMode.SAME_STEP and bool(ended.any())
        after = self._frames.with_final(observations, infos, ended) if overwritten else observations
        stepped, begins = np.flatnonzero(valid), np.flatnonzero(begun)
        self._goals.begin(begins, infos)

        # Judge the frames after the actions, under the goals of before, and the first frames of new episodes, under theirs.
        frames = self._frames(observations)
        frames_after = self._frames(after) if overwritten else frames
        asked = self._frames_to_judge(stepped, frames_after, ended, goals, begins, frames)
        hidden = self.settings.hide_truth
        step = LiveStep(
            observations=before,
            actions=actions,
            next_observations=after,
            goals=goals,
            rewards=np.zeros(self.num_envs, np.float32),
            terminations=np.zeros(self.num_envs, np.bool_) if hidden else terminations & valid,
            truncations=ended if hidden else truncations & valid,
            successes=np.zeros(self.num_envs, np.bool_),
            scores=np.full((self.num_envs, len(self.labeler.goals)), np.nan, np.float32),
            valid=valid,
        )
        if self.settings.asynchronous:
            self._waiting.append((step, self._judge.submit(asked)))
            self._score[:] = np.nan
        else:
            verdict = self._judge.judge(asked)
            if self.settings.observation == "embeddings":
                after = np.empty((self.num_envs, self.labeler.dim), np.float32)
                after[begins], after[stepped] = verdict.first, verdict.after
                observations = after.copy()
                observations[begins] = verdict.first
            self._last = step = self._judged(step._replace(next_observations=after), verdict)
            self._score = step.scores[np.arange(self.num_envs), goals]
            self._score[begins] = verdict.first_scores

        self._seen = observations
        over = step.terminations | step.truncations
        self._ended = np.zeros(self.num_envs, np.bool_) if self._mode is AutoresetMode.SAME_STEP else over
        final = self._final_infos(step, ended) if overwritten else {}
        return observations, step.rewards, step.terminations, step.truncations, {**self._infos(), **final}

    def collect(self, *, wait: bool = False) -> list[LiveStep]:
        """Returns the steps that were taken and judged since the last call, in order.

        Args:
            wait: Whether to wait for the scores of all steps. Without it, which steps are returned depends on the machine.

        Returns:
            Steps with their rewards: with `asynchronous` all of them, otherwise at most the last one.

        Raises:
            Exception: Whatever went wrong while scoring in the thread.
        """
        steps = [] if self._last is None else [self._last]
        self._last = None
        while self._waiting and (wait or self._waiting[0][1].done()):
            step, future = self._waiting.popleft()
            steps.append(self._judged(step, self._judge.wait(future)))
        return steps

    def state_dict(self) -> dict[str, Any]:
        """Returns everything needed to resume: the running episodes, their goals and scores, and counts.

        The environments must be those of `make_environments`, which replay their actions.

        Raises:
            ValueError: Steps are still to be collected.
        """
        if self._waiting:
            raise ValueError(
                f"all steps must be collected before saving, got {len(self._waiting)} pending. Call collect(wait=True)."
            )
        self._judge.wait_for_all()  # first frames of new episodes
        return {
            "episodes": list(self.env.call("episode_state")),
            "goals": self._goals.state_dict(),
            "ended": self._ended.copy(),
            "score": self._score.copy(),
            "judge": self._judge.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> Any:
        """Restores what `state_dict` returned; returns the observations of the running episodes."""
        self.collect(wait=True)
        self._judge.wait_for_all()  # of episodes that are abandoned here
        observations, self.environment_infos = self.env.reset(options={"episode_states": state["episodes"]})
        self._goals.load_state_dict(state["goals"])
        self._ended = state["ended"].copy()
        self._score = state["score"].copy()
        self._judge.load_state_dict(state["judge"])
        embedded = self.settings.observation == "embeddings"
        self._seen = self.embedder(observations) if embedded else observations
        return self._seen

    def close(self, **kwargs: Any) -> None:
        """Ends the thread and closes the environments."""
        self._judge.close()
        super().close(**kwargs)

    def _frames_to_judge(
        self,
        stepped: np.ndarray,
        after: np.ndarray,
        ended: np.ndarray,
        goals: np.ndarray,
        begins: np.ndarray,
        first: np.ndarray,
    ) -> FramesToJudge:
        return FramesToJudge(
            stepped=stepped,
            after=after[stepped],
            goals=goals[stepped],
            ended=ended[stepped],
            begun=begins,
            first=first[begins],
            first_goals=self.goal_indices[begins],
            scores=None if self._truth is None else self._truth(after, self.environment_infos, stepped),
            first_scores=None if self._truth is None else self._truth(first, self.environment_infos, begins),
        )

    def _judged(self, step: LiveStep, verdict: Verdict) -> LiveStep:
        """Fills in what the labeler says of a step."""
        step.rewards[step.valid], step.successes[step.valid] = verdict.rewards, verdict.successes
        step.scores[step.valid] = verdict.scores
        over = step.successes & self.settings.end_at_success
        return step._replace(terminations=step.terminations | over, truncations=step.truncations & ~over)

    def _infos(self) -> dict[str, Any]:
        """Returns infos of the returned observations, which cover every environment."""
        everyone = np.ones(self.num_envs, np.bool_)
        own = {} if self.settings.hide_truth else self.environment_infos
        return own | _described(self._texts, self._ids, self.goal_indices, self._score.copy(), everyone)

    def _final_infos(self, step: LiveStep, ended: np.ndarray) -> dict[str, Any]:
        """Returns infos of the episodes that ended in a step that also began the next ones."""
        own = {} if self.settings.hide_truth else self.environment_infos.get("final_info", {})
        score = step.scores[np.arange(self.num_envs), step.goals]
        final = np.full(self.num_envs, None, object)
        rows = list(iterate(self.observation_space, step.next_observations))
        for index in np.flatnonzero(ended):
            final[index] = rows[index]
        return {
            "final_obs": final,
            "_final_obs": ended.copy(),
            "final_info": own | _described(self._texts, self._ids, step.goals, score, ended),
            "_final_info": ended.copy(),
        }


def _described(
    texts: np.ndarray, ids: np.ndarray, goals: np.ndarray, score: np.ndarray, there: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns goals and scores by gymnasium's convention: arrays [N], and under _name whether an environment has a value."""
    values = {"goal": texts[goals], "goal_id": ids[goals], "score": score}
    masks = {"_goal": there.copy(), "_goal_id": there.copy(), "_score": there & ~np.isnan(score)}
    return {**values, **masks}
