import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from small_corpora import frame, plain_episode, read_whole

from vlm_rewards.schemas.episodes import CorpusFeatures
from vlm_rewards.schemas.formats.corpus import open_corpus, write_episodes
from vlm_rewards.schemas.formats.webdataset_others import format as format_module
from vlm_rewards.schemas.formats.webdataset_others import reader as reader_module
from vlm_rewards.schemas.formats.webdataset_others.patterns import Pattern, choose_patterns
from vlm_rewards.schemas.manifests import Failure
from vlm_rewards.schemas.pictures import encode_png


def picture(seed):
    return encode_png(frame(seed))


def array(values):
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values))
    return buffer.getvalue()


def write(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def read(path, options=None, **wanted):
    corpus = open_corpus(path, options)
    return [item for unit in corpus.units() for item in read_whole(corpus.episodes(unit, **wanted))]


ACTIONS = np.arange(6, dtype=np.float32).reshape(3, 2)


def episode_members(key="ep0", count=3, **changes):
    found = {f"{key}.frame_{number:04d}.png": picture(number) for number in range(count)}
    found[f"{key}.actions.npy"] = array(ACTIONS)
    found[f"{key}.rewards.npy"] = array([0.0, 0.5, 1.0])
    found[f"{key}.json"] = json.dumps({"instruction": "lift", "num_steps": count}).encode()
    return found | {name.replace("KEY", key): data for name, data in changes.items()}


def test_a_sample_per_episode_is_read_by_its_names(tmp_path):
    write(tmp_path / "a.tar", episode_members("ep0"))
    write(tmp_path / "b.tar", episode_members("x/ep1"))
    corpus = open_corpus(tmp_path)
    assert (corpus.format_name, corpus.features.cameras) == ("webdataset", ("image",))
    assert (corpus.features.action_size, corpus.features.missing_frame) == (2, "last")
    assert corpus.notes == (
        "members are read by the names in the first tar: picture={episode}.frame_{frame}.*, action={episode}.actions.npy, "
        "reward={episode}.rewards.npy, instruction={episode}.json:instruction; options of these names say otherwise",
    )
    first, second = read(tmp_path)
    assert (first.episode_id, second.episode_id) == ("ep0", "x/ep1")
    assert first.images == {"image": [picture(number) for number in range(3)]}
    np.testing.assert_array_equal(first.actions, ACTIONS)
    assert (first.actions.dtype, first.instruction) == (np.float32, "lift")
    assert first.rewards.tolist() == [0, 0.5, 1]
    assert (first.terminations.tolist(), first.truncations.tolist()) == ([False] * 3, [False, False, True])
    corpus.features.check(first)
    assert [corpus.episode_ids(unit) for unit in corpus.units()] == [["ep0"], ["x/ep1"]]
    (bare,) = read(tmp_path / "a.tar", fields=(), frames=False)
    assert (bare.actions, bare.instruction, len(bare.images["image"])) == (None, None, 3)
    assert len(list(pickle.loads(pickle.dumps(corpus)))) == 2


def test_a_long_first_sample_is_looked_at_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(format_module, "_LOOKED_AT", 2)
    write(tmp_path / "a.tar", episode_members("ep0"))  # its actions and its JSON come after its frames
    (episode,) = read(tmp_path)
    assert (episode.num_steps, episode.instruction) == (3, "lift")


def step_members(episode, numbers, **changes):
    found = {}
    for number in numbers:
        key = f"{episode}_{number:03d}"
        found[f"{key}.front.png"] = picture(number)
        found[f"{key}.wrist.png"] = picture(100 + number)
        found[f"{key}.action.npy"] = array(np.array([number, 0.5], np.float32))
        found[f"{key}.state.npy"] = array(np.array([number], np.float64))
        found[f"{key}.txt"] = b"push it\n"
    return found | changes


def test_a_sample_per_step_goes_on_in_the_next_tar(tmp_path):
    write(tmp_path / "0.tar", step_members("a", range(3)) | step_members("b", range(2)))
    write(tmp_path / "1.tar", step_members("b", range(2, 4)))
    write(tmp_path / "2.tar", step_members("b", range(4, 5)) | step_members("c", range(2)))
    write(tmp_path / "3.tar", step_members("d", range(2)))
    corpus = open_corpus(tmp_path)
    assert corpus.features.cameras == ("front", "wrist")
    units = corpus.units()
    assert [(unit.name, unit.files, unit.start, unit.stop) for unit in units] == [
        ("0", ("0.tar", "1.tar", "2.tar"), 0, 1),
        ("2", ("2.tar",), 1, -1),
        ("3", ("3.tar",), 0, -1),
    ]
    assert [corpus.episode_ids(unit) for unit in units] == [["a", "b"], ["c"], ["d"]]
    a, b, c, d = read(tmp_path)
    assert [e.num_frames for e in (a, b, c, d)] == [3, 5, 2, 2]
    assert b.images["wrist"] == [picture(100 + number) for number in range(5)]
    assert b.actions[:, 0].tolist() == b.states[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert (b.actions.dtype, b.states.dtype, b.instruction) == (np.float32, np.float32, "push it")
    assert read(tmp_path / "3.tar", cameras=["wrist"])[0].images.keys() == {"wrist"}
    (lacking,) = read(tmp_path / "3.tar", cameras=["side"])
    assert lacking.reason == "missing camera"


def test_small_tars_share_units_over_the_cuts(tmp_path):
    for number in range(20):  # each tar ends in the middle of an episode
        parts = step_members(f"e{number}", range(2, 4)) | step_members(f"e{number + 1}", range(2))
        write(tmp_path / f"{number:02d}.tar", parts)
    corpus = open_corpus(tmp_path)
    (unit,) = corpus.units()
    assert (len(unit.files), unit.start, unit.stop) == (20, 0, -1)
    assert [(e.episode_id, e.num_frames) for e in read(tmp_path)] == [
        ("e0", 2), *((f"e{n}", 4) for n in range(1, 20)), ("e20", 2)
    ]  # fmt: skip


def test_large_tars_are_cut_into_ranges_of_episodes(tmp_path):
    write(tmp_path / "0.tar", step_members("a", range(3)) | step_members("b", range(3)) | step_members("c", range(2)))
    write(tmp_path / "1.tar", step_members("c", range(2, 4)) | step_members("d", range(2)))
    corpus = open_corpus(tmp_path)
    whole = read(tmp_path)
    units = corpus.units(1)
    assert [(unit.name, unit.files, unit.start, unit.stop) for unit in units] == [
        ("0-e000000", ("0.tar",), 0, 1),
        ("0-e000001", ("0.tar",), 1, 2),
        ("0-e000002", ("0.tar", "1.tar"), 2, 1),
        ("1", ("1.tar",), 1, -1),
    ]
    parts = [item for unit in units for item in read_whole(corpus.episodes(unit))]
    assert [(e.episode_id, e.images) for e in parts] == [(e.episode_id, e.images) for e in whole]
    assert [e.num_frames for e in parts] == [3, 3, 4, 2]
    a_and_b, *_ = corpus.units(sum(len(picture(n)) for n in range(6)) * 2)
    assert (a_and_b.num_episodes, a_and_b.stop) == (2, 2)


def test_what_the_writer_of_webdataset_packs_is_read(tmp_path):
    with webdataset.ShardWriter(str(tmp_path / "%03d.tar"), maxcount=4, verbose=0) as writer:
        for episode in range(3):
            for step in range(3):
                key = f"ep{episode}-{step}"
                writer.write({"__key__": key, "jpg": frame(step), "action.npy": np.array(step), "json": {"task": "go"}})
    episodes = read(tmp_path)
    assert [(e.episode_id, e.num_frames, e.actions.tolist(), e.instruction) for e in episodes] == [
        (f"ep{n}", 3, [0, 1, 2], "go") for n in range(3)
    ]
    assert open_corpus(tmp_path).features.action_size == 0


def test_options_say_what_members_are_called(tmp_path):
    members = {f"run7/cam-{c}/{n}.jpeg": picture(n) for c in "ab" for n in range(1, 3)}
    members |= {"run7/u.npy": array(ACTIONS[:1]), "run7/meta.json": b'{"what": "turn"}'}
    write(tmp_path / "a.tar", members)
    options = {
        "picture": "{episode}/cam-{camera}/{frame}.*",
        "action": "{episode}/u.npy",
        "instruction": "{episode}/meta.json:what",
    }
    corpus = open_corpus(tmp_path, options)
    assert corpus.notes == ()
    assert corpus.features.cameras == ("a", "b")
    (episode,) = read(tmp_path, options)
    assert (episode.episode_id, episode.instruction, episode.actions.tolist()) == ("run7", "turn", [[0, 1]])
    assert (episode.num_frames, episode.has_final_frame) == (2, True)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["ep.0.jpg", "ep.1.jpg"], "{episode}.{frame}.*"),
        (["ep.frame_0.jpg"], "{episode}.frame_{frame}.*"),
        (["ep.img-3.webp"], "{episode}.img-{frame}.*"),
        (["ep.front.0001.png", "ep.wrist.0001.png"], "{episode}.{camera}.{frame}.*"),
        (["ep.front_0001.png"], "{episode}.{camera}_{frame}.*"),
        (["ep/0001.png"], "{episode}/{frame}.*"),
        (["ep/step_0001.png"], "{episode}/step_{frame}.*"),
        (["a/ep_1_0001.JPG"], "{episode}_{frame}.*"),
        (["ep-0001.png", "ep-0001.json"], "{episode}-{frame}.*"),
        (["ep_0001.front.png", "ep_0001.wrist.png"], "{episode}_{frame}.{camera}.*"),
        (["ep/0001.front.png"], "{episode}/{frame}.{camera}.*"),
    ],
)
def test_the_pattern_follows_from_the_names(names, expected):
    assert choose_patterns(names, b"", {}, "a.tar").picture.text == expected


