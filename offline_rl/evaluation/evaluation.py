"""Measures an agent by ground truth and by the model that rewards it, on the same episodes of held-out levels.

    episode j ─► level, goal ─► agent acts until the goal holds in truth, or the time is over ─► frames o_0 .. o_T
                                                                                        ├─► ground truth of o_1 .. o_T ─► success
                                                                                        └─► labeler, rule ─► vlm_success, vlm_return

The model does not end an episode here, so success is the plain success rate of the level, whatever the model thinks. The model's
return counts up to its first success, which would have ended the episode in training; whether the goal holds in that very frame
tells a right reward from a false one.

N environments play the episodes, environment i the episodes i, i + N, i + 2N, ...:

    environment 0    episode 0 ──────────┤ episode 3 ────────┤ rests
    environment 1    episode 1 ───┤ episode 4 ──────────────────┤        episode 5 is never begun: num_episodes is 5
    environment 2    episode 2 ─────────────────┤ rests

Shape letters: H and W sides of a frame, F = T + 1 frames of an episode, G goals, E size of a goal's embedding.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.live import FrameEmbedder
from vlm_rewards.labelers.rewards.rewards import rewards_of_scores, successes
from vlm_rewards.offline_rl.environments.environments import EnvironmentSettings, make_environments, spaces_of
from vlm_rewards.offline_rl.environments.live_frames import fit_frame_size
from vlm_rewards.offline_rl.evaluation.episode_records import EpisodeRecord, Evaluation, flatten_summary
from vlm_rewards.offline_rl.interfaces import Agent
from vlm_rewards.offline_rl.online.frame_memory import FrameMemory
from vlm_rewards.offline_rl.runs.folders import Metrics
from vlm_rewards.schemas.goals import Goal


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

    Episode j always has the same level and goal. Every episode that is begun is counted.

    Args:
        agent: Any agent.
        labeler: Labeler that rewards it.
        environments: Environments. Their levels are held-out ones whatever the settings say, and a domain's frames have the size
            that the agent sees. For an agent of embeddings the frame size is that of the settings: take them from `fit_to_corpus`.
        goals: Goals that episodes may ask for, some of the labeler's; None for all.
        goal_embeddings: [G, E] float32, what the agent is told for each of the labeler's goals; None for the labeler's embeddings.
        num_episodes: Number of episodes.
        temperature: Temperature at which the policy is sampled; None for the most likely action.
        keep_frames: Number of episodes, the first ones, whose frames are kept for videos.
        embedder: Embedder whose cache is shared, such as `apart()` of that of a live run; None for a new one.
        progress: Function that is called with 1 when an episode has ended.

    Raises:
        ValueError: The environments do not fit the agent, or a number is out of its range.
    """
    if num_episodes < 1:
        raise ValueError(f"num_episodes must be at least 1, got {num_episodes}. 100 gives an interval of ten points.")
    if num_episodes < len(environments.envs):
        raise ValueError(
            f"num_episodes must be at least the number of environments, {len(environments.envs)}, got {num_episodes}. Play "
            f"more, or name fewer."
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
    finished: dict[int, tuple[EpisodeRecord, np.ndarray]] = {}
    with contextlib.closing(make_environments(environments, goals)) as envs:
        agent.spaces.check_equal(
            spaces_of(envs, embeddings.shape[1], agent.spaces.observation, labeler.dim), "the environment"
        )
        N = envs.num_envs
        playing = np.arange(N)  # the episode of each environment; from num_episodes on, the environment rests
        first = environments.seed * 1_000_000
        observations, infos = envs.reset(seed=(first + playing).tolist())
        stories = [_Story(observations[i], infos, i) for i in range(N)]
        embeds = agent.spaces.observation == "embeddings"
        memory = FrameMemory(agent.spaces.frame_stack, embedder(observations) if embeds else observations)
        while len(finished) < num_episodes:
            # Every environment acts; those that rest ignore their action.
            rows = [index_of[story.goal_id] for story in stories]
            actions = agent.act(
                torch.from_numpy(np.ascontiguousarray(memory.seen)),
                torch.from_numpy(embeddings[rows]),
                generator=generator,
                temperature=1.0 if temperature is None else temperature,
            )
            observations, _, terminations, truncations, infos = envs.step(actions)

            # Episodes end by the truth or by the environment, never by the model; their frames are judged when they have ended.
            active = playing < num_episodes
            for i in np.flatnonzero(active).tolist():
                stories[i].add(observations[i], infos, i)
            achieved = np.array([story.truths[-1:] == [True] for story in stories])
            over = (terminations | truncations | achieved) & active
            for i in np.flatnonzero(over).tolist():
                j = int(playing[i])
                name = environments.envs[i % len(environments.envs)]
                record = _record(j, name, stories[i], labeler, embedder, index_of[stories[i].goal_id])
                finished[j] = (record, np.stack(stories[i].frames) if j < keep_frames else np.empty(0))
                if progress is not None:
                    progress(1)
                playing[i] += N

            # Their environments begin the next episodes, or rest.
            if over.any() and len(finished) < num_episodes:
                options = {"reset_mask": over, "resting": playing >= num_episodes}
                observations, infos = envs.reset(seed=(first + playing).tolist(), options=options)
                for i in np.flatnonzero(over & (playing < num_episodes)).tolist():
                    stories[i] = _Story(observations[i], infos, i)
            if len(finished) < num_episodes:
                seen = embedder(observations) if embeds else observations
                memory.add(seen)
                memory.begin(seen, over)
    ordered = [finished[j] for j in range(num_episodes)]
    return Evaluation(
        episodes=tuple(record for record, _ in ordered), frames=tuple(frames for _, frames in ordered[:keep_frames])
    )


def verdict_of(infos: Mapping[str, Any], name: str, i: int) -> bool | None:
    """Returns a yes or no from the infos of a vector environment; None if environment i does not tell it, though others may."""
    return bool(infos[name][i]) if name in infos and infos[f"_{name}"][i] else None


class _Story:
    """A running episode: its frames, and the truth of those after actions."""

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
    """Returns how many environments an evaluation plays at once: 20, or one per name."""
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
    """Evaluates an agent during a run and records it: on the goals it was trained on, and separately on held-out goals.

    Args:
        agent: The agent.
        labeler: Labeler that rewards it.
        environments: Environments of the evaluation.
        metrics: Metrics of the run; get records of kind "evaluation" and "evaluation of held-out goals", with their seconds.
        step: Step of the run.
        held_out_goals: Ids of the goals that were left out of training.
        num_episodes: Number of episodes of each of the two.
        temperature: Temperature of the policy; None for the most likely action.
        when: Moment of the run, in words.
        embedder: Shared embedder, as in `evaluate_agent`.
        skip: Kinds of records that exist for this step already.
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
