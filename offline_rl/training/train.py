"""Trains an agent offline on relabelled trajectories.

    relabelled/ ──► replay (frames once, memory-mapped) ──► batches in the stated mix ──► agent ──► agent.pt
                                                                                          └─ evaluation, if levels are given

A run that was killed resumes from its last checkpoint to the same bits, on a CPU: agent, optimisers and both random states are in
it. The learner sees frames, actions, goals and the labels' rewards; ground truth is for evaluation alone.
"""

import dataclasses
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.live import check_labeler
from vlm_rewards.labelers.settings import settings_from_json
from vlm_rewards.offline_rl.algorithms.agents import algorithm_settings, build_agent
from vlm_rewards.offline_rl.environments.environments import EnvironmentSettings, make_environments, spaces_of
from vlm_rewards.offline_rl.environments.live_frames import fit_to_corpus
from vlm_rewards.offline_rl.evaluation.evaluation import environments_at_once, evaluate_on_held_out
from vlm_rewards.offline_rl.interfaces import GoalTexts
from vlm_rewards.offline_rl.replay.builder import build_replay
from vlm_rewards.offline_rl.replay.replay import DEFAULT_DISCOUNT, ReplayData
from vlm_rewards.offline_rl.runs.folders import (
    Metrics,
    describe_settings,
    latest_checkpoint,
    progress_bar,
    read_metrics,
    save_checkpoint,
    torch_threads,
)
from vlm_rewards.offline_rl.runs.saved_agents import SavedAgent, save_agent
from vlm_rewards.offline_rl.training.corpus_networks import domain_of_corpus, fit_networks, num_actions_of
from vlm_rewards.offline_rl.training.held_out_goals import split_goals
from vlm_rewards.offline_rl.training.train_settings import TrainKeywords, TrainSettings
from vlm_rewards.schemas.files.json_records import OBJECT
from vlm_rewards.schemas.files.remote_paths import local_path
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.folders import claimed, open_finished, read_settings
from vlm_rewards.schemas.goals import goals_from_json
from vlm_rewards.schemas.options import build_settings, shows_settings


@shows_settings(TrainSettings)
def train(
    relabelled: str | Path,
    *,
    output: str | Path,
    embeddings: str | Path | None = None,
    wandb_project: str | None = None,
    **settings: Unpack[TrainKeywords],
) -> SavedAgent:
    """Trains an agent on relabelled trajectories; run again after an interruption, it resumes.

    Args:
        relabelled: Folder that `hindsight` has finished.
        output: Folder for the agent, its replay, checkpoints and metrics; absent, empty, or of this run.
        embeddings: Folder that `label` filled with embeddings: the agent sees these instead of frames.
        wandb_project: Project of Weights & Biases to log to as well.
        settings: Fields of `TrainSettings`.

    Returns:
        The agent, saved in the output folder too.

    Raises:
        ValueError: The trajectories do not fit (see `build_replay`), the mix draws no success, a continuous action is not from
            -1 to 1, the output folder is another run's, or a loss is not finite.

    Example:
        >>> import vlm_rewards as vr
        >>> vr.train("relabelled/", output="agent-2/", steps=20, batch_size=16, num_actions=7)
        SavedAgent(iql, 20 steps, 342 goals, sees frames)
    """
    (how,) = build_settings(settings, TrainSettings)
    how = dataclasses.replace(how, hold_out=resolve_held_out(relabelled, how.hold_out))
    with torch_threads(how.threads):
        return _train(relabelled, local_path(output, "an agent"), how, embeddings, wandb_project)


