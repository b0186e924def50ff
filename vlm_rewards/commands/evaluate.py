"""`vlm-rewards evaluate`: measures labels against ground truth, marks or recorded success, and writes a report."""

import argparse

from vlm_rewards.command_line.options import add_output, add_settings, given_settings, path_or_url, say_where_it_runs
from vlm_rewards.command_line.words import Said
from vlm_rewards.pipelines.evaluate.settings import EvaluateRun


def add_options(parser: argparse.ArgumentParser) -> None:
    """Gives the options of `evaluate` to its parser."""
    parser.add_argument("--input", type=path_or_url, required=True, metavar="PATH", help="corpus that was labelled")
    parser.add_argument("--labels", type=path_or_url, required=True, metavar="DIR", help="its labels")
    add_output(parser, "report.html, quality.json and the pictures")
    add_settings(parser, EvaluateRun)
    say_where_it_runs(parser, resumes=False)


def run(options: argparse.Namespace) -> Said:
    """Runs `evaluate` as its options say."""
    from vlm_rewards.pipelines.evaluate.evaluation import evaluate
    from vlm_rewards.pipelines.evaluate.summary import summary_lines

    given = given_settings(options, EvaluateRun)
    quality = evaluate(options.input, options.labels, output=options.output, beam_options=options.beam_options, **given)
    lines = [*summary_lines(quality), f"  report: {options.output / 'report.html'} (open it in a browser)"]
    of_labels = ["--input", options.input, "--labels", options.labels, "--output"]
    return lines, [["hindsight", *of_labels, "relabelled/"]]
