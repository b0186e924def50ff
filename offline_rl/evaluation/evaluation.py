"""Measures an agent by ground truth and by the model that rewards it, on the same episodes of levels that nothing was trained on.

    episode j ─► level, goal ─► agent acts until the goal holds in truth, or the time is over ─► frames o_0 .. o_T
                                                                                        ├─► ground truth of o_1 .. o_T ─► success
                                                                                        └─► labeler, rule ─► vlm_success, vlm_return

The model's verdict does not end an episode here, so that ground-truth success is the plain success rate of the level, whatever the
model thinks. What the model says is cut where it would have ended the episode in training, at its first success; whether the goal
holds in that very frame tells a right reward from a false one.

Shape letters: H and W sides of a frame, F = T + 1 frames of an episode, G goals, E size of a goal's embedding.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import torch

from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.live import FrameEmbedder
from vlm_rewards.labelers.rewards.rewards import rewards_of_scores, successes
from vlm_rewards.offline_rl.environments.environments import EnvironmentSettings, make_environments, spaces_of
from vlm_rewards.offline_rl.environments.live_frames import fit_frame_size
from vlm_rewards.offline_rl.interfaces import Agent
from vlm_rewards.offline_rl.runs.folders import Metrics
from vlm_rewards.schemas.goals import Goal


class Interval(NamedTuple):
    """A share or mean with its confidence interval.

    Attributes:
        mean: NaN of no values.
        low: Lower end.
        high: Upper end.
        num: Number of values.
    """

    mean: float
    low: float
    high: float
    num: int


def interval_of(outcomes: Sequence[bool] | np.ndarray, confidence: float = 0.95) -> Interval:
    """The share of successes with Wilson's score interval, which holds for few trials and for shares of 0 and 1 too:

        (p + z^2/2n ± z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n)

    Args:
        outcomes: n outcomes of independent episodes.
        confidence: Of the interval, between 0 and 1.

    Returns:
        The interval; of no outcomes NaN from 0 to 1.

    Raises:
        ValueError: The confidence is out of its range.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}; 0.95 is usual")
    n = len(outcomes)
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, 0)
    p = float(np.mean(outcomes))
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre, scale = p + z * z / (2 * n), 1 + z * z / n
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = (centre - half) / scale if p > 0 else 0.0  # which it is, but for rounding
    high = (centre + half) / scale if p < 1 else 1.0
    return Interval(p, low, high, n)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeRecord:
    """One episode of an evaluation.

    Args:
        episode: j, its number.
        env: Name of the environment.
        level_seed: Seed of the level.
        goal_id: The goal.
        family: The goal's family.
        num_steps: T.
        success: Whether the goal held in truth in a frame after an action; None where the environment does not know.
        mission_done: Whether the level itself rewarded its mission; None where it has none.
        vlm_success: Whether the rule said so in a frame after an action.
        vlm_step: Number of actions up to the first such frame, or None.
        vlm_true: Whether the goal held in truth in that frame; None without one, or without ground truth.
        vlm_return: Sum of the rule's rewards up to there, undiscounted.
        vlm_false_frames: Frames after actions in which the rule said so and the goal did not hold.
        false_frames: Frames after actions in which the goal did not hold.
    """

    episode: int
    env: str
    level_seed: int
    goal_id: str
    family: str
    num_steps: int
    success: bool | None
    mission_done: bool | None
    vlm_success: bool
    vlm_step: int | None
    vlm_true: bool | None
    vlm_return: float
    vlm_false_frames: int
    false_frames: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Episodes and what they amount to.

    Args:
        episodes: In the order of their numbers.
        frames: [F, H, W, 3] uint8 of the first episodes, as many as were asked for.
    """

    episodes: tuple[EpisodeRecord, ...]
    frames: tuple[np.ndarray, ...] = ()

    @property
    def success(self) -> Interval:
        """Share of episodes whose goal held in truth."""
        return interval_of([record.success for record in self.episodes if record.success is not None])

    @property
    def vlm_success(self) -> Interval:
        """Share of episodes that the model rewarded."""
        return interval_of([record.vlm_success for record in self.episodes])

    def __repr__(self) -> str:
        success, rewarded = self.success, self.vlm_success
        truth = (
            f"success {success.mean:.2f} ({success.low:.2f} to {success.high:.2f})" if success.num else "no truth known"
        )
        return (
            f"Evaluation({len(self.episodes):,} episodes: {truth}, "
            f"rewarded {rewarded.mean:.2f} ({rewarded.low:.2f} to {rewarded.high:.2f}))"
        )

    @property
    def vlm_return(self) -> float:
        """Mean return by the model."""
        return float(np.mean([record.vlm_return for record in self.episodes]))

    @property
    def false_positive_share(self) -> Interval:
        """Of the episodes that the model rewarded, the share in which the goal did not hold in the rewarded frame."""
        return interval_of([not record.vlm_true for record in self.episodes if record.vlm_true is not None])

    @property
    def false_positive_rate(self) -> float:
        """Of the frames after actions in which the goal did not hold, the share in which the model said it did; NaN of none."""
        false = sum(record.false_frames for record in self.episodes)
        return sum(record.vlm_false_frames for record in self.episodes) / false if false else math.nan

    def summary(self) -> dict[str, Any]:
        """The figures as JSON, in all and by family; None where there is nothing to measure."""
        families = sorted({record.family for record in self.episodes})
        parts = {
            family: Evaluation(episodes=tuple(record for record in self.episodes if record.family == family))
            for family in families
        }
        return {**self._figures(), "families": {family: part._figures() for family, part in parts.items()}}

    def _figures(self) -> dict[str, Any]:
        intervals = {
            "success": self.success,
            "vlm_success": self.vlm_success,
            "false_positive_share": self.false_positive_share,
        }
        return {
            "episodes": len(self.episodes),
            **{name: interval._asdict() if interval.num else None for name, interval in intervals.items()},
            "vlm_return": self.vlm_return,
            "false_positive_rate": None if math.isnan(self.false_positive_rate) else self.false_positive_rate,
        }


def evaluate_agent(
    agent: Agent,
    labeler: Labeler,
    environments: EnvironmentSettings,
    *,
    goals: Sequence[Goal] | None = None,
    goal_embeddings: np.ndarray | None = None,
    num_episodes: int = 100,
    temperature: float | None = None,
    keep_frames: int = 0,
    embedder: FrameEmbedder | None = None,
    progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Plays episodes of held-out levels.

    Episode j is always the same level and goal, in environment j modulo their number; every episode that is begun is counted.

    Args:
        agent: Any agent.
        labeler: The model that rewards it, with the rule.
        environments: Which ones; their seeds are the held-out ones whatever the settings say, and a domain's frames are of the
            size that the agent sees. For an agent of embeddings the frame size is that of the settings: take them from
            `fit_to_corpus`.
        goals: What episodes may ask for, some of the labeler's; None for all, `split_goals(...).held_out` for those never
            trained on.
        goal_embeddings: [G, E] float32, what the agent is told of the labeler's goals, in their order; None for their embeddings
            by the labeler.
        num_episodes: How many.
        temperature: Of the policy, which is then sampled from; None for the most likely action.
        keep_frames: Keep the frames of so many episodes, the first ones, for videos.
        embedder: One whose cache is to be shared, such as `apart()` of a live run's; None for a new one.
        progress: Called with 1 when an episode has ended.

    Raises:
        ValueError: The environments do not fit the agent, or a number is out of its range.
    """
    if num_episodes < 1:
        raise ValueError(f"num_episodes must be at least 1, got {num_episodes}; 100 gives an interval of ten points")
    if num_episodes < len(environments.envs):
        raise ValueError(
            f"num_episodes must be at least the number of environments, {len(environments.envs)}, got {num_episodes}: some would "
            f"never be played; play more, or name fewer"
        )
    environments = dataclasses.replace(
        fit_frame_size(environments, agent.spaces),
        seeds="held-out",
        num_envs=min(environments.num_envs, num_episodes),
    )
    goals = labeler.goals if goals is None else goals
    embeddings = labeler.goal_embeddings if goal_embeddings is None else goal_embeddings
    index_of = {goal.id: index for index, goal in enumerate(labeler.goals)}
    embedder = FrameEmbedder(labeler) if embedder is None else embedder
    generator = None if temperature is None else torch.Generator().manual_seed(environments.seed)
    envs = make_environments(environments, goals)
    agent.spaces.check_equal(
        spaces_of(envs, embeddings.shape[1], agent.spaces.observation, labeler.dim), "the environment"
    )
    N = envs.num_envs
    playing = np.arange(N)  # the episode of each environment, which rests when its next one is num_episodes or above
    first = environments.seed * 1_000_000
    observations, infos = envs.reset(seed=(first + playing).tolist())
    stories = [_Story(observations[i], infos, i) for i in range(N)]
    finished: dict[int, tuple[EpisodeRecord, np.ndarray]] = {}
    while len(finished) < num_episodes:
        seen = observations if agent.spaces.observation == "frames" else embedder(observations)
        rows = [index_of[story.goal_id] for story in stories]
        actions = agent.act(
            torch.from_numpy(np.ascontiguousarray(seen)),
            torch.from_numpy(embeddings[rows]),
            generator=generator,
            temperature=1.0 if temperature is None else temperature,
        )
        observations, _, terminations, truncations, infos = envs.step(actions)
        for i in np.flatnonzero(playing < num_episodes).tolist():
            stories[i].add(observations[i], infos, i)
        achieved = np.array([story.truths[-1:] == [True] for story in stories])
        over = (terminations | truncations | achieved) & (playing < num_episodes)
        for i in np.flatnonzero(over).tolist():
            j = int(playing[i])
            name = environments.envs[i % len(environments.envs)]
            record = _record(j, name, stories[i], labeler, embedder, index_of[stories[i].goal_id])
            finished[j] = (record, np.stack(stories[i].frames) if j < keep_frames else np.empty(0))
            if progress is not None:
                progress(1)
            playing[i] += N
        if over.any() and len(finished) < num_episodes:
            options = {"reset_mask": over, "resting": playing >= num_episodes}
            observations, infos = envs.reset(seed=(first + playing).tolist(), options=options)
            for i in np.flatnonzero(over & (playing < num_episodes)).tolist():
                stories[i] = _Story(observations[i], infos, i)
    envs.close()
    ordered = [finished[j] for j in range(num_episodes)]
    return Evaluation(
        episodes=tuple(record for record, _ in ordered), frames=tuple(frames for _, frames in ordered[:keep_frames])
    )


