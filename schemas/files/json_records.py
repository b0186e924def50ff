"""JSON objects in files that may come from elsewhere: every field is checked before it is used.

    agent.json ──► read_json_object ──► check_fields(record, {"steps": WHOLE, "goals.ids": TEXTS, ...}) ──► plain use

A refusal names the file, the field, the value found, what it must be, and a remedy.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from vlm_rewards.schemas.files.remote_paths import Location

_SHOWN = 60  # characters of a value in a message


class Field(NamedTuple):
    """What a field of a JSON object must be.

    Attributes:
        words: The same in words, such as "a text".
        holds: Whether a value is that.
    """

    words: str
    holds: Callable[[Any], bool]


def _is_whole(value: object, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_list(value: object, of: Callable[[object], bool]) -> bool:
    return isinstance(value, list) and all(of(item) for item in value)


TEXT = Field("a text", lambda value: isinstance(value, str))
TEXTS = Field("a list of texts", lambda value: _is_list(value, TEXT.holds))
WHOLE = Field("a whole number of at least 0", _is_whole)
POSITIVE = Field("a whole number of at least 1", lambda value: _is_whole(value, 1))
SHAPE = Field("a list of whole numbers of at least 1", lambda value: bool(value) and _is_list(value, POSITIVE.holds))
OBJECT = Field("an object", lambda value: isinstance(value, dict))
FILLED = Field("an object that is not empty", lambda value: isinstance(value, dict) and bool(value))


def optional(field: Field) -> Field:
    """Returns a field that may also be null or absent."""
    return Field(f"{field.words} or null", lambda value: value is None or field.holds(value))


def read_json_object(path: Location, remedy: str) -> dict[str, Any]:
    """Reads a file that must hold one JSON object.

    Args:
        path: The file.
        remedy: What the user can do if it does not.

    Raises:
        ValueError: It is not JSON in UTF-8, or not an object.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError among them
        raise ValueError(f"{path} must be JSON, got {error}. {remedy}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(record).__name__}. {remedy}")
    return record


def check_fields(record: Mapping[str, Any], fields: Mapping[str, Field], path: Location, remedy: str) -> None:
    """Refuses a JSON object whose fields are not what they must be.

    Args:
        record: The object.
        fields: Fields by name; a name with dots is that of a field inside an object.
        path: The file that it was read from.
        remedy: What the user can do.

    Raises:
        ValueError: A field is absent or something else.
    """
    for name, field in fields.items():
        value: Any = record
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if not field.holds(value):
            raise ValueError(f"{name} in {path} must be {field.words}, got {_short(value)}. {remedy}")


def _short(value: object) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
