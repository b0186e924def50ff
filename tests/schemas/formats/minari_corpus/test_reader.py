import json
import pickle

import fsspec
import h5py
import numpy as np
import pyarrow as pa
import pytest
from gymnasium import spaces
from hdf5_recordings import assert_aligned, jpeg, numbered_frames, numbers_of
from minari.dataset.minari_storage import MinariStorage
from minari_storages import OBSERVATIONS, PICTURE, STORAGES, VECTOR, write_minari
from small_corpora import read_whole

from vlm_rewards.schemas.episodes import CorpusFeatures
from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.formats.minari_corpus import layout
from vlm_rewards.schemas.pictures import decode_image


def read(path, options=None, **wanted):
    """All that a corpus gives, its frames read."""
    corpus = open_corpus(path, options)
    return read_whole(item for unit in corpus.units() for item in corpus.episodes(unit, **wanted))


@pytest.mark.parametrize("storage", STORAGES)
def test_every_storage_holds_what_minari_wrote(tmp_path, storage):
    write_minari(tmp_path / "set", storage, (3, 2, 4))
    corpus = open_corpus(tmp_path / "set")
    assert corpus.format_name == "minari"
    assert corpus.features == CorpusFeatures(cameras=("image",), action_size=2)
    episodes = read_whole(corpus)
    assert [e.episode_id for e in episodes] == ["episode_0", "episode_1", "episode_2"]
    assert [i for unit in corpus.units() for i in corpus.episode_ids(unit)] == [e.episode_id for e in episodes]
    assert sum(unit.num_frames for unit in corpus.units()) == 12
    assert sum(unit.num_episodes for unit in corpus.units()) == 3
    for index, (episode, length) in enumerate(zip(episodes, (3, 2, 4), strict=True)):
        assert (episode.num_frames, episode.num_steps, episode.has_final_frame) == (length + 1, length, True)
        assert_aligned(episode, "image")
        assert list(episode.images["image"]) == [jpeg(frame) for frame in numbered_frames(range(length + 1))]
        assert episode.instruction == f"get the ball {index}"
        assert episode.rewards.dtype == np.float32
        assert episode.rewards.tolist() == [t / 4 for t in range(length)]
        assert episode.terminations.tolist() == [t == length - 1 and index % 2 == 0 for t in range(length)]
        assert episode.truncations.tolist() == [t == length - 1 and index % 2 == 1 for t in range(length)]


@pytest.mark.parametrize("storage", STORAGES)
def test_reading_agrees_with_minari(tmp_path, storage):
    write_minari(tmp_path / "set", storage, (3, 2))
    judge = MinariStorage.read(tmp_path / "set" / "data").get_episodes([0, 1])
    for theirs, ours in zip(judge, read(tmp_path / "set", {"states": "pose"}), strict=True):
        np.testing.assert_array_equal(ours.states, theirs["observations"]["pose"])
        np.testing.assert_array_equal(ours.actions, theirs["actions"])
        np.testing.assert_array_equal(ours.rewards, theirs["rewards"])
        np.testing.assert_array_equal(ours.terminations, theirs["terminations"])
        np.testing.assert_array_equal([decode_image(p) for p in ours.images["image"]], theirs["observations"]["image"])
        assert ours.instruction == theirs["observations"]["mission"][0]


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("jpeg_encoding", [True, False])
def test_a_picture_alone_is_the_whole_observation(tmp_path, storage, jpeg_encoding):
    write_minari(tmp_path / "set", storage, (3,), jpeg=jpeg_encoding, space=PICTURE)
    corpus = open_corpus(tmp_path / "set")
    assert corpus.features == CorpusFeatures(cameras=("observations",), action_size=2, has_instruction=False)
    (episode,) = read_whole(corpus)
    assert_aligned(episode, "observations")
    kinds = {type(frame) for frame in episode.images["observations"]}
    assert kinds == {bytes if jpeg_encoding else np.ndarray}


