"""The parser of the command line. It imports the commands whose options it reads, and no other."""

import argparse
import importlib
import shlex
from collections.abc import Collection, Sequence
from typing import NoReturn

from vlm_rewards.commands import SUMMARIES


class UsageError(Exception):
    """The words on the command line are not options of the command; the message is one line.

    Attributes:
        program: Program and command, such as "vlm-rewards label".
    """

    def __init__(self, program: str, message: str) -> None:
        super().__init__(message)
        self.program = program


class _Parser(argparse.ArgumentParser):
    """Raises what is wrong, in one line without the usage, for `main` to print."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(self.prog, f"{message.removeprefix('argument ')}. See {self.prog} --help")


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, except where there is none, and keeps paragraphs."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.required or action.default is None or action.default is False or action.default == []:
            return action.help
        return super()._get_help_string(action)


def build_parser(read: Collection[str] = tuple(SUMMARIES)) -> argparse.ArgumentParser:
    """Builds the parser of all commands.

    Args:
        read: Names of the commands whose options are read, which imports their modules.
    """
    parser = _Parser(
        prog="vlm-rewards",
        description="Labels recorded trajectories with rewards from vision-language models, for many language goals at once.",
        epilog="vlm-rewards COMMAND --help explains a command. Start with: vlm-rewards demo --output demo/",
    )
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in SUMMARIES.items():
        description = summary[0].upper() + summary[1:] + "."
        added = parsers.add_parser(name, help=summary, description=description, formatter_class=_Help)
        if name in read:
            command = importlib.import_module(f"vlm_rewards.commands.{name}")
            command.add_options(added)
            added.set_defaults(run=command.run)
    return parser


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parses a command line.

    Args:
        words: Arguments without the program's name; those after a bare `--` are for Apache Beam.

    Returns:
        The options of the command, with `run`, the function that runs it, and `beam_options`.

    Raises:
        UsageError: A word is no option of the command, an option is missing, or a value cannot be read.
        SystemExit: Help was asked for, and has been printed.
    """
    cut = words.index("--") if "--" in words else len(words)
    own, beam_options = list(words[:cut]), list(words[cut + 1 :])
    options = build_parser(own[:1]).parse_args(own)
    options.beam_options = beam_options
    if beam_options and not hasattr(options, "takes_beam_options"):
        program = f"vlm-rewards {options.command}"
        raise UsageError(program, f"this command takes no options after '--': got {shlex.join(beam_options)}")
    return options


def command_line(words: Sequence[object]) -> str:
    """Writes a command as it is typed into a shell."""
    return shlex.join(["vlm-rewards", *(str(word) for word in words)])
