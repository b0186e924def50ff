import h5py
import numpy as np
import pytest
from hdf5_recordings import numbered_actions, numbers_of, write_aloha, write_robomimic
from small_corpora import read_whole

from vlm_rewards.schemas.formats.corpus import open_corpus


def read(path, options=None):
    corpus = open_corpus(path, options)
    return read_whole(item for unit in corpus.units() for item in corpus.episodes(unit))


def test_raw_demos_of_robosuite_are_refused_with_the_remedy(tmp_path):
    with h5py.File(tmp_path / "demo.hdf5", "w") as file:
        file.create_group("data").attrs["env_args"] = "{}"
        file["data/demo_1/states"] = np.zeros((3, 9))
        file["data/demo_1/actions"] = numbered_actions(3)
    with pytest.raises(
        ValueError,
        match=r"demo.hdf5 \(a demo must have pictures in 'obs': got actions \[3, 2\] float64, states \[3, 9\] float64. "
        r"Render its pictures with robomimic's dataset_states_to_obs.py",
    ):
        open_corpus(tmp_path)


def test_demos_of_numbers_alone_are_refused_with_the_remedy(tmp_path):
    path = write_robomimic(tmp_path / "low_dim.hdf5", (2,))
    with h5py.File(path, "a") as file:
        del file["data/demo_0/obs/agentview_image"]
    with pytest.raises(
        ValueError, match=r"in 'obs': got agentview_depth .*robot0_eef_pos \[2, 3\] .*dataset_states_to_obs"
    ):
        open_corpus(path)


@pytest.mark.parametrize(
    ("pictures", "found"),
    [
        (np.zeros((2, 64, 64, 3), np.float32), r"\[2, 64, 64, 3\] float32, not uint8"),
        (np.zeros((2, 3, 64, 64), np.uint8), r"\[2, 3, 64, 64\] uint8, channels first"),
        (np.zeros((2, 7, 7, 3), np.uint8), r"\[2, 7, 7, 3\] uint8, smaller than 32 x 32: a symbolic grid"),
    ],
)
def test_arrays_that_are_no_pictures_are_named(tmp_path, pictures, found):
    path = write_robomimic(tmp_path / "a.hdf5", (2,))
    with h5py.File(path, "a") as file:
        del file["data/demo_0/obs/agentview_image"]
        file["data/demo_0/obs/agentview_image"] = pictures
    with pytest.raises(ValueError, match=rf"must be \[T, H, W, 3\] uint8: got agentview_image {found} in 'obs'"):
        open_corpus(path)


def test_aloha_without_pictures_is_refused(tmp_path):
    with h5py.File(tmp_path / "episode_0.hdf5", "w") as file:
        file["observations/images/top"] = np.zeros((2, 64, 64, 3), np.float32)
        file["action"] = numbered_actions(2)
    with pytest.raises(
        ValueError, match=r"must hold \[T, H, W, 3\] uint8 or encoded pictures: got top \[2, 64, 64, 3\]"
    ):
        open_corpus(tmp_path)


def test_files_of_another_kind_are_refused_with_their_keys(tmp_path):
    with h5py.File(tmp_path / "d4rl.hdf5", "w") as file:
        file["observations"] = np.zeros((4, 11), np.float32)
        file["terminals"] = np.zeros(4, np.bool_)
        file["infos/qpos"] = np.zeros(4)
    with pytest.raises(
        ValueError,
        match=r"of robomimic or LIBERO .*, or of ALOHA .*: got the keys infos/, observations \[4, 11\] float32, "
        r"terminals \[4\] bool; infos/ holds qpos \[4\] float64. Convert it",
    ):
        open_corpus(tmp_path)


