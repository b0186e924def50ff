import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
import zarr
from hdf5_recordings import assert_aligned, numbered_actions, numbered_frames, numbers_of
from small_corpora import read_whole

from vlm_rewards.schemas.episodes import CorpusFeatures
from vlm_rewards.schemas.formats.corpus import open_corpus


def read(path, options=None, **wanted):
    """All that a corpus gives, its frames read."""
    corpus = open_corpus(path, options)
    return read_whole(item for unit in corpus.units() for item in corpus.episodes(unit, **wanted))


def write_buffer(
    path,
    lengths=(3, 2),
    *,
    zarr_format=2,
    camera="img",
    chunk=2,
    frames=None,
    action=True,
    compressors="auto",
    more=(),
):
    """Writes a replay buffer as diffusion policy does; its chunks do not end where episodes do."""
    root = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    if frames is None:
        frames = np.concatenate([numbered_frames(range(length)) for length in lengths])
    arrays = {f"data/{camera}": frames, "meta/episode_ends": np.cumsum(lengths).astype(np.int64)}
    arrays["data/state"] = np.arange(3 * len(frames), dtype=np.float32).reshape(-1, 3)
    if action:
        arrays["data/action"] = np.concatenate([numbered_actions(length) for length in lengths])
    arrays |= {f"data/{name}": np.asarray(values) for name, values in dict(more).items()}
    for name, values in arrays.items():
        made = root.create_array(
            name,
            shape=values.shape,
            chunks=(chunk, *values.shape[1:]),
            dtype=values.dtype,
            compressors=compressors if values.ndim == 4 else "auto",
        )
        made[:] = values
    return path


def zipped(path):
    """Packs a store as UMI does."""
    packed = path.with_name(f"{path.name}.zip")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as file:
        for folder, _, names in os.walk(path):
            for name in names:
                file.write(Path(folder, name), Path(folder, name).relative_to(path))
    shutil.rmtree(path)
    return packed


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("pack", [False, True])
def test_a_replay_buffer_is_read_from_a_folder_and_a_zip_file(tmp_path, zarr_format, pack):
    path = write_buffer(tmp_path / "pusht.zarr", (3, 1, 4), zarr_format=zarr_format)
    corpus = open_corpus(zipped(path) if pack else path)
    assert corpus.format_name == "zarr"
    assert corpus.features == CorpusFeatures(
        cameras=("img",), action_size=2, has_rewards=False, has_instruction=False, missing_frame="last"
    )
    (unit,) = corpus.units()
    assert (unit.name, unit.num_episodes, unit.num_frames) == ("pusht", 3, 8)
    episodes = read_whole(pickle.loads(pickle.dumps(corpus)).episodes(unit))
    assert [(e.episode_id, e.num_frames, e.num_steps) for e in episodes] == [
        ("pusht/episode_0", 3, 3),
        ("pusht/episode_1", 1, 1),
        ("pusht/episode_2", 4, 4),
    ]
    assert corpus.episode_ids(unit) == [e.episode_id for e in episodes]
    for episode in episodes:
        assert_aligned(episode, "img")
    assert corpus.passed_over == ()
    assert corpus.decoders("img") == {}


def test_rewards_ends_and_success_are_of_the_actions(tmp_path):
    more = {
        "reward": np.array([[0], [0.5], [1], [0], [2]], np.float32),
        "done": [0, 0, 1, 0, 0],
        "success": [False, False, True, False, False],
    }
    path = write_buffer(tmp_path / "a.zarr", more=more)
    assert open_corpus(path).features.has_rewards
    first, second = read(path)
    assert (first.rewards.tolist(), first.rewards.dtype) == ([0, 0.5, 1], np.float32)
    assert (first.terminations.tolist(), first.truncations.tolist()) == ([False, False, True], [False] * 3)
    assert (second.rewards.tolist(), second.truncations.tolist()) == ([0, 2], [False, True])
    assert (first.successes.tolist(), second.successes.tolist()) == ([False, False, True], [False, False])
    (bare, _) = read(path, fields=("actions",))
    assert (bare.rewards, bare.successes) == (None, None)

    path = write_buffer(tmp_path / "umi.zarr", action=False, more={"r": [1, 2, 3, 4, 5], "won": [0, 1, 0, 0, 1]})
    assert not open_corpus(path).features.has_rewards
    first, second = read(path, {"reward": "r", "success": "won"})
    assert (first.rewards.tolist(), second.rewards.tolist()) == ([1, 2], [4])  # of the steps between two frames
    assert (first.successes.tolist(), second.successes.tolist()) == ([False, True], [False])


