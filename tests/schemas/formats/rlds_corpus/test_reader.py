import json
import pickle
from pathlib import Path

import fsspec
import numpy as np
import pytest
from rlds_files import (
    episode_features,
    framed,
    group,
    image,
    sequence,
    serialized,
    tensor,
    text,
    write_data_set,
    zipped,
)
from small_corpora import frame, read_whole

from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.formats.rlds_corpus import tfrecord
from vlm_rewards.schemas.manifests import Failure
from vlm_rewards.schemas.pictures import encode_png

STEPS = {
    "observation": group({"image": image(8, 8, 3), "state": tensor("float32", 2)}),
    "action": tensor("float32", 3),
    "reward": tensor("float32"),
    "is_first": tensor("bool"),
    "is_last": tensor("bool"),
    "is_terminal": tensor("bool"),
    "language_instruction": text(),
}
FEATURES = episode_features(STEPS)


def pictures(seed, count=3):
    return [encode_png(frame(100 * seed + t)) for t in range(count)]


def values(seed=0, count=3, **changes):
    """An episode as Open X-Embodiment has them: `count` steps, all with an action."""
    rng = np.random.default_rng(seed)
    ends = np.arange(count) == count - 1
    found = {
        "steps/observation/image": pictures(seed, count),
        "steps/observation/state": rng.standard_normal((count, 2)).astype(np.float32),
        "steps/action": rng.standard_normal((count, 3)).astype(np.float32),
        "steps/reward": np.arange(count, dtype=np.float32),
        "steps/is_first": np.arange(count) == 0,
        "steps/is_last": ends,
        "steps/is_terminal": np.zeros(count, bool),
        "steps/language_instruction": ["lift the cup"] * count,
    }
    return found | {f"steps/{name.replace('__', '/')}": value for name, value in changes.items()}


def record(seed=0, count=3, **changes):
    return serialized(values(seed, count, **changes))


def write(folder, *records, features=FEATURES, **kwargs):
    return write_data_set(folder / "toy" / "1.0.0", features, {"train": [list(records)]}, **kwargs)


def read(folder, options=None, **wanted):
    corpus = open_corpus(folder, options)
    return [item for unit in corpus.units() for item in read_whole(corpus.episodes(unit, **wanted))]


def test_an_episode_is_what_was_written(tmp_path):
    written = values(4)
    write(tmp_path, record(3), serialized(written))
    corpus = open_corpus(tmp_path)
    assert corpus.format_name == "rlds"
    assert corpus.features.cameras == ("image",)
    assert (corpus.features.action_size, corpus.features.state_size, corpus.features.missing_frame) == (3, 2, "last")
    (unit,) = corpus.units()
    assert unit.num_episodes == 2
    assert corpus.episode_ids(unit) == ["train-00000-00000", "train-00000-00001"]
    episode = read_whole(corpus.episodes(unit))[1]
    assert episode.episode_id == "train-00000-00001"
    assert episode.source == "toy/1.0.0/toy-train.tfrecord-00000-of-00001"
    assert episode.images == {"image": written["steps/observation/image"]}  # the bytes, untouched
    assert episode.actions.dtype == np.float32
    np.testing.assert_array_equal(episode.actions, written["steps/action"])
    np.testing.assert_array_equal(episode.states, written["steps/observation/state"])
    assert episode.rewards.tolist() == [0, 1, 2]
    assert episode.terminations.tolist() == [False, False, False]
    assert episode.truncations.tolist() == [False, False, True]
    assert episode.instruction == "lift the cup"
    assert not episode.has_final_frame
    corpus.features.check(episode)


def test_only_what_is_wanted_is_read(tmp_path):
    write(tmp_path, record(action=np.zeros(4, np.float32)))  # broken: 4 values are no 3 per step
    (episode,) = read(tmp_path, fields=(), cameras=["image"])
    assert (episode.actions, episode.rewards, episode.states, episode.instruction) == (None, None, None, None)
    (episode,) = read(tmp_path, fields=("states",), frames=False)
    assert (len(episode.images["image"]), episode.states.shape) == (3, (3, 2))
    (failure,) = read(tmp_path)
    assert str(failure) == (
        "toy/1.0.0/toy-train.tfrecord-00000-of-00001, episode train-00000-00000: invalid episode: record 0 at byte 0: "
        "steps/action must have 3 values in every step, got 4 in all. Leave the episode out"
    )


def spec_record(seed, count=4, **changes):
    """An episode as the specification has them: the last step is the final frame, with zeros."""
    last = {
        "action": np.array([[1.0 + t] * 3 if t < count - 1 else [0.0] * 3 for t in range(count)], np.float32),
        "reward": np.array([0.5] * (count - 1) + [0.0], np.float32),
        "is_terminal": np.arange(count) == count - 1,
    }
    return record(seed, count, **(last | changes))


