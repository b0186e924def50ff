"""Goals as people write them: lines of JSON, an array, and tables from spreadsheets."""

import json
from pathlib import Path

import pytest

from vlm_rewards.schemas.files import tables
from vlm_rewards.schemas.goals import Goal, read_goals

GOALS = (
    Goal(
        "cup", "a cup, in the sink", family="place", instructions=("put the cup away", "wash up"), negatives=("no cup",)
    ),
    Goal("door", 'the "front" door is open', attributes={"object": "door"}),
)
ROWS = [
    ["id", "text", "family", "instructions", "negatives", "attributes.object"],
    ["cup", "a cup, in the sink", "place", "put the cup away | wash up", "no cup", ""],
    ["door", 'the "front" door is open', "", "", "", "door"],
]


def table(separator: str) -> str:
    quoted = [['"{}"'.format(value.replace('"', '""')) if value else "" for value in row] for row in ROWS]
    return "\r\n".join(separator.join(row) for row in [*quoted, [""] * 6, []]) + "\r\n"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("name", ["goals.csv", "goals.tsv", "goals.txt", "goals.jsonl"])
def test_a_table_is_read_as_spreadsheets_write_it(tmp_path: Path, separator: str, encoding: str, name: str) -> None:
    (tmp_path / name).write_text(table(separator), encoding=encoding, newline="")
    assert read_goals(tmp_path / name) == GOALS
    (tmp_path / name).write_text(f"sep={separator}\r\n" + table(separator), encoding=encoding, newline="")
    assert read_goals(tmp_path / name) == GOALS


@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_is_read_like_lines(tmp_path: Path, indent: int | None) -> None:
    (tmp_path / "goals.json").write_text("\ufeff" + json.dumps([goal.to_json() for goal in GOALS], indent=indent))
    assert read_goals(tmp_path / "goals.json") == GOALS


def test_pictures_of_a_table_are_found_beside_it(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "goals.csv").write_text("id;text;images\nball;as shown;one.png|two.png\n")
    (goal,) = read_goals(tmp_path / "goals.csv")
    assert [Path(image.path).name for image in goal.images] == ["one.png", "two.png"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("goals.csv", "id,name\na,b\n", r"must have the columns id and text, and may have .*, got id, name. Correct"),
        ("goals.csv", "id,text,colour\na,b,red\n", r"may have family, group, instructions, .*, got id, text, colour"),
        ("goals.csv", "id,text,text\na,b,c\n", "each once, got id, text, text"),
        ("goals.csv", "", "must have the columns id and text, .* got none"),
        ("goals.csv", "id,text\n", "a list of goals must hold at least one goal, got none"),
        (
            "goals.csv",
            "id,text\na,b,c\n",
            r"line 2: a line must have as many values as .*, 2, got 3. Put texts that hold",
        ),
        ("goals.csv", "id,text\n" + "a" * 140_000 + ",b\n", "line 2: a line must be CSV, got field larger than"),
        ("goals.csv", "id,text\na,\n", "text of goal 'a' must be a text that is not empty, got ''"),
        ("goals.json", '[{"id": "a", "text": "t"},]', r"an array of goals must be JSON, got .*\. Correct it"),
        ("goals.json", "[" * 100_000, r"an array of goals must be JSON, got .*\. Correct it"),
        ("goals.json", "[3]", "a goal must be a JSON object such as .*, got 3"),
        ("goals.jsonl", "", "must hold at least one goal, got none"),
        ("goals.jsonl", "\ufeff", "must hold at least one goal, got none"),
        ("goals.jsonl", "{" * 100_000, "line 1: a line must be a JSON object, got"),
        ("goals.jsonl", '{"a":' * 100_000, "line 1: a line must be a JSON object, got"),
        ("goals.jsonl", '{"id": 3, "text": "t"}', "a goal's id must be .*got 3"),
        ("goals.jsonl", '{"id": "a", "text": "t", "images": [{"x": 1}]}', "images of goal 'a' must be a list of paths"),
    ],
)
def test_odd_files_are_refused_in_words(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_goals(tmp_path / name)


def test_what_is_no_text_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"a goals file must be a file, got the folder .*\. Give the file in it"):
        read_goals(tmp_path)
    (tmp_path / "goals.jsonl").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    with pytest.raises(
        ValueError, match=r"line 1: a goals file must be UTF-8, got the byte 0x89. Save the file as UTF-8"
    ):
        read_goals(tmp_path / "goals.jsonl")
    (tmp_path / "goals.jsonl").write_bytes('{"id": "a", "text": "t"}'.encode("utf-16"))
    with pytest.raises(ValueError, match="must be UTF-8, got the byte 0xff"):
        read_goals(tmp_path / "goals.jsonl")
    monkeypatch.setattr(tables, "MAX_BYTES", 20)
    with pytest.raises(ValueError, match=r"a goals file must have at most 20 bytes, got 50 in .*\. Check the path"):
        read_goals(tmp_path / "goals.jsonl")