@pytest.mark.parametrize("storage", STORAGES)
def test_trees_of_observations_and_discrete_actions(tmp_path, storage):
    space = spaces.Dict({"eyes": spaces.Tuple((PICTURE, VECTOR)), "größe/a.b": VECTOR})
    write_minari(tmp_path / "set", storage, (2,), space=space, actions=(spaces.Discrete(3), np.array([2, 0])))
    corpus = open_corpus(tmp_path / "set", {"states": "eyes/1"})
    assert corpus.features == CorpusFeatures(cameras=("eyes/0",), action_size=0, state_size=2, has_instruction=False)
    (episode,) = read_whole(corpus)
    assert numbers_of(episode, "eyes/0") == [0, 1, 2]
    assert episode.actions.dtype == np.int64
    assert episode.actions.tolist() == [2, 0]
    assert episode.states.tolist() == [[0, 0], [1, 1], [2, 2]]


@pytest.mark.parametrize("storage", STORAGES)
def test_a_tree_of_actions_is_refused_where_actions_are_wanted(tmp_path, storage):
    tree = spaces.Dict({"arm": VECTOR, "grip": spaces.Discrete(2)})
    values = {"arm": np.zeros((2, 2)), "grip": np.zeros(2, np.int64)}
    write_minari(tmp_path / "set", storage, (2,), actions=(tree, values))
    assert open_corpus(tmp_path / "set").features.action_size is None
    (failure,) = read(tmp_path / "set")
    assert "actions must be numbers or vectors: got " in failure.detail
    (episode,) = read(tmp_path / "set", fields=["instruction"])
    assert numbers_of(episode, "image") == [0, 1, 2]


@pytest.mark.parametrize("storage", STORAGES)
def test_a_symbolic_grid_is_no_picture(tmp_path, storage):
    grid = spaces.Dict({"image": spaces.Box(0, 255, (7, 7, 3), np.uint8), "mission": spaces.Text(40)})
    write_minari(tmp_path / "set", storage, (2,), space=grid)
    with pytest.raises(
        ValueError, match=r"must hold pictures of at least 32 x 32 pixels, uint8: got image \[.*7, 7, 3\]"
    ):
        open_corpus(tmp_path / "set")


@pytest.mark.parametrize("storage", STORAGES)
def test_observations_of_options_must_be_there(tmp_path, storage):
    write_minari(tmp_path / "set", storage, (2,))
    with pytest.raises(ValueError, match="the option states must name observations: got 'image', and they are .*pose"):
        open_corpus(tmp_path / "set", {"states": "image"})
    with pytest.raises(
        ValueError, match="the option instruction must name observations: got 'task', and they are mission"
    ):
        open_corpus(tmp_path / "set", {"instruction": "task"})
    assert read(tmp_path / "set", {"instruction": "mission"})[0].instruction == "get the ball 0"


@pytest.mark.parametrize("storage", STORAGES)
def test_a_data_set_is_found_from_its_folders(tmp_path, storage):
    write_minari(tmp_path / "D4RL" / "door" / "human-v2", storage, (1,))
    found = [
        read(tmp_path / path)[0].episode_id
        for path in ("D4RL/door/human-v2", "D4RL/door/human-v2/data", "D4RL/door", "D4RL")
    ]
    assert found == ["episode_0"] * 4
    write_minari(tmp_path / "D4RL" / "door" / "expert-v2", storage, (1,))
    with pytest.raises(
        ValueError, match=r"must be one data set of Minari: got expert-v2, human-v2 in .*door. Give the folder"
    ):
        open_corpus(tmp_path / "D4RL" / "door")


@pytest.mark.parametrize("storage", STORAGES)
def test_what_is_no_part_of_the_data_set_is_named(tmp_path, storage):
    write_minari(tmp_path / "set", storage, (1, 1))
    assert open_corpus(tmp_path / "set").passed_over == ()
    (tmp_path / "set" / "data" / "notes.csv").write_text("")
    assert [entry.name for entry in open_corpus(tmp_path / "set").passed_over] == ["data/notes.csv"]


