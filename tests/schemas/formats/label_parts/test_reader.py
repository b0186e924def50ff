import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from labelled_corpora import GOALS, episode, holds, label_metadata, label_table, write_corpus, write_labels

from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.formats.label_parts import reader as label_parts
from vlm_rewards.schemas.formats.label_parts.reader import check_units, open_labels, part_of_unit, read_labels

A, B = holds("..X", ".X.", "...", "..."), holds("X.", "..", ".X", ".X")


@pytest.fixture
def labelled(tmp_path: Path) -> tuple[Path, Path]:
    corpus = write_corpus(tmp_path / "corpus", [[episode("a", 3)], [episode("b", 2)]])
    return corpus, write_labels(tmp_path / "labels", corpus, [[("a", A)], [("b", B)]])


def test_labels_come_back_by_unit(labelled: tuple[Path, Path]) -> None:
    corpus, folder = labelled
    labels = open_labels(folder)
    assert labels.metadata == label_metadata()
    units = open_corpus(corpus).units()
    assert check_units(labels, open_corpus(corpus), units) == 2
    for unit, (episode_id, achieved) in zip(units, [("a", A), ("b", B)], strict=True):
        (read,) = read_labels(part_of_unit(labels, unit))
        assert read.episode_id == episode_id
        assert read.frame_indices.tolist() == list(range(len(achieved)))
        assert read.scores.dtype == np.float32
        assert ((read.scores > 0.5) == achieved).all()


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("rows_a_batch", [1, 2, 3, 100])
def test_batches_cut_nowhere_in_particular(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sparse: bool, rows_a_batch: int
) -> None:
    monkeypatch.setattr(label_parts, "_BATCH_BYTES", 4 * len(GOALS) * rows_a_batch)
    random = np.random.default_rng(0)
    scores = {name: random.random((length, 4)).astype(np.float32) for name, length in (("a", 5), ("b", 1), ("c", 4))}
    rows = [(name, frame, row) for name, values in scores.items() for frame, row in enumerate(values)]
    metadata = label_metadata(sparse=sparse)
    pq.write_table(label_table(rows, metadata), tmp_path / "part.parquet")
    read = list(read_labels(tmp_path / "part.parquet"))
    assert [item.episode_id for item in read] == ["a", "b", "c"]
    for item in read:
        expected = scores[item.episode_id]
        if sparse:  # what is not listed is at or under any threshold
            expected = np.where(expected > metadata.rule.threshold_array, expected, -np.inf)
        assert (item.scores == expected).all()


def test_a_frame_without_a_label_has_no_row(tmp_path: Path) -> None:
    rows = [("a", frame, np.zeros(4, np.float32)) for frame in (0, 1, 3)]
    pq.write_table(label_table(rows, label_metadata()), tmp_path / "part.parquet")
    (read,) = read_labels(tmp_path / "part.parquet")
    assert read.frame_indices.tolist() == [0, 1, 3]
    assert read.scores.shape == (3, 4)


def test_a_part_without_rows_has_no_episodes(tmp_path: Path) -> None:
    for sparse in (False, True):
        pq.write_table(label_table([], label_metadata(sparse=sparse)), tmp_path / "part.parquet")
        assert list(read_labels(tmp_path / "part.parquet")) == []


def test_unfinished_labels_are_refused(labelled: tuple[Path, Path]) -> None:
    (labelled[1] / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"labels must be finished, got .* without manifest.json"):
        open_labels(labelled[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"max_unit_bytes": None},
            "max_unit_bytes in .* must be a whole number of at least 1, got nothing. Remove the",
        ),
        ({"max_unit_bytes": "4"}, 'max_unit_bytes in .*settings.json must be a whole number of at least 1, got "4"'),
        ({"corpus_options": [1]}, r"corpus_options in .* must be an object or null, got \[1\]"),
    ],
)
def test_settings_that_lack_what_labels_are_read_with_are_refused(
    labelled: tuple[Path, Path], change: dict, message: str
) -> None:
    path = labelled[1] / "settings.json"
    record = json.loads(path.read_text())
    record["settings"] |= change
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=message):
        open_labels(labelled[1])


def test_another_kind_of_parts_is_refused(labelled: tuple[Path, Path]) -> None:
    corpus, folder = labelled
    part = folder / "parts" / "shard-000.parquet"
    part.write_bytes((corpus / "shard-000.parquet").read_bytes())
    with pytest.raises(ValueError, match="a part must be as it was written, .* bytes, got .*shard-000.parquet"):
        open_labels(folder)
    part.with_name("copy.parquet").write_bytes(part.read_bytes())
    with pytest.raises(ValueError, match="a table of labels must say so") as caught:
        list(read_labels(part.with_name("copy.parquet")))
    assert str(part.with_name("copy.parquet")) in caught.value.__notes__[0]