def test_arrays_that_are_no_rewards_are_refused(tmp_path):
    path = write_buffer(tmp_path / "a.zarr", more={"reward": np.zeros((5, 2), np.float32)})
    failures = read(path)
    assert [failure.detail for failure in failures] == [
        "reward must have one number per row: got [2]. Name another array, or convert it"
    ] * 2
    assert len(read(path, fields=("actions",))) == 2  # label needs none
    with pytest.raises(
        ValueError, match="option success must name an array of 'data': got 'won', and they are .*state"
    ):
        open_corpus(path, {"success": "won"})


def test_several_stores_are_one_corpus(tmp_path):
    write_buffer(tmp_path / "a.zarr", (2,))
    zipped(write_buffer(tmp_path / "b.zarr", (1, 1)))
    write_buffer(tmp_path / "sub" / "c.zarr", (1,), zarr_format=3)
    (tmp_path / "notes.txt").write_text("")
    ids = [e.episode_id for e in read(tmp_path)]
    assert ids == ["a/episode_0", "b/episode_0", "b/episode_1", "sub/c/episode_0"]


def test_a_large_store_is_cut_between_episodes(tmp_path):
    path = write_buffer(tmp_path / "a.zarr", (3, 2, 4))
    corpus = open_corpus(path)
    units = corpus.units(max_bytes=5 * 32 * 32 * 3 + 5 * 100)
    assert [(unit.name, unit.start, unit.stop, unit.num_frames) for unit in units] == [
        ("a-e000000", 0, 2, 5),
        ("a-e000002", 2, -1, 4),
    ]
    for episode in read_whole(e for unit in units for e in corpus.episodes(unit)):
        assert_aligned(episode, "img")


def test_a_replaced_chunk_changes_the_content(tmp_path):
    path = write_buffer(tmp_path / "a.zarr")
    (before,) = open_corpus(path).units()
    assert open_corpus(path).units() == [before]
    zarr.open_group(path)["data/img"][4] = 9
    (after,) = open_corpus(path).units()
    assert after.content != before.content


def test_umi_has_no_actions_and_its_states_are_named(tmp_path):
    path = write_buffer(tmp_path / "demo.zarr", camera="camera0_rgb", action=False)
    corpus = open_corpus(path, {"states": "state"})
    assert corpus.features == CorpusFeatures(
        cameras=("camera0_rgb",), action_size=None, state_size=3, has_rewards=False, has_instruction=False
    )
    _, second = read(path, {"states": "state"})
    assert second.actions is None
    assert second.states.tolist() == [[9, 10, 11], [12, 13, 14]]
    assert numbers_of(second, "camera0_rgb") == [0, 1]
    with pytest.raises(ValueError, match="must name arrays of 'data': got 'camera0_rgb', and they are state. Correct"):
        open_corpus(path, {"states": "camera0_rgb"})


def test_pictures_of_floats_are_read_where_it_is_said_which_value_is_white(tmp_path):
    frames = numbered_frames(range(3))
    path = write_buffer(tmp_path / "a.zarr", (3,), frames=frames.astype(np.float32))
    with pytest.raises(ValueError, match=r"img \[3, 32, 32, 3\] float32, not uint8 .*Say which value is white"):
        open_corpus(path)
    np.testing.assert_array_equal(list(read(path, {"white": "255"})[0].images["img"]), frames)
    (failure,) = read(path, {"white": "1"})
    assert "pictures must be from 0 to 1, as the option white says: got values from 0.0 to 200.0" in failure.detail
    path = write_buffer(tmp_path / "b.zarr", (3,), frames=frames / np.float32(255))
    np.testing.assert_array_equal(list(read(path, {"white": "1"})[0].images["img"]), frames)


