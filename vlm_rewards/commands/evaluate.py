"""`vlm-rewards evaluate`: measures labels against ground truth and writes a report."""

import argparse
from pathlib import Path

from vlm_rewards.commands.options import add_output, add_settings, given_settings, say_where_it_runs
from vlm_rewards.commands.words import Said
from vlm_rewards.pipelines.engine.settings import RunSettings


def add_options(parser: argparse.ArgumentParser) -> None:
    """Gives the options of `evaluate` to its parser."""
    parser.add_argument("--input", type=Path, required=True, metavar="PATH", help="corpus, with ground truth")
    parser.add_argument("--labels", type=Path, required=True, metavar="DIR", help="its labels")
    add_output(parser, "report.html, quality.json and the pictures")
    add_settings(parser, RunSettings)
    say_where_it_runs(parser)


def run(options: argparse.Namespace) -> Said:
    """Runs `evaluate` as its options say."""
    from vlm_rewards.pipelines.evaluate.evaluation import evaluate

    given = given_settings(options, RunSettings)
    quality = evaluate(options.input, options.labels, output=options.output, beam_options=options.beam_options, **given)
    lines = [*_figures(quality), f"  report: {options.output / 'report.html'} (open it in a browser)"]
    of_labels = ["--input", options.input, "--labels", options.labels, "--output"]
    return lines, [["hindsight", *of_labels, "relabelled/"]]


def _figures(quality: dict) -> list[str]:
    groups = [*quality["families"].items(), ("all goals", quality["overall"])]
    width = max(len(name) for name, _ in groups)
    lines = [
        f"evaluated {quality['counts']['frames']:,} frames of {quality['counts']['episodes']:,} episodes",
        "  average precision, and at the thresholds F1, false-positive rate and EPIC distance (0 is best), means over goals:",
    ]
    for name, group in groups:
        macro = group["macro"]
        precision = group["mean_average_precision"]
        shown = precision  # or why there is none
        if not isinstance(precision, str):
            values = {"F1": macro["f1"], "FPR": macro["false_positive_rate"], "EPIC": macro["epic_distance"]["success"]}
            told = [f"{key} {'undefined' if isinstance(x, str) else format(x, '.3g')}" for key, x in values.items()]
            shown = f"{precision:.3f}  {', '.join(told)}"
        occur = f"{group['num_goals_with_positives']} of {group['num_goals']} goals occur"
        lines.append(f"    {name:<{width}}  {shown}  ({occur})")
    causes = quality["overall"]["false_positives"]
    if causes["total"]:
        most = sorted(causes["causes"].items(), key=lambda item: -item[1])[:3]
        told = [f"{count / causes['total']:.0%} {cause}" for cause, count in most if count]
        lines.append(f"  {causes['total']:,} false positives: {', '.join(told)}")
    return lines