def test_labels_of_another_corpus_are_refused(labelled: tuple[Path, Path], tmp_path: Path) -> None:
    labels = open_labels(labelled[1])
    larger = write_corpus(tmp_path / "larger", [[episode("a", 3)], [episode("b", 2)], [episode("c", 2)]])
    with pytest.raises(
        ValueError, match="must have a part for every unit of the corpus, got none for unit 'shard-002'"
    ):
        check_units(labels, open_corpus(larger), open_corpus(larger).units())
    replaced = write_corpus(tmp_path / "replaced", [[episode("a", 3)], [episode("b", 3)]])
    with pytest.raises(ValueError, match=r"got other contents in .*shard-001"):
        check_units(labels, open_corpus(replaced), open_corpus(replaced).units())


def test_a_part_that_was_cut_short_since_is_refused(labelled: tuple[Path, Path]) -> None:
    corpus, folder = labelled
    labels = open_labels(folder)
    part = folder / "parts" / "shard-001.parquet"
    size = part.stat().st_size
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(
        ValueError, match=rf"must be as it was written, got .* with {size - 20} bytes instead of {size}"
    ):
        check_units(labels, open_corpus(corpus), open_corpus(corpus).units())


def test_the_digest_is_of_the_labels_contents(labelled: tuple[Path, Path], tmp_path: Path) -> None:
    corpus, folder = labelled
    again = write_labels(tmp_path / "again", corpus, [[("a", A)], [("b", B)]])
    other = write_labels(tmp_path / "other", corpus, [[("a", A)], [("b", ~B)]])
    assert open_labels(folder).digest == open_labels(again).digest != open_labels(other).digest


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", 0), ("b", 0), ("a", 1)], "must be in successive rows, got 'a' in two places"),
        ([("a", 0), ("a", 0)], r"in the order of its frames, got frames \[0, 0\] in episode 'a'"),
        ([("a", 1), ("a", 0)], r"in the order of its frames, got frames \[1, 0\]"),
        ([("a", -1)], r"in the order of its frames, got frames \[-1\]"),
    ],
)
def test_rows_out_of_order_are_refused(tmp_path: Path, rows: list[tuple[str, int]], message: str) -> None:
    table = label_table([(*row, np.zeros(4, np.float32)) for row in rows], label_metadata())
    pq.write_table(table, tmp_path / "part.parquet")
    with pytest.raises(ValueError, match=message) as caught:
        list(read_labels(tmp_path / "part.parquet"))
    assert "part.parquet" in caught.value.__notes__[0]


def test_nan_scores_are_refused(tmp_path: Path) -> None:
    rows = [("a", 0, np.zeros(4, np.float32)), ("a", 1, np.array([0, np.nan, 0, 0], np.float32))]
    pq.write_table(label_table(rows, label_metadata()), tmp_path / "part.parquet")
    with pytest.raises(ValueError, match="scores must be numbers, got NaN for goal 1 in frame 1 of episode 'a'"):
        list(read_labels(tmp_path / "part.parquet"))


def test_a_goal_index_out_of_range_is_refused(tmp_path: Path) -> None:
    metadata = label_metadata(sparse=True)
    narrow = dataclasses.replace(metadata, goals=GOALS[:2])
    table = label_table([("a", 0, np.ones(4, np.float32))], metadata).replace_schema_metadata(
        label_table([], narrow).schema.metadata
    )
    pq.write_table(table, tmp_path / "part.parquet")
    with pytest.raises(ValueError, match="goal_indices must lie between 0 and 1, got 0 to 3"):
        list(read_labels(tmp_path / "part.parquet"))


@pytest.mark.parametrize("keep", [0, 100, -10])
def test_a_file_cut_short_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "part.parquet"
    pq.write_table(label_table([("a", 0, np.zeros(4, np.float32))], label_metadata()), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="a part of labels must be a complete Parquet file"):
        list(read_labels(path))


def test_labels_of_version_0_2_are_known_by_the_digest_it_made(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", [[episode("a", 2)]])
    labels = open_labels(write_labels(tmp_path / "labels", corpus, [[("a", holds("X", ".", "X", "."))]]))
    opened = open_corpus(corpus)
    (unit,) = opened.units()
    marker = labels.folder / "markers" / f"{unit.name}.json"
    record = json.loads(marker.read_text())
    record["unit"]["content"] = opened.folder.digest_of_version_0_2(unit.files[0])
    record["unit"]["shard"] = str(corpus / record["unit"].pop("files")[0])
    marker.write_text(json.dumps(record))
    assert check_units(labels, opened, [unit]) == 1
    record["unit"]["content"] = "0" * 16
    marker.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="labels must be of the shard they are used with, got other contents in"):
        check_units(labels, opened, [unit])
