import json
import pickle

import fsspec
import h5py
import numpy as np
import pytest
from hdf5_recordings import (
    assert_aligned,
    jpeg,
    numbered_actions,
    numbered_frames,
    numbers_of,
    write_aloha,
    write_libero,
    write_robomimic,
)
from small_corpora import read_whole

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.formats.corpus import BrokenEpisodeError, open_corpus
from vlm_rewards.schemas.manifests import Failure


def read(path, options=None, **wanted):
    """All that a corpus gives, its frames read."""
    corpus = open_corpus(path, options)
    return read_whole(item for unit in corpus.units() for item in corpus.episodes(unit, **wanted))


def test_robomimic_with_next_obs_has_the_final_frame(tmp_path):
    write_robomimic(tmp_path / "low.hdf5", (3, 2, 5), cameras=("agentview_image", "wrist_image"))
    corpus = open_corpus(tmp_path)
    assert corpus.format_name == "hdf5"
    assert corpus.features == CorpusFeatures(
        cameras=("agentview_image", "wrist_image"), action_size=2, has_rewards=True, has_instruction=False
    )
    (unit,) = corpus.units()
    assert (unit.name, unit.num_episodes, unit.num_frames) == ("low", 3, 13)
    episodes = read_whole(corpus.episodes(unit))
    assert [(e.episode_id, e.num_frames, e.num_steps) for e in episodes] == [
        ("low/demo_0", 4, 3),
        ("low/demo_1", 3, 2),
        ("low/demo_2", 6, 5),
    ]
    assert corpus.episode_ids(unit) == [e.episode_id for e in episodes]
    for episode in episodes:
        assert_aligned(episode, "agentview_image")
        assert episode.has_final_frame
        assert [int(frame[0, 0, 1]) for frame in episode.images["wrist_image"]] == [40] * episode.num_frames
    first = episodes[0]
    assert first.actions.dtype == first.rewards.dtype == np.float32
    assert first.rewards.tolist() == [0, 0.25, 0.5]
    assert first.terminations.tolist() == [False, False, True]
    assert first.truncations.tolist() == [False, False, False]
    assert first.states is None


def test_robomimic_without_next_obs_lacks_the_last_frame(tmp_path):
    write_robomimic(tmp_path / "a.hdf5", (3, 1), next_obs=False)
    assert open_corpus(tmp_path).features.missing_frame == "last"
    long, short = read(tmp_path)
    assert_aligned(long, "agentview_image")
    assert (long.num_frames, long.num_steps, long.complete_steps) == (3, 3, slice(0, 2))
    assert (short.num_frames, short.num_steps, short.complete_steps) == (1, 1, slice(0, 0))


def test_demos_come_in_the_order_of_their_numbers(tmp_path):
    write_robomimic(tmp_path / "a.hdf5", [1] * 12)
    assert [e.episode_id for e in read(tmp_path, frames=False)] == [f"a/demo_{i}" for i in range(12)]


def test_several_files_are_one_corpus_and_one_file_keeps_its_ids(tmp_path):
    write_robomimic(tmp_path / "a.hdf5", (2,))
    write_robomimic(tmp_path / "b" / "a.h5", (2, 1))
    assert [e.episode_id for e in read(tmp_path)] == ["a/demo_0", "b/a/demo_0", "b/a/demo_1"]
    assert [e.episode_id for e in read(tmp_path / "a.hdf5")] == ["a/demo_0"]