def test_the_last_step_of_the_specification_is_the_final_frame(tmp_path):
    write(tmp_path, spec_record(0), spec_record(1, is_last=[False] * 4))
    corpus = open_corpus(tmp_path)
    assert corpus.features.missing_frame == "last"  # the second episode has no is_last: a real action
    write(tmp_path / "spec", spec_record(0), spec_record(1), spec_record(2), spec_record(3, is_last=[False] * 4))
    corpus = open_corpus(tmp_path / "spec")
    assert corpus.features.missing_frame is None
    episode, _, _, interrupted = read_whole(corpus.episodes(*corpus.units()))
    assert (episode.num_frames, episode.num_steps, episode.has_final_frame) == (4, 3, True)
    assert episode.actions[:, 0].tolist() == [1, 2, 3]
    assert episode.rewards.tolist() == [0.5] * 3
    assert episode.terminations.tolist() == [False, False, True]  # the step into the terminal frame
    assert episode.truncations.tolist() == [False, False, False]
    assert (interrupted.num_steps, interrupted.has_final_frame) == (4, False)


@pytest.mark.parametrize("changes", [{"action": np.ones((4, 3), np.float32)}, {"reward": np.ones(4, np.float32)}])
def test_a_last_step_with_an_action_or_a_reward_was_taken(tmp_path, changes):
    write(tmp_path, spec_record(0, **changes))
    assert open_corpus(tmp_path).features.missing_frame == "last"
    assert read(tmp_path)[0].num_steps == 4


def test_an_option_says_whether_the_last_action_was_taken(tmp_path):
    write(tmp_path, spec_record(0))
    assert read(tmp_path, {"last-action": "recorded"})[0].num_steps == 4
    write(tmp_path, record(0))
    assert read(tmp_path, {"last-action": "invalid"})[0].num_steps == 2
    with pytest.raises(ValueError, match="the option last-action must be auto or recorded or invalid: got 'no'"):
        open_corpus(tmp_path, {"last-action": "no"})


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, "lift the cup"),
        ({"language_instruction": ["", "", ""]}, None),
        ({"language_instruction": ["", "late", ""]}, "late"),
        ({"language_instruction": ["größer\n"] * 3}, "größer\n"),
    ],
)
def test_an_instruction_is_the_first_text_that_is_not_empty(tmp_path, changes, found):
    write(tmp_path, record(**changes))
    assert read(tmp_path)[0].instruction == found


def test_an_instruction_that_changes_hinders_only_those_who_need_one(tmp_path):
    write(tmp_path, record(language_instruction=["lift", "", "drop"]))
    corpus = open_corpus(tmp_path)
    [unit] = corpus.units()
    assert list(corpus.instructions(unit)) == [("lift", "drop")]
    [failure] = corpus.episodes(unit)
    assert (failure.scope, failure.reason) == ("episode", "several instructions")
    assert failure.detail == "an episode must have one instruction, got 'lift' and 'drop'. Split the episode"
    [episode] = corpus.episodes(unit, fields=())
    assert episode.num_frames == 3


def test_an_instruction_may_be_in_the_observation_or_where_an_option_says(tmp_path):
    steps = {name: feature for name, feature in STEPS.items() if name != "language_instruction"}
    steps["observation"] = group(
        {"image": image(8, 8, 3), "natural_language_instruction": text(), "other": tensor("string")}
    )
    texts = {"observation__natural_language_instruction": ["a"] * 3, "observation__other": ["b"] * 3}
    write(tmp_path, record(**texts), features=episode_features(steps))
    assert read(tmp_path)[0].instruction == "a"
    assert read(tmp_path, {"instruction": "observation/other"})[0].instruction == "b"
    with pytest.raises(ValueError, match=r"an instruction must be a text: got steps/action of tensor \[3\] float32"):
        open_corpus(tmp_path, {"instruction": "action"})
    write(
        tmp_path,
        record(**(texts | {"observation__natural_language_instruction": [b"\xff"] * 3})),
        features=episode_features(steps),
    )
    assert "must be a text, got b'\\xff'" in read(tmp_path)[0].detail


def test_an_instruction_may_be_spelled_in_numbers(tmp_path):
    steps = STEPS | {"words": tensor("int32", 8)}
    spelled = [[*b"push \xc3\xa9", 0]] * 3
    write(tmp_path, record(words=spelled), record(words=[[300] * 8] * 3), features=episode_features(steps))
    episode, failure = read(tmp_path, {"instruction": "words"})
    assert episode.instruction == "push é"
    assert "steps/words must spell a text in bytes of 0 to 255, got 300 to 300" in failure.detail
    assert read(tmp_path)[0].instruction == "lift the cup"


