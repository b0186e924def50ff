"""`vlm-rewards hindsight`: relabels trajectories with the goals they did achieve."""

import argparse

from vlm_rewards.command_line.options import add_output, add_settings, given_settings, path_or_url, say_where_it_runs
from vlm_rewards.command_line.words import Said, reasons, skipped
from vlm_rewards.labelers.rewards.hindsight import HindsightSettings
from vlm_rewards.pipelines.hindsight.settings import HindsightRun
from vlm_rewards.schemas.files.remote_paths import location_of


def add_options(parser: argparse.ArgumentParser) -> None:
    """Gives the options of `hindsight` to its parser."""
    parser.add_argument("--input", type=path_or_url, required=True, metavar="PATH", help="corpus that was labelled")
    parser.add_argument("--labels", type=path_or_url, required=True, metavar="DIR", help="its labels")
    add_output(parser, "the relabelled trajectories")
    add_settings(parser, HindsightSettings, HindsightRun)
    say_where_it_runs(parser, resumes=True)


def run(options: argparse.Namespace) -> Said:
    """Runs `hindsight` as its options say."""
    from vlm_rewards.pipelines.hindsight.relabelling import hindsight
    from vlm_rewards.schemas.formats.passed_over import passed_over_lines

    given = given_settings(options, HindsightSettings, HindsightRun)
    summary = hindsight(
        options.input, options.labels, output=options.output, beam_options=options.beam_options, **given
    )
    manifest, output = summary.run.manifest, location_of(options.output)
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in summary.usage["kinds"].items())
    lines = [
        f"relabelled {manifest['episodes']:,} episodes with {kinds} goals, in {output / 'parts'}"
        f"{skipped(summary.run)}{summary.left_out}",
        f"  how often each goal was achieved and used: {output / 'goal_statistics.json'}, {output / 'goal_usage.json'}",
    ]
    lines += [f"  {line}" for line in passed_over_lines(manifest["passed_over"])]
    if manifest["failures"]:
        lines.append(f"  left out: {reasons(manifest)}: see {output / 'failures'}")
    lines.append(f"  read it: vlm_rewards.read_relabelled({str(options.output)!r})")
    following: list[list[object]] = [["train", "--input", options.output, "--output", "agent/"]]
    if summary.has_ground_truth:
        of_labels = ["--input", options.input, "--labels", options.labels, "--output"]
        following.insert(0, ["evaluate", *of_labels, "report/"])
    return lines, following
