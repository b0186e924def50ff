"""`vlm-rewards hindsight`: relabels trajectories with the goals they did achieve."""

import argparse
from pathlib import Path

from vlm_rewards.commands.options import FORMATS, add_output, add_run_options
from vlm_rewards.commands.words import Said, reasons, skipped


def add_options(command: argparse.ArgumentParser) -> None:
    """Gives the options of `hindsight` to its parser."""
    command.add_argument("--input", type=Path, required=True, metavar="PATH", help="the corpus that was labelled")
    command.add_argument("--labels", type=Path, required=True, metavar="DIR", help="its labels")
    add_output(command, "the relabelled trajectories")
    command.add_argument("--format", choices=FORMATS, default="parquet", help="container of the output")
    command.add_argument(
        "--strategy",
        choices=("first", "final", "future"),
        default="future",
        help="which achievement of a goal ends the episode: the first, one that still holds at the end, or one drawn at random",
    )
    command.add_argument("--goals-per-episode", type=int, default=4, metavar="K", help="most goals an episode gets")
    command.add_argument(
        "--ratio",
        default="0.2:0.5:0.3",
        metavar="O:H:N",
        help="shares of original, hindsight and negative goals among them",
    )
    command.add_argument(
        "--balance",
        type=float,
        default=1.0,
        metavar="X",
        help="a goal is drawn with weight 1/(episodes that achieved it)^X; 0: no balance",
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the draws")
    command.add_argument(
        "--max-failure-share", type=float, default=0.01, metavar="SHARE", help="highest share of episodes that may fail"
    )
    add_run_options(command)


def run(options: argparse.Namespace) -> Said:
    """Runs `hindsight` as its options say."""
    from vlm_rewards.labelers.rewards.hindsight import HindsightSettings
    from vlm_rewards.pipelines.hindsight.relabelling import hindsight
    from vlm_rewards.schemas.formats.corpora import corpus_features, plan_units
    from vlm_rewards.schemas.relabelled import parse_goal_shares

    settings = HindsightSettings(
        strategy=options.strategy,
        goals_per_episode=options.goals_per_episode,
        ratio=parse_goal_shares("--ratio", options.ratio),
        balance=options.balance,
        seed=options.seed,
    )
    summary = hindsight(
        source=options.input,
        labels=options.labels,
        output=options.output,
        settings=settings,
        format_name=options.format,
        max_failure_share=options.max_failure_share,
        beam_options=options.beam_options,
        workers=options.workers,
    )
    manifest = summary.run.manifest
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in summary.usage["kinds"].items())
    lines = [
        f"relabelled {manifest['episodes']:,} episodes with {kinds} goals, in {options.output / 'parts'}"
        f"{skipped(summary.run)}",
        f"  how often each goal was achieved and used: {options.output / 'goal_statistics.json'}, "
        f"{options.output / 'goal_usage.json'}",
    ]
    if manifest["failures"]:
        lines.append(f"  left out: {reasons(manifest)}: see {options.output / 'failures'}")
    lines.append(
        f"  read it: vlm_rewards.schemas.formats.relabelled_parts.reader.read_relabelled({str(options.output)!r})"
    )
    following: list[list[object]] = [["train", "--input", options.output, "--output", "agent/"]]
    if corpus_features(plan_units(options.input)).has_achieved_goals:
        of_labels = ["--input", options.input, "--labels", options.labels, "--output"]
        following.insert(0, ["evaluate", *of_labels, "report/"])
    return lines, following