def test_a_pattern_matches_a_name():
    match = Pattern("{episode}_{frame}.{camera}.*").match("a/b_1_0007.front.jpg")
    assert match.groupdict() == {"episode": "a/b_1", "frame": "0007", "camera": "front"}
    assert Pattern("{episode}.x.jpg").match("a.x.png") is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"picture": "{frame}.jpg"}, r"a pattern must have {episode} once, .* got '{frame}.jpg'"),
        ({"picture": "{episode}{frame}{frame}.jpg"}, "and {frame} and {camera} at most once: got"),
        ({"picture": "{episode}.{step}.jpg"}, "a pattern must have {episode} once"),
        ({"picture": "{episode}.jpg"}, "a pattern of pictures must have {frame}: got '{episode}.jpg'"),
        (
            {"picture": "{episode}_{frame}.gif"},
            r"must have names like '{episode}_{frame}.gif': got ep0.frame_0000.png, .* in ",
        ),
    ],
)
def test_a_pattern_that_is_none_is_refused(tmp_path, options, message):
    write(tmp_path / "a.tar", episode_members())
    with pytest.raises(ValueError, match=message):
        open_corpus(tmp_path, options)


@pytest.mark.parametrize("names", [["0001.png", "0002.png"], ["cat.png"], ["readme.txt"]])
def test_names_that_tell_no_episode_are_refused(tmp_path, names):
    write(tmp_path / "a.tar", dict.fromkeys(names, b"x"))
    with pytest.raises(
        ValueError, match=rf"whose names tell episode and frame: got {names[0]}.* Say what they are like with"
    ):
        open_corpus(tmp_path)


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        (
            {"KEY.frame_0006.png": b""},
            "missing frames",
            "must have 7 frames by their numbers, got 4: none lies between 2 and 6",
        ),
        ({"KEY.frame_2.png": b""}, "odd member", "a frame must occur once, got ep1.frame_2.png again"),
        ({"KEY.actions.npy": b"no"}, "broken member", "must be a .npy array of numbers, got b'no'"),
        ({"KEY.actions.npy": array(np.zeros((3, 2, 2)))}, "invalid episode", "actions must have 2 axes, got [3, 2, 2]"),
        ({"KEY.json": b"{"}, "broken member", "'ep1.json' must be JSON or a text, got b'{'"),
        ({"KEY.json": b"[]"}, "broken member", "'ep1.json' must be a JSON object, got []"),
        ({"KEY.json": b'{"instruction": 3}'}, "broken member", "an instruction must be a text, got 3"),
        ({"KEY.json": b'{"instruction": ["a"]}'}, "broken member", "an instruction must be a text, got ['a']"),
    ],
)
def test_what_is_wrong_fails_its_episode(tmp_path, changes, reason, detail):
    write(tmp_path / "a.tar", episode_members("ep0") | episode_members("ep1", **changes))
    first, failure = read(tmp_path)
    assert first.episode_id == "ep0"
    assert (failure.episode_id, failure.reason) == ("ep1", reason)
    assert detail in failure.detail


