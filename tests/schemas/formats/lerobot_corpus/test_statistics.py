"""Statistics of columns that an export changes, wherever a LeRobot data set has them; all figures are by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled_corpora import holds, write_labels_of
from lerobot_datasets import DataSet

from vlm_rewards.pipelines.export.exporting import export
from vlm_rewards.schemas.goals import Goal

GOALS = (Goal("cup", "the cup is up"), Goal("drawer", "the drawer is open"))
MARKS = {
    "episode_000000": holds("...X.", "....."),
    "episode_000001": holds("...", "..."),
    "episode_000002": holds("....", "...X"),
}
# Tasks before: 0 0 0 0 0 | 1 1 1 | 0 0 0 0; after: 2 2 2 2 0 | 1 1 1 | 3 3 3 3.
OLD = {"min": [0], "max": [9], "mean": [9.0], "std": [9.0], "count": [1], "q50": [9.0], "mode": [9]}
OF_EPISODES = [
    {"min": [0], "max": [2], "mean": [1.6], "std": [0.8], "count": [5], "q50": [2.0], "mode": [9]},
    {"min": [1], "max": [1], "mean": [1.0], "std": [0.0], "count": [3], "q50": [1.0], "mode": [9]},
    {"min": [3], "max": [3], "mean": [3.0], "std": [0.0], "count": [4], "q50": [3.0], "mode": [9]},
]
# Of the whole, the sum is 8 + 3 + 12 and that of the squares 16 + 3 + 36.
STD = (55 / 12 - (23 / 12) ** 2) ** 0.5
WHOLE = {"min": [0], "max": [3], "mean": [23 / 12], "std": [STD], "count": [12], "q50": [2.0], "mode": [9]}


def add_statistics(folder: Path, column: str, **places: bool) -> None:
    """Adds figures that are wrong of a column, wherever the data set has others."""
    meta = folder / "meta"
    if (meta / "stats.json").is_file() or places.get("whole"):
        record = json.loads((meta / "stats.json").read_text()) if (meta / "stats.json").is_file() else {}
        (meta / "stats.json").write_text(json.dumps({**record, column: OLD}))
    if (meta / "episodes_stats.jsonl").is_file():
        records = [json.loads(line) for line in (meta / "episodes_stats.jsonl").read_text().splitlines()]
        for record in records:
            record["stats"][column] = OLD
        (meta / "episodes_stats.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    for path in meta.glob("episodes/**/*.parquet"):
        table = pq.read_table(path)
        for name, value in OLD.items():
            table = table.append_column(f"stats/{column}/{name}", pa.array([value] * len(table)))
        pq.write_table(table, path)


def of_episodes(folder: Path, column: str) -> list[dict[str, Any]]:
    lines = folder / "meta/episodes_stats.jsonl"
    if lines.is_file():
        return [json.loads(line)["stats"][column] for line in lines.read_text().splitlines()]
    [path] = folder.glob("meta/episodes/**/*.parquet")
    rows = pq.read_table(path).to_pylist()
    return [{name: row[f"stats/{column}/{name}"] for name in OLD} for row in rows]


def assert_close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name
        assert [type(x) for x in found[name]] == [type(x) for x in value], name


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
@pytest.mark.parametrize("per_data_file", [1, 100])
def test_hindsight_tasks_renew_the_statistics_of_task_index(version: str, per_data_file: int, tmp_path: Path) -> None:
    corpus, copy = tmp_path / "corpus", tmp_path / "copy"
    DataSet(version=version, per_data_file=per_data_file).write(corpus)
    add_statistics(corpus, "task_index", whole=version == "v3.0")
    labels = write_labels_of(tmp_path / "labels", corpus, MARKS, goals=GOALS)
    export(corpus, labels, to="lerobot-hindsight", output=copy)
    if version != "v2.1":
        record, before = (json.loads((folder / "meta/stats.json").read_text()) for folder in (copy, corpus))
        assert_close(record.pop("task_index"), WHOLE)
        before.pop("task_index")
        assert record == before
    if version != "v2.0":
        for found, expected in zip(of_episodes(copy, "task_index"), OF_EPISODES, strict=True):
            assert_close(found, expected)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_columns_that_are_replaced_renew_their_statistics(version: str, tmp_path: Path) -> None:
    corpus, copy = tmp_path / "corpus", tmp_path / "copy"
    DataSet(version=version, columns={"next.reward": [0.5] * 12}).write(corpus)
    add_statistics(corpus, "next.reward")
    labels = write_labels_of(tmp_path / "labels", corpus, MARKS, goals=GOALS)
    export(corpus, labels, to="lerobot", goal="cup", output=copy)
    rewards = [[0, 0, 1, 0, 0], [0, 0, 0], [0, 0, 0, 0]]  # frame 3 of the first has the cup up
    for found, own in zip(of_episodes(copy, "next.reward"), rewards, strict=True):
        expected = {"min": [0], "max": [max(own)], "mean": [float(np.mean(own))], "std": [float(np.std(own))]}
        assert_close(found, {**expected, "count": [len(own)], "q50": [0.0], "mode": [9]})


def test_statistics_that_are_not_there_are_not_added(tmp_path: Path) -> None:
    corpus, copy = DataSet().write(tmp_path / "corpus"), tmp_path / "copy"
    labels = write_labels_of(tmp_path / "labels", corpus, MARKS, goals=GOALS)
    export(corpus, labels, to="lerobot-hindsight", output=copy)
    [path] = copy.glob("meta/episodes/**/*.parquet")
    assert not [name for name in pq.read_schema(path).names if name.startswith("stats/task_index")]
    assert not (copy / "meta/stats.json").exists()
