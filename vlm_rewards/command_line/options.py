"""The options of a command, made of the fields of its settings; see `vlm_rewards.schemas.options`.

An option that is not typed is not in the namespace: its default is in the settings, and nowhere else.
"""

import argparse
import dataclasses
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from vlm_rewards.schemas.files.stores import is_url
from vlm_rewards.schemas.options import OptionField, option_fields

_WORDS = {int: "a whole number", float: "a number"}


def add_output(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds --output, the folder for `what`."""
    parser.add_argument(
        "--output", type=path_or_url, required=True, metavar="DIR", help=f"folder for {what}; empty, or of this run"
    )


def say_where_it_runs(parser: argparse.ArgumentParser, *, resumes: bool) -> None:
    """Says what options after `--` are, and what the same command does after an interruption.

    Args:
        parser: Parser of the command.
        resumes: Whether it keeps the parts that are finished; otherwise it starts again.
    """
    again = "it does what is missing, and nothing else" if resumes else "it starts from the beginning"
    parser.set_defaults(takes_beam_options=True)
    parser.epilog = (
        "Options after a bare -- go to Apache Beam and choose where this runs, for example:\n"
        "  -- --runner=FnApiRunner --direct_running_mode=multi_processing --direct_num_workers=8\n"
        "  -- --runner=apache_beam.runners.dask.dask_runner.DaskRunner --dask_client_address=tcp://HOST:8786\n"
        f"Run the same command again after an interruption: {again}."
    )


def say_it_resumes(parser: argparse.ArgumentParser) -> None:
    """Says that a training run is resumed by the same command."""
    parser.epilog = "Run the same command again after an interruption: it resumes from its last checkpoint."


def add_settings(parser: argparse.ArgumentParser, *kinds: type) -> None:
    """Adds one option per field of settings dataclasses that is one."""
    groups: dict[str, Any] = {}
    for kind in kinds:
        for field in option_fields(kind):
            heading = field.option.group
            if heading is not None and heading not in groups:
                groups[heading] = parser.add_argument_group(heading)
            place = parser if heading is None else groups[heading]
            place.add_argument(
                f"--{field.name}",
                dest=_destination(kind, field),
                help=f"{field.option.help}{_default_words(field)}".replace("%", "%%"),
                **_behaviour(field),
            )


def given_settings(options: argparse.Namespace, *kinds: type) -> dict[str, Any]:
    """Returns the settings that were typed, by the names of their fields; those inside others as dicts."""
    typed = vars(options)
    found: dict[str, Any] = {}
    for kind in kinds:
        for field in option_fields(kind):
            name = _destination(kind, field)
            if name in typed:
                inside = found
                for step in field.path[:-1]:
                    inside = inside.setdefault(step, {})
                inside[field.path[-1]] = _collected(field, typed[name])
    return found


def path_or_url(word: str) -> Path | str:
    """Reads a path, or a URL as it is."""
    return word if is_url(word) else Path(word)


def _destination(kind: type, field: OptionField) -> str:
    return f"{kind.__name__}.{'.'.join(field.path)}"


def _default_words(field: OptionField) -> str:
    words = field.option.unset if field.default in (None, "") else _in_words(field.default)
    return "" if words is None else f" (default: {words})"


def _in_words(default: Any) -> str | None:
    if isinstance(default, bool) or not isinstance(default, int | float | str | Path | tuple) or default == ():
        return None
    return ":".join(str(item) for item in default) if isinstance(default, tuple) else str(default)


def _is_repeated(field: OptionField) -> bool:
    return field.type == tuple[str, ...] or get_origin(field.type) in (dict, Mapping)


def _collected(field: OptionField, value: Any) -> Any:
    if not _is_repeated(field):
        return value
    return tuple(value) if field.type == tuple[str, ...] else dict(value)


def _behaviour(field: OptionField) -> dict[str, Any]:
    """What argparse needs to know of the option besides its name and help."""
    if field.type is bool:
        assert not field.default or field.option.name, (
            f"{field.path} is on by default: name the switch that turns it off"
        )
        return {"action": "store_false" if field.default else "store_true", "default": argparse.SUPPRESS}
    behaviour: dict[str, Any] = {"default": argparse.SUPPRESS, "type": _reader(field)}
    if field.option.choices:
        behaviour["choices"] = field.option.choices
    else:
        behaviour["metavar"] = field.option.unit
    if _is_repeated(field):
        behaviour["action"] = "append"
    if field.default is dataclasses.MISSING:
        behaviour["required"] = True
    return behaviour


def _reader(field: OptionField) -> Callable[[str], Any]:
    """Reads the option's value from a word; what it raises becomes argparse's message."""
    read = field.option.read
    if read is None:
        members = get_args(field.type) if isinstance(field.type, types.UnionType) else (field.type,)
        plain = [member for member in (Path, int, float, str) if member in members]
        read = str if field.type == tuple[str, ...] else path_or_url if Path in plain else plain[0]

    choices = field.option.choices

    def reader(word: str) -> Any:
        if choices and word not in choices:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(choices)}: got {word!r}")
        try:
            return read(word)
        except ValueError as error:
            expected = _WORDS.get(read)  # type: ignore[call-overload]
            message = f"expected {expected}: got {word!r}" if expected else str(error)
            raise argparse.ArgumentTypeError(message) from error

    return reader