def test_an_observation_that_is_a_picture_is_the_camera(tmp_path):
    found = values(observation=pictures(1))
    del found["steps/observation/image"], found["steps/observation/state"]
    features = episode_features(STEPS | {"observation": image(8, 8, 3)})
    write(tmp_path, serialized(found), features=features)
    (episode,) = read(tmp_path)
    assert episode.images == {"observation": pictures(1)}
    write(tmp_path / "grey", serialized(found), features=episode_features(STEPS | {"observation": image(8, 8, 1)}))
    with pytest.raises(ValueError, match="got steps/observation has 1 channels instead of 3"):
        open_corpus(tmp_path / "grey")


def test_the_parts_of_an_action_follow_each_other_by_name(tmp_path):
    steps = STEPS | {
        "action": group({"world": tensor("float32", 2), "close": tensor("float32"), "end": tensor("int32", 2)})
    }
    parts = {
        "action__world": [[1.0, 2.0]] * 3,
        "action__close": [3.0, 4.0, 5.0],
        "action__end": [[6, 7]] * 3,
    }
    written = {k: v for k, v in values(**parts).items() if k != "steps/action"}
    write(tmp_path, serialized(written), features=episode_features(steps))
    assert open_corpus(tmp_path).features.action_size == 5
    assert read(tmp_path)[0].actions.tolist() == [[3, 6, 7, 1, 2], [4, 6, 7, 1, 2], [5, 6, 7, 1, 2]]
    chosen = {"action": "action/world, steps/action/close"}
    assert read(tmp_path, chosen)[0].actions.tolist() == [[1, 2, 3], [1, 2, 4], [1, 2, 5]]
    with pytest.raises(ValueError, match="a feature must be one of steps/observation/image, .*: got 'nothing' for"):
        open_corpus(tmp_path, {"action": "nothing"})
    with pytest.raises(ValueError, match="must have as many in every step: got steps/language_instruction of text"):
        open_corpus(tmp_path, {"action": "language_instruction"})
    written["steps/action/close"] = [3.0]
    write(tmp_path, serialized(written), features=episode_features(steps))
    assert "steps/action/close must have as many steps as there are frames, 3, got 1" in read(tmp_path)[0].detail


def test_a_discrete_action_is_a_number_per_step(tmp_path):
    steps = STEPS | {"action": tensor("int32")}
    write(tmp_path, record(action=[2, 0, 6]), features=episode_features(steps))
    assert open_corpus(tmp_path).features.action_size == 0
    (episode,) = read(tmp_path)
    assert (episode.actions.dtype, episode.actions.tolist()) == (np.int64, [2, 0, 6])


@pytest.mark.parametrize(
    ("path", "succeeded"),
    [
        ("gs://xembodiment_data/r2d2/ILIAD/success/2023-05-16/trajectory.h5", True),
        ("gs://xembodiment_data/r2d2/ILIAD/failure/2023-05-16/trajectory.h5", False),
        ("gs://xembodiment_data/r2d2/ILIAD/successes/2023-05-16/success", None),  # no folder of that name
        ("failure/success/trajectory.h5", None),
    ],
)
def test_the_path_of_droid_says_whether_an_episode_is_a_success(tmp_path, path, succeeded):
    features = episode_features(STEPS, {"file_path": text()})
    write(tmp_path, serialized(values() | {"episode_metadata/file_path": [path]}), features=features)
    (episode,) = read(tmp_path)
    assert episode.succeeded is succeeded
    assert read(tmp_path, fields=())[0].succeeded is None


def test_a_reward_of_several_numbers_is_none(tmp_path):
    write(
        tmp_path,
        record(reward=np.zeros((3, 2), np.float32)),
        features=episode_features(STEPS | {"reward": tensor("float32", 2)}),
    )
    assert not open_corpus(tmp_path).features.has_rewards
    assert read(tmp_path)[0].rewards is None


def test_an_action_that_varies_in_size_is_refused(tmp_path):
    write(tmp_path, record(), features=episode_features(STEPS | {"action": sequence(tensor("float32"))}))
    with pytest.raises(
        ValueError, match=r"an action must be numbers, as many in every step: got steps/action of tensor"
    ):
        open_corpus(tmp_path)


def test_a_data_set_without_actions_or_rewards_is_read(tmp_path):
    steps = {"observation": STEPS["observation"], "reward": STEPS["reward"]}
    write(tmp_path, record(), features=episode_features(steps))
    corpus = open_corpus(tmp_path)
    assert (corpus.features.action_size, corpus.features.missing_frame) == (None, None)
    (episode,) = read(tmp_path)
    assert (episode.num_steps, episode.rewards.tolist(), episode.truncations.tolist()) == (2, [0, 1], [False, True])
    write(tmp_path / "bare", record(), features=episode_features({"observation": STEPS["observation"]}))
    corpus = open_corpus(tmp_path / "bare")
    assert (corpus.features.has_rewards, corpus.features.has_instruction) == (False, False)
    (episode,) = read(tmp_path / "bare")
    assert (episode.rewards, episode.instruction, episode.num_frames) == (None, None, 3)


