"""A fine-tuning run, one step of all environments at a time, and its checkpoints.

advance    act on the observations ──► LiveRewards.step ──► the step as transitions, with rewards
                                                              ├──► online buffer ──► updates that are due
                                                              ├──► hindsight, where episodes ended ──► online buffer
                                                              └──► records of episodes; the truth is read here only
           then reset what ended, record, evaluate

An asynchronous run makes the updates between `LiveRewards.step` and the rewards of that step, while a thread scores it.
"""

import dataclasses
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.rewards.hindsight import HindsightSettings
from vlm_rewards.offline_rl.environments.environments import EnvironmentSettings, make_environments
from vlm_rewards.offline_rl.environments.live_frames import fit_to_corpus
from vlm_rewards.offline_rl.evaluation.evaluation import environments_at_once, evaluate_on_held_out, verdict_of
from vlm_rewards.offline_rl.online.buffer import OnlineBuffer
from vlm_rewards.offline_rl.online.frame_memory import FrameMemory
from vlm_rewards.offline_rl.online.live_hindsight import LiveHindsight
from vlm_rewards.offline_rl.online.live_rewards import LiveRewards
from vlm_rewards.offline_rl.online.truth_rewards import TruthScores, parse_reward
from vlm_rewards.offline_rl.replay.mixed_batches import mixed_sample
from vlm_rewards.offline_rl.replay.replay import ReplayData
from vlm_rewards.offline_rl.runs.folders import Metrics, pack_arrays, save_checkpoint, unpack_arrays
from vlm_rewards.offline_rl.runs.saved_agents import SavedAgent
from vlm_rewards.offline_rl.training.finetune_settings import FinetuneSettings
from vlm_rewards.schemas.files.digests import digest_beside

_EPISODES_SHOWN = 100
_CHECKPOINT_VERSION = 2  # 0.2.0 had none


