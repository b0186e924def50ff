"""LeRobot data sets in all layouts: the same episodes, each frame with its own row; units of any size give the same."""

import dataclasses
from pathlib import Path

import fsspec
import numpy as np
import pytest
from lerobot_datasets import DataSet
from small_videos import AV1, H264, number_of

from vlm_rewards.schemas import videos
from vlm_rewards.schemas.episodes import Episode
from vlm_rewards.schemas.formats.corpus import Corpus, open_corpus
from vlm_rewards.schemas.manifests import Failure
from vlm_rewards.schemas.pictures import decoded_frame

VIDEO, IMAGE = {"observation.images.front": "video"}, {"observation.images.front": "image"}
LAYOUTS = {
    "2.0 images": DataSet(version="v2.0", cameras=IMAGE),
    "2.1 images": DataSet(version="v2.1", cameras=IMAGE),
    "2.1 videos": DataSet(version="v2.1", cameras=VIDEO),
    "2.1 AV1": DataSet(version="v2.1", cameras=VIDEO, codec=AV1),
    "3.0 recorded images": DataSet(cameras=IMAGE),
    "3.0 converted images": DataSet(cameras=IMAGE, recorder=False),
    "3.0 recorded videos": DataSet(cameras=VIDEO),
    "3.0 converted AV1": DataSet(cameras=VIDEO, codec=AV1, recorder=False),
    "3.0 several files": DataSet(cameras=VIDEO, per_data_file=2, per_video={"observation.images.front": 2}),
}
EVERY_LAYOUT = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


def read(corpus: Corpus, max_bytes: int = 2**30, **options: object) -> list[Episode | Failure]:
    return [item for unit in corpus.units(max_bytes) for item in corpus.episodes(unit, **options)]


def frame_numbers(episode: Episode | Failure, camera: str = "front") -> list[int]:
    assert isinstance(episode, Episode), episode
    return [number_of(decoded_frame(frame)) for frame in episode.images[camera]]


@EVERY_LAYOUT
def test_every_layout_holds_the_same_episodes(tmp_path: Path, layout: DataSet) -> None:
    corpus = open_corpus(layout.write(tmp_path))
    assert corpus.format_name == "lerobot"
    assert dataclasses.asdict(corpus.features) == {
        "cameras": ("front",),
        "action_size": 3,
        "state_size": 2,
        "has_rewards": False,
        "has_instruction": True,
        "has_achieved_goals": False,
        "missing_frame": "last",
        **{name: value for name, value in dataclasses.asdict(corpus.features).items() if name == "truth_goals"},
    }
    numbers = []
    for index, episode in enumerate(corpus):
        assert isinstance(episode, Episode)
        length = (5, 3, 4)[index]
        assert episode.episode_id == f"episode_{index:06d}"
        assert episode.instruction == ("lift the cup", "open the drawer", "lift the cup")[index]
        assert episode.rewards is None
        assert not episode.has_final_frame
        np.testing.assert_array_equal(episode.states, [[index, t] for t in range(length)])
        np.testing.assert_array_equal(episode.actions, [[10 * index + t, 0.5, -1] for t in range(length)])
        assert episode.actions.dtype == episode.states.dtype == np.float32
        numbers.append(frame_numbers(episode))
    assert numbers == [[0, 1, 2, 3, 4], [5, 6, 7], [8, 9, 10, 11]]
    assert corpus.reader.notes == ()


