from pathlib import Path

import pytest

from vlm_rewards.schemas.files.json_records import (
    FILLED,
    OBJECT,
    POSITIVE,
    SHAPE,
    TEXT,
    TEXTS,
    WHOLE,
    Field,
    check_fields,
    optional,
    read_json_object,
)

PATH = Path("agent.json")


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        (TEXT, ["", "a"], [None, 1, ["a"]]),
        (TEXTS, [[], ["a", "b"]], [None, "a", [1], ["a", None]]),
        (WHOLE, [0, 7], [None, -1, 1.5, True, "1"]),
        (POSITIVE, [1], [0, True, None]),
        (SHAPE, [[1], [56, 56, 3]], [[], [0], [1.5], 3, None]),
        (OBJECT, [{}, {"a": 1}], [None, [], "a"]),
        (FILLED, [{"a": 1}], [None, {}, []]),
        (optional(TEXT), ["a", None], [1]),
    ],
)
def test_what_a_field_must_be(field: Field, good: list, bad: list) -> None:
    for value in good:
        check_fields({"name": value}, {"name": field}, PATH, "Train again.")
    for value in bad:
        with pytest.raises(ValueError, match=f"name in agent.json must be {field.words}, got .*. Train again."):
            check_fields({"name": value}, {"name": field}, PATH, "Train again.")


def test_a_field_inside_an_object() -> None:
    record = {"goals": {"ids": ["a"]}, "steps": 3}
    check_fields(record, {"goals.ids": TEXTS, "steps": WHOLE, "goals.kind": optional(TEXT)}, PATH, "Train again.")
    with pytest.raises(
        ValueError, match=r"goals.texts in agent.json must be a list of texts, got nothing. Train again."
    ):
        check_fields(record, {"goals.texts": TEXTS}, PATH, "Train again.")
    with pytest.raises(ValueError, match="steps.ids in agent.json must be a list of texts, got nothing"):
        check_fields(record, {"steps.ids": TEXTS}, PATH, "Train again.")


def test_a_long_value_is_shown_in_part() -> None:
    with pytest.raises(ValueError, match=r"got \"x{56}\.\.\.\. Train again."):
        check_fields({"ids": "x" * 999}, {"ids": TEXTS}, PATH, "Train again.")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be JSON, got Expecting value"),
        (b"{", "must be JSON, got "),
        (b"\xff", "must be JSON, got 'utf-8' codec"),
        (b"[" * 100_000, "must be JSON, got maximum recursion"),
        (b"[1]", "must hold a JSON object, got list"),
        (b"null", "must hold a JSON object, got NoneType"),
    ],
)
def test_a_file_that_is_no_json_object(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "agent.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"agent.json {message}.*Train again."):
        read_json_object(path, "Train again.")


def test_a_json_object(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    path.write_text('{"a": [1, null]}')
    assert read_json_object(path, "Train again.") == {"a": [1, None]}
