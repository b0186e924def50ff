"""`vlm-rewards record`: records BabyAI trajectories with ground truth for every goal."""

import argparse

from vlm_rewards.commands.options import FORMATS, add_output, add_run_options
from vlm_rewards.commands.words import Said, skipped


def add_options(command: argparse.ArgumentParser) -> None:
    """Gives the options of `record` to its parser."""
    command.add_argument(
        "--env",
        action="append",
        required=True,
        metavar="NAME",
        help="BabyAI level from Gymnasium's registry; repeat for several",
    )
    command.add_argument(
        "--policy",
        default="noisy-bot",
        metavar="POLICY",
        help="bot, noisy-bot, random, or shares of them such as bot:0.2,noisy-bot:0.5,random:0.3",
    )
    command.add_argument(
        "--noise", type=float, default=0.3, metavar="P", help="probability of a random action of noisy-bot, 0 to 1"
    )
    command.add_argument(
        "--episodes", type=int, default=400, metavar="N", help="episodes in all, shared evenly by the levels"
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed gives the same bytes")
    command.add_argument(
        "--tile-size",
        type=int,
        default=8,
        metavar="PX",
        help="pixels a grid cell: 8 gives 56x56 frames, 32 gives 224x224",
    )
    command.add_argument(
        "--episodes-per-shard", type=int, default=20, metavar="N", help="episodes in one file of the corpus"
    )
    command.add_argument("--format", choices=FORMATS, default="parquet", help="container of the corpus")
    add_output(command, "the corpus and its goals.jsonl")
    add_run_options(command, workers="1; more are processes, which pay off from some thousand episodes on")


def run(options: argparse.Namespace) -> Said:
    """Runs `record` as its options say."""
    from vlm_rewards.pipelines.record.recording import RecordSettings, record

    settings = RecordSettings(
        envs=tuple(options.env),
        policy=options.policy,
        noise=options.noise,
        episodes=options.episodes,
        seed=options.seed,
        tile_size=options.tile_size,
        episodes_per_shard=options.episodes_per_shard,
        format=options.format,
    )
    summary = record(settings, options.output, beam_options=options.beam_options, workers=options.workers or 1)
    manifest = summary.manifest
    lines = [
        f"recorded {manifest['episodes']:,} episodes, {manifest['rows']:,} frames, in {options.output / 'parts'}"
        f"{skipped(summary)}",
        f"  goals that the ground truth covers: {options.output / 'goals.jsonl'}",
    ]
    goals = options.output / "goals.jsonl"
    return lines, [["label", "--input", options.output, "--goals", goals, "--output", "labels/"]]
