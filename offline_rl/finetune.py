"""Fine-tunes an agent in live environments whose only reward is the model that labelled its corpus.

             ┌──────────────── actions ────────────────┐
    agent ───┘                                         ▼
      ▲                               LiveRewards: frames, VLM rewards ──► online buffer ◄── hindsight goals of ended episodes
      │                                                                        │
      └── updates ◄── batches: half of the corpus, half of the buffer ◄────────┴──── replay of the corpus

Steps are environment steps, all environments together. The first `warmup_steps` are taken by the offline agent without updates.
Ground truth is read for evaluation and for the records of episodes alone.

A run that was killed goes on from its last checkpoint to the same bits, on a CPU: agent, optimisers, random states, the buffer and
the environments' episodes, which are replayed, are in it.
"""

import contextlib
import dataclasses
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labelers.encoders import check_device
from labelers.hindsight import HindsightSettings
from labelers.labeler import Labeler, settings_from_json
from offline_rl.environments import EnvironmentSettings, make_environments
from offline_rl.evaluation import evaluate_on_held_out
from offline_rl.live_frames import fit_to_corpus
from offline_rl.live_hindsight import LiveHindsight
from offline_rl.live_rewards import LiveRewards, LiveRewardSettings
from offline_rl.mixed_batches import mixed_sample
from offline_rl.online_buffer import OnlineBuffer
from offline_rl.replay import DEFAULT_MIX, ReplayData, open_replay
from offline_rl.runs import (
    Metrics,
    claimed_run,
    describe_settings,
    latest_checkpoint,
    pack_arrays,
    progress_bar,
    save_checkpoint,
    unpack_arrays,
)
from offline_rl.saved_agents import SavedAgent, load_agent, save_agent
from schemas.fingerprints import Fingerprint

_EPISODES_SHOWN = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """How an agent is fine-tuned.

    What is the agent's own is not set here: the critics of its ensemble, `num_critics`, and those that a target is drawn from,
    `num_min_critics`, are settings of its algorithm (`vlm-rewards train --set num_critics=10`); LayerNorm is always on.

    Args:
        envs: Environments by their registered names; environment i is of name i modulo their number.
        steps: Environment steps, of all environments together.
        num_envs: N.
        seed: Of levels, actions and batches.
        batch_size: Transitions an update.
        offline_share: Share of a batch that is of the corpus; 0.5 as in RLPD and Cal-QL.
        mix: Shares of original, hindsight and negative goals in that part.
        warmup_steps: Environment steps before the first update, as in WSRL; fewer than its 5000, as runs are shorter here.
        updates_per_step: Updates an environment step. RLPD, REDQ and WSRL take 4 to 20. 0.25 is what a CPU affords, not what
            learns best by the step: an update costs much more than a step there, and `hindsight_goals` stores each step under
            several goals, so that live data are plentiful. Raise it where updates are cheap.
        hindsight_goals: Other goals, achieved and not, under which an episode that has ended is stored as well; 0 for none.
        temperature: Of the policy while it explores.
        capacity: Frames of the environments that the buffer holds, about. The field keeps a million; these are frames in memory.
        finished_only: Sample only transitions whose episode has ended, when its return is known, as Cal-QL's authors do. Else those
            of an episode that goes on have return 0, which bounds the value from below where no reward is negative.
        end_at_success: A success by the model ends the episode, as in the paper.
        asynchronous: Score beside the environments, where success does not end the episode.
        camera: Whose frames the environments show; None for the labels', and no other may be given.
        frames: Where they have them, see `EnvironmentSettings`; None for where the agent's own had.
        eval_episodes: Episodes of an evaluation; 0 for none.
        eval_every: Environment steps between evaluations.
        eval_temperature: Of the policy while it is evaluated; None for the most likely action.
        eval_seed: Of the held-out levels: whoever chooses settings by some must be judged by others.
        threads: Threads of torch; other numbers round otherwise, so it is part of the run.
        device: Where the agent learns, as in `TrainSettings`; the labeler is where the labels were made, which is in their
            fingerprint.
        log_every: Environment steps between records of losses and rewards.
        checkpoint_every: Environment steps between checkpoints.

    Raises:
        ValueError: A value is out of its range, an environment is unknown, or two settings exclude each other.
    """

    envs: tuple[str, ...]
    steps: int = 50_000
    num_envs: int = 8
    seed: int = 0
    batch_size: int = 256
    offline_share: float = 0.5
    mix: tuple[float, float, float] = DEFAULT_MIX
    warmup_steps: int = 1000
    updates_per_step: float = 0.25
    hindsight_goals: int = 4
    temperature: float = 1.0
    capacity: int = 100_000
    finished_only: bool = False
    end_at_success: bool = True
    asynchronous: bool = False
    camera: str | None = None
    frames: str | None = None
    eval_episodes: int = 100
    eval_every: int = 10_000
    eval_temperature: float | None = 1.0
    eval_seed: int = 0
    threads: int = 1
    device: str = "cpu"
    log_every: int = 1000
    checkpoint_every: int = 10_000

    def __post_init__(self) -> None:
        object.__setattr__(self, "envs", tuple(self.envs))
        EnvironmentSettings(
            envs=self.envs, camera=self.camera, frames="observation" if self.frames is None else self.frames
        )
        LiveRewardSettings(end_at_success=self.end_at_success, asynchronous=self.asynchronous)
        check_device(self.device)
        for name, least in (
            ("steps", 1),
            ("num_envs", 1),
            ("seed", 0),
            ("batch_size", 2),
            ("warmup_steps", 0),
            ("hindsight_goals", 0),
            ("capacity", 4 * self.num_envs),
            ("eval_episodes", 0),
            ("eval_every", 1),
            ("eval_seed", 0),
            ("threads", 1),
            ("log_every", 1),
            ("checkpoint_every", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}; choose another")
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps must be below steps, {self.steps}, got {self.warmup_steps}: nothing would be learned; take "
                "more steps, or a shorter warm-up"
            )
        if not 0 <= self.offline_share <= 1:
            raise ValueError(f"offline_share must be from 0 to 1, got {self.offline_share}; 0.5 is the field's choice")
        for name in ("updates_per_step", "temperature", "eval_temperature"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} must be above 0 and finite, got {value}; choose another")