def _train(
    source: str | Path, output: Path, settings: TrainSettings, embeddings: str | Path | None, wandb_project: str | None
) -> SavedAgent:
    recorded = read_relabelled_settings(source)
    relabelled = open_finished(source, "relabelled")
    labeler = Labeler.build(settings_from_json(recorded["labels_settings"]["labeler"]))
    labels = Fingerprint(recorded["labels_fingerprint"])
    check_labeler(labeler, labels, str(labels.parts["camera"]))
    described = describe_settings(
        settings,
        unimportant=("log_every", "checkpoint_every", "hold_out"),
        added=("frames", "states", "device", "frame_stack"),
    )
    fingerprint = Fingerprint(
        {
            "relabelled": dict(relabelled.fingerprint.parts),
            "relabelled_digest": relabelled.digest,
            "embeddings": None if embeddings is None else open_finished(embeddings, "embeddings").digest,
            **described,
            "exclude_goals": settings.hold_out,
        }
    )
    domain = domain_of_corpus(settings.envs, recorded.get("recorded_envs", ()))
    # Nothing is chosen for a corpus that was relabelled before this was recorded, unless a domain's environment is named.
    chooses = domain is not None or "recorded_envs" in recorded
    if settings.num_actions is None:
        settings = dataclasses.replace(settings, num_actions=num_actions_of(domain))
    shown = {**dataclasses.asdict(settings), "source": str(source)}
    with claimed(output, kind="training", fingerprint=fingerprint, settings=shown, renew=True) as folder:
        try:
            replay = _replay(source, folder / "replay", settings, embeddings, labeler)
            if settings.algorithm != "bc":  # which clones whatever was done, rewarded or not
                replay.check_mix(settings.mix)
            _check_actions(replay)
            _check_environments(replay, settings, labeler, labels)
        except ValueError:  # corrected settings are those of another run: nothing may stay that holds the folder
            if latest_checkpoint(folder) is None:
                shutil.rmtree(folder / "replay", ignore_errors=True)
            raise
        networks = dict(settings.algorithm_settings)
        if chooses:
            networks = fit_networks(settings.algorithm_settings, replay.spaces, domain)
        print(_described(replay, settings, networks), file=sys.stderr, flush=True)
        agent = build_agent(settings.algorithm, networks, replay.spaces, settings.seed, settings.device)
        random = np.random.default_rng(settings.seed)
        done = 0
        if (checkpoint := latest_checkpoint(folder)) is not None:
            done, state = checkpoint
            agent.load_state_dict(state["agent"])
            random.bit_generator.state = state["random"]
        metrics = Metrics(folder, None if checkpoint is None else done, wandb_project)
        try:
            with progress_bar("train", settings.steps, done) as bar:
                for step in range(done + 1, settings.steps + 1):
                    losses = agent.update(replay.sample(settings.batch_size, random, settings.mix))
                    bar.update()
                    if step % settings.log_every == 0 or step == settings.steps:
                        metrics.write(step, "losses", losses)
                    if step % settings.checkpoint_every == 0 or step == settings.steps:
                        state = {"agent": agent.state_dict(), "random": random.bit_generator.state}
                        save_checkpoint(folder, step, state)
            if settings.envs:
                evaluate_on_held_out(
                    agent,
                    labeler,
                    _environments(replay, settings, labels, settings.envs, environments_at_once(settings.envs)),
                    metrics,
                    settings.steps,
                    held_out_goals=settings.hold_out,
                    num_episodes=settings.eval_episodes,
                    temperature=settings.eval_temperature,
                    when="end of offline training",
                    skip=[record["kind"] for record in read_metrics(folder) if record["step"] == settings.steps],
                )
        finally:
            metrics.close()
        saved = SavedAgent(
            algorithm=settings.algorithm,
            agent=agent,
            goals=replay.goals,
            labeler=recorded["labels_settings"]["labeler"],
            labels_fingerprint=labels,
            held_out_goals=settings.hold_out,
            replay=str((folder / "replay").absolute()),
            replay_fingerprint=replay.fingerprint,
            envs=settings.envs,
            steps=settings.steps,
            camera=replay.camera,
            frame_shape=replay.frame_shape,
            frames=settings.frames,
        )
        save_agent(saved, folder)
    return saved


def resolve_held_out(source: str | Path, held_out: Sequence[str]) -> tuple[str, ...]:
    """Returns the ids of the goals that ids or kinds of objects hold out; see `offline_rl.training.held_out_goals.split_goals`.

    Args:
        source: Relabelled trajectories.
        held_out: Ids of goals of their labels, or kinds such as "green box".
    """
    if not held_out:
        return ()
    goals = goals_from_json(read_relabelled_settings(source)["labels_settings"]["labeler"]["goals"])
    return tuple(sorted(goal.id for goal in split_goals(goals, held_out).held_out))


