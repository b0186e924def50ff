"""Parquet of other people: columns under other names."""

import dataclasses
import json
import pickle
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_corpora import frame, read_whole

from vlm_rewards.schemas.episodes import Episode
from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.formats.parquet_corpus.columns import read_columns
from vlm_rewards.schemas.manifests import Failure
from vlm_rewards.schemas.pictures import encode_png

COLUMNS = {"episode_id": "episode_index", "frame_index": "step", "instruction": "language_instruction"}
OPTIONS = {"columns": json.dumps(COLUMNS)}
BRIDGE = Path(__file__).resolve().parents[5] / "shared" / "corpora" / "bridge-hf-parquet"


def rows(num_episodes: int = 3, num_frames: int = 4, first: int = 0) -> list[dict]:
    return [
        {
            "episode_index": episode,
            "step": step,
            "image": encode_png(frame(10 * episode + step)),
            "wrist.image": encode_png(frame(500 + 10 * episode + step)),
            "language_instruction": f"do {episode}",
            "action": [float(step), 0.5],
        }
        for episode in range(first, first + num_episodes)
        for step in range(num_frames)
    ]


def write(path: Path, table: list[dict], pictures: pa.DataType | None = None, row_group_size: int = 5) -> None:
    """Writes rows with pictures as `datasets` stores them, a struct of bytes and path, or as plain bytes."""
    kind = pictures or pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [
            ("episode_index", pa.int64()),
            ("step", pa.int64()),
            ("image", kind),
            ("wrist.image", kind),
            ("language_instruction", pa.string()),
            ("action", pa.list_(pa.float32(), 2)),
        ]
    )
    if pa.types.is_struct(kind):
        table = [{**row, **{name: {"bytes": row[name]} for name in ("image", "wrist.image")}} for row in table]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(table, schema=schema), path, row_group_size=row_group_size)


@pytest.mark.parametrize("pictures", [None, pa.binary(), pa.large_binary()])
@pytest.mark.parametrize("max_bytes", [1, 2**28])
def test_columns_of_other_names_are_read_as_ours(tmp_path, pictures, max_bytes):
    write(tmp_path / "a.parquet", rows(), pictures)
    corpus = pickle.loads(pickle.dumps(open_corpus(tmp_path, OPTIONS)))
    assert corpus.features.cameras == ("image", "wrist.image")
    assert (corpus.features.action_size, corpus.features.has_instruction) == (2, True)
    units = corpus.units(max_bytes)
    assert [episode_id for unit in units for episode_id in corpus.episode_ids(unit)] == ["0", "1", "2"]
    read = [item for unit in units for item in read_whole(corpus.episodes(unit))]
    for number, episode in enumerate(read):
        assert isinstance(episode, Episode)
        assert (episode.episode_id, episode.instruction) == (str(number), f"do {number}")
        assert list(episode.images["image"]) == [row["image"] for row in rows()[4 * number : 4 * number + 4]]
        assert list(episode.images["wrist.image"]) == [row["wrist.image"] for row in rows()[4 * number :][:4]]
        assert episode.actions.tolist() == [[0, 0.5], [1, 0.5], [2, 0.5], [3, 0.5]]
    one = [item for unit in units for item in corpus.episodes(unit, cameras=["wrist.image"], fields=())]
    assert [list(item.images) for item in one] == [["wrist.image"]] * 3


def test_an_episode_goes_on_in_the_next_file(tmp_path):
    table = rows()
    for name, part in (("a", table[:6]), ("b", table[6:])):
        write(tmp_path / f"{name}.parquet", part)
    corpus = open_corpus(tmp_path, OPTIONS)
    read = [item for unit in corpus.units() for item in read_whole(corpus.episodes(unit))]
    assert [(item.episode_id, item.num_frames) for item in read] == [("0", 4), ("1", 4), ("2", 4)]


