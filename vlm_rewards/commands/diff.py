"""`vlm-rewards diff`: compares two folders of labels."""

import argparse
from pathlib import Path

from vlm_rewards.commands.options import add_run_options
from vlm_rewards.commands.words import Said


def add_options(command: argparse.ArgumentParser) -> None:
    """Gives the options of `diff` to its parser."""
    command.add_argument("a", type=Path, metavar="A", help="a folder of finished labels")
    command.add_argument("b", type=Path, metavar="B", help="another, of the same episodes; sharded as it may be")
    command.add_argument(
        "--input", type=Path, metavar="PATH", help="the corpus, with ground truth: compares the quality of both, too"
    )
    command.add_argument(
        "--tolerance",
        type=float,
        default=0.0,
        metavar="X",
        help="a score has changed where it differs by more than X",
    )
    command.add_argument(
        "--output",
        type=Path,
        default=Path("diff"),
        metavar="DIR",
        help="folder for diff.json; empty, or of an earlier diff",
    )
    add_run_options(command)


def run(options: argparse.Namespace) -> Said:
    """Runs `diff` as its options say."""
    from vlm_rewards.pipelines.diff.comparison import DIFF_NAME, diff
    from vlm_rewards.pipelines.diff.summary import summary_lines

    result = diff(
        options.a,
        options.b,
        options.output,
        corpus=options.input,
        tolerance=options.tolerance,
        beam_options=options.beam_options,
        workers=options.workers,
    )
    return [*summary_lines(result), f"  all of it: {options.output / DIFF_NAME}"], []