def finetune(
    agent: str | Path,
    output: str | Path,
    settings: FinetuneSettings,
    *,
    wandb_project: str | None = None,
) -> SavedAgent:
    """Fine-tunes an agent with live rewards; run again after an interruption, it goes on.

    Args:
        agent: Folder that `train` has finished, with its replay.
        output: Folder for the agent, its checkpoints and metrics; absent, empty, or of this run.
        settings: How.
        wandb_project: Project of Weights & Biases to log to as well.

    Returns:
        The agent, saved in the output folder too.

    Raises:
        ValueError: The agent does not fit the environments or its labeler is not what it was, the output folder is another run's, a
            loss is not finite, or no reward was ever positive; in a run too short to tell that is a warning at its end.
    """
    before = load_agent(agent, settings.device)
    labeler = settings_from_json(before.labeler).build()
    replay = open_replay(
        before.replay,
        exclude_goals=before.held_out_goals,
        discount=before.discount,
        num_actions=before.agent.spaces.num_actions,
        use_states=before.agent.spaces.state_size is not None,
    )
    replay.mix_in_force(settings.mix)  # which says at once what a batch would say after the warm-up
    described = describe_settings(
        settings, unimportant=("log_every", "checkpoint_every"), added=("finished_only", "camera", "frames", "device")
    )
    fingerprint = Fingerprint({"agent": before.digest, "labels": dict(before.labels_fingerprint.parts), **described})
    torch.set_num_threads(settings.threads)
    with claimed_run(
        output, "fine-tuning", fingerprint, {**dataclasses.asdict(settings), "agent": str(agent)}
    ) as folder:
        for unfinished in folder.glob(".buffer-*.tmp-*"):  # what a run that was killed while saving has left
            unfinished.unlink()
        checkpoint = latest_checkpoint(folder)
        done = 0 if checkpoint is None else checkpoint[0]
        with (
            _Run(before, labeler, replay, settings) as run,  # first: it refuses environments that do not fit
            contextlib.closing(Metrics(folder, done, wandb_project)) as metrics,
        ):
            if checkpoint is not None:
                run.load(folder, *checkpoint)
            else:
                run.evaluate(metrics, "end of offline training")
            with progress_bar("finetune", settings.steps, run.step) as bar:
                while run.step < settings.steps:
                    run.advance(metrics)
                    bar.update(settings.num_envs)
                    if run.crosses(settings.checkpoint_every):
                        run.save(folder)
            if (complaint := run.complaint()) is not None:
                print(f"finetune: warning: {complaint}", file=sys.stderr, flush=True)
        saved = dataclasses.replace(
            before,
            agent=run.agent,
            envs=settings.envs,
            steps=run.step,
            frames=before.frames if settings.frames is None else settings.frames,
        )
        save_agent(saved, folder)
    return saved


