from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled_corpora import GOALS, label_metadata, label_table

from vlm_rewards.schemas.formats.label_parts import rows as label_rows
from vlm_rewards.schemas.formats.label_parts.reader import read_labels
from vlm_rewards.schemas.formats.label_parts.rows import EpisodeRows, PartRows, locate_episodes

LENGTHS = {"a": 3, "b": 1, "c": 5}


def _write(path: Path, *, row_group_size: int = 2, sparse: bool = False) -> Path:
    rng = np.random.default_rng(0)
    rows = [(name, frame, rng.random(4, np.float32)) for name, length in LENGTHS.items() for frame in range(length)]
    pq.write_table(label_table(rows, label_metadata(sparse=sparse)), path, row_group_size=row_group_size)
    return path


def test_episodes_are_located_by_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path / "part.parquet")
    expected = [EpisodeRows("a", 0, 3), EpisodeRows("b", 3, 4), EpisodeRows("c", 4, 9)]
    assert list(locate_episodes(path)) == expected
    monkeypatch.setattr(label_rows, "_ID_ROWS", 2)  # an episode then goes on in the next batch
    assert list(locate_episodes(path)) == expected


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("row_group_size", [1, 2, 100])
def test_episodes_are_read_in_any_order(tmp_path: Path, row_group_size: int, sparse: bool) -> None:
    path = _write(tmp_path / "part.parquet", row_group_size=row_group_size, sparse=sparse)
    rows = PartRows(path, label_metadata(sparse=sparse))
    whole = {episode.episode_id: episode for episode in read_labels(path)}
    for place in reversed(list(locate_episodes(path))):
        episode = rows.read(place)
        np.testing.assert_array_equal(episode.frame_indices, whole[place.episode_id].frame_indices)
        np.testing.assert_array_equal(episode.scores, whole[place.episode_id].scores)
    rows.close()


def test_one_row_group_is_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path / "part.parquet", row_group_size=4)  # a and b | c | c
    rows = PartRows(path, label_metadata())
    read: list[int] = []
    original = rows._file.read_row_group
    monkeypatch.setattr(rows, "_file", pq.ParquetFile(path))
    monkeypatch.setattr(rows._file, "read_row_group", lambda group: read.append(group) or original(group))
    for place in locate_episodes(path):
        rows.read(place)
    assert read == [0, 1, 2]


def test_a_file_without_ids_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(ValueError, match="must be a complete Parquet file, got .*text.parquet"):
        list(locate_episodes(tmp_path / "text.parquet"))
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="a table of labels must say so in its schema's metadata, got 'no such entry"):
        list(locate_episodes(tmp_path / "other.parquet"))


def test_an_error_names_the_part(tmp_path: Path) -> None:
    rows = [("a", 0, np.full(len(GOALS), np.nan, np.float32))]
    pq.write_table(label_table(rows, label_metadata()), tmp_path / "part.parquet")
    with pytest.raises(ValueError, match="scores must be numbers, got NaN") as refused:
        PartRows(tmp_path / "part.parquet", label_metadata()).read(EpisodeRows("a", 0, 1))
    assert refused.value.__notes__ == [f"in the labels {tmp_path / 'part.parquet'}"]