def test_a_large_file_is_cut_between_episodes(tmp_path):
    path = write_robomimic(tmp_path / "a.hdf5", (2, 3, 1, 4))
    corpus = open_corpus(path)
    units = corpus.units(max_bytes=path.stat().st_size // 2)
    assert [(unit.name, unit.start, unit.stop, unit.num_episodes, unit.num_frames) for unit in units] == [
        ("a-e000000", 0, 2, 2, 7),
        ("a-e000002", 2, -1, 2, 7),
    ]
    cut = [e for unit in units for e in read_whole(pickle.loads(pickle.dumps(corpus)).episodes(unit))]
    whole = read(path)
    assert [e.episode_id for e in cut] == [e.episode_id for e in whole] == [f"a/demo_{i}" for i in range(4)]
    for left, right in zip(cut, whole, strict=True):
        np.testing.assert_array_equal(left.images["agentview_image"], right.images["agentview_image"])
    assert [unit.num_episodes for unit in corpus.units(max_bytes=1)] == [1, 1, 1, 1]


def test_frames_can_be_read_again_and_after_their_unit(tmp_path):
    write_robomimic(tmp_path / "a.hdf5", (3,))
    (episode,) = open_corpus(tmp_path)
    assert numbers_of(episode, "agentview_image") == numbers_of(episode, "agentview_image") == [0, 1, 2, 3]


def test_a_filter_chooses_demos_and_states_are_observations(tmp_path):
    write_robomimic(tmp_path / "a.hdf5", (2, 1, 3), masks={"train": ["demo_2", "demo_0"], "valid": ["demo_1"]})
    episodes = read(tmp_path, {"filter": "train", "states": "robot0_eef_pos"})
    assert [e.episode_id for e in episodes] == ["a/demo_0", "a/demo_2"]
    assert episodes[0].states.tolist() == [[0, 0.5, 0.25], [1, 1.5, 1.25], [2, 2.5, 2.25]]
    assert open_corpus(tmp_path, {"states": "robot0_eef_pos"}).features.state_size == 3
    with pytest.raises(ValueError, match="must be a list in 'mask': got 'test', and the lists are train, valid"):
        open_corpus(tmp_path, {"filter": "test"})
    with pytest.raises(ValueError, match="must name observations: got 'eef', and they are .*robot0_eef_pos"):
        open_corpus(tmp_path, {"states": "eef"})


def test_a_list_of_demos_that_are_not_there_is_refused(tmp_path):
    write_robomimic(tmp_path / "a.hdf5", (2,), masks={"train": ["demo_0", "demo_7"]})
    with pytest.raises(ValueError, match="'mask/train' must name demos of the file: got 'demo_7', which is not there"):
        open_corpus(tmp_path, {"filter": "train"})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("channels", "grb", "the option channels must be rgb or bgr: got 'grb'"),
        ("upside-down", "maybe", "the option upside-down must be yes or no: got 'maybe'"),
    ],
)
def test_other_values_of_an_option_are_refused(tmp_path, name, value, message):
    write_robomimic(tmp_path / "a.hdf5")
    with pytest.raises(ValueError, match=message):
        open_corpus(tmp_path, {name: value})


def test_libero_stores_the_frame_after_each_action_upside_down(tmp_path):
    write_libero(tmp_path / "KITCHEN_open_the_top_drawer_demo.hdf5", (4, 1))
    corpus = open_corpus(tmp_path)
    assert corpus.features.missing_frame == "first"
    assert corpus.notes == (
        "LIBERO: each frame is the one after its action, and the frame before the first action is missing",
        "pictures are stored upside down and are turned",
    )
    long, short = read(tmp_path)
    assert numbers_of(long, "agentview_rgb") == [1, 2, 3, 4]
    assert long.lacks_first_frame
    assert long.complete_steps == slice(1, 4)
    assert_aligned(long, "agentview_rgb")
    assert long.instruction == "open the top drawer"
    assert long.rewards.tolist() == [0, 0, 0, 1]
    assert (short.num_frames, short.complete_steps) == (1, slice(1, 1))


def test_libero_is_turned_as_its_file_or_an_option_says(tmp_path):
    write_libero(tmp_path / "upright.hdf5", convention="opencv")
    assert numbers_of(read(tmp_path / "upright.hdf5")[0], "agentview_rgb") == [1, 2, 3]
    write_libero(tmp_path / "unsaid.hdf5", convention=None)
    with pytest.raises(ValueError, match="macros_image_convention must be opengl or opencv: got None. Say whether"):
        open_corpus(tmp_path / "unsaid.hdf5")
    assert numbers_of(read(tmp_path / "unsaid.hdf5", {"upside-down": "no"})[0], "agentview_rgb") == [1, 2, 3]
    with pytest.raises(AssertionError, match="upside down"):
        numbers_of(read(tmp_path / "upright.hdf5", {"upside-down": "yes"})[0], "agentview_rgb")


