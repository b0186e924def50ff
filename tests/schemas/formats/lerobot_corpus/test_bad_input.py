"""LeRobot data sets that are not as they should be: the message names the file, what was found and what to do."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_datasets import FPS, DataSet
from small_videos import copy_packets, number_of, numbered_frame, write_video

from vlm_rewards.schemas.episodes import Episode
from vlm_rewards.schemas.formats.corpus import BrokenEpisodeError, Corpus, open_corpus
from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.lerobot_corpus.episodes import episode_id_of, episode_index_of
from vlm_rewards.schemas.formats.lerobot_corpus.rows import episode_rows
from vlm_rewards.schemas.manifests import Failure
from vlm_rewards.schemas.pictures import decoded_frame

FRONT = "observation.images.front"
IMAGES = {FRONT: "image"}
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
VIDEO = f"videos/{FRONT}/chunk-000/file-000.mp4"


def read(corpus: Corpus, **options: Any) -> list[Episode | Failure]:
    return [item for unit in corpus.units() for item in corpus.episodes(unit, **options)]


def outcomes(corpus: Corpus) -> list[str]:
    """By episode, the numbers of its frames in words, or why it failed."""
    found = []
    for item in read(corpus, fields=()):
        try:
            found.append(
                str(item)
                if isinstance(item, Failure)
                else " ".join(str(number_of(decoded_frame(f))) for f in item.images["front"])
            )
        except BrokenEpisodeError as error:
            found.append(str(error.failure))
    return found


def edit_rows(path: Path, edit: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(edit(pq.read_table(path)), path)


def replace(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values))


INFO_CHANGES = [
    (
        {"codebase_version": "v3.1"},
        r"v2.0, v2.1, v3.0 are read, got codebase_version 'v3.1' in .*meta/info.json. Convert it",
    ),
    ({"codebase_version": "v1.6"}, "got codebase_version 'v1.6'"),
    (
        {"storage_format": "lance"},
        "must be stored as Parquet, got storage_format 'lance' in .*meta/info.json. Export it",
    ),
    ({"features": None}, "meta/info.json must have features, got None. Download it again"),
    ({"features": {"action": 3}}, "must have features, got {'action': 3}"),
    (
        {"features": {"action": {"dtype": "float32"}}},
        r"must have a camera \(a feature of images or video\), got action in",
    ),
    ({"features": {"d": {"dtype": "video", "is_depth_map": True}}}, r"must have a camera .*, got depth alone \(d\)"),
    ({"fps": 0}, "fps in .*meta/info.json must be a number over 0, got 0. Correct it"),
    ({"fps": "ten"}, "must be a number over 0, got 'ten'"),
    ({"video_path": None}, f"must say where the videos of {FRONT} lie, got no video_path"),
    (
        {"video_path": "v/{camera}.mp4"},
        "video_path of meta/info.json must be a pattern .*, got 'v/{camera}.mp4'. Correct it",
    ),
]


@pytest.mark.parametrize(("changes", "match"), INFO_CHANGES, ids=[str(changes) for changes, _ in INFO_CHANGES])
def test_metadata_that_cannot_be_followed_is_refused(tmp_path: Path, changes: dict, match: str) -> None:
    DataSet(changes=changes).write(tmp_path)
    with pytest.raises(ValueError, match=match):
        open_corpus(tmp_path)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "JSON, got a file which is empty"),
        ("{", "got a file which is not"),
        ("[]", "a JSON object, got list"),
    ],
)
def test_metadata_that_is_no_json_object_is_refused(tmp_path: Path, text: str, match: str) -> None:
    DataSet().write(tmp_path)
    (tmp_path / "meta/info.json").write_text(text)
    with pytest.raises(ValueError, match=rf"meta/info.json must be .*{match}.*. Download it again"):
        open_corpus(tmp_path)


def test_version_1_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "meta_data").mkdir()
    (tmp_path / "meta_data/info.json").write_text(json.dumps({"codebase_version": "v1.6", "fps": 10}))
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"episode_index": [0]}), tmp_path / "data/train-00000-of-00001.parquet")
    with pytest.raises(
        ValueError, match=r"got one of version 1 \(meta_data/info.json\) in .*convert_dataset_v1_to_v2.py"
    ):
        open_corpus(tmp_path)


def test_a_folder_of_several_data_sets_names_them(tmp_path: Path) -> None:
    for name in ("one", "two"):
        DataSet(cameras=IMAGES).write(tmp_path / "mine" / name)
    with pytest.raises(ValueError, match=r"got .*, where it is in mine/one, mine/two. Give one of these folders"):
        open_corpus(tmp_path)
    for name in ("three", "four"):
        DataSet(cameras=IMAGES).write(tmp_path / "mine" / name)
    with pytest.raises(ValueError, match="in mine/four, mine/one, mine/three and others. Give one"):
        open_corpus(tmp_path)


def test_an_empty_set_is_refused(tmp_path: Path) -> None:
    DataSet(version="v2.1", lengths=[], tasks=[]).write(tmp_path)
    with pytest.raises(
        ValueError, match=f"must have episodes, got no row in 0 data files of {tmp_path}. Download its data"
    ):
        open_corpus(tmp_path)


def test_a_set_without_rows_names_the_file_that_cannot_be_read(tmp_path: Path) -> None:
    DataSet().write(tmp_path)
    broken = DATA.replace("000.parquet", "001.parquet")
    pq.write_table(pq.read_table(tmp_path / DATA).slice(0, 0), tmp_path / DATA)
    (tmp_path / broken).write_bytes(b"no Parquet")
    with pytest.raises(ValueError, match=rf"got no row in 2 data files of .*, the first unreadable being {broken} \("):
        open_corpus(tmp_path)


def test_a_set_whose_data_files_all_are_broken_is_refused(tmp_path: Path) -> None:
    DataSet().write(tmp_path)
    (tmp_path / DATA).write_bytes(b"no Parquet")
    with pytest.raises(
        ValueError,
        match=rf"got no row in 1 data files of .*, the first unreadable being {DATA} \(a Parquet file must be whole",
    ):
        open_corpus(tmp_path)


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda rows: rows.drop_columns("frame_index"), "columns episode_index and frame_index, got no frame_index"),
        (lambda rows: replace(rows, "episode_index", [None] * 3), "must be numbers in every row, got null"),
    ],
    ids=["missing", "null"],
)
def test_a_data_file_that_cannot_be_read_fails_and_the_others_are_read(
    tmp_path: Path, edit: Callable[[pa.Table], pa.Table], match: str
) -> None:
    DataSet(version="v2.1", cameras=IMAGES).write(tmp_path)
    name = "data/chunk-000/episode_000001.parquet"
    edit_rows(tmp_path / name, edit)
    corpus = open_corpus(tmp_path)
    assert outcomes(corpus)[:2] == ["0 1 2 3 4", "8 9 10 11"]
    (failure,) = [item for item in read(corpus) if isinstance(item, Failure)]
    assert (failure.scope, failure.shard, failure.reason) == ("shard", name, "unreadable shard")
    assert match in failure.detail


def test_a_data_file_that_breaks_off_ends_its_episodes_and_no_others(tmp_path: Path) -> None:
    DataSet(cameras=IMAGES, per_data_file=2).write(tmp_path)
    group = pq.ParquetFile(tmp_path / DATA).metadata.row_group(1)
    names = [group.column(i).path_in_schema for i in range(group.num_columns)]
    action = group.column(names.index("action.list.element"))
    data = bytearray((tmp_path / DATA).read_bytes())
    start = action.dictionary_page_offset or action.data_page_offset
    data[start : start + action.total_compressed_size] = b"\xff" * action.total_compressed_size
    (tmp_path / DATA).write_bytes(data)
    first, failure, last = read(open_corpus(tmp_path))
    assert (first.episode_id, last.episode_id) == ("episode_000000", "episode_000002")
    assert (failure.scope, failure.shard) == ("shard", DATA)
    assert "cannot be read after the start of episode_000001" in failure.detail
    assert "0 1 2 3 4" in outcomes(open_corpus(tmp_path))  # who needs no actions reads it all


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (
            lambda rows: replace(rows, "frame_index", [0, 1, 2, 3, 4, 0, 2, 3, *range(4)]),
            "frame_index must count .* got 2 in .*. Leave the episode out",
        ),
        (lambda rows: rows.drop_columns("action"), "must have the column 'action' that meta/info.json names, got none"),
        (
            lambda rows: replace(rows, "action", [[0.0, 0.5]] * 12),
            "column 'action' must have 3 values per row as meta/info.json says, got 2. Correct meta/info.json",
        ),
        (
            lambda rows: replace(rows, "action", [[0.0, 0.5, 1.0]] * 6 + [[0.0]] + [[0.0, 0.5, 1.0]] * 5),
            "column 'action' must have as many values in every row, got 7 in 3 rows. Leave the episode out",
        ),
        (
            lambda rows: replace(rows, "observation.state", [[0.0, 0.5]] * 6 + [None] + [[0.0, 0.5]] * 5),
            "column 'observation.state' must have a value in every row, got null. Leave the episode out",
        ),
        (
            lambda rows: replace(rows, "task_index", [0] * 6 + [9] + [0] * 5),
            "must be one of the 2 tasks in meta, got 9",
        ),
        (lambda rows: rows.drop_columns("task_index"), "must have the column 'task_index', got none"),
        (lambda rows: rows.drop_columns(FRONT), f"column '{FRONT}' must hold encoded pictures .*, got no such column"),
        (lambda rows: replace(rows, FRONT, ["a.png"] * 12), "must hold encoded pictures .*, got string in data/"),
    ],
)
def test_an_episode_whose_rows_are_wrong_fails(
    tmp_path: Path, edit: Callable[[pa.Table], pa.Table], match: str
) -> None:
    DataSet(cameras=IMAGES).write(tmp_path)
    edit_rows(tmp_path / DATA, edit)
    failure = read(open_corpus(tmp_path))[1]
    with pytest.raises(AssertionError, match=match):
        raise AssertionError(failure)


def test_pieces_of_other_columns_are_no_episode(tmp_path: Path) -> None:
    DataSet(cameras=IMAGES).write(tmp_path)
    rows = pq.read_table(tmp_path / DATA)
    pq.write_table(rows.slice(0, 6), tmp_path / DATA)
    later = replace(rows.slice(6), "action", [[1.0, 2.0, 3.0]] * 6)  # float64
    pq.write_table(later, tmp_path / DATA.replace("000.parquet", "001.parquet"))
    failure = read(open_corpus(tmp_path))[1]
    assert isinstance(failure, Failure)
    assert "must have the same columns in all its files" in failure.detail


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda path: path.unlink(), "must tell in meta/episodes/ where its episodes are, got no file there"),
        (lambda path: path.write_bytes(b"x"), f"{EPISODES} must be a whole Parquet file, got .*. Download it again"),
        (
            lambda path: edit_rows(path, lambda rows: rows.drop_columns(f"videos/{FRONT}/file_index")),
            f"must have a column 'videos/{FRONT}/file_index', got none",
        ),
        (
            lambda path: edit_rows(path, lambda rows: replace(rows, f"videos/{FRONT}/file_index", [0, None, 0])),
            f"must have a value of 'videos/{FRONT}/file_index' in every row, got null",
        ),
    ],
    ids=["missing", "broken", "no column", "null"],
)
def test_where_videos_are_must_be_told(tmp_path: Path, edit: Callable[[Path], object], match: str) -> None:
    DataSet().write(tmp_path)
    edit(tmp_path / EPISODES)
    with pytest.raises(ValueError, match=match):
        open_corpus(tmp_path)
    DataSet(cameras=IMAGES).write(tmp_path / "images")
    edit(tmp_path / "images" / EPISODES) if match.startswith(("must tell", EPISODES)) else None
    assert len(read(open_corpus(tmp_path / "images"))) == 3  # pictures need no videos


def test_an_episode_that_the_metadata_does_not_know_fails(tmp_path: Path) -> None:
    DataSet().write(tmp_path)
    edit_rows(tmp_path / EPISODES, lambda rows: rows.take([0, 2]))
    before, failure, after = outcomes(open_corpus(tmp_path))
    assert (before, after) == ("0 1 2 3 4", "8 9 10 11")
    assert f"in which video of {FRONT} an episode is, got no episode_index 1. Download meta again" in failure


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_a_set_without_tasks_has_no_instructions_and_says_so(tmp_path: Path, version: str) -> None:
    DataSet(version=version, cameras=IMAGES).write(tmp_path)
    next((tmp_path / "meta").glob("tasks.*")).unlink()
    corpus = open_corpus(tmp_path)
    assert not corpus.features.has_instruction
    assert corpus.notes == ("there is no file of tasks in meta/: episodes have no instruction",)
    assert [episode.instruction for episode in read(corpus)] == [None] * 3


@pytest.mark.parametrize(("version", "content"), [("v2.1", b'{"task": "lift"}\n'), ("v2.1", b"\xff"), ("v3.0", b"x")])
def test_a_broken_file_of_tasks_is_refused(tmp_path: Path, version: str, content: bytes) -> None:
    DataSet(version=version, cameras=IMAGES).write(tmp_path)
    next((tmp_path / "meta").glob("tasks.*")).write_bytes(content)
    with pytest.raises(
        ValueError, match=r"meta/tasks.* must give a task_index and a text in every row, got .*. Download it"
    ):
        open_corpus(tmp_path)


def test_a_missing_video_fails_its_episode(tmp_path: Path) -> None:
    DataSet(version="v2.1").write(tmp_path)
    video = tmp_path / f"videos/chunk-000/{FRONT}/episode_000001.mp4"
    video.unlink()
    before, failure, after = outcomes(open_corpus(tmp_path))
    assert (before, after) == ("0 1 2 3 4", "8 9 10 11")
    assert f"there is no video {video}. Download it too, or leave it out" in failure


def test_videos_elsewhere_than_the_metadata_says_are_pointed_at(tmp_path: Path) -> None:
    DataSet(version="v2.1").write(tmp_path)
    (tmp_path / f"videos/chunk-000/{FRONT}").rename(tmp_path / f"videos/{FRONT}")
    failure = outcomes(open_corpus(tmp_path))[1]
    assert (
        f"there is no video {tmp_path}/videos/chunk-000/{FRONT}/episode_000001.mp4, where meta/info.json says, but there is "
        f"videos/{FRONT}/episode_000001.mp4. Correct video_path, or move the videos" in failure
    )


def test_rows_past_the_end_of_a_video_fail_with_both_numbers(tmp_path: Path) -> None:
    DataSet(version="v2.1").write(tmp_path)
    name = f"videos/chunk-000/{FRONT}/episode_000000.mp4"
    write_video(tmp_path / name, [numbered_frame(k) for k in range(3)], fps=FPS)
    failure, *others = outcomes(open_corpus(tmp_path))
    assert others == ["5 6 7", "8 9 10 11"]
    assert (
        f"an episode of 5 rows must have as many frames of {FRONT}, got 3 in {name} (and none for row 3 at 0.300 s)"
        in failure
    )


def test_rows_past_the_end_of_their_part_of_a_video_fail_and_take_no_frame_of_the_next_episode(tmp_path: Path) -> None:
    DataSet().write(tmp_path)
    edit_rows(tmp_path / EPISODES, lambda rows: replace(rows, f"videos/{FRONT}/to_timestamp", [0.3, 0.8, 1.2]))
    failure, *others = outcomes(open_corpus(tmp_path))
    assert others == ["5 6 7", "8 9 10 11"]
    assert (
        f"an episode of 5 rows must have as many frames of {FRONT}, got 3 in {VIDEO} (from 0.000 s to 0.300 s"
        in failure
    )


def test_a_dropped_frame_fails_its_episode_and_shifts_no_other(tmp_path: Path) -> None:
    DataSet().write(tmp_path)
    frames = [numbered_frame(k) for k in range(12) if k != 6]
    write_video(tmp_path / VIDEO, frames, fps=FPS, stamps=[k for k in range(12) if k != 6])
    before, failure, after = outcomes(open_corpus(tmp_path))
    assert (before, after) == ("0 1 2 3 4", "8 9 10 11")
    assert (
        f"an episode of 3 rows must have as many frames of {FRONT}, got 2 in {VIDEO} (and none for row 1 at 0.600 s)"
        in failure
    )


def test_a_video_begun_by_an_edit_list_fails_what_it_lacks(tmp_path: Path) -> None:
    DataSet().write(tmp_path)
    copy_packets(tmp_path / VIDEO, tmp_path / "whole.mp4")
    copy_packets(tmp_path / "whole.mp4", tmp_path / VIDEO, shift=2)
    first, second, third = outcomes(open_corpus(tmp_path))
    assert (first, second) == ("2 3 4 5 6", "7 8 9")  # the video is moved as a whole: LeRobot reads it so, too
    assert "an episode of 4 rows must have as many frames" in third
    assert "got 2 in" in third


@pytest.mark.parametrize("split", [False, True])
def test_a_video_cut_short_fails_what_lies_behind(tmp_path: Path, split: bool) -> None:
    DataSet(lengths=[8, 8, 8], tasks=["lift"] * 3).write(tmp_path)
    with av.open(str(tmp_path / VIDEO)) as container:
        keyframes = [packet.pos for packet in container.demux(video=0) if packet.size and packet.is_keyframe]
    (tmp_path / VIDEO).write_bytes((tmp_path / VIDEO).read_bytes()[: keyframes[2] + 20])
    corpus = open_corpus(tmp_path)
    found = []
    for unit in corpus.units(1 if split else 2**30):
        for episode in corpus.episodes(unit, fields=()):
            assert isinstance(episode, Episode)
            try:
                found.append([number_of(frame) for frame in episode.images["front"]])
            except BrokenEpisodeError as error:
                found.append(error.failure.detail)
    assert found[:2] == [list(range(8)), list(range(8, 16))]
    assert "8 rows" in found[2]


def test_depth_in_the_video_of_a_camera_fails(tmp_path: Path) -> None:
    DataSet(changes={"video_path": "{video_key}.mkv"}).write(tmp_path)
    depth = [np.full((32, 64), 1000 * k, np.uint16) for k in range(12)]
    write_video(tmp_path / f"{FRONT}.mkv", depth, ("ffv1", {}), fps=FPS, pix_fmt="gray10le")
    failure = outcomes(open_corpus(tmp_path))[0]
    assert f"got {FRONT}.mkv of gray10le: depth, or grey. Convert it, or choose another camera" in failure
    assert "the episode has 5 rows, and 0 frames were decoded before" in failure


def test_an_episode_that_occurs_twice_fails_the_second_time(tmp_path: Path) -> None:
    DataSet(cameras=IMAGES).write(tmp_path)
    rows = pq.read_table(tmp_path / DATA)
    pq.write_table(pa.concat_tables([rows, rows.slice(0, 5)]), tmp_path / DATA)
    *_, failure = read(open_corpus(tmp_path))
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.episode_id) == ("duplicate episode", "episode_000000")


@pytest.mark.parametrize(("index", "episode_id"), [(3, "episode_000003"), (1_234_567, "episode_1234567")])
def test_ids_are_numbers_and_back(index: int, episode_id: str) -> None:
    assert episode_id_of(index) == episode_id
    assert episode_index_of(episode_id) == index


@pytest.mark.parametrize("episode_id", ["3", "episode_3", "episode_-00003", "episode_", "demo_3", "episode_0000003"])
def test_other_ids_are_of_no_episode(episode_id: str) -> None:
    with pytest.raises(ValueError, match=f"as 'episode_000003' is, got '{episode_id}'"):
        episode_index_of(episode_id)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_rows_of_every_episode_are_found(tmp_path: Path, version: str) -> None:
    data = DataSet(version=version, cameras=IMAGES, first_index=7, per_data_file=2)
    found = episode_rows(Folder(str(data.write(tmp_path))))
    assert list(found) == ["episode_000007", "episode_000008", "episode_000009"]
    assert [(rows.episode_index, rows.first_index, rows.num_rows) for rows in found.values()] == [
        (7, 0, 5),
        (8, 5, 3),
        (9, 8, 4),
    ]
    pieces = [[tuple(piece)[1:] for piece in rows.pieces] for rows in found.values()]
    assert pieces == ([[(0, 5)], [(5, 8)], [(0, 4)]] if version == "v3.0" else [[(0, 5)], [(0, 3)], [(0, 4)]])


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (
            lambda rows: replace(rows, "index", [*range(7), 9, *range(8, 12)]),
            "index must rise by one .* episode_000001",
        ),
        (lambda rows: pa.concat_tables([rows, rows.slice(0, 5)]), "must occur once, got episode_000000 again in data/"),
        (
            lambda rows: rows.drop_columns("frame_index"),
            "every data file must be readable: got .*001.parquet, which is not .rows must have",
        ),
    ],
    ids=["index", "twice", "broken"],
)
def test_rows_that_cannot_be_joined_are_refused(
    tmp_path: Path, edit: Callable[[pa.Table], pa.Table], match: str
) -> None:
    DataSet(cameras=IMAGES).write(tmp_path)
    name = DATA
    if "001.parquet" in match:
        name = DATA.replace("000.parquet", "001.parquet")
        pq.write_table(pq.read_table(tmp_path / DATA), tmp_path / name)
    edit_rows(tmp_path / name, edit)
    with pytest.raises(ValueError, match=match):
        episode_rows(Folder(str(tmp_path)))


def test_a_time_without_a_value_fails(tmp_path: Path) -> None:
    DataSet().write(tmp_path)
    edit_rows(tmp_path / DATA, lambda rows: replace(rows, "timestamp", [0.0] * 6 + [None] + [0.2] * 5))
    assert "column 'timestamp' must have a value in every row, got null" in outcomes(open_corpus(tmp_path))[1]


def test_rows_without_times_are_even(tmp_path: Path) -> None:
    DataSet().write(tmp_path)
    edit_rows(tmp_path / DATA, lambda rows: rows.drop_columns("timestamp"))
    assert outcomes(open_corpus(tmp_path)) == ["0 1 2 3 4", "5 6 7", "8 9 10 11"]


def test_names_of_the_statistics_are_not_read(tmp_path: Path) -> None:
    DataSet().write(tmp_path)
    edit_rows(tmp_path / EPISODES, lambda rows: replace(rows, "stats/action/min", [None] * 3))
    (tmp_path / "meta/stats.json").unlink(missing_ok=True)
    assert dataclasses.astuple(open_corpus(tmp_path).features)[0] == ("front",)
