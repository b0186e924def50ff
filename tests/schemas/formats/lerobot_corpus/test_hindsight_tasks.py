"""Hindsight goals as tasks of LeRobot: drawn by hand from labels, in every version, dialect and cut into files."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled_corpora import holds, write_labels_of
from lerobot_datasets import DataSet

from vlm_rewards.pipelines.export.exporting import export
from vlm_rewards.schemas.episodes import Episode
from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.goals import Goal

CUP, DRAWER, LIFT = "the cup is up", "the drawer is open", "lift the cup"
GOALS = (Goal("cup", CUP), Goal("drawer", DRAWER))
# Per episode, whether each goal holds in each frame; episode 3 has the goal from its first frame on, which is no achievement.
MARKS = {
    "episode_000000": holds("...X.", "....."),
    "episode_000001": holds("...", "..."),
    "episode_000002": holds("....", "X.XX"),
    "episode_000003": holds("XX", ".."),
}
TASKS = (LIFT, "open the drawer", [LIFT, LIFT, LIFT, "push"], LIFT)
ROW_TASKS = [CUP] * 4 + [LIFT] + ["open the drawer"] * 3 + [LIFT, DRAWER, DRAWER, "push"] + [LIFT] * 2
EPISODE_TASKS = [[CUP, LIFT], ["open the drawer"], [LIFT, DRAWER, "push"], [LIFT]]


def data_set(**changes: Any) -> DataSet:
    return DataSet(**{"lengths": (5, 3, 4, 2), "tasks": TASKS, **changes})


LAYOUTS = {
    "v2.0": data_set(version="v2.0"),
    "v2.1": data_set(version="v2.1"),
    "recorder": data_set(),
    "converter": data_set(recorder=False),
    "cut": data_set(per_data_file=1),
    "images": data_set(cameras={"observation.images.front": "image"}),
}


def texts_by_index(folder: Path) -> dict[int, str]:
    if (folder / "meta/tasks.jsonl").exists():
        records = [json.loads(line) for line in (folder / "meta/tasks.jsonl").read_text().splitlines()]
        return {record["task_index"]: record["task"] for record in records}
    table = pq.read_table(folder / "meta/tasks.parquet")
    assert table.column_names[0] == "task_index"
    return dict(zip(table.column(0).to_pylist(), table.column(1).to_pylist(), strict=True))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    tables = [pq.read_table(file, columns=["index", "task_index"]) for file in folder.glob("data/**/*.parquet")]
    return sorted((row for table in tables for row in table.to_pylist()), key=lambda row: row["index"])


def episode_records(folder: Path) -> list[dict[str, Any]]:
    lines = folder / "meta/episodes.jsonl"
    if lines.exists():
        return [json.loads(line) for line in lines.read_text().splitlines()]
    return pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet").to_pylist()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_up_to_the_achievement_have_the_goal_as_their_task(layout: str, tmp_path: Path) -> None:
    corpus, copy = LAYOUTS[layout].write(tmp_path / "corpus"), tmp_path / "copy"
    labels = write_labels_of(tmp_path / "labels", corpus, MARKS, goals=GOALS)
    summary = export(corpus, labels, to="lerobot-hindsight", output=copy)
    known = texts_by_index(copy)
    before = texts_by_index(corpus)
    assert known == {**before, 3: CUP, 4: DRAWER}
    assert [known[row["task_index"]] for row in rows_of(copy)] == ROW_TASKS
    assert [record["tasks"] for record in episode_records(copy)] == EPISODE_TASKS
    others = [[{**record, "tasks": None} for record in episode_records(folder)] for folder in (corpus, copy)]
    assert others[0] == others[1]
    infos = [json.loads((folder / "meta/info.json").read_text()) for folder in (corpus, copy)]
    assert infos[1] == {**infos[0], "total_tasks": 5}
    assert summary.lines == (
        "2 of 4 episodes have a goal as their task that they achieved, by the labels; 2 achieved none and keep their task",
        "6 of 14 rows have the new task: those that lead to the frame that achieves it, and this frame's; the other rows keep "
        "theirs",
        "2 tasks added, 0 were there",
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_but_tasks_is_as_it_was(layout: str, tmp_path: Path) -> None:
    corpus, copy = LAYOUTS[layout].write(tmp_path / "corpus"), tmp_path / "copy"
    labels = write_labels_of(tmp_path / "labels", corpus, MARKS, goals=GOALS)
    export(corpus, labels, to="lerobot-hindsight", output=copy)
    names = sorted(path.relative_to(corpus) for path in corpus.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(copy) for path in copy.rglob("*") if path.is_file())
    for name in names:
        if name.suffix == ".parquet":
            before, after = pq.ParquetFile(corpus / name), pq.ParquetFile(copy / name)
            assert after.schema_arrow.equals(before.schema_arrow, check_metadata=True)
            if name.parts[0] == "data":
                kept = [column for column in before.schema_arrow.names if column != "task_index"]
                assert after.num_row_groups == before.num_row_groups
                assert after.read(kept).equals(before.read(kept))
        elif name.name not in ("info.json", "tasks.jsonl", "episodes.jsonl"):
            assert (copy / name).read_bytes() == (corpus / name).read_bytes()
    opened = open_corpus(copy)  # without instructions: an episode whose task changes has no single one
    items = [item for unit in opened.units() for item in opened.episodes(unit, frames=False, fields=("actions",))]
    episodes = [item for item in items if isinstance(item, Episode)]
    assert [episode.num_frames for episode in episodes] == [5, 3, 4, 2]


def test_an_episode_across_files_and_a_goal_that_is_a_task(tmp_path: Path) -> None:
    corpus = data_set(tasks=(LIFT, "open the drawer", LIFT, CUP), per_data_file=1).write(tmp_path / "corpus")
    first, second = sorted(corpus.glob("data/**/*.parquet"))[:2]
    whole = pq.read_table(first)
    pq.write_table(whole.slice(0, 2), first)  # the rest of episode 0 lies before episode 1
    rest = pq.read_table(second)
    pq.write_table(pa.concat_tables([whole.slice(2), rest]), second)
    labels = write_labels_of(tmp_path / "labels", corpus, MARKS, goals=GOALS)
    summary = export(corpus, labels, to="lerobot-hindsight", in_place=True)
    known = texts_by_index(corpus)
    assert known == {0: LIFT, 1: "open the drawer", 2: CUP, 3: DRAWER}
    assert [row["task_index"] for row in rows_of(corpus)] == [2, 2, 2, 2, 0, 1, 1, 1, 0, 3, 3, 0, 2, 2]
    assert summary.lines[2] == "1 tasks added, 1 were there"


def test_goals_are_balanced_over_the_corpus(tmp_path: Path) -> None:
    """Of 16 episodes that all achieve one goal, four achieve another: most of the four get the rare one."""
    lengths = (2,) * 16
    corpus = DataSet(lengths=lengths, tasks=(LIFT,) * 16).write(tmp_path / "corpus")
    marks = {f"episode_{k:06d}": holds(".X", ".X" if k < 4 else "..") for k in range(16)}
    labels = write_labels_of(tmp_path / "labels", corpus, marks, goals=GOALS)
    export(corpus, labels, to="lerobot-hindsight", output=tmp_path / "copy")
    tasks = [record["tasks"] for record in episode_records(tmp_path / "copy")]
    assert all(len(texts) == 1 for texts in tasks)
    assert tasks[4:] == [[CUP]] * 12
    assert tasks[:4].count([DRAWER]) >= 2
    export(corpus, labels, to="lerobot-hindsight", output=tmp_path / "again")
    assert rows_of(tmp_path / "again") == rows_of(tmp_path / "copy")


def test_strategy_and_seed_choose_the_achievement_and_the_goal(tmp_path: Path) -> None:
    corpus = DataSet(lengths=(6,), tasks=(LIFT,)).write(tmp_path / "corpus")
    # The drawer opens in frames 2 and 4 and is closed at the end; the cup is up from frame 5 on.
    marks = {"episode_000000": holds(".....X", "..X.X.")}
    labels = write_labels_of(tmp_path / "labels", corpus, marks, goals=GOALS)
    found = {}
    for strategy in ("first", "final", "future"):
        for seed in range(8):
            copy = tmp_path / f"{strategy}-{seed}"
            export(corpus, labels, to="lerobot-hindsight", strategy=strategy, seed=seed, output=copy)
            known = texts_by_index(copy)
            found[strategy, seed] = tuple(known[row["task_index"]] for row in rows_of(copy))
    cup, first, second = (CUP,) * 6, (DRAWER,) * 3 + (LIFT,) * 3, (LIFT,) * 3 + (DRAWER,) * 2 + (LIFT,)
    assert {found["first", seed] for seed in range(8)} == {cup, first}
    assert {found["final", seed] for seed in range(8)} == {cup}
    assert {found["future", seed] for seed in range(8)} == {cup, first, second}
    with pytest.raises(ValueError, match="strategy must be one of first, final, future, got 'last'; choose one"):
        export(corpus, labels, to="lerobot-hindsight", strategy="last", output=tmp_path / "none")
    with pytest.raises(ValueError, match="the export 'verdicts' has no use for seed: got 3. Leave it out"):
        export(corpus, labels, to="verdicts", seed=3, output=tmp_path / "none")


def test_episodes_without_complete_labels_keep_their_task(tmp_path: Path) -> None:
    corpus = data_set().write(tmp_path / "corpus")
    labels = write_labels_of(tmp_path / "labels", corpus, {**MARKS, "episode_000000": holds(".X", "..")}, goals=GOALS)
    summary = export(corpus, labels, to="lerobot-hindsight", output=tmp_path / "copy")
    records = episode_records(tmp_path / "copy")
    assert [record["tasks"] for record in records] == [[LIFT], *EPISODE_TASKS[1:]]
    assert summary.lines[0].startswith(
        "1 of 4 episodes have a goal as their task that they achieved, by the labels; 2 achieved"
    )
    assert summary.lines[3] == "1 episodes without complete labels keep their task"


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_files_keep_the_codec_that_they_have(codec: str, tmp_path: Path) -> None:
    corpus = data_set(tasks=(LIFT,) * 4).write(tmp_path / "corpus")
    [file] = corpus.glob("data/**/*.parquet")
    pq.write_table(pq.read_table(file), file, compression=codec)
    labels = write_labels_of(tmp_path / "labels", corpus, MARKS, goals=GOALS)
    for name in ("lerobot-hindsight", "lerobot"):
        goal = {"goal": "cup"} if name == "lerobot" else {}
        export(corpus, labels, to=name, output=tmp_path / name, **goal)
        groups = [
            pq.ParquetFile(path).metadata.row_group(0) for path in (file, tmp_path / name / file.relative_to(corpus))
        ]
        assert {group.column(0).compression for group in groups} == {groups[0].column(0).compression}


def test_what_cannot_be_done_is_refused(tmp_path: Path) -> None:
    corpus = data_set().write(tmp_path / "corpus")
    labels = write_labels_of(tmp_path / "labels", corpus, MARKS, goals=GOALS)
    with pytest.raises(
        ValueError, match=r"'lerobot-hindsight' does not judge episodes by one goal: got the goal 'cup'"
    ):
        export(corpus, labels, to="lerobot-hindsight", goal="cup", output=tmp_path / "out")
    (corpus / "meta/tasks.parquet").rename(tmp_path / "tasks.parquet")
    with pytest.raises(ValueError, match=r"adds to the tasks of a data set: got none of meta/tasks.parquet"):
        export(corpus, labels, to="lerobot-hindsight", output=tmp_path / "out")