@EVERY_LAYOUT
@pytest.mark.parametrize("max_bytes", [1, 2000, 2**30])
def test_units_of_any_size_give_the_same(tmp_path: Path, layout: DataSet, max_bytes: int) -> None:
    corpus = open_corpus(layout.write(tmp_path))
    units = corpus.units(max_bytes)
    assert [unit.start for unit in units] == [0, *(unit.stop for unit in units[:-1])]
    assert sum(unit.num_frames for unit in units) == 12
    assert [episode_id for unit in units for episode_id in corpus.episode_ids(unit)] == [
        f"episode_{index:06d}" for index in range(3)
    ]
    assert len(units) == 3 if max_bytes == 1 else len(units) <= 3
    found = [np.stack([decoded_frame(f) for f in episode.images["front"]]) for episode in read(corpus, max_bytes)]
    whole = [np.stack([decoded_frame(f) for f in episode.images["front"]]) for episode in read(corpus)]
    for left, right in zip(found, whole, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("codec", [H264, AV1], ids=["h264", "av1"])
def test_a_unit_that_begins_within_a_video_gives_the_frames_of_an_unsplit_run(tmp_path: Path, codec: tuple) -> None:
    lengths = [7, 13, 1, 9, 20, 11, 3]  # a keyframe every 8 frames: episodes begin anywhere between
    data = DataSet(lengths=lengths, tasks=["lift"] * 7, cameras=VIDEO, codec=codec)
    corpus = open_corpus(data.write(tmp_path))
    split, whole = corpus.units(1), corpus.units()
    assert (len(split), len(whole)) == (7, 1)
    expected = [np.stack(list(episode.images["front"])) for episode in corpus.episodes(whole[0])]
    for number in reversed(range(7)):
        (episode,) = corpus.episodes(split[number])
        np.testing.assert_array_equal(np.stack(list(episode.images["front"])), expected[number])


def test_cameras_have_keys_of_any_kind(tmp_path: Path) -> None:
    cameras = {"observation.images.front": "video", "observation.image": "image", "left wrist.rgb": "video"}
    corpus = open_corpus(DataSet(cameras=cameras, per_video={"left wrist.rgb": 1}).write(tmp_path))
    assert corpus.features.cameras == ("front", "observation.image", "left wrist.rgb")
    for episode, expected in zip(corpus, [[0, 1, 2, 3, 4], [5, 6, 7], [8, 9, 10, 11]], strict=True):
        for camera in corpus.features.cameras:
            assert frame_numbers(episode, camera) == expected
    (unit,) = corpus.units()
    assert unit.files == (
        "data/chunk-000/file-000.parquet",
        "videos/observation.images.front/chunk-000/file-000.mp4",
        *(f"videos/left wrist.rgb/chunk-000/file-00{number}.mp4" for number in range(3)),
    )


@pytest.mark.parametrize("kind", ["image", "video"])
def test_keys_may_hold_letters_of_any_kind_and_slashes(tmp_path: Path, kind: str) -> None:
    cameras = {"kamera/links.über": kind, "kamera/links": kind}
    corpus = open_corpus(DataSet(version="v2.1", cameras=cameras).write(tmp_path))
    assert corpus.features.cameras == tuple(cameras)
    for camera in cameras:
        assert [frame_numbers(episode, camera) for episode in corpus][1] == [5, 6, 7]


@pytest.mark.parametrize("kind", ["image", "video"])
def test_a_shape_with_the_channels_first_is_of_the_same_frames(tmp_path: Path, kind: str) -> None:
    data = DataSet(cameras={"observation.images.front": kind})
    shape = {"dtype": kind, "shape": [3, 32, 64], "names": ["channels", "height", "width"]}
    features = {**data._info()["features"], "observation.images.front": shape}
    corpus = open_corpus(dataclasses.replace(data, changes={"features": features}).write(tmp_path))
    frames = [decoded_frame(frame) for frame in read(corpus)[1].images["front"]]
    assert [frame.shape for frame in frames] == [(32, 64, 3)] * 3
    assert [number_of(frame) for frame in frames] == [5, 6, 7]


def test_cameras_of_one_short_name_keep_their_keys(tmp_path: Path) -> None:
    cameras = {"observation.images.front": "image", "front": "image"}
    corpus = open_corpus(DataSet(cameras=cameras).write(tmp_path))
    assert corpus.features.cameras == ("observation.images.front", "front")


def test_a_camera_that_is_not_wanted_is_not_opened(tmp_path: Path) -> None:
    cameras = {"observation.images.front": "image", "observation.images.wrist": "video"}
    corpus = open_corpus(DataSet(cameras=cameras).write(tmp_path))
    (tmp_path / "videos/observation.images.wrist/chunk-000/file-000.mp4").write_bytes(b"broken")
    assert [frame_numbers(episode) for episode in read(corpus, cameras=["front"])][1] == [5, 6, 7]
    assert [len(episode.images["wrist"]) for episode in read(corpus, frames=False)] == [5, 3, 4]


def test_frames_may_be_skipped_or_read_again(tmp_path: Path) -> None:
    corpus = open_corpus(DataSet(lengths=[9, 30, 9], cameras=VIDEO).write(tmp_path))
    for episode in corpus:
        if episode.episode_id != "episode_000001":
            assert frame_numbers(episode) == frame_numbers(episode)
    assert frame_numbers(episode) == list(range(39, 48))


@pytest.mark.parametrize(
    ("columns", "terminations", "truncations"),
    [
        ({}, [0, 0, 0], [0, 0, 1]),
        ({"next.done": [False] * 7 + [True] + [False] * 4}, [0, 0, 1], [0, 0, 0]),
        ({"next.done": [False] * 12}, [0, 0, 0], [0, 0, 1]),
        (
            {"next.terminated": [False] * 12, "next.done": [True] * 12, "next.truncated": [False] * 6 + [True] * 6},
            [0, 0, 0],
            [0, 1, 1],
        ),
    ],
    ids=["rewards alone", "done", "never done", "terminated and truncated"],
)
def test_a_reward_is_of_the_action_in_its_row(
    tmp_path: Path, columns: dict, terminations: list, truncations: list
) -> None:
    rewards = [float(k) for k in range(12)]
    corpus = open_corpus(DataSet(columns={"next.reward": rewards, **columns}).write(tmp_path))
    assert corpus.features.has_rewards
    episode = read(corpus)[1]
    np.testing.assert_array_equal(episode.rewards, [5, 6, 7])  # as many as actions; the last has no frame after it
    np.testing.assert_array_equal(episode.terminations, terminations)
    np.testing.assert_array_equal(episode.truncations, truncations)
    assert episode.complete_steps == slice(0, 2)
    corpus.features.check(episode)


def test_a_whole_number_as_action_is_discrete(tmp_path: Path) -> None:
    data = DataSet()
    features = {**data._info()["features"], "action": {"dtype": "int64", "shape": [1], "names": None}}
    data = dataclasses.replace(data, columns={"action": list(range(12))}, changes={"features": features})
    corpus = open_corpus(data.write(tmp_path))
    assert corpus.features.action_size == 0
    actions = read(corpus)[1].actions
    np.testing.assert_array_equal(actions, [5, 6, 7])
    assert actions.dtype == np.int64


def test_an_episode_of_one_frame_is_read(tmp_path: Path) -> None:
    corpus = open_corpus(DataSet(lengths=[1], tasks=["lift"], columns={"next.reward": [0.5]}).write(tmp_path))
    (episode,) = read(corpus)
    assert (episode.num_frames, episode.num_steps) == (1, 1)
    assert frame_numbers(episode) == [0]
    np.testing.assert_array_equal(episode.rewards, [0.5])


def test_a_set_without_actions_has_a_step_less_than_frames(tmp_path: Path) -> None:
    data = DataSet(columns={"next.reward": [float(k) for k in range(12)]})
    features = {key: value for key, value in data._info()["features"].items() if key != "action"}
    corpus = open_corpus(dataclasses.replace(data, changes={"features": features}).write(tmp_path))
    assert corpus.features.action_size is None
    assert corpus.features.missing_frame is None
    episode = read(corpus)[1]
    assert episode.actions is None
    np.testing.assert_array_equal(episode.rewards, [5, 6])
    corpus.features.check(episode)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_a_task_without_a_text_is_no_instruction(tmp_path: Path, version: str) -> None:
    corpus = open_corpus(DataSet(version=version, tasks=["lift", None, ""]).write(tmp_path))
    assert [episode.instruction for episode in read(corpus)] == ["lift", None, None]


def test_tasks_that_change_hinder_only_those_who_need_one_instruction(tmp_path: Path) -> None:
    tasks = ["lift", ["open", "open", "close"], "lift"]
    corpus = open_corpus(DataSet(tasks=tasks).write(tmp_path))
    assert [frame_numbers(episode) for episode in read(corpus, fields=())][1] == [5, 6, 7]
    before, failure, after = read(corpus)
    assert isinstance(failure, Failure)
    assert failure.detail == "an episode must have one instruction, got 'open' and 'close'. Split the episode"
    assert (before.instruction, after.instruction) == ("lift", "lift")
    texts = [found for unit in corpus.units() for found in corpus.instructions(unit)]
    assert texts == [("lift",), ("open", "close"), ("lift",)]


def test_rows_count_and_not_what_the_metadata_says(tmp_path: Path) -> None:
    corpus = open_corpus(DataSet(version="v2.1", changes={"total_episodes": 100, "total_frames": 999}).write(tmp_path))
    assert corpus.reader.notes == (
        "meta/info.json speaks of 100 episodes and 999 frames, but the data files hold 3 episodes and 12 frames, which are read",
    )
    assert len(read(corpus)) == 3


def test_depth_is_no_camera(tmp_path: Path) -> None:
    data = DataSet(cameras={"observation.images.front": "image"})
    depth = {"dtype": "video", "shape": [32, 64, 1], "names": None}
    features = {
        **data._info()["features"],
        "observation.depth": {**depth, "info": {"video.is_depth_map": True}},
        "observation.depth_2": {**depth, "is_depth_map": True},
    }
    corpus = open_corpus(dataclasses.replace(data, changes={"features": features}).write(tmp_path))
    assert corpus.features.cameras == ("front",)
    assert corpus.reader.notes == (
        "observation.depth is depth, and no camera",
        "observation.depth_2 is depth, and no camera",
    )


def test_an_episode_may_go_on_in_the_next_data_file(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    folder = DataSet(cameras={"observation.images.front": "image"}).write(tmp_path)
    path = folder / "data/chunk-000/file-000.parquet"
    whole = pq.read_table(path)
    pq.write_table(whole.slice(0, 6), path)  # cuts episode 1 after its first row
    pq.write_table(whole.slice(6), path.with_name("file-001.parquet"))
    corpus = open_corpus(folder)
    assert [frame_numbers(episode) for episode in corpus] == [[0, 1, 2, 3, 4], [5, 6, 7], [8, 9, 10, 11]]
    np.testing.assert_array_equal(read(corpus)[1].states, [[1, 0], [1, 1], [1, 2]])


def test_data_files_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = DataSet(version="v2.1", cameras={"observation.images.front": "image"}, first_index=999_999).write(tmp_path)
    assert sorted(path.name for path in (folder / "data/chunk-000").iterdir())[0] == "episode_1000000.parquet"
    ids = ["episode_999999", "episode_1000000", "episode_1000001"]
    corpus = open_corpus(folder)
    assert [episode.episode_id for episode in corpus] == ids


def test_every_frame_of_a_shared_video_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cameras = {"front": "video", "wrist": "video"}
    corpus = open_corpus(DataSet(lengths=[7, 1, 30, 9], tasks=["lift"] * 4, cameras=cameras).write(tmp_path))
    decoded = []
    decode = videos._OpenVideo.frames
    monkeypatch.setattr(
        videos._OpenVideo,
        "frames",
        lambda video: (decoded.append((video, frame.pts)) or frame for frame in decode(video)),
    )
    for episode in corpus:
        for steps in zip(episode.images["front"], episode.images["wrist"], strict=True):
            assert len(steps) == 2
    assert len(decoded) == len(set(decoded)) == 2 * 47


def test_two_units_share_no_file_but_where_their_size_asks_for_it(tmp_path: Path) -> None:
    data = DataSet(lengths=[4] * 6, tasks=["lift"] * 6, per_video={"observation.images.front": 2}, per_data_file=2)
    corpus = open_corpus(data.write(tmp_path))
    units = corpus.units()
    assert [(unit.name, unit.num_episodes) for unit in units] == [
        ("episodes-000000-000002", 2),
        ("episodes-000002-000004", 2),
        ("episodes-000004-000006", 2),
    ]
    assert [len(unit.files) for unit in units] == [2, 2, 2]
    assert len(corpus.units(1)) == 6


def test_small_files_share_a_unit(tmp_path: Path) -> None:
    data = DataSet(version="v2.1", lengths=[2] * 20, tasks=["lift"] * 20, cameras={"observation.images.front": "image"})
    corpus = open_corpus(data.write(tmp_path))
    (unit,) = corpus.units()
    assert (unit.name, unit.num_episodes, unit.num_frames) == ("episodes-000000-000020", 20, 40)
    assert [frame_numbers(episode)[0] for episode in corpus] == list(range(0, 40, 2))


def test_a_video_of_other_content_is_another_unit(tmp_path: Path) -> None:
    folder = DataSet(cameras=VIDEO).write(tmp_path)
    before = open_corpus(folder).units()[0]
    path = folder / "videos/observation.images.front/chunk-000/file-000.mp4"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert not before.is_same_work(open_corpus(folder).units()[0])


@pytest.mark.parametrize("layout", [LAYOUTS["2.1 AV1"], LAYOUTS["3.0 several files"]], ids=["2.1", "3.0"])
def test_a_set_in_an_object_store_is_read_like_one_on_a_disk(tmp_path: Path, layout: DataSet) -> None:
    here = open_corpus(layout.write(tmp_path / "set"))
    store = fsspec.filesystem("memory")
    store.put(str(tmp_path / "set"), "/lerobot/set", recursive=True)
    there = open_corpus("memory://lerobot/set")
    assert [dataclasses.replace(unit, content="") for unit in there.units(1)] == [
        dataclasses.replace(unit, content="") for unit in here.units(1)
    ]
    assert [frame_numbers(episode) for episode in there] == [[0, 1, 2, 3, 4], [5, 6, 7], [8, 9, 10, 11]]
    assert there.passed_over == ()
    store.rm("/lerobot", recursive=True)
