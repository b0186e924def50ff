"""The generated pages: Markdown of the command line, from its parser, and of the API, from signatures and docstrings."""

import argparse
import inspect
import re
from collections.abc import Callable, Iterator, Sequence

_COMMANDS = "<!-- commands -->"
_NAMES = re.compile(r"<!-- names: (.*?) -->", re.DOTALL)
_SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Examples?):$")
_ITEM = re.compile(r"^(\*{0,2}\w[\w., ]*):\s+(.*)$")
_FIELDS = {"Args": "param", "Attributes": "var", "Raises": "raises"}


def complete(page: str, text: str) -> str:
    """Returns the text of a page with its markers replaced by what is generated; other pages as they are.

    Args:
        page: Name of the page.
        text: Its Markdown. The page "commands" holds `<!-- commands -->` once; the page "api" holds `<!-- names: a, b -->`, each
            public name in one of them.

    Raises:
        ValueError: A marker or a public name is missing, or stands twice.
    """
    if page == "commands":
        if text.count(_COMMANDS) != 1:
            raise ValueError(f"the page of the commands needs the marker {_COMMANDS} once, got {text.count(_COMMANDS)}")
        return text.replace(_COMMANDS, command_reference())
    if page == "api":
        import vlm_rewards

        named = [name for found in _NAMES.findall(text) for name in re.split(r",\s*", found)]
        if sorted(named) != sorted(vlm_rewards.__all__):
            differing = sorted(set(named) ^ set(vlm_rewards.__all__)) or sorted(
                {name for name in named if named.count(name) > 1}
            )
            raise ValueError(
                f"the page of the API must hold every public name once, got a difference in {', '.join(differing)}"
            )
        return "```{py:module} vlm_rewards\n```\n\n" + _NAMES.sub(
            lambda found: api_reference(re.split(r",\s*", found[1])), text
        )
    return text


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
        title = {"options": "options", "positional arguments": "arguments"}.get(group.title or "", group.title or "")
        yield from (f"### {name}: {title}", "")
        for action in actions:
            value = formatter._format_args(action, formatter._get_default_metavar_for_optional(action))
            names = [f"{option} {value}".strip() for option in action.option_strings] or [str(action.metavar)]
            yield from ("````{option} " + ", ".join(names), escape(formatter._expand_help(action)), "````", "")
    if parser.epilog:
        yield from ("```text", parser.epilog, "```", "")


def api_reference(names: Sequence[str]) -> str:
    """Returns the Markdown of some public names of `vlm_rewards`."""
    import vlm_rewards

    lines: list[str] = []
    for name in names:
        lines += [f"### {name}", "", *_object_lines(name, getattr(vlm_rewards, name)), ""]
    return "\n".join(lines)


def _object_lines(name: str, value: object) -> Iterator[str]:
    """Yields the directive of one public name; a class holds those of its own methods and properties."""
    if inspect.isclass(value):
        yield f"``````{{py:class}} {name}{_signature(value)}"
        yield from docstring_lines(inspect.getdoc(value) or "")
        for member, function in vars(value).items():
            if not function.__doc__ or (member.startswith("_") and member != "__call__"):
                continue
            if isinstance(function, property):
                yield from (
                    "",
                    f"`````{{py:property}} {member}",
                    *docstring_lines(inspect.getdoc(function) or ""),
                    "`````",
                )
            elif inspect.isroutine(bound := getattr(value, member)):
                yield from ("", f"`````{{py:method}} {member}{_signature(bound, inspect.isfunction(function))}")
                yield from (*docstring_lines(inspect.getdoc(bound) or ""), "`````")
        yield "``````"
    elif inspect.isroutine(value):
        yield from (
            f"``````{{py:function}} {name}{_signature(value)}",
            *docstring_lines(inspect.getdoc(value) or ""),
            "``````",
        )
    else:
        raise TypeError(f"a public name must be a class or a function, got {type(value).__name__} for {name}")


def _signature(value: Callable[..., object], is_method: bool = False) -> str:
    """Writes a signature as it is read: names without their modules, and no `self`."""
    signature = inspect.signature(value)
    parameters = list(signature.parameters.values())[1 if is_method else 0 :]
    text = str(signature.replace(parameters=parameters)).replace("'", '"')
    text = text.replace("<factory>", "...")  # dataclasses show a default that is made anew for each object
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z])", "", text).removesuffix(" -> None")


def docstring_lines(text: str) -> Iterator[str]:
    """Yields the Markdown of a Google-style docstring: its sections become field lists; indented pictures stay code.

    Args:
        text: The docstring, as `inspect.getdoc` gives it.
    """
    section, body = "", []
    for line in text.splitlines():
        found = _SECTION.match(line)
        if found or (section and line and not line.startswith(" ")):  # an indented section ends with its indentation
            yield from _section_lines(section, body)
            section, body = (found[1], []) if found else ("", ["", line])
        else:
            body.append(line)
    yield from _section_lines(section, body)


def _section_lines(section: str, body: list[str]) -> Iterator[str]:
    if not section:
        yield from (line if line.startswith("    ") else _prose(line) for line in body)
        return
    lines = inspect.cleandoc("\n".join(["", *body])).splitlines()
    if section.startswith("Example"):
        yield from ("", "```pycon", *lines, "```")
    elif section in _FIELDS:
        yield ""
        for line in lines:
            item = None if line.startswith(" ") else _ITEM.match(line)
            yield (
                f":{_FIELDS[section]} {item[1]}: {_prose(item[2])}" if item else f"    {_prose(line.strip())}".rstrip()
            )
    else:
        yield from ("", f":{section.lower()}: {_prose(' '.join(line.strip() for line in lines))}")


def _prose(text: str) -> str:
    """Escapes Markdown's signs outside of `code`."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([\\*<>|$])", r"\\\1", part) for part in parts)


def escape(text: str) -> str:
    """Returns the text with Markdown's signs escaped, so that it reads as it stands."""
    return re.sub(r"([\\`*_{}\[\]<>#|$])", r"\\\1", text)
