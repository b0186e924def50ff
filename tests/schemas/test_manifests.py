import pytest

from vlm_rewards.schemas.manifests import Failure, PartStatistics, Unit


def test_a_marker_survives_the_trip_through_json():
    statistics = PartStatistics(
        unit=Unit(
            name="a-g00000-00002", files=("in/a.parquet",), start=0, stop=2, num_frames=7, num_bytes=9, content="ff"
        ),
        fingerprint="0" * 32,
        rows=7,
        episodes=2,
        failures={"undecodable image": 1},
        failed_frames=1,
        sha256="ab",
        num_bytes=100,
        seconds={"encode": 0.5},
        counts={"encoded": 6},
    )
    text = statistics.to_json()
    assert PartStatistics.from_json(text) == statistics
    assert PartStatistics.from_json(text).to_json() == text


def test_a_unit_is_the_rest_of_its_shard_by_default():
    unit = Unit(name="a")
    assert (unit.start, unit.stop, unit.shard) == (0, -1, "")
    assert Unit.from_json(unit.to_json()) == unit


def test_a_unit_names_its_files_in_messages():
    assert Unit(name="a", files=("a.tar",)).shard == "a.tar"
    assert Unit(name="a", files=("a.tar", "b.tar", "d/c.tar")).shard == "a.tar to d/c.tar (3 files)"


def test_a_unit_of_version_0_2_0_is_read():
    record = {"name": "a", "shard": "/x/a.tar", "start": 0, "stop": -1, "num_episodes": None, "num_frames": 3}
    unit = Unit.from_json({**record, "num_bytes": 9, "content": "ff"})
    assert unit == Unit(name="a", files=("/x/a.tar",), num_frames=3, num_bytes=9, content="ff")
    assert unit.is_same_work(Unit(name="a", files=("a.tar",), num_frames=3, num_bytes=9, content="ff"))
    assert not unit.is_same_work(Unit(name="a", files=("a.tar",), num_frames=3, num_bytes=9, content="fe"))
    assert Unit.from_json({**record, "shard": ""}).files == ()


def test_a_failure_says_where_and_why():
    failure = Failure(
        scope="frame", shard="a.tar", episode_id="e", frame_index=3, reason="undecodable image", detail="cut"
    )
    assert str(failure) == "a.tar, episode e, frame 3: undecodable image: cut"
    assert str(Failure(scope="shard", shard="a.tar", reason="r", detail="d")) == "a.tar: r: d"
    assert Failure(**failure.to_json()) == failure
    assert failure.num_frames == 0  # unknown


def test_a_failure_keeps_how_many_frames_are_lost():
    failure = Failure(scope="episode", shard="a.tar", episode_id="e", reason="r", detail="d", num_frames=7)
    assert failure.to_json()["num_frames"] == 7
    assert Failure(**failure.to_json()) == failure


def test_a_failure_has_one_of_three_scopes():
    with pytest.raises(AssertionError, match="corpus"):
        Failure(scope="corpus", shard="a", reason="r", detail="d")
