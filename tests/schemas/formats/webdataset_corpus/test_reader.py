import functools
import hashlib
import io
import json
import re
import tarfile

import numpy as np
import pytest
import webdataset
from small_corpora import assert_same, opened, plain_episode, read_file, robot_episode, whole_file

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode, UnreadFrames
from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.webdataset_corpus import reader as webdataset_corpus
from vlm_rewards.schemas.formats.webdataset_corpus.reader import plan_file, read_file_features
from vlm_rewards.schemas.formats.webdataset_corpus.writer import write_webdataset
from vlm_rewards.schemas.manifests import Failure
from vlm_rewards.schemas.pictures import decode_image


def _write(path, episodes):
    write_webdataset(path, CorpusFeatures.of(episodes[0]), episodes)
    return path


def plan(path, max_bytes):
    folder = Folder(str(path.parent), only=path.name)
    return plan_file(folder, folder.files[0], max_bytes)


def features_of(path):
    return read_file_features(Folder(str(path.parent), only=path.name), path.name)


def ids_of(path, unit=None):
    return opened(path).episode_ids(unit or whole_file(path))


@pytest.mark.parametrize("record", ["marker", "manifest"])
def test_a_tar_of_record_that_has_changed_is_not_read(tmp_path, record):
    folder = tmp_path / "corpus"
    for name in ("parts", "markers"):
        (folder / name).mkdir(parents=True)
    paths = [_write(folder / "parts" / f"{name}.tar", [plain_episode(episode_id=name)]) for name in ("a", "b", "c")]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    for path, digest in zip(paths[:2], digests[:2], strict=True):  # nothing tells what c was
        if record == "marker":
            (folder / "markers" / f"{path.stem}.json").write_text(json.dumps({"sha256": digest}))
    if record == "manifest":
        parts = [{"path": f"parts/{p.name}", "sha256": d} for p, d in zip(paths[:2], digests[:2], strict=True)]
        (folder / "manifest.json").write_text(json.dumps({"parts": parts}))
    for path in paths[1:]:
        data = bytearray(path.read_bytes())
        data[data.index(b"IDAT") + 20] ^= 1  # a bit of a picture
        path.write_bytes(data)
    first, changed, unknown = [item for path in paths for item in read_file(path)]
    assert (first.episode_id, unknown.episode_id) == ("a", "c")
    assert (changed.scope, changed.shard, changed.reason) == ("shard", "b.tar", "changed shard")
    message = (
        r"must be as it was written, got .*b\.tar with other contents .* Remove it, and run the command that makes it"
    )
    assert re.search(message, changed.detail)


def _members(path):
    with tarfile.open(path) as tar:
        return [(member, tar.extractfile(member).read()) for member in tar]


def _rewrite(path, members):
    """Writes a tar as another tool would."""
    with tarfile.open(path, "w") as tar:
        for member, data in members:
            if member.isreg():
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def _replace(path, name, data):
    _rewrite(path, [(member, data if member.name == name else old) for member, old in _members(path)])


def _only_failure(path, num_good):
    items = read_file(path)
    failures = [item for item in items if isinstance(item, Failure)]
    assert len(failures) == 1, items
    assert len(items) - 1 == num_good, failures
    return failures[0]


@pytest.mark.parametrize("make", [plain_episode, robot_episode, functools.partial(robot_episode, final_frame=True)])
def test_what_is_written_is_read_back(tmp_path, make):
    episodes = [make(i, num_steps=3 + i) for i in range(4)]
    path = _write(tmp_path / "a.tar", episodes)
    for written, read in zip(episodes, read_file(path), strict=True):
        assert_same(written, read)
    assert features_of(path) == CorpusFeatures.of(episodes[0])
    assert ids_of(path) == [episode.episode_id for episode in episodes]


def test_episodes_with_little_in_them(tmp_path):
    nothing = {"rewards": None, "terminations": None, "truncations": None, "instruction": None, "achieved_goals": None}
    bare = plain_episode(actions=None, **nothing)
    assert_same(bare, *read_file(_write(tmp_path / "a.tar", [bare])))
    single = plain_episode(num_steps=0)
    assert_same(single, *read_file(_write(tmp_path / "b.tar", [single])))