def test_channels_are_swapped_where_that_is_said(tmp_path):
    path = write_buffer(tmp_path / "a.zarr", (3,), frames=numbered_frames(range(3))[..., ::-1])
    with pytest.raises(AssertionError, match="blue is not the last channel"):
        numbers_of(read(path)[0], "img")
    assert numbers_of(read(path, {"channels": "bgr"})[0], "img") == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "allowed"), [("channels", "rgb or bgr"), ("white", "1 or 255"), ("missing-is-black", "yes or no")]
)
def test_other_values_of_an_option_are_refused(tmp_path, name, allowed):
    write_buffer(tmp_path / "a.zarr")
    with pytest.raises(ValueError, match=f"the option {name} must be {allowed}: got '7'"):
        open_corpus(tmp_path / "a.zarr", {name: "7"})


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("pack", [False, True])
def test_a_chunk_that_is_not_there_is_no_black_frame(tmp_path, zarr_format, pack):
    path = write_buffer(tmp_path / "a.zarr", (3, 2, 2), zarr_format=zarr_format)
    name = {2: "1.0.0.0", 3: "c/1/0/0/0"}[zarr_format]  # frames 2 and 3: the last of one episode, the first of the next
    (path / "data" / "img" / name).unlink()
    path = zipped(path) if pack else path
    first, second, third = read(path)
    for failure in (first, second):
        assert failure.reason == "missing data"
        assert f"must have a file: got none at 'data/img/{name}', which zarr would read as black" in failure.detail
    assert_aligned(third, "img")
    black = read(path, {"missing-is-black": "yes"})[0]
    assert [int(frame.max()) for frame in black.images["img"]] == [200, 200, 0]


def test_a_broken_chunk_fails_its_episodes(tmp_path):
    path = write_buffer(tmp_path / "a.zarr", (3, 2))
    (path / "data" / "img" / "0.0.0.0").write_bytes(b"abc")
    failure, whole = read(path)
    assert (failure.scope, failure.reason, failure.num_frames) == ("episode", "unreadable data", 3)
    assert "rows 0 to 3 of /data/img must be readable: got an error of zarr" in failure.detail
    assert_aligned(whole, "img")


def test_broken_stores_are_told_and_the_others_are_read(tmp_path):
    write_buffer(tmp_path / "a.zarr", (2,))
    packed = zipped(write_buffer(tmp_path / "b.zarr", (2,)))
    packed.write_bytes(packed.read_bytes()[:100])
    write_buffer(tmp_path / "c.zarr", (2,))
    (tmp_path / "c.zarr" / "meta" / "episode_ends" / ".zarray").write_text("{")
    found = read(tmp_path)
    assert [getattr(item, "shard", "") for item in found] == ["", "b.zarr.zip", "c.zarr"]
    assert all("a zarr store must be whole: got" in failure.detail for failure in found[1:])
    corpus = open_corpus(tmp_path)
    assert [corpus.episode_ids(unit) for unit in corpus.units()] == [["a/episode_0"], [], []]
    with pytest.raises(ValueError, match=r"a store that can be read: got none of 1, the first being .*b.zarr.zip \("):
        open_corpus(packed)


def test_lengths_that_disagree_are_refused(tmp_path):
    path = write_buffer(tmp_path / "a.zarr", (2, 2), frames=numbered_frames(range(5)))
    with pytest.raises(ValueError, match="got 5 of 'img', and episodes end with 4 in .*a.zarr. Copy the store again"):
        open_corpus(path)


@pytest.mark.parametrize(
    ("ends", "shown"),
    [
        (np.array([3, 3]), r"int64 \[3, 3\]"),
        (np.array([0, 3]), r"int64 \[0, 3\]"),
        (np.array([1.5]), r"float64 \[1.5\]"),
    ],
)
def test_ends_must_rise(tmp_path, ends, shown):
    path = write_buffer(tmp_path / "a.zarr", (3,))
    made = zarr.open_group(path)["meta"].create_array(
        "episode_ends", shape=ends.shape, dtype=ends.dtype, overwrite=True
    )
    made[:] = ends
    with pytest.raises(ValueError, match=f"meta/episode_ends must be whole numbers that rise: got {shown} in"):
        open_corpus(path)


def test_an_empty_buffer_is_refused(tmp_path):
    path = write_buffer(tmp_path / "a.zarr", (), frames=np.zeros((0, 32, 32, 3), np.uint8), action=False)
    packed = zipped(path)
    with pytest.raises(ValueError, match="a replay buffer must hold episodes: got none in .*a.zarr.zip"):
        open_corpus(packed)


