"""Exports into LeRobot: rewards of hand-drawn labels in every row, whatever the dialect and the cut into files."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from labelled_corpora import holds, write_labels_of
from lerobot_datasets import DataSet

from vlm_rewards.pipelines.export.exporting import export
from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.formats.lerobot_corpus.exports import SIDECAR
from vlm_rewards.schemas.goals import Goal

GOALS = (Goal("cup", "the cup is up", instructions=("lift the cup",)), Goal("drawer", "the drawer is open"))
# Per episode, whether each goal holds in each frame.
MARKS = {
    "episode_000000": holds("..X.X", "....."),
    "episode_000001": holds("...", ".XX"),
    "episode_000002": holds("X..X", "...."),
}
LAYOUTS = {
    "v2.1": DataSet(version="v2.1"),
    "recorder": DataSet(),
    "converter": DataSet(recorder=False),
    "cut": DataSet(per_data_file=1),
}


def label(corpus: Path, folder: Path, *, sparse: bool = False, without: Sequence[tuple[str, int]] = ()) -> Path:
    """Writes labels by MARKS."""
    return write_labels_of(folder, corpus, MARKS, goals=GOALS, sparse=sparse, without=without)


def rows_of(folder: Path, *columns: str) -> dict[str, list]:
    """Columns of all data files, sorted by index."""
    tables = [pq.read_table(file, columns=["index", *columns]) for file in folder.glob("data/**/*.parquet")]
    rows = sorted((row for table in tables for row in table.to_pylist()), key=lambda row: row["index"])
    return {name: [row[name] for row in rows] for name in columns}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_columns_of_a_copy_say_what_the_next_frame_shows(layout: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    LAYOUTS[layout].write(corpus)
    labels = label(corpus, tmp_path / "labels")
    summary = export(corpus, labels, to="lerobot", goal="cup", all_scores=True, output=tmp_path / "copy")
    found = rows_of(tmp_path / "copy", "next.reward", "next.success", "next.done", "vlm.scores")
    assert found["next.reward"] == [0, 1, 0, 1, 1, 0, 0, 0, 0, 0, 1, 1]
    assert found["next.success"] == [bool(reward) for reward in found["next.reward"]]
    assert found["next.done"] == [frame in (4, 7, 11) for frame in range(12)]
    assert np.array(found["vlm.scores"]) == pytest.approx(np.where(np.concatenate([*MARKS.values()]), 0.9, 0.1))
    info = json.loads((tmp_path / "copy" / "meta" / "info.json").read_text())
    mark = {"vlm_rewards": {"labels_of": "some/model"}}
    assert info["features"]["next.success"] == {"dtype": "bool", "shape": [1], "names": None, **mark}
    assert info["features"]["vlm.scores"] == {"dtype": "float32", "shape": [2], "names": ["cup", "drawer"], **mark}
    assert summary.lines[0] == "12 rows have next.reward, next.success, next.done, vlm.scores"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_everything_else_of_a_copy_is_as_it_was(layout: str, tmp_path: Path) -> None:
    corpus, copy = tmp_path / "corpus", tmp_path / "copy"
    LAYOUTS[layout].write(corpus)
    export(corpus, label(corpus, tmp_path / "labels"), to="lerobot", goal="cup", output=copy)
    names = sorted(path.relative_to(corpus) for path in corpus.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(copy) for path in copy.rglob("*") if path.is_file())
    for name in names:
        if name.parts[0] != "data":
            assert (copy / name).read_bytes() == (corpus / name).read_bytes() or name.name == "info.json"
            continue
        before, after = pq.ParquetFile(corpus / name), pq.ParquetFile(copy / name)
        assert after.num_row_groups == before.num_row_groups
        assert after.schema_arrow.names == [*before.schema_arrow.names, "next.reward", "next.success", "next.done"]
        assert after.read().select(before.schema_arrow.names).equals(before.read())
        own = before.schema_arrow.metadata or {}
        assert (after.schema_arrow.metadata or {}).keys() == own.keys()
        if b"huggingface" in own:
            known, features = (
                json.loads(metadata[b"huggingface"])["info"]["features"]
                for metadata in (own, after.schema_arrow.metadata)
            )
            assert [*features] == [*known, "next.reward", "next.success", "next.done"]
            assert features["next.success"] == {"dtype": "bool", "_type": "Value"}
    frames = [[[*episode.images["front"]] for episode in open_corpus(folder)] for folder in (corpus, copy)]
    assert all(np.array_equal(a, b) for a, b in zip(*frames, strict=True))


@pytest.mark.parametrize("list_type", ["List", "Sequence"])
def test_a_vector_is_named_as_the_files_own_lists_are(list_type: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    DataSet().write(corpus)
    [file] = (corpus / "data").rglob("*.parquet")
    table = pq.read_table(file)
    action = {"feature": {"dtype": "float32", "_type": "Value"}, "length": 3, "_type": list_type}
    metadata = {b"huggingface": json.dumps({"info": {"features": {"action": action}}}).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), file)
    labels = label(corpus, tmp_path / "labels")
    export(corpus, labels, to="lerobot", goal="cup", all_scores=True, output=tmp_path / "copy")
    schema = pq.read_schema(tmp_path / "copy" / file.relative_to(corpus))
    features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    assert features["vlm.scores"] == {
        "feature": {"dtype": "float32", "_type": "Value"},
        "length": 2,
        "_type": list_type,
    }


def test_in_place_changes_the_data_set_and_columns_that_are_there_are_replaced(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    DataSet(columns={"next.reward": [0.5] * 12}).write(corpus)
    labels = label(corpus, tmp_path / "labels")
    summary = export(corpus, labels, to="lerobot", goal="drawer", in_place=True)
    assert rows_of(corpus, "next.reward")["next.reward"] == [0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0]
    assert summary.folder == corpus
    assert summary.lines[1] == "replaced columns that were there: next.reward"
    assert sorted(path.name for path in corpus.iterdir()) == ["data", "meta", "videos"]
    episode = next(iter(open_corpus(corpus)))
    assert episode.rewards is not None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_sidecar_holds_the_score_of_every_frame(layout: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    LAYOUTS[layout].write(corpus)
    summary = export(corpus, label(corpus, tmp_path / "labels"), to="ra-bc", goal="cup", output=tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / SIDECAR)
    assert {field.name: str(field.type) for field in table.schema} == {
        "index": "int64",
        "episode_index": "int64",
        "frame_index": "int64",
        "progress_sparse": "float",
    }
    assert table.schema.metadata == {b"reward_model_path": b"some/model"}
    assert table["index"].to_pylist() == [*range(12)]
    assert table["episode_index"].to_pylist() == [0] * 5 + [1] * 3 + [2] * 4
    assert table["frame_index"].to_pylist() == [*range(5), *range(3), *range(4)]
    expected = np.where(np.concatenate([*MARKS.values()])[:, 0], 0.9, 0.1)
    assert table["progress_sparse"].to_pylist() == pytest.approx(expected)
    # To the last frame of episode 0, three rows rise; of episode 1, none; of episode 2, two: 5 of 12.
    assert "weight 1 to 42% of the rows and weight 0 to 0%" in summary.lines[1]


def test_the_sidecar_goes_beside_the_data_where_it_is_asked_for(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    DataSet().write(corpus)
    labels = label(corpus, tmp_path / "labels")
    export(corpus, labels, to="ra-bc", goal="cup", smooth=3, in_place=True)
    scores = pq.read_table(corpus / SIDECAR)["progress_sparse"].to_pylist()
    assert scores[:5] == pytest.approx([0.1, 1.1 / 3, 1.1 / 3, 1.9 / 3, 0.5])
    export(corpus, labels, to="verdicts", output=tmp_path / "verdicts", goal="cup")  # and it is still the corpus it was


def test_verdicts_of_lerobot_are_numbers_of_episodes(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    DataSet(first_index=0).write(corpus)
    export(corpus, label(corpus, tmp_path / "labels"), to="verdicts", goal="cup", output=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "successful.json").read_text()) == [0, 2]
    export(corpus, tmp_path / "labels", to="verdicts", output=tmp_path / "own")
    verdicts = pq.read_table(tmp_path / "own" / "verdicts.parquet").to_pylist()
    assert [row["goal_id"] for row in verdicts] == ["cup", None, "cup"]


def test_what_does_not_fill_every_row_is_refused(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    DataSet().write(corpus)
    labels = label(corpus, tmp_path / "labels", without=[("episode_000001", 1)])
    for name in ("ra-bc", "lerobot"):
        with pytest.raises(ValueError, match=rf"{name} fills every row .* 'episode_000001' \(2 labels for 3 frames\)"):
            export(corpus, labels, to=name, goal="cup", output=tmp_path / "out")
    sparse = label(corpus, tmp_path / "sparse", sparse=True)
    with pytest.raises(ValueError, match=r"writes the score of every frame: got sparse labels"):
        export(corpus, sparse, to="ra-bc", goal="cup", output=tmp_path / "out")
    with pytest.raises(ValueError, match=r"writes the score of every frame: got sparse labels"):
        export(corpus, sparse, to="lerobot", goal="cup", all_scores=True, output=tmp_path / "out")
    with pytest.raises(ValueError, match=r"lerobot needs a goal for every episode: got 1 episodes without one"):
        export(corpus, sparse, to="lerobot", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    export(corpus, sparse, to="lerobot", goal="cup", output=tmp_path / "out")
    assert rows_of(tmp_path / "out", "next.reward")["next.reward"] == [0, 1, 0, 1, 1, 0, 0, 0, 0, 0, 1, 1]


def test_without_actions_a_step_lies_between_two_rows(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    DataSet().write(corpus)
    info = json.loads((corpus / "meta" / "info.json").read_text())
    del info["features"]["action"]
    (corpus / "meta" / "info.json").write_text(json.dumps(info))
    for file in (corpus / "data").rglob("*.parquet"):
        pq.write_table(pq.read_table(file).drop_columns("action"), file)
    export(corpus, label(corpus, tmp_path / "labels"), to="lerobot", goal="cup", output=tmp_path / "copy")
    assert rows_of(tmp_path / "copy", "next.reward")["next.reward"] == [0, 1, 0, 1, 1, 0, 0, 0, 0, 0, 1, 1]


def test_a_corpus_of_another_format_is_refused(tmp_path: Path) -> None:
    from labelled_corpora import episode, write_corpus, write_labels

    corpus = write_corpus(tmp_path / "corpus", [[episode("a", 3)]])
    labels = write_labels(tmp_path / "labels", corpus, [[("a", holds("..X", "...", "...", "..."))]])
    with pytest.raises(ValueError, match=r"'lerobot' takes corpora of the format lerobot: got Corpus.*parquet"):
        export(corpus, labels, to="lerobot", goal="ball", output=tmp_path / "out")


def test_a_copy_inside_the_corpus_is_refused(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    DataSet().write(corpus)
    labels = label(corpus, tmp_path / "labels")
    with pytest.raises(ValueError, match="a copy must lie outside of what it copies"):
        export(corpus, labels, to="lerobot", goal="cup", output=corpus / "copy")


def test_one_goal_judges_episodes_whose_task_changes(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    changing = ("lift the cup", "lift the cup", "open the drawer", "open the drawer", "open the drawer")
    DataSet(tasks=(changing, "open the drawer", "lift the cup")).write(corpus)
    labels = label(corpus, tmp_path / "labels")
    export(corpus, labels, to="lerobot", goal="cup", output=tmp_path / "copy")
    assert rows_of(tmp_path / "copy", "next.reward")["next.reward"] == [0, 1, 0, 1, 1, 0, 0, 0, 0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"'episode_000000' \(several instructions\)"):
        export(corpus, labels, to="lerobot", output=tmp_path / "own")