CAMERAS = {
    "a.b/c ü": image(-1, -1, 3),
    "depth": image(8, 8, 1, dtype="uint16"),
    "depth3": image(8, 8, 3, dtype="uint16"),
    "grey": image(8, 8, 1),
    "grid": tensor("uint8", 7, 7, 3),
    "grid_image": image(7, 7, 3),
    "floats": tensor("float32", 8, 8, 3),
    "varying": tensor("uint8", -1, -1, 3),
    "several": sequence(image(8, 8, 3)),
    "film": {"pythonClassName": "x.Video", "video": {}},
    "ints": tensor("uint8", 8, 8, 3),
    "zlib": tensor("uint8", 8, 9, 3, encoding="zlib"),
    "raw": tensor("uint8", 8, 8, 3, encoding="bytes"),
}


def camera_values():
    frames = [frame(t) for t in range(3)]
    wide = [np.concatenate([f, f[:, :1]], axis=1) for f in frames]
    found = {
        "observation__a.b/c ü": pictures(0),
        "observation__ints": np.stack(frames),
        "observation__zlib": [zipped(f) for f in wide],
        "observation__raw": [f.tobytes() for f in frames],
    }
    return frames, wide, found


def test_cameras_are_pictures_of_three_channels(tmp_path):
    frames, wide, found = camera_values()
    write(tmp_path, record(**found), features=episode_features(STEPS | {"observation": group(CAMERAS)}))
    corpus = open_corpus(tmp_path)
    assert corpus.features.cameras == ("a.b/c ü", "ints", "raw", "zlib")
    (episode,) = read(tmp_path)
    assert episode.images["a.b/c ü"] == pictures(0)
    for camera, expected in (("ints", frames), ("raw", frames), ("zlib", wide)):
        assert [pixels.dtype for pixels in episode.images[camera]] == [np.uint8] * 3
        np.testing.assert_array_equal(np.stack(episode.images[camera]), np.stack(expected))
    assert open_corpus(tmp_path, {"cameras": "zlib, ints"}).features.cameras == ("ints", "zlib")
    with pytest.raises(ValueError, match="a camera must be one of a.b/c ü, ints, raw, zlib: got 'depth' for"):
        open_corpus(tmp_path, {"cameras": "depth"})


def test_bgr_is_said_by_an_option_and_never_guessed(tmp_path):
    frames, _, found = camera_values()
    write(tmp_path, record(**found), features=episode_features(STEPS | {"observation": group(CAMERAS)}))
    (episode,) = read(tmp_path, {"channels": "bgr"})
    for camera in ("a.b/c ü", "ints", "raw"):
        np.testing.assert_array_equal(np.stack(episode.images[camera]), np.stack(frames)[..., ::-1])
    assert len(episode.images["a.b/c ü"]) == 3
    with pytest.raises(ValueError, match="the option channels must be rgb or bgr: got 'BGR'"):
        open_corpus(tmp_path, {"channels": "BGR"})
    broken = record(observation__image=[*pictures(0, 2), b"no picture"])
    write(tmp_path / "broken", broken)
    (failure,) = read(tmp_path / "broken", {"channels": "bgr"})
    assert (failure.reason, failure.num_frames) == ("undecodable image", 3)
    assert failure.detail.startswith("frame 2: a picture must be PNG")


@pytest.mark.parametrize(
    ("camera", "changed", "detail"),
    [
        (
            "ints",
            np.full(3 * 192, 256),
            "pixels of 'steps/observation/ints' must be 0 to 255, got 256 in frame 0. Leave the episode out",
        ),
        ("ints", np.full(3 * 192, -1), "must be 0 to 255, got -1 in frame 0"),
        (
            "ints",
            np.zeros(3 * 192 - 1, int),
            "steps/observation/ints must have 192 values in every step, got 575 in all",
        ),
        (
            "raw",
            [b"x" * 191] * 3,
            r"'steps/observation/raw': a tensor tensor [8, 8, 3] uint8 must have 192 bytes, got 191",
        ),
        ("zlib", [b"no zlib"] * 3, "a compressed tensor must decompress, got Error -3"),
        ("zlib", [zipped(np.zeros(10_000, np.uint8))] * 3, "must have 216 bytes, got more"),
    ],
)
def test_arrays_that_are_no_pictures_fail_their_episode(tmp_path, camera, changed, detail):
    _, _, found = camera_values()
    found[f"observation__{camera}"] = changed
    write(tmp_path, record(**found), features=episode_features(STEPS | {"observation": group(CAMERAS)}))
    (failure,) = read(tmp_path, {"cameras": camera})
    assert (failure.scope, failure.episode_id) == ("episode", "train-00000-00000")
    assert detail in failure.detail


