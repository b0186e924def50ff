"""Output folders: what is atomic, what is refused, what a second run finds."""

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vlm_rewards.pipelines.engine.outputs import OutputFolder
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.folders import read_manifest
from vlm_rewards.schemas.manifests import Failure, Unit

UNITS = [Unit(name="a", files=("x/a.parquet",), content="1"), Unit(name="b", files=("x/b.parquet",), content="2")]


def folder_at(path: Path, **parts: object) -> OutputFolder:
    return OutputFolder(
        path, kind="labels", fingerprint=Fingerprint({"weights": "w", **parts}), settings={"note": 1}, extension="txt"
    )


def write(folder: OutputFolder, unit: Unit, text: str = "rows", failures: tuple[Failure, ...] = ()) -> None:
    with folder.writing(unit) as part:
        part.path.write_text(text)
        part.advance(2)
        part.episodes += 1
        for failure in failures:
            part.fail(failure, num_rows=1)


def test_a_part_its_marker_and_the_manifest(tmp_path: Path) -> None:
    folder = folder_at(tmp_path / "out")
    with folder.claim(UNITS):
        write(folder, UNITS[0], "one")
        write(folder, UNITS[1], "three")
        manifest = folder.finish(UNITS)
    assert folder.part_path(UNITS[0]).read_text() == "one"
    marker = folder.read_marker(UNITS[1])
    assert marker is not None
    assert (marker.rows, marker.episodes, marker.num_bytes) == (2, 1, 5)
    assert marker.sha256 == hashlib.sha256(b"three").hexdigest()
    assert manifest == read_manifest(tmp_path / "out", "labels")
    assert manifest["rows"] == 4  # two rows in each of two parts
    assert [part["path"] for part in manifest["parts"]] == ["parts/a.txt", "parts/b.txt"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "manifest.json",
        "markers",
        "parts",
        "settings.json",
    ]


def watch(monkeypatch: pytest.MonkeyPatch, also: Callable[[str], None] = lambda _: None) -> list[str]:
    """What is flushed and renamed from now on, by name; `also` is called before each."""
    said: list[str] = []
    fsync, replace = os.fsync, os.replace

    def say(text: str) -> None:
        also(text)
        said.append(text)

    def told_fsync(descriptor: int) -> None:
        say("flush " + Path(f"/proc/self/fd/{descriptor}").readlink().name.split(".tmp-")[0])
        fsync(descriptor)

    def told_replace(source: Path, target: Path) -> None:
        say(f"name {target.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", told_fsync)
    monkeypatch.setattr(os, "replace", told_replace)
    return said


FAILURE = Failure(scope="frame", shard="a", episode_id="e", frame_index=3, reason="undecodable", detail="d")


def test_a_part_and_its_failures_are_on_the_disk_under_their_names_before_the_marker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_at(tmp_path)
    with folder.claim(UNITS):
        said = watch(monkeypatch)
        write(folder, UNITS[0], failures=(FAILURE,))
        assert said == [
            *("flush a.txt", "flush a.jsonl", "name a.jsonl", "flush failures", "name a.txt", "flush parts"),
            *("flush a.json", "name a.json", "flush markers"),
        ]
        said.clear()
        folder.finish(UNITS[:1], max_failure_share=0.5)
        assert said == ["flush manifest.json", "name manifest.json", f"flush {tmp_path.name}"]


def test_a_run_killed_at_any_moment_has_a_unit_done_or_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        pass

    for moment in range(9):
        folder = folder_at(tmp_path / str(moment))
        calls: list[str] = []

        def kill(text: str, moment: int = moment, calls: list[str] = calls) -> None:
            calls.append(text)
            if len(calls) > moment:
                raise KilledError

        with folder.claim(UNITS[:1]):
            with monkeypatch.context() as context:
                watch(context, kill)
                with pytest.raises(KilledError):
                    write(folder, UNITS[0], failures=(FAILURE,))
            done = folder.read_marker(UNITS[0])
            assert (done is not None) == (
                moment == 8
            )  # only its folder is not flushed: the marker may be lost, no more
            if done is not None:
                assert hashlib.sha256(folder.part_path(UNITS[0]).read_bytes()).hexdigest() == done.sha256
                assert folder.failures_path(UNITS[0]).is_file()
            write(folder, UNITS[0])
            assert folder.finish(UNITS[:1])["rows"] == 2
        assert not folder.failures_path(UNITS[0]).is_file()  # of the second time, which had none