def test_an_instruction_is_optional_in_a_corpus_that_has_them(tmp_path):
    episodes = [plain_episode(0), plain_episode(1, instruction=None)]
    path = _write(tmp_path / "a.tar", episodes)
    assert [episode.instruction for episode in read_file(path)] == ["go to the ball 0", None]


def test_the_same_episodes_give_the_same_bytes(tmp_path):
    for name in ("a.tar", "b.tar"):
        _write(tmp_path / name, [plain_episode(i) for i in range(3)])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    for member, _ in _members(tmp_path / "a.tar"):
        assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (0, 0, 0, "", 0o644)


def test_members_are_in_the_documented_order(tmp_path):
    _write(tmp_path / "a.tar", [robot_episode(0, num_steps=2)])
    assert [member.name for member, _ in _members(tmp_path / "a.tar")] == [
        "robot-0000.json",
        "robot-0000.action.npy",
        "robot-0000.state.npy",
        "robot-0000.front.000000.png",
        "robot-0000.front.000001.png",
        "robot-0000.wrist.000000.png",
        "robot-0000.wrist.000001.png",
    ]


def test_webdataset_decodes_everything(tmp_path):
    episodes = [plain_episode(i) for i in range(2)]
    path = _write(tmp_path / "a.tar", episodes)
    samples = list(webdataset.WebDataset(str(path), shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in samples] == ["episode-0000", "episode-0001"]
    for episode, sample in zip(episodes, samples, strict=True):
        np.testing.assert_array_equal(sample["action.npy"], episode.actions)
        np.testing.assert_array_equal(sample["reward.npy"], episode.rewards)
        assert sample["json"]["instruction"] == episode.instruction
        assert "the frame after the action" in sample["json"]["time"]
        for index, picture in enumerate(episode.images["front"]):
            np.testing.assert_array_equal(sample[f"front.{index:06d}.png"], decode_image(picture))


def test_some_cameras_and_no_pictures(tmp_path):
    episode = robot_episode()
    path = _write(tmp_path / "a.tar", [episode])
    (wrist,) = read_file(path, cameras=["wrist"])
    assert dict(wrist.images) == {"wrist": list(episode.images["wrist"])}
    (blind,) = read_file(path, frames=False)
    assert blind.images == {"front": UnreadFrames(5), "wrist": UnreadFrames(5)}


@pytest.mark.parametrize("order", [("wrist", "front", "wrist"), ("front", "front", "wrist")])
def test_an_episode_without_the_camera_of_the_others_is_a_failure(tmp_path, order):
    _write(tmp_path / "a.tar", [plain_episode(9)])
    members = _members(tmp_path / "a.tar")
    for index, camera in enumerate(order):
        pictures = plain_episode(index).images["front"]
        _write(tmp_path / "b.tar", [plain_episode(index, images={camera: pictures})])
        members += _members(tmp_path / "b.tar")
    _rewrite(tmp_path / "a.tar", members)
    items = read_file(tmp_path / "a.tar", cameras=["wrist"])
    read = [item.episode_id for item in items if isinstance(item, Episode)]
    assert read == [f"episode-{index:04d}" for index, camera in enumerate(order) if camera == "wrist"]
    failures = [item for item in items if isinstance(item, Failure)]
    assert [failure.episode_id for failure in failures] == [
        "episode-0009",
        *(f"episode-{index:04d}" for index, camera in enumerate(order) if camera == "front"),
    ]
    for failure in failures:
        assert (failure.scope, failure.reason, failure.num_frames) == ("episode", "missing camera", 6)
        assert "a camera must be one of front in a.tar, got 'wrist'" in failure.detail


def test_what_does_not_belong_is_not_written(tmp_path):
    features = CorpusFeatures.of(plain_episode())
    with pytest.raises(ValueError, match="must hold what its corpus holds"):
        write_webdataset(tmp_path / "a.tar", features, [robot_episode()])
    with pytest.raises(ValueError, match="an episode_id must occur once in a file, got 'episode-0000' again"):
        write_webdataset(tmp_path / "a.tar", features, [plain_episode(), plain_episode()])
    broken = plain_episode(images={"front": [b"?"] * 6})
    with pytest.raises(ValueError, match="a picture must be PNG, JPEG, WebP or BMP") as caught:
        write_webdataset(tmp_path / "a.tar", features, [broken])
    assert caught.value.__notes__ == ["in frame 0 of camera 'front' of episode 'episode-0000'"]


@pytest.mark.parametrize("max_unit_bytes", [1, 12_000, 2**30])
def test_units_begin_with_samples_and_give_the_same_episodes(tmp_path, max_unit_bytes):
    episodes = [plain_episode(i, num_steps=2 + i % 3) for i in range(9)]
    path = _write(tmp_path / "a.tar", episodes)
    units = plan(path, max_unit_bytes)
    assert len(units) == {1: 9, 12_000: len(units), 2**30: 1}[max_unit_bytes]
    assert len({u.name for u in units}) == len(units)
    if len(units) > 1:
        assert sum(u.num_episodes for u in units) == 9
        assert [u.start for u in units[1:]] == [u.stop for u in units[:-1]]
        assert units[-1].stop == -1
    read = [episode for u in units for episode in read_file(path, u)]
    for written, episode in zip(episodes, read, strict=True):
        assert_same(written, episode)
    assert [i for u in units for i in ids_of(path, u)] == [episode.episode_id for episode in episodes]


def test_long_names_and_other_alphabets(tmp_path):
    episodes = [plain_episode(0, episode_id="e" * 200), plain_episode(1, episode_id="ópisode-ж")]
    path = _write(tmp_path / "a.tar", episodes)
    units = plan(path, 1)
    for written, read in zip(episodes, [episode for u in units for episode in read_file(path, u)], strict=True):
        assert_same(written, read)


def test_the_order_of_a_samples_members_and_unknown_ones_do_not_matter(tmp_path):
    episode = plain_episode()
    path = _write(tmp_path / "a.tar", [episode])
    members = [*_members(path), (tarfile.TarInfo("episode-0000.depth.bin"), b"?")]
    members.reverse()
    folder = tarfile.TarInfo("folder")
    folder.type = tarfile.DIRTYPE
    for member, _ in members:
        member.name = "./" + member.name  # as `tar cf a.tar .` names them
    _rewrite(path, [(folder, b""), *members])
    assert_same(episode, *read_file(path))


def _npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def _json(**changes):
    return json.dumps({"num_frames": 6, "cameras": ["front"], **changes}).encode()


_LYING = _npy(np.zeros(5, np.float32)).replace(b"(5,)", b"(9999999999,)").replace(b"          \n", b" \n")


@pytest.mark.parametrize(
    ("suffix", "data", "reason", "detail"),
    [
        (
            "action.npy",
            _npy(np.array([{}], object), allow_pickle=True),
            "broken member",
            "must be a .npy array of numbers",
        ),
        ("action.npy", _LYING, "broken member", "must be a .npy array of numbers"),
        ("action.npy", b"\x93NUMPY", "broken member", "must be a .npy array of numbers"),
        (
            "action.npy",
            _npy(np.zeros((5, 1, 1), np.float32)),
            "invalid episode",
            "actions must have 2 axes, got [5, 1, 1]",
        ),
        (
            "action.npy",
            _npy(np.array([0, np.nan, 0, 0, 0], np.float32)),
            "invalid episode",
            "must have finite actions, got nan",
        ),
        ("action.npy", _npy(np.zeros(4, np.int64)), "invalid episode", "must have T actions and T+1 (or T) frames"),
        ("reward.npy", _npy(np.zeros(6, np.float32)), "invalid episode", "must have 5 rewards for its 6 frames, got 6"),
        ("json", b"{", "broken member", "must be JSON, got b'{'"),
        ("json", b"[1]", "broken member", "must hold num_frames and cameras, got"),
        ("json", _json(num_frames=7), "missing frames", "must have frames 0 to 6, got no frame 6"),
        ("json", _json(num_frames=5), "missing frames", "must have frames 0 to 4, got 6 frames"),
        ("json", _json(cameras=["side"]), "missing frames", "camera 'side' must have frames 0 to 5, got no frame 0"),
        ("json", _json(cameras=[]), "invalid episode", "at least one, got no camera"),
        ("json", _json(achieved_goals=[1]), "broken member", "achieved_goals must be a list a frame, got [1]"),
        ("json", _json(achieved_goals=[[]]), "invalid episode", "must have 6 achieved_goals for its 6 frames, got 1"),
    ],
)
def test_an_invalid_episode_is_a_failure_and_the_rest_goes_on(tmp_path, suffix, data, reason, detail):
    path = _write(tmp_path / "a.tar", [plain_episode(i) for i in range(3)])
    _replace(path, f"episode-0001.{suffix}", data)
    failure = _only_failure(path, num_good=2)
    assert (failure.scope, failure.shard, failure.episode_id) == ("episode", "a.tar", "episode-0001")
    assert failure.reason == reason
    assert detail in failure.detail
    assert failure.num_frames == (7 if data == _json(num_frames=7) else 6)  # as recorded, or as there are pictures


@pytest.mark.parametrize(("missing", "reason"), [("json", "missing member"), ("front.000002.png", "missing frames")])
def test_a_missing_member_is_a_failure(tmp_path, missing, reason):
    path = _write(tmp_path / "a.tar", [plain_episode(i) for i in range(3)])
    _rewrite(path, [pair for pair in _members(path) if pair[0].name != f"episode-0001.{missing}"])
    failure = _only_failure(path, num_good=2)
    assert (failure.episode_id, failure.reason, failure.num_frames) == ("episode-0001", reason, 6)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    path = _write(tmp_path / "a.tar", [plain_episode(i) for i in range(3)])
    odd = tarfile.TarInfo("episode-0001.front.000006.png")
    odd.type, odd.linkname = kind, "/etc/hostname"
    members = _members(path)
    members.insert(2 * (len(members) // 3), (odd, b""))  # last of the second sample
    _rewrite(path, members)
    failure = _only_failure(path, num_good=2)
    assert (failure.episode_id, failure.reason) == ("episode-0001", "odd member")
    assert (
        "a member must be a plain file, got 'episode-0001.front.000006.png', a link, device or other" in failure.detail
    )


@pytest.mark.parametrize("folder", ["../", "/tmp/", "a/"])
def test_members_in_folders_are_samples_of_their_own(tmp_path, folder):
    path = _write(tmp_path / "a.tar", [plain_episode(i) for i in range(2)])
    members = _members(path)
    for member, _ in members[len(members) // 2 :]:
        member.name = folder + member.name
    _rewrite(path, members)
    assert [item.episode_id for item in read_file(path)] == ["episode-0000", f"{folder}episode-0001"]
    assert list(read_file(path)[1].images["front"]) == plain_episode(1).images["front"]


def test_an_oversized_member_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = _write(tmp_path / "a.tar", [plain_episode()])
    monkeypatch.setattr(webdataset_corpus, "MAX_IMAGE_BYTES", 10)
    failure = _only_failure(path, num_good=0)
    assert failure.reason == "oversized member"
    assert "'episode-0000.front.000000.png' must have at most 10 bytes" in failure.detail
    assert failure.num_frames == 6


def test_a_frame_twice_and_an_episode_twice(tmp_path):
    path = _write(tmp_path / "a.tar", [plain_episode(i) for i in range(2)])
    members = _members(path)
    _rewrite(path, members + members[: len(members) // 2])
    failure = _only_failure(path, num_good=2)
    assert (failure.episode_id, failure.reason) == ("episode-0000", "duplicate episode")
    _rewrite(path, [*members, members[-1]])
    failure = _only_failure(path, num_good=1)
    assert (failure.episode_id, failure.reason) == ("episode-0001", "duplicate frame")


def test_of_a_tar_cut_anywhere_the_episodes_before_are_given_and_the_cut_is_told(tmp_path):
    episodes = [plain_episode(i) for i in range(3)]
    path = _write(tmp_path / "a.tar", episodes)
    path = tmp_path / "a.tar"
    data = path.read_bytes()
    starts = [u.start for u in plan(path, 1)]
    ends = [m.offset_data + m.size for m, _ in _members(path) if m.name.endswith("front.000005.png")]
    assert len(ends) == 3
    assert ends[0] < starts[1] - 1  # the padding after a picture may be cut without a loss
    for cut in [
        1,
        511,
        512,
        1024,
        ends[0] - 1,
        ends[0],
        starts[1] - 1,
        starts[1],
        starts[1] + 1,
        starts[2] + 3000,
        ends[2],
    ]:
        path.write_bytes(data[:cut])
        items = read_file(path)
        assert isinstance(items[-1], Failure), cut
        assert (items[-1].scope, items[-1].reason, items[-1].num_frames) == ("shard", "unreadable shard", 0)
        assert "a tar file must be whole, got one that" in items[-1].detail
        whole = sum(last_byte <= cut for last_byte in ends)
        for written, read in zip(episodes, items[:-1], strict=False):
            assert_same(written, read)
        assert len(items) - 1 == whole, cut
        assert len(plan(path, 1)) >= 1
        assert len(ids_of(path)) <= 3


def test_a_broken_header_is_not_taken_for_the_end(tmp_path):
    episodes = [plain_episode(i) for i in range(3)]
    path = _write(tmp_path / "a.tar", episodes)
    units = plan(path, 1)
    path = tmp_path / "a.tar"
    data = bytearray(path.read_bytes())
    data[units[2].start + 150] ^= 0xFF  # within the checksum of the third sample's first header
    path.write_bytes(data)
    failure = _only_failure(path, num_good=2)
    assert "has bytes that are no member after byte" in failure.detail
    assert [len(list(read_file(path, u))) for u in units[:2]] == [1, 1]
    assert len(plan(path, 1)) == 2


def test_tars_joined_end_to_end_do_not_lose_the_second_silently(tmp_path):
    path = _write(tmp_path / "a.tar", [plain_episode(0)])
    other = _write(tmp_path / "b.tar", [plain_episode(1)])
    with (tmp_path / "a.tar").open("ab") as file:
        file.write((tmp_path / "b.tar").read_bytes())
    assert "has bytes that are no member after byte" in _only_failure(path, num_good=1).detail
    assert ids_of(other) == ["episode-0001"]


@pytest.mark.parametrize("content", [b"", b"x" * 2000])
def test_what_is_no_tar_is_a_failure(tmp_path, content):
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    assert _only_failure(path, num_good=0).reason == "unreadable shard"
    assert len(plan(path, 1)) == 1
    with pytest.raises(ValueError, match="a tar file must hold a readable episode, got none in"):
        features_of(path)


def test_a_missing_file_is_no_failure_of_the_data(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.tar"):
        read_file(tmp_path / "a.tar")


def test_features_are_those_of_the_sample_or_as_its_json_says(tmp_path):
    path = _write(tmp_path / "a.tar", [robot_episode()])
    _replace(path, "robot-0000.json", b'{"num_frames": 5, "cameras": ["front", "wrist"]}')
    assert features_of(path) == CorpusFeatures.of(robot_episode())
    _replace(path, "robot-0000.json", b'{"num_frames": 5, "cameras": ["front"], "features": {"wheels": 4}}')
    with pytest.raises(
        ValueError, match=r"features must say what the corpus holds, got {'wheels': 4}.*\. Remove them from"
    ):
        features_of(path)


def test_broken_bytes_never_raise_anything(tmp_path):
    path = _write(tmp_path / "a.tar", [plain_episode(i) for i in range(2)])
    path = tmp_path / "a.tar"
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(data[: rng.integers(len(data)) if rng.random() < 0.3 else None])
        for place in rng.integers(0, len(broken), 8):
            broken[place] = rng.integers(256)
        path.write_bytes(broken)
        for item in read_file(path):
            assert isinstance(item, Episode | Failure)
        ids_of(path)
        plan(path, 1)