def test_a_data_set_without_a_camera_says_what_its_pictures_are(tmp_path):
    names = ("depth", "grid", "grid_image", "varying", "film", "several")
    steps = STEPS | {"observation": group({name: CAMERAS[name] for name in names})}
    write(tmp_path, record(), features=episode_features(steps))
    with pytest.raises(ValueError, match="must have pictures of 3 channels below steps/observation") as error:
        open_corpus(tmp_path)
    for words in (
        "steps/observation/depth has uint16 values, as depth has",
        "steps/observation/grid has 7 x 7 cells, a grid of symbols",
        "steps/observation/grid_image has 7 x 7 cells, a grid of symbols",
        "steps/observation/varying has an array whose size varies",
        "steps/observation/film has several pictures per step",
        "steps/observation/several has several pictures per step",
    ):
        assert words in str(error.value)


BLACK = [encode_png(np.zeros((8, 8, 3), np.uint8))] * 3
STILL = [encode_png(frame(5))] * 3
TWO = episode_features(
    STEPS | {"observation": group({"image": image(8, 8, 3), "wrist": image(8, 8, 3), "state": tensor("float32", 2)})},
    {"has_image": tensor("bool"), "has_wrist": tensor("bool")},
)


def two_cameras(seed, has_wrist, wrist, has_image=True, **changes):
    found = values(seed, observation__wrist=wrist, **changes)
    return serialized(found | {"episode_metadata/has_image": [has_image], "episode_metadata/has_wrist": [has_wrist]})


def test_a_camera_that_was_not_there_is_missing_in_that_episode(tmp_path):
    records = [
        two_cameras(0, False, BLACK),
        two_cameras(1, True, BLACK),  # there, in the dark
        two_cameras(2, False, STILL),  # flags are hints: this is no filler
        two_cameras(3, False, pictures(9), has_image=False),
    ]
    write(tmp_path, *records, features=TWO)
    assert open_corpus(tmp_path).features.cameras == ("image", "wrist")
    assert [sorted(episode.images) for episode in read(tmp_path)] == [["image"], *[["image", "wrist"]] * 3]
    first, *rest = read(tmp_path, cameras=["wrist"])
    assert (first.reason, first.scope, first.episode_id) == ("missing camera", "episode", "train-00000-00000")
    assert [list(episode.images) for episode in rest] == [["wrist"]] * 3


def test_a_camera_that_no_first_episode_has_is_none_of_the_corpus(tmp_path):
    write(tmp_path, *(two_cameras(seed, False, BLACK) for seed in range(4)), features=TWO)
    corpus = open_corpus(tmp_path)
    assert corpus.features.cameras == ("image",)
    (note,) = corpus.notes
    assert note.startswith("the first episodes of toy/1.0.0 have no camera wrist: a filler stands for it")
    assert [sorted(episode.images) for episode in read(tmp_path)] == [["image"]] * 4
    assert open_corpus(tmp_path, {"cameras": "image,wrist"}).features.cameras == ("image", "wrist")
    dark = two_cameras(0, False, BLACK, has_image=False, observation__image=BLACK)
    write(tmp_path, dark, features=TWO)
    (failure,) = read(tmp_path)
    assert "an episode must have a camera, got single-coloured fillers for all of image, wrist" in failure.detail


def test_a_wrong_checksum_fails_its_episode_and_no_other(tmp_path):
    folder = write(tmp_path, record(0), record(1), record(2))
    path = folder / "toy-train.tfrecord-00000-of-00001"
    data = bytearray(path.read_bytes())
    start = len(framed(record(0)))
    data[start + 500] ^= 4
    path.write_bytes(bytes(data))
    first, failure, last = read(tmp_path)
    assert [first.episode_id, last.episode_id] == ["train-00000-00000", "train-00000-00002"]
    assert (failure.reason, failure.episode_id) == ("wrong checksum", "train-00000-00001")
    assert failure.shard == "toy/1.0.0/toy-train.tfrecord-00000-of-00001"
    assert f"the checksum of record 1 at byte {start} is wrong: stored " in failure.detail


def test_a_truncated_record_fails_its_file_after_the_good_ones(tmp_path):
    folder = write(tmp_path, record(0), record(1))
    path = folder / "toy-train.tfrecord-00000-of-00001"
    path.write_bytes(path.read_bytes()[:-10])
    corpus = open_corpus(tmp_path)
    episode, failure = read(tmp_path)
    assert episode.episode_id == "train-00000-00000"
    assert (failure.scope, failure.reason) == ("shard", "unreadable shard")
    assert f"got one that ends within record 1 at byte {len(framed(record(0)))}, which has" in failure.detail
    assert corpus.episode_ids(corpus.units()[0]) == ["train-00000-00000"]


