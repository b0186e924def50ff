"""Options: settings that are given by name, in a shell or in Python, and declared once, in a field of a settings dataclass.

    seed: int = dataclasses.field(default=0, metadata=option("N", "seed of the draws"))

    shell    --seed 3   ──► {"seed": 3} ──┐
    Python   seed=3     ──► {"seed": 3} ──┴──► function(**given) ──► Settings(seed=3)

A field's default is written there alone; so are the help and the unit of its option. Nothing here knows of a command line:
`vlm_rewards.command_line.options` makes one of these fields.
"""

import dataclasses
import difflib
import functools
import inspect
import json
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints, overload

_KEY = "option"
_SHOWN_ITEMS = 3

A = TypeVar("A")
B = TypeVar("B")
F = TypeVar("F", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """Declaration of a field as an option.

    Args:
        unit: Placeholder of the value in the help, such as "N" or "PATH"; "" for a switch, or one of `choices`.
        help: Meaning of the value, beginning in lower case.
        name: Name of the option; None for the field's own. A switch of another name turns a field that is on off.
        choices: Values that are allowed; () where the settings judge.
        read: Reads the value from a word; None where the field's type says how.
        unset: Effect of a default of None or ""; None to omit it.
        group: Heading that the option stands under in the help; None for the general one.
    """

    unit: str
    help: str
    name: str | None = None
    choices: tuple[str, ...] = ()
    read: Callable[[str], object] | None = None
    unset: str | None = None
    group: str | None = None


def option(unit: str, help: str, **details: Any) -> Mapping[str, Option]:
    """Makes the metadata of a field that is an option; see `Option` for arguments."""
    return {_KEY: Option(unit=unit, help=help, **details)}


def read_assignment(word: str) -> tuple[str, str]:
    """Reads NAME=TEXT.

    Raises:
        ValueError: There is no "=".
    """
    name, equals, text = word.partition("=")
    if not equals:
        raise ValueError(f"expected NAME=VALUE: got {word!r}. Write the two with = between them")
    return name, text


def read_value(word: str) -> tuple[str, Any]:
    """Reads NAME=VALUE, where the value is a number, a boolean or a text.

    Raises:
        ValueError: There is no "=".
    """
    name, text = read_assignment(word)
    try:
        return name, json.loads(text)
    except ValueError:
        return name, text


def brief_repr(settings: Any) -> str:
    """Shows a dataclass by the fields that are not at their defaults; a long sequence by its length.

    Assign it to `__repr__` in the body of a dataclass.
    """
    shown = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value == _default(field):
            continue
        is_long = isinstance(value, tuple | list | Mapping) and len(value) > _SHOWN_ITEMS
        shown.append(f"{field.name}={f'<{len(value)} {field.name}>' if is_long else repr(value)}")
    return f"{type(settings).__name__}({', '.join(shown)})"


def as_declared(settings: Any) -> None:
    """Converts the fields of a dataclass to their declared types, so that equal settings are the same; call it in `__post_init__`.

    A whole number becomes a float where a float is declared, a list a tuple, a number of NumPy one of Python.

    Raises:
        ValueError: A value is of another kind.
    """
    for name, hint in _type_hints(settings.__class__).items():
        value = getattr(settings, name)
        kinds = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        converted = [found for kind in kinds for found in _converted(value, kind)]
        if not converted:
            expected = " or ".join(dict.fromkeys(_kind_words(kind) for kind in kinds))
            is_alone = isinstance(value, str) and any(get_origin(kind) is tuple for kind in kinds)
            remedy = "Put it into a list" if is_alone else "Give one of that kind"
            raise ValueError(f"{name} must be {expected}: got {value!r}. {remedy}")
        if converted[0] is not value:
            object.__setattr__(settings, name, converted[0])


@functools.cache
def _type_hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _converted(value: Any, kind: Any) -> list[Any]:
    """Returns the value as this kind, or nothing where it is of another."""
    if kind is bool or kind is str:
        return [value] if isinstance(value, kind) else []
    if kind is int:
        return [int(value)] if isinstance(value, Integral) and not isinstance(value, bool) else []
    if kind is float:
        return [float(value)] if isinstance(value, Real) and not isinstance(value, bool) else []
    if get_origin(kind) is tuple:
        items = get_args(kind)
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            return []
        parts = [_converted(item, items[0]) for item in value]  # how many, the settings judge themselves
        return [tuple(part[0] for part in parts)] if all(parts) else []
    declared = get_origin(kind) or kind
    return (
        [value]
        if isinstance(value, declared) or (dataclasses.is_dataclass(kind) and isinstance(value, Mapping))
        else []
    )


def _kind_words(kind: Any) -> str:
    words = {bool: "True or False", str: "a text", int: "a whole number", float: "a number", type(None): "None"}
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        return f"a list of {words.get(item, item.__name__).removeprefix('a ')}s"
    declared = get_origin(kind) or kind
    return words.get(kind, declared.__name__)


class OptionField(NamedTuple):
    """A field of settings, or of settings inside them, that is an option.

    Attributes:
        path: Names of the fields that lead to it, such as ("negatives", "seed").
        option: Option of the field.
        type: Type of the field.
        default: Default value; `dataclasses.MISSING` where one must be given.
    """

    path: tuple[str, ...]
    option: Option
    type: Any
    default: Any

    @property
    def name(self) -> str:
        """Name of the option, such as "negatives-seed"."""
        return self.option.name or self.path[-1].replace("_", "-")


def option_fields(settings: type, within: tuple[str, ...] = ()) -> Iterator[OptionField]:
    """Lists the options of a settings dataclass and of the settings dataclasses inside it, in the order of their fields."""
    types = get_type_hints(settings)
    for field in dataclasses.fields(settings):
        path, kind = (*within, field.name), types[field.name]
        if _KEY in field.metadata:
            yield OptionField(path, field.metadata[_KEY], kind, _default(field))
        elif dataclasses.is_dataclass(kind):
            assert isinstance(kind, type)
            yield from option_fields(kind, path)


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


@overload
def build_settings(given: Mapping[str, Any], first: type[A], /) -> tuple[A]: ...
@overload
def build_settings(given: Mapping[str, Any], first: type[A], second: type[B], /) -> tuple[A, B]: ...
def build_settings(given: Mapping[str, Any], /, *kinds: type) -> tuple[Any, ...]:
    """Builds settings from keyword arguments.

    Args:
        given: Values by name.
        kinds: Settings dataclasses that share no name.

    Returns:
        One object per dataclass.

    Raises:
        TypeError: A name is no field of any of them, or a field without a default is missing.
        ValueError: A value is not what its settings allow.
    """
    names = [{field.name for field in dataclasses.fields(kind)} for kind in kinds]
    known = set().union(*names)
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            advice = f"Did you mean {close[0]}?" if close else f"The settings are {', '.join(sorted(known))}."
            raise TypeError(f"there is no setting of this name: got {name!r}. {advice}")
    return tuple(
        kind(**{name: value for name, value in given.items() if name in own})
        for kind, own in zip(kinds, names, strict=True)
    )


def shows_settings(*kinds: type) -> Callable[[F], F]:
    """Decorator of a function whose `**settings` are the fields of settings dataclasses: its signature shows them one by one."""

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        shown = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if _default(field) is dataclasses.MISSING else _default(field),
                annotation=get_type_hints(kind)[field.name],
            )
            for kind in kinds
            for field in dataclasses.fields(kind)
            if field.name not in signature.parameters
        ]
        function.__signature__ = signature.replace(parameters=[*own, *shown])  # type: ignore[attr-defined]
        return function

    return decorate