def verdict_of(infos: Mapping[str, Any], name: str, i: int) -> bool | None:
    """A yes or no in the infos of a vector environment's step; None where environment i does not tell it, though others may."""
    return bool(infos[name][i]) if name in infos and infos[f"_{name}"][i] else None


class _Story:
    """An episode as it goes on: its frames and the truth of those after actions."""

    def __init__(self, frame: np.ndarray, infos: dict[str, Any], i: int) -> None:
        self.goal_id = str(infos["goal_id"][i])
        self.level_seed = int(infos["level_seed"][i])
        self.frames = [frame]
        self.truths: list[bool | None] = []
        self.mission_done: bool | None = None

    def add(self, frame: np.ndarray, infos: dict[str, Any], i: int) -> None:
        self.frames.append(frame)
        self.truths.append(verdict_of(infos, "ground_truth", i))
        self.mission_done = verdict_of(infos, "mission_done", i)


def _record(
    episode: int, env: str, story: _Story, labeler: Labeler, embedder: FrameEmbedder, goal: int
) -> EpisodeRecord:
    scores = labeler.episodes().push([episode] * len(story.frames), embedder(np.stack(story.frames)))
    rewards = rewards_of_scores(scores, labeler.rule)[:, goal]
    fires = successes(scores, labeler.rule)[1:, goal]
    knows = None not in story.truths
    truths = np.array(story.truths) if knows else np.ones(len(fires), np.bool_)
    at = int(fires.argmax()) if fires.any() else None
    return EpisodeRecord(
        episode=episode,
        env=env,
        level_seed=story.level_seed,
        goal_id=story.goal_id,
        family=labeler.goals[goal].family,
        num_steps=len(fires),
        success=bool(truths.any()) if knows else None,
        mission_done=story.mission_done,
        vlm_success=at is not None,
        vlm_step=None if at is None else at + 1,
        vlm_true=bool(truths[at]) if knows and at is not None else None,
        vlm_return=float(rewards[: None if at is None else at + 1].sum()),
        vlm_false_frames=int((fires & ~truths).sum()),
        false_frames=int((~truths).sum()),
    )