def test_the_main_file_alone_is_the_data_set(tmp_path):
    write_minari(tmp_path / "set", "hdf5", (1,))
    corpus = open_corpus(tmp_path / "set" / "data" / "main_data.hdf5")
    assert corpus.format_name == "minari"
    assert [e.episode_id for e in read_whole(corpus)] == ["episode_0"]


@pytest.mark.parametrize("storage", ["arrow", "parquet"])
def test_many_files_share_units_and_keep_the_order_of_their_numbers(tmp_path, storage):
    write_minari(tmp_path / "set", storage, [1] * 21)
    corpus = open_corpus(tmp_path / "set")
    (unit,) = corpus.units()
    assert (len(unit.files), unit.num_frames) == (21, 42)
    episodes = read_whole(pickle.loads(pickle.dumps(corpus)).episodes(unit))
    assert [e.episode_id for e in episodes] == [f"episode_{i}" for i in range(21)]


def test_an_episode_without_the_camera_is_told(tmp_path):
    write_minari(tmp_path / "set", "arrow", (1,))
    (failure,) = read(tmp_path / "set", cameras=["side"])
    assert (failure.scope, failure.reason) == ("shard", "missing camera")


@pytest.mark.parametrize("storage", ["arrow", "parquet"])
def test_a_truncated_file_is_told_and_the_others_are_read(tmp_path, storage):
    write_minari(tmp_path / "set", storage, (1, 2))
    path = tmp_path / "set" / "data" / "0" / f"part-0.{storage}"
    path.write_bytes(path.read_bytes()[:200])
    failure, episode = read(tmp_path / "set")
    assert (failure.scope, failure.shard, failure.reason) == ("shard", f"data/0/part-0.{storage}", "unreadable shard")
    assert "a file of an episode must be whole: got data/0/part-0" in failure.detail
    assert_aligned(episode, "image")
    path = tmp_path / "set" / "data" / "1" / f"part-0.{storage}"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="an episode that can be read: got none in 2 files, .*part-0.* must be whole"):
        open_corpus(tmp_path / "set")


def test_a_file_without_observations_is_told(tmp_path):
    write_minari(tmp_path / "set", "arrow", (1, 2))
    table = pa.table({"actions": [1, 2]})
    with pa.ipc.new_file(tmp_path / "set" / "data" / "0" / "part-0.arrow", table.schema) as writer:
        writer.write_table(table)
    failure, _ = read(tmp_path / "set")
    assert "must hold observations: got 2 rows of actions in data/0/part-0.arrow" in failure.detail


def test_a_main_file_without_episodes_is_refused(tmp_path):
    MinariStorage.new(_made(tmp_path / "empty"), OBSERVATIONS, VECTOR, data_format="hdf5")
    with pytest.raises(ValueError, match="must be a whole HDF5 file: got 0 bytes"):
        open_corpus(tmp_path / "empty")
    h5py.File(tmp_path / "empty" / "main_data.hdf5", "w").close()
    with pytest.raises(ValueError, match=r"must be of Minari \(episode_0/observations\): got the keys nothing"):
        open_corpus(tmp_path / "empty")
    with h5py.File(tmp_path / "empty" / "main_data.hdf5", "w") as file:
        file["episode_last/actions"] = np.zeros(2)
    with pytest.raises(ValueError, match="a Minari file must hold episodes: got episode_last/. Download it again"):
        open_corpus(tmp_path / "empty")
    with h5py.File(tmp_path / "empty" / "main_data.hdf5", "w") as file:
        file["episode_0/actions"] = np.zeros(2)
    with pytest.raises(ValueError, match="episode_0 must hold observations: got none"):
        open_corpus(tmp_path / "empty")


def _made(path):
    path.mkdir()
    return path