def test_a_camera_can_be_named_and_a_column_of_our_name_gives_way(tmp_path):
    table = pa.table(
        {
            "episode_id": ["x"] * 4,  # not what counts here
            "frame_index": [0, 1, 0, 1],
            "trajectory": ["a", "a", "b", "b"],
            "picture": [encode_png(frame(index)) for index in range(4)],
            "depth": [b""] * 4,
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    columns = {"episode_id": "trajectory", "observation.images.front": "picture"}
    corpus = open_corpus(tmp_path, {"columns": json.dumps(columns)})
    assert corpus.features.cameras == ("front",)
    (unit,) = corpus.units()
    assert [item.episode_id for item in read_whole(corpus.episodes(unit))] == ["a", "b"]


def test_what_datasets_writes_is_read_without_a_conversion(tmp_path):
    features = datasets.Features(
        {"episode_index": datasets.Value("int64"), "step": datasets.Value("int32"), "image": datasets.Image()}
    )
    pixels = [frame(index, 16) for index in range(6)]
    table = {"episode_index": [0, 0, 0, 1, 1, 1], "step": [0, 1, 2] * 2, "image": pixels}
    datasets.Dataset.from_dict(table, features=features).to_parquet(tmp_path / "train-00000-of-00001.parquet")
    columns = {"episode_id": "episode_index", "frame_index": "step"}
    corpus = open_corpus(tmp_path, {"columns": json.dumps(columns)})
    (unit,) = corpus.units()
    assert [item.num_frames for item in read_whole(corpus.episodes(unit))] == [3, 3]


def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    write(tmp_path / "a.parquet", rows())
    with pytest.raises(ValueError, match=r"must have the columns .*Say which they are, as --column episode_id=NAME"):
        open_corpus(tmp_path)
    message = r"the column for episode_id must be in the file, got 'episode', where its columns are episode_index, .*: --column"
    with pytest.raises(ValueError, match=message):
        open_corpus(tmp_path, {"columns": json.dumps({**COLUMNS, "episode_id": "episode"})})
    pq.write_table(pa.table({"episode_index": [1]}), tmp_path / "b.parquet")
    corpus = open_corpus(tmp_path, OPTIONS)
    read = [item for unit in corpus.units() for item in read_whole(corpus.episodes(unit))]
    assert [item for item in corpus.units() if corpus.episode_ids(item) == []]
    assert isinstance(read[-1], Failure)
    assert read[-1].reason == "unknown layout"
    assert "the column for frame_index must be in the file, got 'step'" in read[-1].detail


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("episode_id", r"columns must be names by ours, got 'episode_id'. Give each as --column OURS=NAME"),
        ('["a"]', "columns must be names by ours"),
        ('{"episode_id": 3}', "columns must be names by ours"),
        ('{"episode_id": ""}', "columns must be names by ours"),
        (
            '{"episod": "a"}',
            r"must stand for one of episode_id, frame_index, action, .*<camera>, got 'episod'. Write one",
        ),
        ('{"observation.images.": "a"}', "must stand for one of"),
        ('{"episode_id": "a", "frame_index": "a"}', "a column must stand for one of ours, got 'a' for two. Remove one"),
    ],
)
def test_a_mapping_that_is_none_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        read_columns(text)


@pytest.mark.skipif(not BRIDGE.is_dir(), reason="the real corpus is not on this machine")
def test_real_frames_of_bridge_are_read():
    corpus = open_corpus(BRIDGE, OPTIONS)
    assert corpus.features.cameras == ("image", "wrist_image")
    (unit,) = corpus.units()
    read = read_whole(corpus.episodes(unit))
    assert [(item.episode_id, item.num_frames) for item in read] == [(str(number), 10) for number in range(6)]
    table = pq.read_table(BRIDGE / "train-00000-of-00001.parquet").to_pylist()
    assert [picture for item in read for picture in item.images["image"]] == [row["image"]["bytes"] for row in table]
    assert np.allclose([item.actions[0] for item in read], [row["action"] for row in table[::10]])
    assert dataclasses.asdict(corpus.features)["has_instruction"]