def test_zip_files_of_another_kind_are_refused(tmp_path):
    zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3).create_group("data")
    with pytest.raises(ValueError, match="a replay buffer must have meta/episode_ends: got data in .*a.zarr.zip"):
        open_corpus(zipped(tmp_path / "a.zarr"))
    zarr.open_group(tmp_path / "b.zarr", mode="w", zarr_format=3).create_group("meta")
    with pytest.raises(ValueError, match="it has no group 'data', but meta"):
        open_corpus(zipped(tmp_path / "b.zarr"))


@pytest.mark.parametrize(
    ("frames", "found"),
    [
        (np.zeros((3, 3, 64, 64), np.uint8), r"img \[3, 3, 64, 64\] uint8, channels first"),
        (np.zeros((3, 7, 7, 3), np.uint8), r"img \[3, 7, 7, 3\] uint8, smaller than 32 x 32: a symbolic grid"),
        (np.zeros((3, 64), np.float32), r"action \[3, 2\] float64, img \[3, 64\] float32, state \[3, 3\] float32"),
    ],
)
def test_arrays_that_are_no_pictures_are_named(tmp_path, frames, found):
    path = write_buffer(tmp_path / "a.zarr", (3,), frames=frames)
    with pytest.raises(
        ValueError, match=rf"pictures must be \[N, H, W, 3\] uint8 in 'data': got {found} in .* Convert"
    ):
        open_corpus(path)


def test_a_codec_that_is_not_installed_is_named(tmp_path):
    path = write_buffer(tmp_path / "a.zarr")
    described = path / "data" / "img" / ".zarray"
    described.write_text(json.dumps({**json.loads(described.read_text()), "compressor": {"id": "imagecodecs_none"}}))
    with pytest.raises(ValueError, match=r"codecs that are installed: got .*imagecodecs_none.*pip install imagecodecs"):
        open_corpus(path)


def test_actions_that_are_no_numbers_fail_the_episode(tmp_path):
    path = write_buffer(tmp_path / "a.zarr", (2,), action=False)
    made = zarr.open_group(path)["data"].create_array("action", shape=(2,), dtype="S1")
    made[:] = np.array([b"a", b"b"])
    (failure,) = read(path)
    assert failure.detail == "/data/action must be numbers: got |S1. Convert the array"
    assert numbers_of(read(path, fields=())[0], "img") == [0, 1]


def test_discrete_actions_and_a_camera_that_is_not_there(tmp_path):
    path = write_buffer(tmp_path / "a.zarr", (2,), action=False)
    made = zarr.open_group(path)["data"].create_array("action", shape=(2,), dtype="i4")
    made[:] = [4, 1]
    assert open_corpus(path).features.action_size == 0
    (episode,) = read(path)
    assert episode.actions.tolist() == [4, 1]
    assert episode.actions.dtype == np.int64
    (failure,) = read(path, cameras=["side"])
    assert (failure.scope, failure.reason) == ("shard", "missing camera")


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_stores_are_read_from_a_url(tmp_path, zarr_format, pack):
    path = write_buffer(tmp_path / "a.zarr", (3, 2), zarr_format=zarr_format)
    if pack:
        zipped(path)
    files = fsspec.filesystem("memory")
    files.put(f"{tmp_path}/", "/zarr-of-tests/", recursive=True)
    try:
        corpus = open_corpus("memory://zarr-of-tests")
        for episode in corpus:
            assert_aligned(episode, "img")
        (unit,) = corpus.units()
        assert corpus.episode_ids(unit) == ["a/episode_0", "a/episode_1"]
    finally:
        files.rm("/zarr-of-tests", recursive=True)


def test_pictures_of_umi_are_read_where_their_codec_is_installed(tmp_path):
    codecs = pytest.importorskip("imagecodecs.numcodecs", reason="imagecodecs is not installed")
    codecs.register_codecs()
    path = write_buffer(tmp_path / "a.zarr", (3, 2), compressors=codecs.Jpegxl(level=99, numthreads=1), chunk=1)
    corpus = open_corpus(zipped(path))
    for episode in corpus:
        assert_aligned(episode, "img")
    assert list(corpus.decoders("img")) == ["imagecodecs"]  # another release may give other pixels