@pytest.mark.parametrize("compress", [True, False])
def test_aloha_has_an_episode_per_file(tmp_path, compress):
    write_aloha(tmp_path / "episode_0.hdf5", 3, compress=compress)
    write_aloha(tmp_path / "episode_1.hdf5", 1, compress=compress)
    corpus = open_corpus(tmp_path)
    assert corpus.features == CorpusFeatures(
        cameras=("cam_high", "cam_left_wrist"),
        action_size=2,
        has_rewards=False,
        has_instruction=False,
        missing_frame="last",
    )
    long, short = read(tmp_path)
    assert [long.episode_id, short.episode_id] == ["episode_0", "episode_1"]
    assert_aligned(long, "cam_high")
    assert (long.num_frames, short.num_frames) == (3, 1)
    if compress:  # the very bytes, without the padding
        assert list(long.images["cam_high"]) == [jpeg(frame) for frame in numbered_frames(range(3))]
    (states,) = {tuple(row) for row in read(tmp_path, {"states": "qpos"})[0].states[2:].tolist()}
    assert states == (2.0,) * 14


@pytest.mark.parametrize("compress", [True, False])
def test_channels_are_swapped_where_that_is_said(tmp_path, compress):
    write_aloha(tmp_path / "episode_0.hdf5", 3, compress=compress, bgr=True)
    with pytest.raises(AssertionError, match="blue is not the last channel"):
        numbers_of(read(tmp_path)[0], "cam_high")
    (episode,) = read(tmp_path, {"channels": "bgr"})
    assert numbers_of(episode, "cam_high") == [0, 1, 2]


def test_pictures_of_variable_length_are_read(tmp_path):
    pictures = [jpeg(frame) for frame in numbered_frames(range(3))]
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        rows = file.create_dataset("observations/images/front", (3,), dtype=h5py.vlen_dtype(np.uint8))
        for index, picture in enumerate(pictures):
            rows[index] = np.frombuffer(picture, np.uint8)
        file["observations/images/side"] = np.array(pictures, dtype="S")
        file["action"] = numbered_actions(3)
    (episode,) = read(tmp_path)
    assert episode.images == {"front": pictures, "side": pictures}


def test_options_of_other_layouts_are_refused_for_aloha(tmp_path):
    write_aloha(tmp_path / "episode_0.hdf5")
    with pytest.raises(
        ValueError, match="the option filter is for files of robomimic: got 'train' for a file of ALOHA"
    ):
        open_corpus(tmp_path, {"filter": "train"})
    with pytest.raises(ValueError, match="must name observations: got 'pose', and they are images/, qpos .*"):
        open_corpus(tmp_path, {"states": "pose"})


def test_an_encoded_picture_that_is_none_fails_its_episode(tmp_path):
    path = write_aloha(tmp_path / "episode_0.hdf5")
    with h5py.File(path, "a") as file:
        file["observations/images/cam_high"][1] = 7
    (failure,) = read(tmp_path, {"channels": "bgr"})
    assert (failure.reason, failure.episode_id) == ("undecodable image", "episode_0")
    assert "a picture must be PNG, JPEG" in failure.detail


def test_names_with_slashes_dots_and_letters_of_any_script_are_kept(tmp_path):
    cameras = ("front/rgb.left", "カメラ")
    write_robomimic(tmp_path / "v1.2 größe.hdf5", (2,), cameras=cameras)
    assert open_corpus(tmp_path).features.cameras == cameras
    (episode,) = read(tmp_path)
    assert episode.episode_id == "v1.2 größe/demo_0"
    for camera in cameras:
        assert_aligned(episode, camera)