def test_empty_and_truncated_files_are_told_and_the_others_are_read(tmp_path):
    write_robomimic(tmp_path / "a.hdf5", (2,))
    (tmp_path / "empty.hdf5").write_bytes(b"")
    whole = (tmp_path / "a.hdf5").read_bytes()
    (tmp_path / "short.hdf5").write_bytes(whole[: len(whole) // 2])
    episode, empty, short = read(tmp_path)
    assert numbers_of(episode, "agentview_image") == [0, 1, 2]
    assert (empty.scope, empty.shard, empty.reason) == ("shard", "empty.hdf5", "unreadable shard")
    assert "must be a whole HDF5 file: got 0 bytes" in empty.detail
    assert "truncated file" in short.detail
    with pytest.raises(
        ValueError, match=r"an episode that can be read: got none in 1 HDF5 file, .*empty.hdf5 \(a shard"
    ):
        open_corpus(tmp_path / "empty.hdf5")
    corpus = open_corpus(tmp_path)
    assert [corpus.episode_ids(unit) for unit in corpus.units()] == [["a/demo_0"], [], []]


def test_a_file_without_demos_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_group("data").attrs["env_args"] = "{}"
    with pytest.raises(ValueError, match="must hold demos: got none in its group 'data'"):
        open_corpus(tmp_path)


def test_an_empty_group_of_an_empty_file_shows_nothing(tmp_path):
    h5py.File(tmp_path / "a.hdf5", "w").close()
    with pytest.raises(ValueError, match="got the keys nothing. Convert it"):
        open_corpus(tmp_path)


def test_frames_of_next_obs_must_be_as_many(tmp_path):
    path = write_robomimic(tmp_path / "a.hdf5", (3, 2))
    with h5py.File(path, "a") as file:
        del file["data/demo_0/next_obs/agentview_image"]
        file["data/demo_0/next_obs/agentview_image"] = np.zeros((2, 32, 32, 3), np.uint8)
    failure, _ = read(path)
    assert (
        "'next_obs' must be as long as 'obs': got [2, 32, 32, 3] and [3, 32, 32, 3] for 'agentview_image'"
        in failure.detail
    )


def test_a_disagreement_of_lengths_fails_the_episode(tmp_path):
    path = write_robomimic(tmp_path / "a.hdf5", (5, 2))
    with h5py.File(path, "a") as file:
        del file["data/demo_0/actions"]
        file["data/demo_0/actions"] = numbered_actions(3)
    failure, _ = read(path)
    assert "must have T actions and T+1 (or T) frames, got 3 actions and 6 frames" in failure.detail


@pytest.fixture
def elsewhere(tmp_path):
    """A file outside the corpus."""
    return write_robomimic(tmp_path / "elsewhere" / "other.hdf5", (2,))


def _corpus_with(tmp_path, change):
    path = write_robomimic(tmp_path / "corpus" / "a.hdf5", (2, 2))
    with h5py.File(path, "a") as file:
        del file["data/demo_0/obs/agentview_image"]
        change(file)
    return path


def test_links_to_other_files_are_not_followed(tmp_path, elsewhere):
    path = _corpus_with(
        tmp_path,
        lambda file: file.__setitem__(
            "data/demo_0/obs/agentview_image", h5py.ExternalLink(str(elsewhere), "data/demo_0/obs/agentview_image")
        ),
    )
    failure, whole = read(path)
    assert f"got a link from '/data/demo_0/obs/agentview_image' to '{elsewhere}'" in failure.detail
    assert numbers_of(whole, "agentview_image") == [0, 1, 2]


def test_a_link_within_the_file_that_leads_out_of_it_is_not_followed(tmp_path, elsewhere):
    def change(file):
        file["away"] = h5py.ExternalLink(str(elsewhere), "/")
        file["data/demo_0/obs/agentview_image"] = h5py.SoftLink("/away/data/demo_0/obs/agentview_image")

    failure, _ = read(_corpus_with(tmp_path, change))
    assert f"got a link from '/away' to '{elsewhere}'" in failure.detail


def test_virtual_data_sets_and_bytes_elsewhere_are_refused(tmp_path, elsewhere):
    def virtual(file):
        layout = h5py.VirtualLayout((2, 32, 32, 3), np.uint8)
        layout[:] = h5py.VirtualSource(elsewhere, "data/demo_0/obs/agentview_image", shape=(2, 32, 32, 3))
        file.create_virtual_dataset("data/demo_0/obs/agentview_image", layout)

    def external(file):
        size = 2 * 32 * 32 * 3
        file.create_dataset(
            "data/demo_0/obs/agentview_image", (2, 32, 32, 3), np.uint8, external=[(str(elsewhere), 0, size)]
        )

    failure, _ = read(_corpus_with(tmp_path, virtual))
    assert "got a virtual data set at '/data/demo_0/obs/agentview_image'. Copy the data" in failure.detail
    failure, _ = read(_corpus_with(tmp_path, external))
    assert f"got a data set whose bytes are in '{elsewhere}' at '/data/demo_0/obs/agentview_image'" in failure.detail


def test_links_within_the_file_are_followed_and_circles_are_refused(tmp_path):
    def inside(file):
        file["data/demo_0/obs/agentview_image"] = h5py.SoftLink("/data/demo_1/obs/agentview_image")

    episode, _ = read(_corpus_with(tmp_path, inside))
    assert numbers_of(episode, "agentview_image") == [0, 1, 2]

    def circle(file):
        file["data/demo_0/obs/agentview_image"] = h5py.SoftLink("/data/demo_0/obs/agentview_image")

    failure, _ = read(_corpus_with(tmp_path, circle))
    assert "got a circle at '/data/demo_0/obs/agentview_image'" in failure.detail

    def groups(file):
        file["data/demo_0/obs/again"] = file["data/demo_0/obs"]

    failure, _ = read(_corpus_with(tmp_path, groups))
    assert "groups must be nested 16 deep at most" in failure.detail


def test_a_file_that_is_a_symbolic_link_is_read(tmp_path):
    stored = write_aloha(tmp_path / "blobs" / "0f1e.hdf5")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "episode_0.hdf5").symlink_to(stored)
    (episode,) = read(tmp_path / "snapshot")
    assert episode.episode_id == "episode_0"


def test_states_that_are_no_numbers_are_refused(tmp_path):
    path = write_robomimic(tmp_path / "a.hdf5", (2,), next_obs=False)
    with h5py.File(path, "a") as file:
        file["data/demo_0/obs/names"] = np.array([b"a", b"b"])
    (failure,) = read(path, {"states": "names"})
    assert "states must be numbers or vectors: got |S1 in '/data/demo_0/obs/names'" in failure.detail