def test_work_that_raises_leaves_nothing(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    with folder.claim(UNITS):
        with pytest.raises(ZeroDivisionError), folder.writing(UNITS[0]) as part:
            part.path.write_text("half")
            raise ZeroDivisionError
        assert not folder.is_done(UNITS[0])
        assert list((tmp_path / "parts").iterdir()) == []


def test_a_full_disk_says_what_to_do(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    with folder.claim(UNITS), pytest.raises(OSError, match="No space left") as caught, folder.writing(UNITS[0]):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "Free some space and run the same command again" in caught.value.__notes__[0]


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    with folder.claim(UNITS):
        write(folder, UNITS[0])
    (tmp_path / "parts" / "b.tmp-123").write_text("half")
    (tmp_path / "markers" / "b.json.tmp-123").write_text("half")
    with folder.claim(UNITS):
        assert [path.name for path in (tmp_path / "parts").iterdir()] == ["a.txt"]
        assert folder.is_done(UNITS[0])
        assert not folder.is_done(UNITS[1])


def test_a_unit_is_done_only_with_its_part_fingerprint_and_contents(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    with folder.claim(UNITS):
        write(folder, UNITS[0])
    moved = Unit(name="a", files=("elsewhere/a.parquet",), content="1")
    replaced = Unit(name="a", files=("x/a.parquet",), content="other bytes")
    assert folder.is_done(moved)
    assert not folder.is_done(replaced)
    assert not folder_at(tmp_path, weights="others").is_done(UNITS[0])
    folder.part_path(UNITS[0]).write_text("truncat")
    assert not folder.is_done(UNITS[0])


def test_a_unit_whose_shard_failed_is_tried_again(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    with folder.claim(UNITS):
        write(folder, UNITS[0], failures=(Failure(scope="shard", shard="a", reason="unreadable", detail="d"),))
        write(folder, UNITS[1], failures=(Failure(scope="frame", shard="b", reason="undecodable", detail="d"),))
    assert not folder.is_done(UNITS[0])
    assert folder.is_done(UNITS[1])


def test_other_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("x")
    with (
        pytest.raises(ValueError, match=r"must be empty or hold an earlier run .* 'cat.jpg'"),
        folder_at(tmp_path / "photos").claim(UNITS),
    ):
        pass
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="the output must be a folder"), folder_at(tmp_path / "file").claim(UNITS):
        pass
    with folder_at(tmp_path / "out").claim(UNITS):
        write(folder_at(tmp_path / "out"), UNITS[0])
    with pytest.raises(ValueError, match=r'other weights \(weights is "w" there and "v" here\)'):
        with folder_at(tmp_path / "out", weights="v").claim(UNITS):
            pass
    other_kind = OutputFolder(
        tmp_path / "out", kind="corpus", fingerprint=Fingerprint({"weights": "w"}), settings={}, extension="txt"
    )
    with pytest.raises(ValueError, match="must hold corpus or nothing, got .* with labels"), other_kind.claim(UNITS):
        pass
    with (
        pytest.raises(ValueError, match="1 other parts, the first being 'a'"),
        folder_at(tmp_path / "out").claim(UNITS[1:]),
    ):
        pass


def test_two_runs_at_a_time_are_refused(tmp_path: Path) -> None:
    with folder_at(tmp_path).claim(UNITS):
        with pytest.raises(ValueError, match="one run at a time"), folder_at(tmp_path).claim(UNITS):
            pass


def test_the_manifest_needs_every_unit(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    with folder.claim(UNITS):
        write(folder, UNITS[0])
        with pytest.raises(RuntimeError, match="1 of 2 without a part, the first being 'b'"):
            folder.finish(UNITS)
    with pytest.raises(ValueError, match=r"must be finished, got .* without manifest.json"):
        read_manifest(tmp_path, "labels")


def test_failures_are_kept_counted_and_limited(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    failure = Failure(
        scope="frame", shard="a", episode_id="e", frame_index=3, reason="undecodable image", detail="cut short"
    )
    with folder.claim(UNITS):
        write(folder, UNITS[0], failures=(failure,))
        write(folder, UNITS[1])
        # 4 rows and 1 failed frame: a share of 0.2
        with pytest.raises(
            ValueError, match=r"got 1 of 5 rows, .* a, episode e, frame 3: undecodable image: cut short"
        ):
            folder.finish(UNITS, max_failure_share=0.1999)
        manifest = folder.finish(UNITS, max_failure_share=0.2)
    assert manifest["failures"] == {"undecodable image": 1}
    assert Failure(**json.loads(folder.failures_path(UNITS[0]).read_text())) == failure


@pytest.mark.parametrize(
    ("scope", "found"),
    [
        ("shard", "0 of 4 rows, 0 of 2 episodes and 1 of 2 shards"),  # how many frames it holds is not known
        ("episode", "0 of 4 rows, 1 of 3 episodes and 0 of 2 shards"),
        ("frame", "1 of 5 rows, 0 of 2 episodes and 0 of 2 shards"),
    ],
)
def test_rows_episodes_and_shards_are_limited_each_by_itself(tmp_path: Path, scope: str, found: str) -> None:
    folder = folder_at(tmp_path)
    share = {"shard": 1 / 2, "episode": 1 / 3, "frame": 1 / 5}[scope]
    with folder.claim(UNITS):
        with folder.writing(UNITS[0]) as part:
            part.path.write_text("rows")
            part.advance(2)
            part.episodes += 1
            failure = Failure(scope=scope, shard="a", reason="unreadable", detail="d")
            part.fail(failure, num_rows=1 if scope == "frame" else None)
        write(folder, UNITS[1])
        with pytest.raises(ValueError, match=f"got {found}; the first is: a: unreadable: d"):
            folder.finish(UNITS, max_failure_share=share - 1e-9)
        folder.finish(UNITS, max_failure_share=share)


def test_failed_episodes_count_and_an_output_of_nothing_is_refused(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    failure = Failure(scope="episode", shard="a", episode_id="e", reason="invalid episode", detail="NaN", num_frames=7)
    with folder.claim(UNITS):
        for unit in UNITS:
            with folder.writing(unit) as part:
                part.path.write_text("no rows")
                part.fail(failure)
        # no episode was written and one failed in each of two units, with 7 frames each
        with pytest.raises(ValueError, match="got 14 of 14 rows, 2 of 2 episodes and 0 of 2 shards"):
            folder.finish(UNITS, max_failure_share=0.9)
        with pytest.raises(
            ValueError, match=r"must be something to write, got nothing from 2 units \({'invalid episode': 2}\)"
        ):
            folder.finish(UNITS, max_failure_share=1.0)


def test_a_marker_that_is_not_ours_is_done_again(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    with folder.claim(UNITS):
        write(folder, UNITS[0])
        folder.marker_path(UNITS[0]).write_text("{")
        assert not folder.is_done(UNITS[0])
        folder.marker_path(UNITS[0]).write_text("{}")
        assert not folder.is_done(UNITS[0])


def test_an_error_that_cannot_be_written_down_is_raised_with_its_notes(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    error = OSError(errno.ENOSPC, "No space left on device")
    error.add_note("free some space")
    with pytest.raises(RuntimeError, match="No space left on device\nfree some space"):
        folder.record_error(UNITS[0], error)  # there is no folder to write it to


def test_a_recorded_error_is_raised(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    with folder.claim(UNITS):
        folder.raise_recorded_error()  # nothing recorded: nothing raised
        assert not folder.has_recorded_error()
        error = OSError(errno.ENOSPC, "No space left on device")
        error.add_note("free some space")
        folder.record_error(UNITS[0], error)
        assert folder.has_recorded_error()
        with pytest.raises(RuntimeError, match="No space left on device\nfree some space"):
            folder.raise_recorded_error()


def test_count_so_far_counts_markers_and_heartbeats(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    with folder.claim(UNITS):
        write(folder, UNITS[0])
        (tmp_path / "progress" / "b").write_text("7")
        (tmp_path / "progress" / "a").write_text("2 17")  # of a process that has just written the marker
        (tmp_path / "progress" / "c.error").write_text("12 bottles")
        assert folder.count_so_far({}) == 9  # 2 rows of the finished part and 7 of the one being written
        assert folder.count_so_far({}, "episodes") == 1  # of the finished part
