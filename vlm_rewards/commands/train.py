"""`vlm-rewards train`: trains an agent offline on relabelled trajectories."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from vlm_rewards.commands.options import add_agent_run_options, add_evaluation_options, add_frames_option, add_output
from vlm_rewards.commands.words import Said, describe_evaluations


def add_options(command: argparse.ArgumentParser) -> None:
    """Gives the options of `train` to its parser."""
    command.add_argument("--input", type=Path, required=True, metavar="DIR", help="relabelled trajectories")
    add_output(command, "the agent, its replay, checkpoints and metrics")
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
    add_evaluation_options(command, "evaluate the trained agent in this level; repeatable")
    add_frames_option(command)
    command.add_argument("--checkpoint-every", type=int, default=2000, metavar="N", help="steps between checkpoints")
    add_agent_run_options(command)


def run(options: argparse.Namespace) -> Said:
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
