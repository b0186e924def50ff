"""The commands that train and play agents: train, finetune, rollout. What they run is imported when they run.

Of each, `add_*` gives its options to a parser, and `run_*` runs it and returns the lines to say and the commands that may follow.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Said = tuple[list[str], list[list[object]]]
"""Lines to say, and the words of the commands that may follow."""


def _add_output(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help=f"folder for {what}; empty, or of this run"
    )


def add_train(command: argparse.ArgumentParser) -> None:
    """Gives the options of `train` to its parser."""
    command.add_argument("--input", type=Path, required=True, metavar="DIR", help="relabelled trajectories")
    _add_output(command, "the agent, its replay, checkpoints and metrics")
    command.add_argument(
        "--algorithm",
        default="iql",
        metavar="NAME",
        help="bc, filtered-bc, iql, cql, cal-ql; rlpd, sac-cal-ql for continuous actions",
    )
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the algorithm, such as expectile=0.8; repeatable",
    )
    command.add_argument("--steps", type=int, default=20_000, metavar="N", help="gradient steps")
    command.add_argument("--batch-size", type=int, default=256, metavar="N", help="transitions a step")
    command.add_argument(
        "--mix", default="0.2:0.5:0.3", metavar="O:H:N", help="shares of original, hindsight and negative goals"
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of weights and draws")
    command.add_argument(
        "--embeddings", type=Path, metavar="DIR", help="the agent sees these kept embeddings of label instead of frames"
    )
    command.add_argument("--camera", metavar="NAME", help="whose frames the agent sees (default: the only one)")
    command.add_argument(
        "--hold-out",
        action="append",
        default=[],
        metavar="GOAL",
        help="a goal's id, or a kind of object such as 'green box', that is never trained on and evaluated apart; repeatable",
    )
    command.add_argument(
        "--num-actions",
        type=int,
        metavar="N",
        help="discrete actions of the environment (default: the highest recorded one and those under it)",
    )
    command.add_argument(
        "--no-states",
        action="store_true",
        help="the agent sees frames alone, though the corpus has states: live environments supply none",
    )
    _evaluation_options(command, "evaluate the trained agent in this level; repeatable")
    _frames_option(command)
    command.add_argument("--checkpoint-every", type=int, default=2000, metavar="N", help="steps between checkpoints")
    _agent_run_options(command)


def add_finetune(command: argparse.ArgumentParser) -> None:
    """Gives the options of `finetune` to its parser."""
    command.add_argument("--agent", type=Path, required=True, metavar="DIR", help="agent of vlm-rewards train")
    _add_output(command, "the agent, its checkpoints and metrics")
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
    _evaluation_options(command, "level to fine-tune and evaluate in; repeatable", required=True)
    _camera_option(command)
    _frames_option(command)
    command.add_argument(
        "--eval-every", type=int, default=10_000, metavar="N", help="environment steps between evaluations"
    )
    command.add_argument("--eval-seed", type=int, default=0, metavar="N", help="of the held-out levels")
    command.add_argument(
        "--checkpoint-every", type=int, default=10_000, metavar="N", help="environment steps between checkpoints"
    )
    _agent_run_options(command)


def add_rollout(command: argparse.ArgumentParser) -> None:
    """Gives the options of `rollout` to its parser."""
    command.add_argument(
        "--agent", type=Path, required=True, metavar="DIR", help="agent of vlm-rewards train or finetune"
    )
    _add_output(command, "rollout.json, index.html and the videos")
    command.add_argument(
        "--env", action="append", default=[], metavar="NAME", help="level; repeatable (default: the agent's own)"
    )
    command.add_argument("--episodes", type=int, default=100, metavar="N", help="episodes of held-out levels")
    command.add_argument("--videos", type=int, default=8, metavar="N", help="of the first episodes")
    command.add_argument(
        "--temperature", type=float, default=1.0, metavar="T", help="of the policy; 0: always the most likely action"
    )
    command.add_argument(
        "--held-out-goals", action="store_true", help="ask only for goals that the agent never trained on"
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of the levels")
    _camera_option(command)
    _frames_option(command)


def _camera_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--camera", metavar="NAME", help="whose frames the environments show (default: the labels', which it must be)"
    )


def _frames_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--frames",
        metavar="WHERE",
        help="where environments other than BabyAI's have their frames: observation, render, or a key of a Dict observation "
        "(default: as the agent's own; else observation)",
    )


def _evaluation_options(command: argparse.ArgumentParser, what: str, *, required: bool = False) -> None:
    command.add_argument(
        "--env", action="append", default=None if required else [], required=required, metavar="NAME", help=what
    )
    command.add_argument("--eval-episodes", type=int, default=100, metavar="N", help="episodes of an evaluation")
    command.add_argument(
        "--eval-temperature",
        type=float,
        default=1.0,
        metavar="T",
        help="of the policy there; 0: always the most likely action",
    )


def _agent_run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--threads", type=int, default=1, metavar="N", help="threads of torch; part of the run")
    command.add_argument(
        "--device", default="cpu", metavar="NAME", help="where the agent learns: cpu, cuda or cuda:N; part of the run"
    )
    command.add_argument("--wandb-project", metavar="NAME", help="log to Weights & Biases as well")
    command.epilog = "Run the same command again after an interruption: it goes on from its last checkpoint."


def run_train(options: argparse.Namespace) -> Said:
    """Runs `train` as its options say."""
    from vlm_rewards.offline_rl.training.train import TrainSettings, resolve_held_out, train
    from vlm_rewards.schemas.relabelled import parse_goal_shares

    settings = TrainSettings(
        algorithm=options.algorithm,
        algorithm_settings=_assignments(options.set),
        steps=options.steps,
        batch_size=options.batch_size,
        mix=parse_goal_shares("--mix", options.mix),
        seed=options.seed,
        exclude_goals=resolve_held_out(options.input, options.hold_out),
        num_actions=options.num_actions,
        states=not options.no_states,
        threads=options.threads,
        device=options.device,
        envs=tuple(options.env),
        eval_episodes=options.eval_episodes,
        eval_temperature=options.eval_temperature or None,
        camera=options.camera,
        frames="observation" if options.frames is None else options.frames,
        checkpoint_every=options.checkpoint_every,
    )
    train(options.input, options.output, settings, embeddings=options.embeddings, wandb_project=options.wandb_project)
    lines = [
        f"trained {options.algorithm} for {options.steps:,} steps: {options.output}",
        *describe_evaluations(options.output),
    ]
    env = options.env[0] if options.env else "BabyAI-GoToLocal-v0"
    return lines, [["finetune", "--agent", options.output, "--env", env, "--output", "agent-online/"]]


def run_finetune(options: argparse.Namespace) -> Said:
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


def run_rollout(options: argparse.Namespace) -> Said:
    """Runs `rollout` as its options say."""
    from vlm_rewards.offline_rl.evaluation.rollout import RolloutSettings, rollout

    settings = RolloutSettings(
        envs=tuple(options.env),
        episodes=options.episodes,
        videos=options.videos,
        temperature=options.temperature or None,
        held_out_goals=options.held_out_goals,
        seed=options.seed,
        camera=options.camera,
        frames=options.frames,
    )
    evaluation = rollout(options.agent, options.output, settings)
    success, rewarded = evaluation.success, evaluation.vlm_success
    truth = _share(*success[:3]) if success.num else "unknown, the environment does not say"
    return [
        f"played {len(evaluation.episodes):,} episodes of held-out levels",
        f"  achieved in truth:     {truth}",
        f"  rewarded by the model: {_share(*rewarded[:3])}",
        f"  videos: {options.output / 'index.html'} (open it in a browser)",
    ], []


def describe_evaluations(folder: Path) -> list[str]:
    """The evaluations of a run in lines: of the goals trained on, and apart of those held out, the first and the last.

    Args:
        folder: Folder that `vlm-rewards train` or `finetune` has finished.
    """
    from vlm_rewards.offline_rl.runs.folders import read_metrics

    by_kind: dict[str, list[dict[str, Any]]] = {}
    for record in read_metrics(folder):
        if record["kind"].startswith("evaluation"):
            by_kind.setdefault(record["kind"], []).append(record)
    shown = [record for records in by_kind.values() for record in [*records[:1], *records[1:][-1:]]]
    return [f"  {record['kind']} ({record['when']}): {_success(record)}" for record in shown]


def describe_fine_tuning(folder: Path) -> list[str]:
    """What fine-tuning has made of an agent, in lines: its success by ground truth before and after, and what that does not show.

    Args:
        folder: Folder that `vlm-rewards finetune` has finished, with evaluations.
    """
    from vlm_rewards.offline_rl.runs.folders import read_metrics

    records = [record for record in read_metrics(folder) if record["kind"] == "evaluation"]
    before, after = records[0], records[-1]
    lines = [f"  before fine-tuning: {_success(before)}", f"  after fine-tuning:  {_success(after)}"]
    if max(before["success_low"], after["success_low"]) <= min(before["success_high"], after["success_high"]):
        lines.append("  the intervals overlap: so few steps and episodes show no difference between the two")
    return lines


def _success(record: Mapping[str, Any]) -> str:
    name, what = (
        ("success", "success") if record["success"] is not None else ("vlm_success", "no truth known, rewarded")
    )
    share = _share(record[name], record[f"{name}_low"], record[f"{name}_high"])
    return f"{what} {share} in {record['episodes']} held-out episodes"


def _share(mean: float, low: float, high: float) -> str:
    return f"{mean:.2f} ({low:.2f} to {high:.2f})"


def _assignments(texts: Sequence[str]) -> dict[str, object]:
    """NAME=VALUE options as numbers, booleans or texts by name."""
    values: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set must be NAME=VALUE, got {text!r}; write, for example, expectile=0.8")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    return values
