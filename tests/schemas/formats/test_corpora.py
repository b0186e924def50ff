import functools
import json
import re

import pytest
from small_corpora import assert_same, plain_episode, robot_episode

from vlm_rewards.schemas.episodes import CorpusFeatures
from vlm_rewards.schemas.formats.corpora import (
    FORMATS,
    check_format,
    plan_units,
    read_episode_ids,
    read_episodes,
    read_features,
    write_episodes,
)
from vlm_rewards.schemas.manifests import Failure, Unit


def _write(path, episodes, format_name="parquet"):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_episodes(path, CorpusFeatures.of(episodes[0]), episodes, format_name)


@pytest.mark.parametrize("make", [plain_episode, robot_episode, functools.partial(robot_episode, final_frame=True)])
def test_both_containers_hold_the_same_episodes(tmp_path, make):
    episodes = [make(i, num_steps=2 + i) for i in range(3)]
    for name, known in FORMATS.items():
        _write(tmp_path / name / f"a.{known.extension}", episodes, name)
    units = {name: plan_units(tmp_path / name) for name in FORMATS}
    assert {name: [unit.name for unit in found] for name, found in units.items()} == {name: ["a"] for name in FORMATS}
    from_parquet, from_webdataset = (list(read_episodes(found[0])) for found in units.values())
    for written, left, right in zip(episodes, from_parquet, from_webdataset, strict=True):
        assert_same(written, left)
        assert_same(left, right)
    for (unit,) in units.values():
        assert read_features(unit) == CorpusFeatures.of(episodes[0])
        assert read_episode_ids(unit) == [episode.episode_id for episode in episodes]
        assert [dict(e.images) for e in read_episodes(unit, images=False, cameras=["front"])] == [
            {"front": [b""] * episode.num_frames} for episode in episodes
        ]


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("indices", [(0,), (0, 1), (1, 0)])
def test_an_episode_of_one_frame_keeps_the_width_of_its_actions(tmp_path, format_name, indices):
    episodes = [robot_episode(i, num_steps=4 * i, final_frame=True) for i in indices]  # number 0 has no step
    path = tmp_path / f"a.{FORMATS[format_name].extension}"
    _write(path, episodes, format_name)
    (unit,) = plan_units(path)
    read = list(read_episodes(unit))
    for written, got in zip(episodes, read, strict=True):
        assert_same(written, got)
    assert read[indices.index(0)].actions.shape == (0, 3)
    assert read_features(unit) == CorpusFeatures.of(episodes[0])


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_shard_without_the_camera_is_a_failure_of_the_shard(tmp_path, format_name):
    path = tmp_path / f"a.{FORMATS[format_name].extension}"
    _write(path, [robot_episode(i) for i in range(2)], format_name)
    (failure,) = read_episodes(*plan_units(path), cameras=["side"])
    assert (failure.scope, failure.shard, failure.reason) == ("shard", path.name, "missing camera")
    assert (failure.episode_id, failure.num_frames) == (None, 0)
    assert failure.detail == (
        f"a camera must be one of front, wrist in {path.name}, got 'side'; read the shard by itself with its own camera, "
        "or leave it out"
    )


@pytest.mark.parametrize("format_name", FORMATS)
def test_units_of_a_large_shard_are_named_by_their_range(tmp_path, format_name):
    path = tmp_path / f"a.{FORMATS[format_name].extension}"
    episodes = [plain_episode(i) for i in range(3)]
    _write(path, episodes, format_name)
    (whole,) = plan_units(path)
    assert (whole.name, whole.stop) == ("a", -1)
    units = plan_units(path, max_unit_bytes=1)
    assert len({unit.name for unit in units}) == len(units)
    assert all(re.fullmatch(r"a(-[bg][0-9-]+)?", unit.name) for unit in units)
    assert [e.episode_id for unit in units for e in read_episodes(unit)] == [e.episode_id for e in episodes]


