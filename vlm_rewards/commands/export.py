"""`vlm-rewards export`: takes labels back into the tools that a corpus came from."""

import argparse

from vlm_rewards.command_line.options import add_settings, given_settings, path_or_url
from vlm_rewards.command_line.words import Said
from vlm_rewards.pipelines.export.settings import ExportRun
from vlm_rewards.schemas.formats.exports.summaries import SUMMARIES


def add_options(parser: argparse.ArgumentParser) -> None:
    """Gives the options of `export` to its parser."""
    parser.add_argument("--input", type=path_or_url, required=True, metavar="PATH", help="corpus that was labelled")
    parser.add_argument("--labels", type=path_or_url, required=True, metavar="DIR", help="its labels")
    parser.add_argument("--to", required=True, choices=tuple(SUMMARIES), help="what to make of them")
    add_settings(parser, ExportRun)
    width = max(map(len, SUMMARIES))
    parser.epilog = "\n".join(
        ["What --to makes:", *(f"  {name:<{width}} {words}" for name, words in SUMMARIES.items())]
    )


def run(options: argparse.Namespace) -> Said:
    """Runs `export` as its options say."""
    from vlm_rewards.pipelines.export.exporting import export

    summary = export(options.input, options.labels, to=options.to, **given_settings(options, ExportRun))
    lines = ["an earlier export into this corpus was interrupted: it was undone first"] if summary.was_undone else []
    return [*lines, f"exported {summary.episodes:,} episodes: {summary.folder}", *(f"  {x}" for x in summary.lines)], []
