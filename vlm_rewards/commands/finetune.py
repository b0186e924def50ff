"""`vlm-rewards finetune`: fine-tunes an agent in live environments that the same model rewards."""

import argparse
from pathlib import Path

from vlm_rewards.commands.options import (
    add_agent_run_options,
    add_camera_option,
    add_evaluation_options,
    add_frames_option,
    add_output,
)
from vlm_rewards.commands.words import Said, describe_evaluations


def add_options(command: argparse.ArgumentParser) -> None:
    """Gives the options of `finetune` to its parser."""
    command.add_argument("--agent", type=Path, required=True, metavar="DIR", help="agent of vlm-rewards train")
    add_output(command, "the agent, its checkpoints and metrics")
    command.add_argument(
        "--steps", type=int, default=50_000, metavar="N", help="environment steps, of all environments together"
    )
    command.add_argument("--num-envs", type=int, default=8, metavar="N", help="environments")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of levels, actions and batches")
    command.add_argument("--batch-size", type=int, default=256, metavar="N", help="transitions an update")
    command.add_argument(
        "--updates-per-step",
        type=float,
        default=0.25,
        metavar="X",
        help="updates an environment step; below 1 is possible",
    )
    command.add_argument(
        "--warmup-steps", type=int, default=1000, metavar="N", help="environment steps before the first update"
    )
    command.add_argument(
        "--offline-share", type=float, default=0.5, metavar="SHARE", help="share of a batch that is of the corpus"
    )
    command.add_argument(
        "--mix", default="0.2:0.5:0.3", metavar="O:H:N", help="shares of original, hindsight and negative goals in it"
    )
    command.add_argument(
        "--capacity", type=int, default=100_000, metavar="N", help="frames of the environments that are kept"
    )
    command.add_argument(
        "--hindsight-goals",
        type=int,
        default=4,
        metavar="K",
        help="other goals that an ended episode is stored under; 0: none",
    )
    command.add_argument("--temperature", type=float, default=1.0, metavar="T", help="of the policy while it explores")
    command.add_argument(
        "--keep-going",
        action="store_true",
        help="the environment goes on after a success (the paper ends it there)",
    )
    command.add_argument("--asynchronous", action="store_true", help="score beside the environments; with --keep-going")
    command.add_argument(
        "--finished-only",
        action="store_true",
        help="learn from a live step when its episode has ended, as Cal-QL's authors do",
    )
    add_evaluation_options(command, "level to fine-tune and evaluate in; repeatable", required=True)
    add_camera_option(command)
    add_frames_option(command)
    command.add_argument(
        "--eval-every", type=int, default=10_000, metavar="N", help="environment steps between evaluations"
    )
    command.add_argument("--eval-seed", type=int, default=0, metavar="N", help="of the held-out levels")
    command.add_argument(
        "--checkpoint-every", type=int, default=10_000, metavar="N", help="environment steps between checkpoints"
    )
    add_agent_run_options(command)


def run(options: argparse.Namespace) -> Said:
    """Runs `finetune` as its options say."""
    from vlm_rewards.offline_rl.training.finetune import FinetuneSettings, finetune
    from vlm_rewards.schemas.relabelled import parse_goal_shares

    settings = FinetuneSettings(
        envs=tuple(options.env),
        steps=options.steps,
        num_envs=options.num_envs,
        seed=options.seed,
        batch_size=options.batch_size,
        offline_share=options.offline_share,
        mix=parse_goal_shares("--mix", options.mix),
        capacity=options.capacity,
        warmup_steps=options.warmup_steps,
        updates_per_step=options.updates_per_step,
        hindsight_goals=options.hindsight_goals,
        temperature=options.temperature,
        end_at_success=not options.keep_going,
        asynchronous=options.asynchronous,
        finished_only=options.finished_only,
        camera=options.camera,
        frames=options.frames,
        threads=options.threads,
        device=options.device,
        eval_episodes=options.eval_episodes,
        eval_every=options.eval_every,
        eval_temperature=options.eval_temperature or None,
        eval_seed=options.eval_seed,
        checkpoint_every=options.checkpoint_every,
    )
    finetune(options.agent, options.output, settings, wandb_project=options.wandb_project)
    lines = [
        f"fine-tuned for {options.steps:,} environment steps: {options.output}",
        *describe_evaluations(options.output),
    ]
    return lines, [["rollout", "--agent", options.output, "--output", "rollout/"]]