class _Run:
    """A fine-tuning run between two environment steps."""

    def __init__(self, before: SavedAgent, labeler: Labeler, replay: ReplayData, settings: FinetuneSettings) -> None:
        self.settings = settings
        self.labeler = labeler
        self.replay = replay
        self.agent = before.agent
        self.step = 0
        self._held_out = before.held_out_goals
        trained = [goal for goal in labeler.goals if goal.id not in set(before.held_out_goals)]
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
            LiveRewardSettings(
                end_at_success=settings.end_at_success,
                asynchronous=settings.asynchronous,
                observation=before.agent.spaces.observation,
                camera=str(self._environments.camera),
            ),
            labels=before.labels_fingerprint,
            spaces=before.agent.spaces,
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
        )
        self._random = np.random.default_rng(settings.seed)
        self._acting = torch.Generator().manual_seed(settings.seed)
        self._offline_updates = before.agent.num_updates
        self._due = 0.0
        self._episodes: deque[dict[str, float]] = deque(maxlen=_EPISODES_SHOWN)
        self._returns = np.zeros(settings.num_envs)
        self._truths = np.zeros(settings.num_envs, np.bool_)
        self._losses: list[Mapping[str, float]] = []
        self._observations, _ = self._live.reset()

    def __enter__(self) -> "_Run":
        return self

    def __exit__(self, *_: object) -> None:
        self._live.close()

    def crosses(self, every: int) -> bool:
        """Whether the last step went past a multiple of `every`, or to the end."""
        before = self.step - self.settings.num_envs
        return self.step // every > before // every or self.step >= self.settings.steps

    def advance(self, metrics: Metrics) -> None:
        """One step of all environments, the updates that are due, and what is to be recorded after them."""
        updates = self.agent.num_updates
        ended = self._act()
        if ended.any():
            self._observations, _ = self._live.reset(options={"reset_mask": ended})
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
            torch.from_numpy(np.ascontiguousarray(self._observations)),
            torch.from_numpy(live.goal_embeddings),
            generator=self._acting,
            temperature=self.settings.temperature,
        )
        observations, rewards, terminations, truncations, infos = live.step(actions)
        numbers = self._buffer.add(
            self._observations,
            actions,
            infos["next_observations"],
            infos["transition_goals"],
            terminations=terminations,
            truncations=truncations,
            rewards=None if self.settings.asynchronous else rewards,
            valid=infos["valid"],
        )
        ended = terminations | truncations
        self._hindsight.add(numbers, infos["tickets"], infos["transition_goals"], ended)
        if self.settings.asynchronous:
            self._learn()  # while the thread scores
            scored = live.collect(wait=True)
            self._buffer.set_rewards(self._hindsight.numbers_of(scored.tickets), scored.rewards)
            self._hindsight.score(scored.tickets, scored.scores)
            rewards = scored.rewards
        else:
            self._hindsight.score(infos["tickets"], infos["scores"])
            self._learn()
        for episode in self._hindsight.finished():
            if self.settings.hindsight_goals:
                episode.store(self._buffer)
        self._follow(rewards, ended, infos["evaluation"]["infos"])
        self._observations = observations
        return ended

    def _learn(self) -> None:
        """The updates that are due after a step."""
        if self.step + self.settings.num_envs > self.settings.warmup_steps and len(self._buffer):
            self._due += self.settings.updates_per_step * self.settings.num_envs
        while self._due >= 1:
            self._update()
            self._due -= 1

    def _follow(self, rewards: np.ndarray, ended: np.ndarray, infos: Mapping[str, Any]) -> None:
        """Keeps the figures of episodes; the truth is for the records alone."""
        self._returns += rewards
        if "ground_truth" in infos:
            self._truths |= np.asarray(infos["ground_truth"], np.bool_)
        for index in np.flatnonzero(ended):
            self._episodes.append({"vlm_return": float(self._returns[index]), "success": float(self._truths[index])})
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
            figures = {name: float(np.mean([x[name] for x in self._episodes])) for name in self._episodes[0]}
            metrics.write(self.step, "episodes", {**figures, "episodes": self._live.monitor.counts["episodes"]})
        metrics.write(self.step, "scoring", self._live.statistics())

    def evaluate(self, metrics: Metrics, when: str) -> None:
        """Evaluates on fixed held-out levels, held-out goals apart, and records it."""
        if self.settings.eval_episodes:
            evaluate_on_held_out(
                self.agent,
                self.labeler,
                dataclasses.replace(self._environments, num_envs=20, seed=self.settings.eval_seed),
                metrics,
                self.step,
                held_out_goals=self._held_out,
                num_episodes=self.settings.eval_episodes,
                temperature=self.settings.eval_temperature,
                when=when,
                embedder=self._live.embedder.apart(),
            )

    def complaint(self) -> str | None:
        """What is wrong with the rewards, where none was ever positive."""
        return self._live.monitor.complaint()

    def save(self, folder: Path) -> None:
        """Writes a checkpoint: the buffer beside it, whole before the checkpoint names it."""
        buffer = folder / f"buffer-{self.step:09d}.npz"
        self._buffer.save(buffer)
        state = {
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
        save_checkpoint(folder, self.step, state)
        for old in sorted(folder.glob("buffer-*.npz"))[:-2]:
            old.unlink()

    def load(self, folder: Path, step: int, state: Mapping[str, Any]) -> None:
        """Goes on from a checkpoint."""
        self.step = step
        self.agent.load_state_dict(state["agent"])
        self._random.bit_generator.state = state["random"]
        self._acting.set_state(state["acting"])
        self._observations = self._live.load_state_dict(unpack_arrays(state["live"]))
        self._hindsight.load_state_dict(unpack_arrays(state["hindsight"]))
        self._due = state["due"]
        self._episodes.extend(state["episodes"])
        self._returns[:] = state["returns"]
        self._truths[:] = state["truths"]
        self._losses = list(state["losses"])
        self._buffer.load(folder / state["buffer"])
