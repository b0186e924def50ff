"""`vlm-rewards diff`: compares two folders of labels."""

import argparse
from pathlib import Path

from vlm_rewards.command_line.options import add_settings, given_settings, path_or_url, say_where_it_runs
from vlm_rewards.command_line.words import Said
from vlm_rewards.pipelines.diff.settings import DiffRun


def add_options(parser: argparse.ArgumentParser) -> None:
    """Gives the options of `diff` to its parser."""
    parser.add_argument("a", type=path_or_url, metavar="A", help="folder of finished labels")
    parser.add_argument(
        "b", type=path_or_url, metavar="B", help="another one, of the same episodes; sharded as it may be"
    )
    add_settings(parser, DiffRun)
    say_where_it_runs(parser, resumes=False)


def run(options: argparse.Namespace) -> Said:
    """Runs `diff` as its options say."""
    from vlm_rewards.pipelines.diff.comparison import DIFF_NAME, diff
    from vlm_rewards.pipelines.diff.summary import summary_lines

    given = given_settings(options, DiffRun)
    result = diff(options.a, options.b, beam_options=options.beam_options, **given)
    return [*summary_lines(result), f"  all of it: {Path(DiffRun(**given).output) / DIFF_NAME}"], []