def test_a_record_that_is_no_example_fails_its_episode(tmp_path):
    write(tmp_path, record(0), b"\x0b\x0b", serialized({}), record(1, count=0))
    first, broken, empty, no_steps = read(tmp_path)
    assert first.num_frames == 3
    assert broken.reason == "broken record"
    assert "record 1 at byte" in broken.detail
    assert (
        "cannot be read: a field at byte 0 must have a known wire type, got 3. Leave the episode out" in broken.detail
    )
    for failure in (empty, no_steps):
        assert "must have as many frames in every camera and at least one, got {'image': 0}" in failure.detail


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        (
            {"action": np.zeros((2, 3), np.float32), "reward": np.zeros(2, np.float32)},
            "steps/action must have as many steps as there are frames, 3, got 2",
        ),
        ({"reward": np.zeros(2, np.float32)}, "steps/reward must have as many steps as there are frames, 3, got 2"),
        ({"action": np.full((3, 3), np.nan, np.float32)}, "must have finite actions, got nan"),
        (
            {"observation__image": pictures(0, 2)},
            "steps/action must have as many steps as there are frames, 2, got 3",
        ),
        ({"observation__image": [1, 2, 3]}, "feature 'steps/observation/image' must hold byte strings, got integers"),
        ({"action": ["a", "b", "c"]}, "feature 'steps/action' must hold numbers, got byte strings"),
    ],
)
def test_what_does_not_fit_together_fails_its_episode(tmp_path, changes, detail):
    write(tmp_path, record(0), record(1, **changes))
    first, failure = read(tmp_path)
    assert first.episode_id == "train-00000-00000"
    assert detail in failure.detail
    assert "record 1 at byte" in failure.detail


def test_an_episode_of_one_frame_is_read(tmp_path):
    write(tmp_path, record(0, count=1), spec_record(1, count=1))
    one, other = read(tmp_path)
    assert (one.num_frames, one.actions.shape) == (1, (1, 3))
    assert (other.num_frames, other.actions.shape) == (1, (1, 3))
    (final,) = read(write(tmp_path / "spec", spec_record(1, count=1)))
    assert (final.num_frames, final.actions.shape, final.rewards.shape) == (1, (0, 3), (0,))


def test_large_records_stream_from_their_file(tmp_path, monkeypatch):
    write(tmp_path, record(0), record(1))
    expected = [episode.images for episode in read(tmp_path)]
    monkeypatch.setattr(tfrecord, "_BUFFERED_BYTES", 100)
    assert [episode.images for episode in read(tmp_path)] == expected
    episodes = list(open_corpus(tmp_path))  # their frames are read when the pass is over
    assert [list(episode.images["image"]) for episode in episodes] == [images["image"] for images in expected]
    assert list(episodes[0].images["image"]) == expected[0]["image"]


def test_units_are_ranges_of_records(tmp_path):
    write(tmp_path, *(record(seed) for seed in range(7)))
    corpus = open_corpus(tmp_path)
    whole = [episode.episode_id for episode in read(tmp_path)]
    for max_bytes in (1, 2000, 5000):
        units = corpus.units(max_bytes)
        assert sum(unit.num_bytes for unit in units) == corpus.folder.files[-1].num_bytes
        assert len({unit.name for unit in units}) == len(units)
        parts = [[e.episode_id for e in read_whole(corpus.episodes(unit))] for unit in units]
        assert [name for part in parts for name in part] == whole
        assert [corpus.episode_ids(unit) for unit in units] == parts
        for unit, part in zip(units, parts, strict=True):
            low, high = unit.id_bounds
            assert all(low <= name <= high for name in part)
    assert len(corpus.units(1)) == 7


def test_a_cut_file_is_planned_up_to_the_cut(tmp_path):
    folder = write(tmp_path, *(record(seed) for seed in range(3)))
    path = folder / "toy-train.tfrecord-00000-of-00001"
    path.write_bytes(path.read_bytes()[:-10])
    corpus = open_corpus(tmp_path)
    units = corpus.units(1)
    assert [(unit.start, unit.stop) for unit in units] == [(0, 1), (1, -1)]
    assert [f.reason for unit in units for f in corpus.episodes(unit) if hasattr(f, "reason")] == ["unreadable shard"]
    path.write_bytes(path.read_bytes()[: len(framed(record(0))) + 20])
    assert len(open_corpus(tmp_path).units(1)) == 1


def test_small_files_share_a_unit(tmp_path):
    shards = {"train": [[record(n)] for n in range(20)], "val-a": [[record(99)], []]}
    write_data_set(tmp_path / "toy" / "1.0.0", FEATURES, shards)
    corpus = open_corpus(tmp_path)
    (unit,) = corpus.units()
    assert len(unit.files) == 22
    ids = [episode.episode_id for episode in read(tmp_path)]
    assert ids == [*(f"train-{n:05d}-00000" for n in range(20)), "val-a-00000-00000"]
    assert [episode.episode_id for episode in read(tmp_path, {"split": "val-a"})] == ["val-a-00000-00000"]
    with pytest.raises(ValueError, match="a split must be one of train, val-a: got 'test' for"):
        open_corpus(tmp_path, {"split": "train,test"})