def test_the_language_of_a_demo_goes_before_that_of_the_file(tmp_path):
    path = write_robomimic(tmp_path / "a.hdf5", (1, 1, 1))
    with h5py.File(path, "a") as file:
        file["data/demo_0"].attrs["ep_meta"] = json.dumps({"lang": "open the left door"})
        file["data/demo_1"].attrs["ep_meta"] = "{"
    said, broken, unsaid = read(path)
    assert said.instruction == "open the left door"
    assert "the attribute ep_meta must be JSON: got '{'" in broken.detail
    assert unsaid.instruction is None


def test_fields_that_are_not_wanted_are_not_looked_at(tmp_path):
    path = write_robomimic(tmp_path / "a.hdf5", (2,))
    with h5py.File(path, "a") as file:
        del file["data/demo_0/actions"]
        file["data/demo_0/actions"] = np.array([b"left", b"right"])
    (episode,) = read(path, fields=())
    assert episode.actions is episode.rewards is None
    assert numbers_of(episode, "agentview_image") == [0, 1, 2]
    (failure,) = read(path)
    assert failure.detail == "actions must be numbers or vectors: got [2] |S5. Convert them"


def test_discrete_actions_and_files_without_rewards(tmp_path):
    path = write_robomimic(tmp_path / "a.hdf5", (2,))
    with h5py.File(path, "a") as file:
        for name in ("actions", "rewards", "dones"):
            del file[f"data/demo_0/{name}"]
        file["data/demo_0/actions"] = np.array([3, 1], np.int32)
    assert open_corpus(path).features == CorpusFeatures(
        cameras=("agentview_image",), action_size=0, has_rewards=False, has_instruction=False
    )
    (episode,) = read(path)
    assert episode.actions.dtype == np.int64
    assert episode.actions.tolist() == [3, 1]


def test_rewards_without_ends_are_cut_off_where_the_recording_ends(tmp_path):
    path = write_robomimic(tmp_path / "a.hdf5", (3,))
    with h5py.File(path, "a") as file:
        del file["data/demo_0/dones"]
    (episode,) = read(path)
    assert episode.terminations.tolist() == [False, False, False]
    assert episode.truncations.tolist() == [False, False, True]


def test_a_camera_that_a_demo_lacks_is_said(tmp_path):
    path = write_robomimic(tmp_path / "a.hdf5", (2, 2), cameras=("front", "side"))
    with h5py.File(path, "a") as file:
        del file["data/demo_1/obs/side"]
    episode, failure = read(path, cameras=["side"])
    assert isinstance(episode, Episode)
    assert (failure.reason, failure.episode_id) == ("missing camera", "a/demo_1")


def test_a_failure_of_the_data_breaks_the_episode_off(tmp_path):
    path = write_robomimic(tmp_path / "a.hdf5", (6, 2))
    with h5py.File(path) as file:
        chunk = file["data/demo_0/obs/agentview_image"].id.get_chunk_info(4)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(data)
    failure, whole = read(path)
    assert isinstance(failure, Failure)
    assert (failure.scope, failure.episode_id, failure.reason) == ("episode", "a/demo_0", "unreadable data")
    assert failure.num_frames == 7
    assert "rows 0 to 5 of '/data/demo_0/obs/agentview_image' must be readable" in failure.detail
    assert_aligned(whole, "agentview_image")
    episode = next(iter(open_corpus(path)))
    with pytest.raises(BrokenEpisodeError, match="unreadable data"):
        list(episode.images["agentview_image"])


def test_files_are_read_from_a_url(tmp_path):
    write_robomimic(tmp_path / "a.hdf5", (3, 2))
    files = fsspec.filesystem("memory")
    files.put(f"{tmp_path}/", "/hdf5-of-tests/", recursive=True)
    try:
        corpus = open_corpus("memory://hdf5-of-tests")
        for episode in corpus:
            assert_aligned(episode, "agentview_image")
        assert corpus.units()[0].num_frames == 7
    finally:
        files.rm("/hdf5-of-tests", recursive=True)