def test_unit_names_follow_from_paths_and_never_collide(tmp_path):
    for name in ("a.parquet", "b/a.parquet", "b-a.parquet", "c d.e.parquet", ".hidden.parquet", "_new/x.parquet"):
        _write(tmp_path / name, [plain_episode()])
    (tmp_path / "notes.txt").write_text("")
    names = [unit.name for unit in plan_units(tmp_path)]
    assert names[::2] == ["a", "b-a"]
    assert re.fullmatch(r"b-a-[0-9a-f]{8}", names[1])  # b/a.parquet
    assert re.fullmatch(r"c-d-e-[0-9a-f]{8}", names[3])
    assert len(names) == 4
    assert plan_units(tmp_path) == plan_units(tmp_path)
    (alone,) = plan_units(tmp_path / "b" / "a.parquet")
    assert alone.name == "a"


def test_two_units_of_one_name_are_refused(tmp_path):
    _write(tmp_path / "a.tar", [plain_episode(i) for i in range(2)], "webdataset")
    second = plan_units(tmp_path, max_unit_bytes=1)[1]
    _write(tmp_path / f"{second.name}.tar", [plain_episode(2)], "webdataset")
    with pytest.raises(ValueError, match=f"every unit must have a name of its own, got '{second.name}' twice"):
        plan_units(tmp_path, max_unit_bytes=1)


def test_a_replaced_shard_has_another_content(tmp_path):
    path = tmp_path / "a.parquet"
    _write(path, [plain_episode(0)])
    (before,) = plan_units(path)
    _write(path, [plain_episode(0)])
    assert plan_units(path) == [before]
    _write(path, [plain_episode(0, instruction="go to the ball 1")])
    assert plan_units(path)[0].content != before.content


def test_of_our_own_output_the_parts_are_read_once_it_is_finished(tmp_path):
    _write(tmp_path / "parts" / "x.parquet", [plain_episode()])
    (tmp_path / "settings.json").write_text(json.dumps({"kind": "corpus"}))
    with pytest.raises(
        ValueError, match=r"must be finished, got .*no manifest.json; run the command that made it again"
    ):
        plan_units(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    _write(tmp_path / "other" / "y.parquet", [plain_episode()])
    assert [unit.name for unit in plan_units(tmp_path)] == ["x"]


def test_what_is_no_corpus_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a corpus must be a file or a folder, got .*nowhere, which is not there"):
        plan_units(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"a corpus must hold shards \(.parquet, .tar\), got none"):
        plan_units(tmp_path)
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(ValueError, match=r"a shard's name must end with one of .parquet, .tar, got .*a.csv"):
        plan_units(tmp_path / "a.csv")
    _write(tmp_path / "a.parquet", [plain_episode()])
    _write(tmp_path / "b.tar", [plain_episode()], "webdataset")
    with pytest.raises(ValueError, match=r"a corpus must be of one format, got a.parquet and b.tar"):
        plan_units(tmp_path)
    with pytest.raises(ValueError, match="max_unit_bytes must be at least 1, got 0"):
        plan_units(tmp_path / "a.parquet", max_unit_bytes=0)


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_write_that_fails_leaves_no_file(tmp_path, format_name):
    def episodes():
        yield plain_episode(0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_episodes(tmp_path / "a", CorpusFeatures.of(plain_episode()), episodes(), format_name)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a format must be one of parquet, webdataset, got 'hdf5'"):
        check_format("hdf5")
    with pytest.raises(ValueError, match="a format must be one of"):
        write_episodes(tmp_path / "a", CorpusFeatures.of(plain_episode()), [], "hdf5")


@pytest.mark.parametrize("format_name", FORMATS)
def test_an_unreadable_shard_is_planned_and_then_fails(tmp_path, format_name):
    (tmp_path / f"a.{FORMATS[format_name].extension}").write_bytes(b"nothing")
    (unit,) = plan_units(tmp_path, max_unit_bytes=1)
    (failure,) = read_episodes(unit)
    assert isinstance(failure, Failure)
    assert failure.scope == "shard"
    assert read_episode_ids(unit) == []


def test_a_unit_without_a_shard_of_ours_is_refused():
    with pytest.raises(ValueError, match="a shard's name must end with one of"):
        read_episodes(Unit(name="a", shard="a.hdf5"))