def test_a_single_file_is_read_by_itself(tmp_path):
    folder = write_data_set(tmp_path / "1.0.0", FEATURES, {"train": [[record(0)], [record(1)]]})
    (episode,) = read(folder / "toy-train.tfrecord-00001-of-00002")
    assert episode.episode_id == "train-00001-00000"


def test_a_folder_of_versions_is_refused_and_one_of_them_is_read(tmp_path):
    for version in ("1.0.0", "1.1.0"):
        write_data_set(tmp_path / "toy" / version, FEATURES, {"train": [[record(0)]]})
    with pytest.raises(
        ValueError, match=r"one version of a data set can be read: got 1.0.0, 1.1.0 in .*toy. Give the folder"
    ):
        open_corpus(tmp_path)
    assert len(read(tmp_path / "toy" / "1.1.0")) == 1


def test_a_folder_of_several_data_sets_is_one_corpus(tmp_path):
    write_data_set(tmp_path / "a" / "1.0.0", FEATURES, {"train": [[record(0)]]}, name="a")
    write_data_set(tmp_path / "b" / "2.0.0", TWO, {"train": [[two_cameras(1, True, pictures(3))]]}, name="b")
    assert [episode.episode_id for episode in read(tmp_path)] == [
        "a/1.0.0/train-00000-00000",
        "b/2.0.0/train-00000-00000",
    ]
    corpus = open_corpus(tmp_path)
    assert corpus.features.cameras == ("image", "wrist")
    failure, _ = read(tmp_path, cameras=["wrist"])
    assert (failure.scope, failure.reason) == ("shard", "missing camera")


def test_data_sets_of_other_pictures_and_actions_are_read_each_with_its_own(tmp_path):
    write_data_set(tmp_path / "a" / "1.0.0", FEATURES, {"train": [[record(0)]]}, name="a")
    steps = {"observation": group({"image": image(16, 24, 3)}), "action": tensor("float32", 2)}
    large = [encode_png(np.full((16, 24, 3), shade, np.uint8)) for shade in range(4)]
    other = serialized({"steps/observation/image": large, "steps/action": np.arange(8, dtype=np.float32).reshape(4, 2)})
    write_data_set(tmp_path / "b" / "1.0.0", episode_features(steps), {"train": [[other]]}, name="b")
    first, second = read(tmp_path)
    assert (first.actions.shape[1], second.actions.shape) == (3, (4, 2))
    assert list(second.images["image"]) == large
    corpus = open_corpus(tmp_path)
    assert corpus.features.action_size == 3
    (note,) = corpus.notes
    assert note == (
        "a/1.0.0 and b/1.0.0 hold other actions (3 numbers and 2 numbers), states (2 numbers and none), rewards (some and none): "
        "each is read with its own; hindsight fails episodes that differ from those of a/1.0.0, so give it the folder of one"
    )


def test_the_rows_go_before_what_dataset_info_promises(tmp_path):
    write(tmp_path, record(0), record(1), promised={"train": [100]})
    assert [episode.episode_id for episode in read(tmp_path)] == ["train-00000-00000", "train-00000-00001"]
    assert open_corpus(tmp_path).notes == (
        "dataset_info.json of toy/1.0.0 speaks of 100 records in the files of train that are there, but they hold 2, "
        "which are read",
    )


def test_files_that_were_not_downloaded_are_said(tmp_path):
    shards = {"train": [[record(0)], [record(1)], [record(2)]], "val": [[record(3)]]}
    folder = write_data_set(tmp_path, FEATURES, shards)
    assert open_corpus(tmp_path).notes == ()
    (folder / "toy-train.tfrecord-00001-of-00003").unlink()
    assert open_corpus(tmp_path).notes == (
        "the split train has 3 files by their names, but 2 are there, which are read",
    )


def test_pictures_that_are_no_cameras_are_said(tmp_path):
    depth = {"image": image(8, 8, 3), "depth": image(8, 8, 1, dtype="uint16")}
    write(tmp_path, record(0), features=episode_features(STEPS | {"observation": group(depth)}))
    note = "steps/observation/depth of toy/1.0.0 is no camera: it has uint16 values, as depth has"
    assert open_corpus(tmp_path).notes == (note,)


def test_what_lies_beside_the_files_is_the_data_sets_own(tmp_path):
    folder = write_data_set(tmp_path / "toy" / "1.0.0", FEATURES, {"train": [[record(0)]], "val": [[record(1)]]})
    (folder / "dataset_statistics_1.json").write_text("{}")
    (folder / "notes.doc").write_text("")
    (tmp_path / "other.json").write_text("{}")
    passed_over = [entry.name for entry in open_corpus(tmp_path, {"split": "val"}).passed_over]
    assert passed_over == ["other.json", "toy/1.0.0/notes.doc"]