def environments_at_once(envs: Sequence[str]) -> int:
    """How many environments an evaluation in these plays at once: 20, or one of each."""
    return max(20, len(envs))


def evaluate_on_held_out(
    agent: Agent,
    labeler: Labeler,
    environments: EnvironmentSettings,
    metrics: Metrics,
    step: int,
    *,
    held_out_goals: Sequence[str],
    num_episodes: int,
    temperature: float | None,
    when: str,
    embedder: FrameEmbedder | None = None,
    skip: Collection[str] = (),
) -> None:
    """Evaluates an agent in a run and records it: on the goals it was trained on, and apart on those it never was.

    Args:
        agent: The agent.
        labeler: The model that rewards it.
        environments: Which ones.
        metrics: Where records of kind "evaluation" and "evaluation of held-out goals" go, with the seconds that they took.
        step: Of the run.
        held_out_goals: Ids of goals that were left out of training.
        num_episodes: Of each of the two.
        temperature: Of the policy; None for the most likely action.
        when: What of the run this is, in words.
        embedder: As in `evaluate_agent`.
        skip: Kinds of records that there are of this step already.
    """
    apart = set(held_out_goals)
    for kind, held_out in (("evaluation", False), ("evaluation of held-out goals", True)):
        goals = [goal for goal in labeler.goals if (goal.id in apart) == held_out]
        if goals and kind not in skip:
            started = time.monotonic()
            evaluation = evaluate_agent(
                agent,
                labeler,
                environments,
                goals=goals,
                num_episodes=num_episodes,
                temperature=temperature,
                embedder=embedder,
            )
            figures = flatten_summary(evaluation.summary())
            seconds = round(time.monotonic() - started, 3)
            metrics.write(step, kind, {"when": when, **figures, "seconds_evaluating": seconds})


def flatten_summary(summary: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation's figures by one name each: intervals as name, name_low, name_high; families as family/name."""
    flat: dict[str, Any] = {}
    for name, value in summary.items():
        if name == "families":
            flat |= {
                f"{family}/{key}": figure
                for family, part in value.items()
                for key, figure in flatten_summary(part).items()
            }
        elif isinstance(value, Mapping):
            flat |= {name: value["mean"], f"{name}_low": value["low"], f"{name}_high": value["high"]}
        else:
            flat[name] = value
    return flat
