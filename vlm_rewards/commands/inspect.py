"""`vlm-rewards inspect`: says what a folder is, and the command to run next."""

import argparse
import json
from typing import TYPE_CHECKING

from vlm_rewards.command_line.options import add_settings, given_settings, path_or_url
from vlm_rewards.command_line.parser import command_line
from vlm_rewards.command_line.words import Said
from vlm_rewards.pipelines.inspect.settings import InspectRun
from vlm_rewards.schemas.files.remote_paths import Location, create_file, location_of

if TYPE_CHECKING:
    from vlm_rewards.schemas.formats.corpus import Corpus


def add_options(parser: argparse.ArgumentParser) -> None:
    """Gives the options of `inspect` to its parser."""
    parser.add_argument(
        "path", metavar="PATH", help="a corpus, or an output folder of vlm-rewards; a URL is read as well"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead, all instructions included")
    parser.add_argument(
        "--write-goals",
        type=path_or_url,
        metavar="FILE",
        help="write the goals that --goals from-corpus stands for to this file, to be edited",
    )
    add_settings(parser, InspectRun)


def run(options: argparse.Namespace) -> Said:
    """Runs `inspect` as its options say."""
    from vlm_rewards.pipelines.inspect.outputs import output_at

    output = output_at(options.path)
    if output is not None:
        if options.write_goals is not None:
            raise ValueError(f"--write-goals needs a corpus: got {options.path}, {output.what}. Leave it out")
        following = [list(output.following)] if output.following else []
        return _said(options, output.to_json(), output.lines(), following)
    from vlm_rewards.pipelines.inspect.inspection import inspect_corpus
    from vlm_rewards.pipelines.inspect.summary import next_commands, summary_lines

    report = inspect_corpus(options.path, **given_settings(options, InspectRun))
    if options.write_goals is not None:
        _write_goals(report.corpus, location_of(options.write_goals))
    following = next_commands(report, options.write_goals)
    return _said(options, report.to_json(), summary_lines(report), following)


def _write_goals(corpus: "Corpus", path: Location) -> None:
    from vlm_rewards.schemas.formats.instruction_goals import goals_of_corpus
    from vlm_rewards.schemas.goals import goals_to_lines

    text = goals_to_lines(goals_of_corpus(corpus).goals)
    if not create_file(path, text):
        raise ValueError(f"--write-goals writes a new file, got {path}, which exists. Give another name")


def _said(options: argparse.Namespace, record: dict, lines: list[str], following: list[list[object]]) -> Said:
    if not options.json:
        return lines, following
    record["next"] = [command_line(words) for words in following]
    return [json.dumps(record, indent=1, ensure_ascii=False)], []