def test_metadata_that_is_missing_or_broken(tmp_path):
    folder = write(tmp_path, record(0))
    (folder / "dataset_info.json").unlink()
    assert len(read(tmp_path)) == 1
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(ValueError, match=r"dataset_info.json must be JSON: got .* Copy it again, or remove it"):
        open_corpus(tmp_path)
    (folder / "dataset_info.json").write_text("[]")
    with pytest.raises(ValueError, match=r"dataset_info.json must be a JSON object: got \[\]"):
        open_corpus(tmp_path)
    (folder / "dataset_info.json").write_text('{"splits": [{}]}')
    with pytest.raises(ValueError, match=r"dataset_info.json must list splits with shardLengths: got KeyError"):
        open_corpus(tmp_path)
    (folder / "dataset_info.json").unlink()
    for content, why in (
        ("{", "it must be JSON, got Expecting property name"),
        (
            '{"type": "x", "content": {}}',
            "TensorFlow Datasets 4.4 or later, got an earlier one. Write it with version 4.9",
        ),
        ("[1]", "it must be as TensorFlow Datasets writes it, got "),
        ('{"featuresDict": {"features": {"a": {}}}}', "it must be as TensorFlow Datasets writes it, got KeyError ("),
    ):
        (folder / "features.json").write_text(content)
        with pytest.raises(ValueError, match="cannot be used: ") as error:
            open_corpus(tmp_path)
        assert why in str(error.value)
    (folder / "features.json").unlink()
    with pytest.raises(ValueError, match=r"must have features.json beside them: got none in .*toy/1.0.0. Copy it"):
        open_corpus(tmp_path)


def test_a_data_set_without_files_says_so(tmp_path):
    folder = write_data_set(tmp_path, FEATURES, {})
    with pytest.raises(
        ValueError, match=r"a data set must have files .tfrecord: got none in .*. Download the data set"
    ):
        open_corpus(folder)
    (folder / "dataset_info.json").write_text(json.dumps({"fileFormat": "array_record"}))
    with pytest.raises(ValueError, match=r"whose records are in 'array_record'. Convert it with `tfds convert_format`"):
        open_corpus(folder)


def test_a_flipped_bit_is_a_failure_wherever_it_is(tmp_path):
    folder = write(tmp_path, record(0), record(1), record(2))
    path = folder / "toy-train.tfrecord-00000-of-00001"
    corpus, data = open_corpus(tmp_path), path.read_bytes()
    (unit,) = corpus.units()
    whole = {episode.episode_id: list(episode.images["image"]) for episode in read_whole(corpus.episodes(unit))}
    random = np.random.default_rng(0)
    for place in [*range(12), *random.integers(len(data), size=200).tolist()]:
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << random.integers(8))]) + data[place + 1 :])
        items = read_whole(corpus.episodes(unit))
        good = [item for item in items if not isinstance(item, Failure)]
        assert len(good) < 3, place
        assert {f.reason for f in items if isinstance(f, Failure)} <= {"wrong checksum", "unreadable shard"}
        assert all(list(item.images["image"]) == whole[item.episode_id] for item in good)


def test_a_data_set_in_an_object_store_is_read(tmp_path):
    files = fsspec.filesystem("memory")
    folder = write_data_set(
        tmp_path / "toy" / "1.0.0", FEATURES, {"train": [[record(0), record(1)]]}, promised={"train": [9]}
    )
    files.put(str(folder), "/rlds/toy/1.0.0", recursive=True)
    try:
        corpus = open_corpus("memory://rlds")
        assert corpus.notes == ()  # counting records would cost a request each
        remote = [item for unit in corpus.units(1) for item in read_whole(corpus.episodes(unit))]
    finally:
        files.rm("/rlds", recursive=True)
    assert [(e.episode_id, e.images) for e in remote] == [(e.episode_id, e.images) for e in read(tmp_path)]


def test_the_reader_can_be_sent_to_workers(tmp_path):
    write(tmp_path, record(0))
    corpus = pickle.loads(pickle.dumps(open_corpus(tmp_path)))
    assert [episode.episode_id for episode in corpus] == ["train-00000-00000"]


BRIDGE = Path(__file__).parents[4].parent / "shared" / "corpora" / "bridge-octo"


@pytest.mark.skipif(not BRIDGE.is_dir(), reason="the real BridgeData V2 files are not in ../shared/corpora")
def test_real_bridge_data():
    corpus = open_corpus(BRIDGE)
    assert corpus.features.cameras == ("image_0", "image_1", "image_2")  # image_3 is a black filler
    assert (corpus.features.action_size, corpus.features.state_size, corpus.features.missing_frame) == (7, 7, "last")
    episodes = read(BRIDGE, cameras=["image_0"])
    assert len(episodes) == 50
    assert {(episode.num_frames, episode.num_steps) for episode in episodes} == {(10, 10)}
    assert episodes[0].instruction == "put cup from counter or drying rack into sink"