class FinetuneRun:
    """A fine-tuning run between two environment steps; a context manager that closes the environments.

    Args:
        before: Agent to begin with; it is trained in place.
        labeler: Labeler of the agent's labels.
        replay: Replay that the agent was trained on.
        settings: Settings of fine-tuning.

    Attributes:
        agent: The agent now.
        step: Environment steps so far.

    Raises:
        ValueError: The environments do not fit the agent, or the labeler is not that of its labels.
    """

    def __init__(self, before: SavedAgent, labeler: Labeler, replay: ReplayData, settings: FinetuneSettings) -> None:
        self.settings = settings
        self.labeler = labeler
        self.replay = replay
        self.agent = before.agent
        self.step = 0
        self._held_out = before.held_out_goals
        trained = [goal for goal in labeler.goals if goal.id not in set(before.held_out_goals)]
        how = parse_reward(settings.reward)
        truth = None if how is None else TruthScores(how, labeler.goals, settings.seed)
        self._environments = fit_to_corpus(
            EnvironmentSettings(
                envs=settings.envs,
                num_envs=settings.num_envs,
                seed=settings.seed,
                camera=settings.camera,
                frames=before.frames if settings.frames is None else settings.frames,
            ),
            before.agent.spaces,
            frame_shape=before.frame_shape,
            camera=before.camera,
            labels=before.labels_camera,
        )
        self._live = LiveRewards(
            make_environments(self._environments, trained),
            labeler,
            observation=before.agent.spaces.observation,
            end_at_success=settings.end_at_success,
            hide_truth=True,
            asynchronous=settings.asynchronous,
            camera=str(self._environments.camera),
            goals=[goal.id for goal in trained],
            labels=before.labels_fingerprint,
            spaces=before.agent.spaces,
            truth=truth,
        )
        self._buffer = OnlineBuffer(
            before.agent.spaces,
            labeler.goal_embeddings,
            num_environments=settings.num_envs,
            capacity=settings.capacity,
            capacity_transitions=settings.capacity * (1 + settings.hindsight_goals),
            discount=before.discount,
            finished_only=settings.finished_only,
        )
        self._hindsight = LiveHindsight(
            labeler,
            settings.num_envs,
            HindsightSettings(
                goals_per_episode=max(settings.hindsight_goals, 1), ratio=(0.0, 0.6, 0.4), seed=settings.seed
            ),
            excluded=before.held_out_goals,
            rule=None if truth is None else truth.rule,
        )
        self._random = np.random.default_rng(settings.seed)
        self._acting = torch.Generator().manual_seed(settings.seed)
        self._offline_updates = before.agent.num_updates
        self._due = 0.0
        self._episodes: deque[dict[str, float | None]] = deque(maxlen=_EPISODES_SHOWN)
        self._returns = np.zeros(settings.num_envs)
        self._truths = np.zeros(settings.num_envs, np.bool_)
        self._losses: list[Mapping[str, float]] = []
        observations, _ = self._live.reset()
        self._memory = FrameMemory(before.agent.spaces.frame_stack, observations)

    def __enter__(self) -> "FinetuneRun":
        return self

    def __exit__(self, *_: object) -> None:
        self._live.close()

    def crosses(self, every: int) -> bool:
        """Returns whether the last step passed a multiple of `every`, or reached the end."""
        before = self.step - self.settings.num_envs
        return self.step // every > before // every or self.step >= self.settings.steps

    def advance(self, metrics: Metrics) -> None:
        """Takes one step of all environments, makes the updates that are due, and records what is due after them."""
        updates = self.agent.num_updates
        ended = self._act()
        if ended.any():
            observations, _ = self._live.reset(options={"reset_mask": ended})
            self._memory.begin(observations, ended)
        self.step += self.settings.num_envs
        first = updates == self._offline_updates < self.agent.num_updates
        if self.crosses(self.settings.log_every):
            self._live.monitor.check()
            self._record(metrics)
        if first:
            self.evaluate(metrics, "first online step")
        elif self.crosses(self.settings.eval_every):
            self.evaluate(metrics, "end" if self.step >= self.settings.steps else "on the way")

    def _act(self) -> np.ndarray:
        live = self._live
        actions = self.agent.act(
            torch.from_numpy(np.ascontiguousarray(self._memory.seen)),
            torch.from_numpy(live.goal_embeddings),
            generator=self._acting,
            temperature=self.settings.temperature,
        )
        observations, *_ = live.step(actions)
        self._memory.add(observations)
        # The updates of an asynchronous run are made while the thread scores the step, and so without it.
        if self.settings.asynchronous:
            self._buffer.make_room()
            self._learn()
        (step,) = live.collect(wait=True)
        numbers = self._buffer.add(
            step.observations,
            step.actions,
            step.next_observations,
            step.goals,
            step.rewards,
            terminations=step.terminations,
            truncations=step.truncations,
            successes=step.successes,
            valid=step.valid,
        )
        if not self.settings.asynchronous:
            self._learn()
        ended = step.terminations | step.truncations
        if self.settings.hindsight_goals:
            for episode in self._hindsight.add(numbers, step.goals, step.scores, ended):
                episode.store(self._buffer)
        self._follow(step.rewards, ended, live.environment_infos)
        return ended

    def _learn(self) -> None:
        """Makes the updates that are due after a step; a fraction of an update is kept for the next step."""
        if self.step + self.settings.num_envs > self.settings.warmup_steps and len(self._buffer):
            self._due += self.settings.updates_per_step * self.settings.num_envs
        while self._due >= 1:
            self._update()
            self._due -= 1

    def _follow(self, rewards: np.ndarray, ended: np.ndarray, infos: Mapping[str, Any]) -> None:
        """Gathers the figures of episodes; the truth goes into the records only."""
        self._returns += rewards
        verdicts = [verdict_of(infos, "ground_truth", index) for index in range(len(ended))]
        self._truths |= np.array([verdict is True for verdict in verdicts])
        for index in np.flatnonzero(ended):
            success = None if verdicts[index] is None else float(self._truths[index])
            self._episodes.append({"vlm_return": float(self._returns[index]), "success": success})
        self._returns[ended] = 0
        self._truths[ended] = False

    def _update(self) -> None:
        batch = mixed_sample(
            self.replay,
            self._buffer,
            self.settings.batch_size,
            self._random,
            offline_share=self.settings.offline_share,
            mix=self.settings.mix,
        )
        self._losses.append(self.agent.update(batch))

    def _record(self, metrics: Metrics) -> None:
        if self._losses:
            names = self._losses[0]
            metrics.write(
                self.step, "losses", {name: float(np.mean([x[name] for x in self._losses])) for name in names}
            )
            self._losses.clear()
        if self._episodes:
            figures = {name: _mean([x[name] for x in self._episodes]) for name in self._episodes[0]}
            metrics.write(self.step, "episodes", {**figures, "episodes": self._live.monitor.counts["episodes"]})
        metrics.write(self.step, "scoring", self._live.statistics())

    def evaluate(self, metrics: Metrics, when: str) -> None:
        """Evaluates on fixed held-out levels, separately on held-out goals, and records it."""
        if self.settings.eval_episodes:
            evaluate_on_held_out(
                self.agent,
                self.labeler,
                dataclasses.replace(
                    self._environments,
                    num_envs=environments_at_once(self.settings.envs),
                    seed=self.settings.eval_seed,
                ),
                metrics,
                self.step,
                held_out_goals=self._held_out,
                num_episodes=self.settings.eval_episodes,
                temperature=self.settings.eval_temperature,
                when=when,
                embedder=self._live.embedder.apart(),
            )

    def complaint(self) -> str | None:
        """Returns what is wrong with the rewards if none was ever positive; else None."""
        return self._live.monitor.complaint()

    def save(self, folder: Path) -> None:
        """Writes a checkpoint, and the buffer beside it, which is complete before the checkpoint names it."""
        buffer = folder / f"buffer-{self.step:09d}.npz"
        self._buffer.save(buffer)
        state = {
            "version": _CHECKPOINT_VERSION,
            "agent": self.agent.state_dict(),
            "random": self._random.bit_generator.state,
            "acting": self._acting.get_state(),
            "live": pack_arrays(self._live.state_dict()),
            "hindsight": pack_arrays(self._hindsight.state_dict()),
            "due": self._due,
            "episodes": list(self._episodes),
            "returns": self._returns.tolist(),
            "truths": self._truths.tolist(),
            "losses": [dict(losses) for losses in self._losses],
            "buffer": buffer.name,
        }
        if self.agent.spaces.frame_stack > 1:
            state["memory"] = pack_arrays(self._memory.state_dict())
        save_checkpoint(folder, self.step, state)
        for old in sorted(folder.glob("buffer-*.npz"))[:-2]:
            old.unlink()
            digest_beside(old).unlink(missing_ok=True)

    def load(self, folder: Path, step: int, state: Mapping[str, Any]) -> None:
        """Restores a checkpoint.

        Raises:
            ValueError: Another version of the package has written it.
        """
        if state.get("version") != _CHECKPOINT_VERSION:
            raise ValueError(
                f"the checkpoint of step {step} in {folder} must be of version {_CHECKPOINT_VERSION}, got "
                f"{state.get('version', 1)}. Resume with the version of vlm-rewards that began the run, or begin again in another "
                f"folder."
            )
        self.step = step
        self.agent.load_state_dict(state["agent"])
        self._random.bit_generator.state = state["random"]
        self._acting.set_state(state["acting"])
        self._memory = FrameMemory(
            self.agent.spaces.frame_stack, self._live.load_state_dict(unpack_arrays(state["live"]))
        )
        if self.agent.spaces.frame_stack > 1:
            self._memory.load_state_dict(unpack_arrays(state["memory"]))
        self._hindsight.load_state_dict(unpack_arrays(state["hindsight"]))
        self._due = state["due"]
        self._episodes.extend(state["episodes"])
        self._returns[:] = state["returns"]
        self._truths[:] = state["truths"]
        self._losses = list(state["losses"])
        self._buffer.load(folder / state["buffer"])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