def read_relabelled_settings(source: str | Path) -> dict[str, Any]:
    """Returns the settings of relabelled trajectories, with `labels_settings` and `labels_fingerprint` of their labels.

    Raises:
        ValueError: The folder is not one that `vlm-rewards hindsight` has finished.
    """
    folder = open_finished(source, "relabelled")
    fields = {"labels_settings.labeler": OBJECT, "labels_fingerprint": OBJECT}
    settings: dict[str, Any] = read_settings(folder.path, fields)["settings"]
    return settings


def _replay(
    source: str | Path,
    folder: Path,
    settings: TrainSettings,
    embeddings: str | Path | None,
    labeler: Labeler,
) -> ReplayData:
    of_algorithm = algorithm_settings(settings.algorithm, settings.algorithm_settings)
    discount = getattr(of_algorithm, "discount", DEFAULT_DISCOUNT)
    goals = GoalTexts(
        ids=tuple(goal.id for goal in labeler.goals),
        texts=tuple(goal.text for goal in labeler.goals),
        embeddings=labeler.goal_embeddings,
        model=labeler.settings.model,
        fingerprint=labeler.fingerprint.subset(("weights", "text_encoding", "templates", "goals")),
    )
    return build_replay(
        source,
        folder,
        goals=goals,
        embeddings=embeddings,
        camera=settings.camera,
        exclude_goals=settings.hold_out,
        discount=discount,
        num_actions=settings.num_actions,
        use_states=settings.states,
        frame_stack=settings.frame_stack,
    )


def _environments(
    replay: ReplayData, settings: TrainSettings, labels: Fingerprint, envs: tuple[str, ...], num_envs: int
) -> EnvironmentSettings:
    return fit_to_corpus(
        EnvironmentSettings(envs=envs, num_envs=num_envs, seeds="held-out", frames=settings.frames),
        replay.spaces,
        frame_shape=replay.frame_shape,
        camera=replay.camera,
        labels=str(labels.parts["camera"]),
    )


def _check_environments(replay: ReplayData, settings: TrainSettings, labeler: Labeler, labels: Fingerprint) -> None:
    """Refuses environments of other observations or actions, or that ask for none of the goals, before training takes its time."""
    apart = set(settings.hold_out)
    for name in settings.envs:
        fitted = _environments(replay, settings, labels, (name,), num_envs=1)
        check_labeler(labeler, labels, str(fitted.camera))
        for held_out in (False, True) if apart else (False,):
            goals = [goal for goal in labeler.goals if (goal.id in apart) == held_out]
            environments = make_environments(fitted, goals)
            found = spaces_of(environments, replay.spaces.goal_size, replay.spaces.observation, labeler.dim)
            replay.spaces.check_equal(found, f"the environment {name}")
            environments.reset()
            environments.close()


def _check_actions(replay: ReplayData) -> None:
    if replay.spaces.action_size is not None:
        low, high = replay.action_range
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError(
                f"actions must be finite, got {low:g} to {high:g}. Fix them in the corpus, or leave their episodes out"
            )
        if not -1 <= low <= high <= 1:
            raise ValueError(
                f"continuous actions must be from -1 to 1, got {low:g} to {high:g}; scale the actions of the corpus"
            )


def _described(replay: ReplayData, settings: TrainSettings, networks: Mapping[str, Any]) -> str:
    mix = ", ".join(f"{share:.0%} {kind}" for kind, share in replay.mix_in_force(settings.mix).items())
    told = f"train: {len(replay):,} transitions of {replay.statistics['episodes']:,} episodes, drawn as {mix}"
    chosen = ", ".join(f"{name} {networks[name]}" for name in networks if name not in settings.algorithm_settings)
    told += f"; fitted to the corpus: {chosen}" if chosen else ""
    if replay.spaces.num_actions is None:
        return f"{told}; actions of {replay.spaces.action_size} numbers"
    source = (
        "given" if settings.num_actions else "the highest recorded one and those under it: --num-actions gives others"
    )
    return f"{told}; {replay.spaces.num_actions} actions, {source}"
