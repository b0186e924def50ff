"""Exports into Parquet: columns of hand-drawn labels beside everything that was there."""

from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from labelled_corpora import GOALS, episode, holds, write_corpus, write_labels

from vlm_rewards.pipelines.export.exporting import export
from vlm_rewards.schemas.formats.corpus import open_corpus

BALL = {"a": "..X.X", "b": ".X.", "c": "XX"}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A corpus of two files and its labels of the ball; the frame after b's last action is missing."""
    shards = [
        [episode("a", 5, instruction="go to the ball"), episode("b", 3, final_frame=False, instruction="at the ball")],
        [episode("c", 2, instruction="go to the ball")],
    ]
    corpus = write_corpus(tmp_path / "corpus", shards)
    labels = [
        [(item.episode_id, holds(BALL[item.episode_id], *["." * item.num_frames] * 3)) for item in shard]
        for shard in shards
    ]
    settings = write_labels(tmp_path / "labels", corpus, labels) / "settings.json"
    settings.write_text(settings.read_text().replace('"max_unit_bytes"', '"model": "m", "max_unit_bytes"'))
    return tmp_path


def rows_of(folder: Path) -> dict[str, list]:
    tables = [pq.read_table(path) for path in sorted(folder.rglob("*.parquet"))]
    return {name: [v for table in tables for v in table[name].to_pylist()] for name in tables[0].column_names}


def test_columns_hold_what_the_labels_say(work: Path) -> None:
    summary = export(work / "corpus", work / "labels", to="parquet", all_scores=True, output=work / "copy")
    rows, before = rows_of(work / "copy"), rows_of(work / "corpus")
    assert list(rows) == [*before, "vlm.goal_id", "vlm.score", "vlm.success", "vlm.reward", "vlm.scores"]
    assert {name: rows[name] for name in before} == before
    marks = "".join(BALL.values())
    assert rows["vlm.goal_id"] == ["ball"] * 10
    assert rows["vlm.success"] == [mark == "X" for mark in marks]
    assert rows["vlm.score"] == pytest.approx([0.9 if mark == "X" else 0.1 for mark in marks])
    # a: four actions and a final frame. b: three, the last of which repeats the reward before it. c: one, and a final frame.
    assert rows["vlm.reward"] == [0, 1, 0, 1, None, 1, 0, 0, 1, None]
    assert np.array(rows["vlm.scores"])[:, 0].tolist() == rows["vlm.score"]
    assert {len(row) for row in rows["vlm.scores"]} == {len(GOALS)}
    assert summary.lines == ("10 rows have vlm.goal_id, vlm.score, vlm.success, vlm.reward, vlm.scores",)


def test_datasets_loads_the_columns_with_the_pictures(work: Path) -> None:
    export(work / "corpus", work / "labels", to="parquet", all_scores=True, output=work / "copy")
    files = [str(path) for path in sorted((work / "copy").rglob("*.parquet"))]
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(work / "cache"))
    assert isinstance(loaded.features["observation.images.main"], datasets.Image)
    assert loaded.features["vlm.success"] == datasets.Value("bool")
    assert loaded.features["vlm.scores"] == datasets.List(datasets.Value("float32"), length=len(GOALS))
    assert loaded[2]["vlm.success"] is True
    assert np.asarray(loaded[2]["observation.images.main"])[0, 0, 0] == 2


def test_the_copy_is_the_corpus_it_was(work: Path) -> None:
    export(work / "corpus", work / "labels", to="parquet", output=work / "copy")
    for before, after in zip(open_corpus(work / "corpus"), open_corpus(work / "copy"), strict=True):
        assert repr(after) == repr(before)
        assert list(after.images["main"]) == list(before.images["main"])
    for path in (work / "corpus").iterdir():
        before, after = pq.ParquetFile(path).metadata, pq.ParquetFile(work / "copy" / path.name).metadata
        assert [after.row_group(k).num_rows for k in range(after.num_row_groups)] == [
            before.row_group(k).num_rows for k in range(before.num_row_groups)
        ]


def test_in_place_and_again_with_another_goal(work: Path) -> None:
    export(work / "corpus", work / "labels", to="parquet", in_place=True)
    names = list(rows_of(work / "corpus"))
    with pytest.raises(ValueError, match="labels must be of the shard they are used with"):
        export(work / "corpus", work / "labels", to="parquet", goal="box", in_place=True)
    assert list(rows_of(work / "corpus")) == names


def test_an_episode_that_goes_on_in_the_next_file(work: Path, tmp_path: Path) -> None:
    whole = pq.read_table(work / "corpus" / "shard-000.parquet")
    corpus = tmp_path / "cut"
    corpus.mkdir()
    pq.write_table(whole.slice(0, 3), corpus / "part-0.parquet")
    pq.write_table(whole.slice(3), corpus / "part-1.parquet")
    assert [unit.files for unit in open_corpus(corpus).units()] == [
        ("part-0.parquet", "part-1.parquet"),
        ("part-1.parquet",),
    ]
    marks = [[(name, holds(BALL[name], *["." * len(BALL[name])] * 3))] for name in ("a", "b")]
    write_labels(tmp_path / "cut-labels", corpus, marks)
    settings = tmp_path / "cut-labels" / "settings.json"
    settings.write_text(settings.read_text().replace('"max_unit_bytes"', '"model": "m", "max_unit_bytes"'))
    export(corpus, tmp_path / "cut-labels", to="parquet", output=tmp_path / "copy")
    rows = rows_of(tmp_path / "copy")
    assert rows["vlm.reward"] == [0, 1, 0, 1, None, 1, 0, 0]
    assert pq.ParquetFile(tmp_path / "copy" / "part-0.parquet").metadata.num_rows == 3