def test_an_episode_without_its_actions_fails(tmp_path):
    members = episode_members("ep0") | {k: v for k, v in episode_members("ep1").items() if "actions" not in k}
    write(tmp_path / "a.tar", members)
    assert "must have a member {episode}.actions.npy, got none. Add it" in read(tmp_path)[1].detail
    steps = step_members("a", range(3)) | step_members("b", range(3))
    del steps["b_002.action.npy"]  # the last step may have no action
    write(tmp_path / "steps" / "a.tar", steps)
    assert [e.num_steps for e in read(tmp_path / "steps")] == [3, 2]
    del steps["b_001.state.npy"]
    write(tmp_path / "steps" / "a.tar", steps)
    assert (
        "each step must have a member {episode}_{frame}.state.npy, got none for frame 1"
        in read(tmp_path / "steps")[1].detail
    )


def test_two_instructions_in_an_episode_are_refused_where_one_is_needed(tmp_path):
    write(tmp_path / "a.tar", step_members("a", range(2)) | step_members("b", range(2), **{"b_001.txt": b"pull"}))
    failure = read(tmp_path)[1]
    assert (failure.reason, failure.episode_id) == ("several instructions", "b")
    assert "must have one instruction, got 'push it' and 'pull'" in failure.detail
    assert len(read(tmp_path, fields=("actions",))[1].actions) == 2


