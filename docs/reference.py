"""The generated pages: Markdown of the command line, from its parser, and of the API, from signatures and docstrings."""

import argparse
import re
from collections.abc import Callable, Iterator

COMMANDS_MARKER = "<!-- the commands are inserted here when the site is built -->"


def command_reference() -> str:
    """Returns the Markdown of all commands of `vlm-rewards`, in the order of `vlm-rewards --help`."""
    from vlm_rewards.cli import build_parser

    parser = build_parser()
    choices = next(action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return "\n".join(line for name, command in choices.items() for line in _command_lines(name, command))


def _command_lines(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yields the section of one command: what it does, its usage, and its options by group."""
    formatter = parser._get_formatter()
    yield from (f"## {name}", "", escape(parser.description or ""), "")
    yield from ("```text", parser.format_usage().removeprefix("usage: ").rstrip(), "```", "")
    yield from ("```{program} " + parser.prog, "```", "")
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if not isinstance(action, argparse._HelpAction)]
        if not actions:
            continue
        title = {"options": "Options", "positional arguments": "Arguments"}.get(group.title or "", group.title or "")
        yield from (f"### {name}: {title[:1].lower()}{title[1:]}", "")
        for action in actions:
            value = formatter._format_args(action, formatter._get_default_metavar_for_optional(action))
            names = [f"{option} {value}".strip() for option in action.option_strings] or [str(action.metavar)]
            yield from ("````{option} " + ", ".join(names), escape(formatter._expand_help(action)), "````", "")
    if parser.epilog:
        yield from ("```text", parser.epilog, "```", "")


def escape(text: str) -> str:
    """Returns the text with Markdown's signs escaped, so that it reads as it stands."""
    return re.sub(r"([\\`*_{}\[\]<>#|$])", r"\\\1", text)


GENERATED: dict[str, tuple[str, Callable[[], str]]] = {"commands": (COMMANDS_MARKER, command_reference)}
"""By page, the marker in it and what makes the text in its place."""
