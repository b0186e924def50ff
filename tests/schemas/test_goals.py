import json
from pathlib import Path

import pytest

from vlm_rewards.schemas.goals import (
    Goal,
    GoalImage,
    check_goals,
    goals_from_json,
    goals_to_json,
    normalize_instruction,
    read_goal_shares,
    read_goals,
    select_goals,
    write_goals,
)

BALL = Goal(
    "find-ball", "the agent is in front of a ball", family="find", instructions=("go to the ball", "go to a ball")
)
KEY = Goal("lift-key", "the agent carries a key", group="keys", negatives=("the agent carries nothing",))


def test_goals_survive_the_trip_through_json_and_a_file(tmp_path):
    assert goals_from_json(goals_to_json([BALL, KEY])) == (BALL, KEY)
    write_goals([BALL, KEY], tmp_path / "goals.jsonl")
    assert read_goals(tmp_path / "goals.jsonl") == (BALL, KEY)
    lines = (tmp_path / "goals.jsonl").read_text().splitlines()
    assert json.loads(lines[1]) == {
        "id": "lift-key",
        "text": "the agent carries a key",
        "family": "goal",
        "group": "keys",
        "negatives": ["the agent carries nothing"],
    }


def test_empty_lines_and_other_alphabets(tmp_path):
    goal = Goal("lift-key", "агент несёт ключ")
    write_goals([goal], tmp_path / "goals.jsonl")
    with (tmp_path / "goals.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n  \n")
    assert read_goals(tmp_path / "goals.jsonl") == (goal,)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": "a b", "text": "t"}, "a goal's id must be letters, digits, '-' and '_', got 'a b'"),
        ({"id": "", "text": "t"}, "a goal's id must be letters"),
        ({"id": "-a", "text": "t"}, "got '-a'"),
        ({"id": 3, "text": "t"}, "a goal's id must be letters, .* got 3"),
        ({"id": "a", "text": "  "}, "text of goal 'a' must be a text that is not empty, got '  '"),
        ({"id": "a", "text": "t", "family": ""}, "family of goal 'a' must be a text that is not empty, got ''"),
        (
            {"id": "a", "text": "t", "instructions": ("",)},
            "instructions of goal 'a' must be a list of texts that are not empty",
        ),
        (
            {"id": "a", "text": "t", "negatives": [" "]},
            "negatives of goal 'a' must be a list of texts that are not empty",
        ),
        ({"id": "a", "text": "t", "negatives": ["t"]}, "negatives of goal 'a' must not hold its own text, got 't'"),
        (
            {"id": "a", "text": "t", "prompts": ("p", "")},
            "prompts of goal 'a' must be a list of texts that are not empty",
        ),
        ({"id": "a", "text": "t", "baseline": " "}, "baseline of goal 'a' must be a text that is not empty, got ' '"),
        ({"id": "a", "text": "t", "baseline": 3}, "baseline of goal 'a' must be a text that is not empty, got 3"),
        (
            {"id": "a", "text": "t", "prompts": ("p",), "images": (GoalImage("x.png", "00"),)},
            "goal 'a' must have either images or prompts, got 1 and 1; remove one",
        ),
        (
            {"id": "a", "text": "t", "attributes": {"colour": 3}},
            "attributes of goal 'a' must be texts by name, got {'colour': 3}",
        ),
        ({"id": "a", "text": "t", "attributes": ["red"]}, "attributes of goal 'a' must be texts by name, got ['red']"),
        (
            {"id": "a", "text": "t", "instructions": "go"},
            "instructions of goal 'a' must be a list of texts .* got 'go'",
        ),
    ],
)
def test_a_goal_is_checked(fields, message):
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        Goal(**fields)


def test_a_list_of_goals_is_checked():
    assert check_goals(iter([BALL, KEY])) == (BALL, KEY)
    with pytest.raises(ValueError, match="must hold at least one goal, got none"):
        check_goals([])
    with pytest.raises(ValueError, match="every goal must have a id of its own, got 'find-ball'"):
        check_goals([BALL, Goal("find-ball", "another text")])
    with pytest.raises(
        ValueError, match=r"every goal must have a text of its own, got .* for goals 'find-ball' and 'b'"
    ):
        check_goals([BALL, Goal("b", BALL.text)])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("find-ball", "a goal must be a JSON object such as .* got 'find-ball'"),
        ({"id": "a"}, "a goal must have the fields id and text, got {'id': 'a'}; add text"),
        (
            {"id": "a", "text": "t", "images": "x.png"},
            "images of goal 'a' must be a list of paths, got 'x.png'; leave it out",
        ),
        ({"id": "a", "text": "t", "images": [3]}, r"images of goal 'a' must be a list of paths, got \[3\]"),
        ({"id": "a", "text": "t", "colour": "red"}, "a goal's fields must be among .*, got colour; remove them"),
    ],
)
def test_records_are_checked(record, message):
    with pytest.raises(ValueError, match=message):
        goals_from_json([record])


