"""Goals of a corpus's own instructions: which are one, what they are called, and what is counted."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled_corpora import episode, write_corpus

from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.formats.instruction_goals import goals_of_corpus, id_of_text
from vlm_rewards.schemas.goals import Goal

TEXTS = ("Pick up the cup.", "open the door", "", "pick up  the cup", "把杯子放下", None, "OPEN THE DOOR", "   ")
"""Of eight episodes: three instructions, one of them in two spellings, another in two cases; three episodes have none."""


def corpus(folder: Path, texts=TEXTS, shards: int = 1, format_name: str = "parquet"):
    episodes = [episode(f"e{number}", 2, instruction=text) for number, text in enumerate(texts)]
    return open_corpus(
        write_corpus(folder, [list(part) for part in np.array_split(episodes, shards)], format_name=format_name)
    )


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@pytest.mark.parametrize("format_name", ["parquet", "webdataset"])
@pytest.mark.parametrize("shards", [1, 3])
def test_equal_instructions_are_one_goal_in_the_order_of_the_corpus(
    tmp_path: Path, shards: int, format_name: str
) -> None:
    found = goals_of_corpus(corpus(tmp_path / "c", shards=shards, format_name=format_name))
    assert found.goals == (
        Goal("pick-up-the-cup", "Pick up the cup.", instructions=("Pick up the cup.", "pick up  the cup")),
        Goal("open-the-door", "open the door", instructions=("open the door", "OPEN THE DOOR")),
        Goal(f"goal-{digest('把杯子放下')}", "把杯子放下", instructions=("把杯子放下",)),
    )
    assert (found.num_instructions, found.num_episodes, found.num_without) == (3, 8, 3)
    assert found.failures == {}


def test_goals_do_not_depend_on_units_and_shards(tmp_path: Path) -> None:
    texts = [f"task {number % 7}" for number in range(40)]
    whole, cut = corpus(tmp_path / "c", texts), corpus(tmp_path / "d", texts, shards=20)
    assert (len(whole.units()), len(cut.units()[0].files)) == (1, 20)  # of many small files, a unit has several
    assert goals_of_corpus(whole) == goals_of_corpus(cut)
    assert [goal.id for goal in goals_of_corpus(cut).goals] == [f"task-{number}" for number in range(7)]


def test_an_instruction_that_another_goal_names_gets_no_goal(tmp_path: Path) -> None:
    beside = (
        Goal("cup", "a lifted cup", instructions=("pick up the cup",)),
        Goal("door", "Open the door."),
        Goal("goal-" + digest("把杯子放下"), "x"),
    )
    found = goals_of_corpus(corpus(tmp_path / "c"), beside)
    # only the third is left, and the id it would have is taken: one digit more of the digest tells it apart
    longer = hashlib.sha256("把杯子放下".encode()).hexdigest()[:9]
    assert [goal.id for goal in found.goals] == [f"goal-{longer}"]
    assert found.num_instructions == 3
    every = (*beside, Goal("down", "a cup on the table", instructions=("把杯子放下",)))
    assert goals_of_corpus(corpus(tmp_path / "d"), every).goals == ()


@pytest.mark.parametrize(
    ("text", "taken", "goal_id"),
    [
        ("pick up the cup", (), "pick-up-the-cup"),
        ("pick up the cup", ("pick-up-the-cup",), f"pick-up-the-cup-{digest('pick up the cup')}"),
        ("pick up, the cup!", (), "pick-up-the-cup"),
        ("café", (), "cafe"),
        ("把 cup 放下", (), f"cup-{digest('把 cup 放下')}"),
        ("?!", (), f"goal-{digest('?!')}"),
        # 13 words with "-" between them are 64 letters: cut after the last of 60 that ends a word, the 12th
        (" ".join(["word"] * 13), (), "-".join(["word"] * 12 + [digest(" ".join(["word"] * 13))])),
        ("x" * 70, (), "x" * 60 + "-" + digest("x" * 70)),
    ],
)
def test_ids_are_made_of_texts(text: str, taken: tuple[str, ...], goal_id: str) -> None:
    assert id_of_text(text, taken) == goal_id
    assert Goal(goal_id, text).id == goal_id


def test_a_corpus_without_an_instruction_has_no_goals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no episode of .*c has an instruction .* got 2 without one. Write the goals"):
        goals_of_corpus(corpus(tmp_path / "c", texts=["", None]))


def change(path: Path, name: str, values: list) -> None:
    table = pq.read_table(path)
    column = table.schema.get_field_index(name)
    field = table.schema.field(column)
    pq.write_table(table.set_column(column, field, pa.array(values, field.type)), path)


def test_every_instruction_of_an_episode_whose_task_changes_is_a_goal(tmp_path: Path) -> None:
    opened = corpus(tmp_path / "c", texts=["open the door", "close it", "lift it"])
    texts = ["open the door", "lift it", "close it", "Close it.", None, "lift it"]
    change(tmp_path / "c" / "shard-000.parquet", "instruction", texts)
    found = goals_of_corpus(opened)
    assert [(goal.id, goal.instructions) for goal in found.goals] == [
        ("open-the-door", ("open the door",)),
        ("lift-it", ("lift it",)),
        ("close-it", ("close it", "Close it.")),
    ]
    # two spellings are one task, and so is one with rows that do not say
    assert (found.num_episodes, found.num_changing, found.num_without, found.failures) == (3, 1, 0, {})
    [unit] = opened.units()
    assert list(opened.instructions(unit)) == [tuple(texts[0:2]), tuple(texts[2:4]), tuple(texts[4:6])]


def test_episodes_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    opened = corpus(tmp_path / "c", texts=["open the door", "close it"])
    change(tmp_path / "c" / "shard-000.parquet", "frame_index", [0, 2, 0, 1])
    found = goals_of_corpus(opened)
    assert [goal.id for goal in found.goals] == ["close-it"]
    assert (found.num_episodes, found.failures) == (1, {"missing frames": 1})
    change(tmp_path / "c" / "shard-000.parquet", "frame_index", [0, 2, 0, 2])
    with pytest.raises(ValueError, match="got 0 without one, and 2 missing frames. Write the goals"):
        goals_of_corpus(opened)
