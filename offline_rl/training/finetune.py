"""Fine-tunes an agent in live environments whose only reward is the model that labelled its corpus.

             ┌──────────────── actions ────────────────┐
    agent ───┘                                         ▼
      ▲                               LiveRewards: frames, VLM rewards ──► online buffer ◄── hindsight goals of ended episodes
      │                                                                        │
      └── updates ◄── batches: half of the corpus, half of the buffer ◄────────┴──── replay of the corpus

Steps are environment steps, summed over all environments. The offline agent takes the first `warmup_steps` without updates. Ground
truth is read only for evaluation and for the records of episodes.

A killed run resumes from its last checkpoint and ends with the same bits, on a CPU. A checkpoint holds agent, optimisers, random
states, the buffer, and the episodes of the environments as actions, which are replayed.
"""

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import Unpack

from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.settings import settings_from_json
from vlm_rewards.offline_rl.replay.replay import open_replay
from vlm_rewards.offline_rl.runs.folders import (
    Metrics,
    describe_settings,
    latest_checkpoint,
    progress_bar,
    torch_threads,
)
from vlm_rewards.offline_rl.runs.saved_agents import SavedAgent, load_agent, save_agent
from vlm_rewards.offline_rl.training.finetune_run import FinetuneRun
from vlm_rewards.offline_rl.training.finetune_settings import FinetuneKeywords, FinetuneSettings
from vlm_rewards.schemas.files.remote_paths import local_path
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.folders import claimed
from vlm_rewards.schemas.options import build_settings, shows_settings


@shows_settings(FinetuneSettings)
def finetune(
    agent: str | Path, *, output: str | Path, wandb_project: str | None = None, **settings: Unpack[FinetuneKeywords]
) -> SavedAgent:
    """Fine-tunes an agent with live rewards; run again after an interruption, it resumes.

    Args:
        agent: Folder that `train` has finished, with its replay.
        output: Folder for the agent, its checkpoints and metrics; absent, empty, or of this run.
        wandb_project: Project of Weights & Biases to log to as well.
        settings: Fields of `FinetuneSettings`.

    Returns:
        The agent, saved in the output folder too.

    Raises:
        ValueError: The agent does not fit the environments, its labeler or replay has changed, the output folder belongs to another
            run, a loss is not finite, or no reward was ever positive. In a run too short to tell, the last is a warning at its end.

    Example:
        >>> import vlm_rewards as vr
        >>> vr.finetune(
        ...     "agent/", output="online/", envs=["BabyAI-GoToLocal-v0"], steps=64, warmup_steps=32, eval_episodes=0
        ... )
        SavedAgent(iql, 64 steps, 342 goals, sees frames, environments BabyAI-GoToLocal-v0)
    """
    (how,) = build_settings(settings, FinetuneSettings)
    with torch_threads(how.threads):
        return _finetune(agent, local_path(output, "an agent"), how, wandb_project)


def _finetune(agent: str | Path, output: Path, settings: FinetuneSettings, wandb_project: str | None) -> SavedAgent:
    before = load_agent(agent, settings.device)
    labeler = Labeler.build(settings_from_json(before.labeler))
    replay = open_replay(
        before.replay,
        exclude_goals=before.held_out_goals,
        discount=before.discount,
        num_actions=before.agent.spaces.num_actions,
        use_states=before.agent.spaces.state_size is not None,
        frame_stack=before.agent.spaces.frame_stack,
    )
    if before.replay_fingerprint is not None:
        replay.fingerprint.check_equal(
            before.replay_fingerprint,
            f"the replay {before.replay}",
            f"put the replay that {agent} was trained on into {Path(agent) / 'replay'}, or train again",
        )
    replay.mix_in_force(settings.mix)  # refuses now what the first batch would refuse after the warm-up
    described = describe_settings(
        settings,
        unimportant=("log_every", "checkpoint_every"),
        added=("finished_only", "camera", "frames", "device", "reward"),
    )
    if not settings.end_at_success:
        described["mask_at_success"] = 0  # runs that were begun before this was so cannot be resumed
    fingerprint = Fingerprint({"agent": before.digest, "labels": dict(before.labels_fingerprint.parts), **described})
    shown = {**dataclasses.asdict(settings), "agent": str(agent)}
    with claimed(output, kind="fine-tuning", fingerprint=fingerprint, settings=shown, renew=True) as folder:
        checkpoint = latest_checkpoint(folder)
        done = None if checkpoint is None else checkpoint[0]
        with (
            FinetuneRun(before, labeler, replay, settings) as run,  # first: it refuses environments that do not fit
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