@pytest.mark.parametrize("storage", STORAGES)
def test_the_files_are_trusted_where_the_metadata_disagree(tmp_path, storage):
    write_minari(tmp_path / "set", storage, (1, 2))
    assert open_corpus(tmp_path / "set").notes == ()
    path = tmp_path / "set" / "data" / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "total_episodes": 100, "data_format": "other"}))
    assert [e.num_frames for e in read(tmp_path / "set")] == [2, 3]
    assert open_corpus(tmp_path / "set").notes == (
        "metadata.json says 100 episodes, the files hold 2: the files are read",
    )


def test_a_main_file_needs_no_metadata(tmp_path):
    write_minari(tmp_path / "set", "hdf5", (1, 2))
    (tmp_path / "set" / "data" / "metadata.json").write_text("{")
    corpus = open_corpus(tmp_path / "set")
    assert [e.num_frames for e in read_whole(corpus)] == [2, 3]
    assert "data/metadata.json is not used: metadata of Minari must say what the observations are" in corpus.notes[0]


def test_the_bounds_of_pictures_are_not_parsed(tmp_path, monkeypatch):
    write_minari(tmp_path / "set", "arrow", (1,))
    path = tmp_path / "set" / "data" / "metadata.json"
    record = json.loads(path.read_text())
    tree = json.loads(record["observation_space"])
    side = 700
    tree["subspaces"]["image"] |= {
        "shape": [side, side, 3],
        "low": [[[0] * 3] * side] * side,
        "high": [[[255] * 3] * side] * side,
    }
    tree["subspaces"]["low"] = {**tree["subspaces"]["pose"], "low": [float("-inf")], "high": [1e-3]}
    path.write_text(json.dumps({**record, "observation_space": json.dumps(tree)}))
    assert path.stat().st_size > 8_000_000
    parsed = []
    monkeypatch.setattr(layout.json, "loads", lambda text, loads=json.loads: parsed.append(len(text)) or loads(text))
    corpus = open_corpus(tmp_path / "set")
    assert parsed[1] < 2000
    assert corpus.reader.spaces["image"]["shape"] == [side, side, 3]
    assert corpus.reader.spaces["low"]["dtype"] == "float64"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must say what the observations are: got JSONDecodeError"),
        ('{"observation_space": "{}"}', "must say what the observations are: got KeyError"),
    ],
)
def test_broken_metadata_are_refused(tmp_path, text, message):
    write_minari(tmp_path / "set", "arrow", (1,))
    (tmp_path / "set" / "data" / "metadata.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        open_corpus(tmp_path / "set")


def test_metadata_that_are_too_large_are_refused(tmp_path, monkeypatch):
    write_minari(tmp_path / "set", "arrow", (1,))
    monkeypatch.setattr(layout, "MAX_METADATA_BYTES", 100)
    with pytest.raises(ValueError, match="metadata of Minari must be 100 bytes at most: got [0-9]+ in .*metadata.json"):
        open_corpus(tmp_path / "set")


def test_pixels_that_are_told_by_no_metadata_are_no_pictures(tmp_path):
    write_minari(tmp_path / "set", "arrow", (1,), jpeg=False)
    (tmp_path / "set" / "data" / "metadata.json").write_text("{}")
    with pytest.raises(ValueError, match=r"must hold pictures .*: got image fixed_size_list<.*>\[3072\]"):
        open_corpus(tmp_path / "set")


@pytest.mark.parametrize("storage", STORAGES)
def test_data_sets_are_read_from_a_url(tmp_path, storage):
    write_minari(tmp_path / "set", storage, (3, 2))
    files = fsspec.filesystem("memory")
    files.put(f"{tmp_path}/set/", f"/minari-{storage}/", recursive=True)
    try:
        for episode in open_corpus(f"memory://minari-{storage}"):
            assert_aligned(episode, "image")
    finally:
        files.rm(f"/minari-{storage}", recursive=True)