def test_a_frame_in_two_tars_fails_its_episode(tmp_path):
    write(tmp_path / "0.tar", step_members("a", range(3)))
    write(tmp_path / "1.tar", step_members("a", range(2, 4)))
    (failure,) = read(tmp_path)
    assert "a frame must occur once, got 2 of camera 'front' in two tars" in failure.detail


def test_a_cut_tar_fails_with_its_last_episode(tmp_path):
    path = write(tmp_path / "a.tar", episode_members("ep0") | episode_members("ep1"))
    path.write_bytes(path.read_bytes()[:-8000])
    episode, failure = read(tmp_path)
    assert (episode.episode_id, failure.scope, failure.reason) == ("ep0", "shard", "unreadable shard")
    assert ", in episode 'ep1'; the rest of it is not read" in failure.detail


def test_links_and_large_pictures_are_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tar", episode_members("ep0"))
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("ep1.frame_0000.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert (
        "must be a plain file, got a link, device or other. Pack it with tar --dereference" in read(tmp_path)[1].detail
    )
    monkeypatch.setattr(reader_module, "MAX_IMAGE_BYTES", 10)
    assert "a picture must have at most 10 bytes, got" in read(tmp_path)[0].detail


def test_a_tar_without_a_readable_episode_is_refused(tmp_path):
    write(
        tmp_path / "a.tar",
        {"ep0.frame_0.png": b"x", "ep0.frame_1.png": b"x", "ep0.frame_2.png": b"x", "ep0.frame_9.png": b"x"},
    )
    with pytest.raises(
        ValueError, match=r"a corpus must have an episode that can be read, got none in .* must have 10 frames"
    ):
        open_corpus(tmp_path)


def test_ours_are_read_as_before_and_broken_ones_keep_their_reasons(tmp_path):
    episodes = [plain_episode(0)]
    write_episodes(tmp_path / "a.tar", CorpusFeatures.of(episodes[0]), episodes, "webdataset")
    assert type(open_corpus(tmp_path).reader).__name__ == "WebDatasetReader"
    write(tmp_path / "a.tar", {"e.json": b"{", "e.front.000000.png": picture(0)})
    with pytest.raises(ValueError, match="'e.json' must be JSON"):
        open_corpus(tmp_path)


BRIDGE = Path(__file__).parents[4].parent / "shared" / "corpora" / "bridge-wds-episode"


@pytest.mark.skipif(not BRIDGE.is_dir(), reason="the tars of real BridgeData V2 are not in ../shared/corpora")
def test_real_tars_of_others():
    episodes = read(BRIDGE)
    assert not any(isinstance(item, Failure) for item in episodes)
    assert [(e.episode_id, e.num_frames, e.actions.shape) for e in episodes] == [
        (f"ep{n:04d}", 10, (10, 7)) for n in range(6)
    ]
    assert episodes[0].instruction == "put cup from counter or drying rack into sink"