def test_files_are_checked(tmp_path):
    path = tmp_path / "goals.jsonl"
    with pytest.raises(FileNotFoundError, match=r"a goals file must exist, got .*goals.jsonl"):
        read_goals(path)
    path.write_text('{"id": "a", "text": "t"}\nfind the ball\n')
    with pytest.raises(ValueError, match="line 2: a line must be a JSON object, got 'find the ball'"):
        read_goals(path)
    path.write_text('{"id": "a"}\n')
    with pytest.raises(ValueError, match="add text") as caught:
        read_goals(path)
    assert caught.value.__notes__ == [f"in line 1 of the goals file {path}"]
    path.write_text('{"id": "a", "text": "t"}\n\n{"id": "b", "text": "u", "colour": "red"}\n')
    with pytest.raises(ValueError, match="got colour; remove them") as caught:
        read_goals(path)
    assert caught.value.__notes__ == [f"in line 3 of the goals file {path}"]
    path.write_text('{"id": "a", "text": "t"}\n{"id": "a", "text": "u"}\n')
    with pytest.raises(ValueError, match="must have a id of its own") as caught:
        read_goals(path)
    assert caught.value.__notes__ == [f"in the goals file {path}"]


def test_files_of_other_editors(tmp_path):
    path = tmp_path / "goals.jsonl"
    path.write_text('{"id": "a", "text": "t"}\r\n', encoding="utf-8-sig", newline="")  # as Windows' Notepad saves
    assert read_goals(path) == (Goal("a", "t"),)
    path.write_bytes('{"id": "a", "text": "t"}\n{"id": "b", "text": "tür"}\n'.encode("latin-1"))
    with pytest.raises(
        ValueError, match=r"goals.jsonl, line 2: a goals file must be UTF-8, got the byte 0xfc. Save the file as UTF-8"
    ):
        read_goals(path)


def test_goals_are_selected_in_the_order_asked_for():
    assert select_goals([BALL, KEY], ["lift-key", "find-ball"]) == (KEY, BALL)
    with pytest.raises(ValueError, match=r"one of the 2 known goals \(find-ball, lift-key, ...\), got 'lift-box'"):
        select_goals([BALL, KEY], ["lift-box"])


def test_instructions_are_compared_without_case_space_and_full_stop():
    assert normalize_instruction("  Go to  the Ball. ") == "go to the ball"


def test_a_text_with_an_exotic_line_break_survives_the_file(tmp_path: Path) -> None:
    goals = (Goal("a", "left\u2028right"), Goal("b", "up\x85down"))
    write_goals(goals, tmp_path / "goals.jsonl")
    assert read_goals(tmp_path / "goals.jsonl") == goals


@pytest.mark.parametrize("texts", [None, "one text", [""], [3]])
@pytest.mark.parametrize("field", ["instructions", "negatives"])
def test_wordings_that_are_no_list_of_texts_are_refused(field: str, texts: object) -> None:
    with pytest.raises(ValueError, match=f"{field} of goal 'a' must be a list of texts"):
        Goal("a", "at the ball", **{field: texts})


def test_a_goal_is_not_its_own_negative() -> None:
    with pytest.raises(ValueError, match="must not hold its own text, got 'at the ball'"):
        Goal("a", "at the ball", negatives=("at the ball",))


def test_prompts_baseline_and_attributes_survive_the_file(tmp_path: Path) -> None:
    goal = Goal(
        "a",
        "at the red ball",
        prompts=("red ball", "a ball"),
        baseline="a room",
        attributes={"colour": "red", "object": "ball"},
    )
    write_goals([goal, BALL], tmp_path / "goals.jsonl")
    assert read_goals(tmp_path / "goals.jsonl") == (goal, BALL)
    assert goals_from_json(goals_to_json([goal])) == (goal,)
    assert {goal: 1}[
        Goal("a", "at the red ball", prompts=("red ball", "a ball"), baseline="a room", attributes=goal.attributes)
    ]


def test_pictures_are_found_beside_the_goals_file_and_told_when_changed(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "ball.png").write_bytes(b"first")
    (tmp_path / "goals.jsonl").write_text('{"id": "a", "text": "t", "images": ["pictures/ball.png"]}\n')
    goal = read_goals(tmp_path / "goals.jsonl")[0]
    # Of b"first", by sha256sum.
    assert goal.images[0].sha256 == "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e"
    assert goal.images[0].read() == b"first"
    assert goals_from_json(json.loads(json.dumps(goals_to_json([goal])))) == (goal,)
    (tmp_path / "pictures" / "ball.png").write_bytes(b"second")
    with pytest.raises(
        ValueError, match=r"must be the one it was read with, sha256 a7937b64b8ca..., got .* in .*ball.png; restore"
    ):
        goal.images[0].read()
    (tmp_path / "pictures" / "ball.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"a goal's picture must exist, got .*ball.png; fix the path"):
        goal.images[0].read()
    with pytest.raises(FileNotFoundError, match="a goal's picture must exist") as caught:
        read_goals(tmp_path / "goals.jsonl")
    assert caught.value.__notes__ == [f"in line 1 of the goals file {tmp_path / 'goals.jsonl'}"]


def test_shares_are_three_numbers() -> None:
    assert read_goal_shares("0.25:1:0") == (0.25, 1.0, 0.0)


@pytest.mark.parametrize("text", ["", "1:2", "1:2:3:4", "a:b:c"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"expected three shares: got '{text}'. Write them such as 0.2:0.5:0.3"):
        read_goal_shares(text)
