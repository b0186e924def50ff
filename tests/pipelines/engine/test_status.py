"""The status of a run that is at work, broken or finished, on a disk and in a store."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vlm_rewards.cli import main
from vlm_rewards.commands import status as command
from vlm_rewards.pipelines.engine.driver import run_units
from vlm_rewards.pipelines.engine.outputs import OutputFolder, PartWriter
from vlm_rewards.pipelines.engine.run_record import RUN_RECORD, RunRecord, read_run_record, run_record_path
from vlm_rewards.pipelines.engine.status import RunStatus, StatusReader, status_of
from vlm_rewards.schemas.files.lock_files import this_process
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.folders import is_locked, write_atomically
from vlm_rewards.schemas.manifests import Failure, Unit

ONE_WORKER = ("--runner=FnApiRunner", "--direct_running_mode=in_memory", "--direct_num_workers=1")
UNITS = tuple(Unit(name=name, files=(f"{name}.tar",)) for name in "abc")


def folder_at(path: Path) -> OutputFolder:
    return OutputFolder(path, kind="labels", fingerprint=Fingerprint({"weights": "w"}), settings={}, extension="txt")


class Work:
    """Writes five rows per unit; notes the status that others see meanwhile; one unit may raise."""

    def __init__(self, output: OutputFolder, raises: str = "") -> None:
        self.output, self.raises = output, raises

    def __call__(self, unit: Unit, part: PartWriter) -> None:
        part.path.write_text(unit.name)
        part.rows, part.seconds["encode"] = 5, 0.5
        part.beat()
        seen = status_of(self.output.path).to_json()
        with (Path(self.output.path).parent / "seen").open("a") as file:
            file.write(json.dumps(seen) + "\n")
        if unit.name == self.raises:
            raise RuntimeError("no space\nremove something")
        if unit.name == "b":
            part.fail(Failure(scope="frame", shard="b.tar", reason="undecodable image", detail="d", num_frames=1))
        part.episodes += 1


def run(work: Work, **settings: object) -> None:
    run_units(
        UNITS,
        work,
        work.output,
        beam_options=ONE_WORKER,
        max_failure_share=0.5,
        title="label",
        counted_name="frames",
        total=16,
        **settings,  # type: ignore[arg-type]
    )


def seen_by(tmp_path: Path) -> list[dict]:
    return [json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()]


def test_a_run_at_work_says_what_is_done_and_planned_and_a_finished_one_leaves_no_record(tmp_path: Path) -> None:
    run(Work(folder_at(tmp_path / "o")))
    first, _, last = seen_by(tmp_path)
    assert (first["state"], first["is_held"], first["process"]["pid"]) == ("running", True, os.getpid())
    assert (first["done"], first["total"], first["num_units"], first["num_units_done"]) == (5, 16, 3, 0)
    assert len(first["units_at_work"]) == 1
    assert set(first["units_at_work"].values()) == {5}
    assert (last["done"], last["num_units_done"]) == (15, 2)
    assert last["per_second"] > 0
    assert last["seconds_left"] == pytest.approx(1 / last["per_second"])  # of 16 frames, 15 are done
    assert last["stages"]["encode"] == {"seconds": 1.0, "rows_per_s": 10.0}  # two units of 5 rows in 0.5 s each
    assert last["waits_for"] == "encode"
    finished = status_of(tmp_path / "o")
    assert (finished.state, finished.done, finished.total, finished.is_held) == ("finished", 15, 15, False)
    assert dict(finished.failures) == {"undecodable image": 1}
    assert not (tmp_path / "o" / "progress").exists()


def test_a_run_that_failed_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no space"):
        run(Work(folder_at(tmp_path / "o"), raises="b"))
    status = status_of(tmp_path / "o")
    assert (status.state, status.is_held, status.num_units, status.total) == ("failed", False, 3, 16)
    assert status.errors == ["RuntimeError: no space"]
    assert "  error: RuntimeError: no space" in status.lines()
    assert status.lines()[-1] == "  run the command that made it again: it does what is missing"
    run(Work(folder_at(tmp_path / "o")))  # the record of the failed run is no hindrance
    assert status_of(tmp_path / "o").state == "finished"


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_status import UNITS, folder_at
from vlm_rewards.pipelines.engine.run_record import RunRecord
output = folder_at(Path({output!r}))
with output.claim(UNITS):
    of_run = {{"title": "label", "counted": "rows", "counted_name": "frames", "units": 3, "units_before": 0}}
    output.note_run(RunRecord(**of_run, total=16, before=0, done=0))
    with output.writing(UNITS[0]) as part:
        part.path.write_text("a")
        part.rows = 5
    with output.writing(UNITS[1]) as part:
        part.rows = 2
        part.beat()
        print("at work", flush=True)
        signal.pause()
"""


def test_the_run_of_another_process_is_seen_and_seen_to_be_killed(tmp_path: Path) -> None:
    output = tmp_path / "o"
    script = KILLED.format(here=str(Path(__file__).parent), output=str(output))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        at_work = status_of(output)
        process.send_signal(signal.SIGKILL)
    assert (at_work.state, at_work.is_held, at_work.done, dict(at_work.units_at_work)) == ("running", True, 7, {"b": 2})
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    killed = status_of(output)
    assert (killed.state, killed.is_held, killed.num_units_done, killed.seconds_left) == ("interrupted", False, 1, None)
    assert f"interrupted (process {process.pid} on " in killed.lines()[0]
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before  # nothing was written


def record(**changes: object) -> RunRecord:
    fields = {"title": "label", "counted": "rows", "counted_name": "frames", "units": 3, "units_before": 0}
    return RunRecord(**{**fields, "total": 30, "before": 0, "done": 10, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(("silent_s", "state"), [(5.0, "running"), (600.0, "unknown")])
def test_a_run_on_another_machine_is_known_by_its_last_word(tmp_path: Path, silent_s: float, state: str) -> None:
    output = folder_at(tmp_path / "o")
    with output.claim(UNITS):
        pass
    elsewhere = {**this_process(), "host": "node-7"}
    now = time.time()
    (tmp_path / "o" / "progress").mkdir(exist_ok=True)
    output.note_run(record(process=elsewhere, started_at=now - 700, updated_at=now - silent_s))
    status = status_of(tmp_path / "o")
    assert (status.state, status.is_held) == (state, None)
    assert status.heard_s == pytest.approx(silent_s, abs=5)


def test_a_claimed_folder_without_a_record_is_known_by_its_lock(tmp_path: Path) -> None:
    output = folder_at(tmp_path / "o")
    with output.claim(UNITS):
        assert is_locked(tmp_path / "o" / ".lock") is True
        assert status_of(tmp_path / "o").state == "running"
    assert is_locked(tmp_path / "o" / ".lock") is False
    assert status_of(tmp_path / "o").state == "not running"


def test_a_marker_that_is_taken_back_counts_no_longer(tmp_path: Path) -> None:
    run(Work(folder_at(tmp_path / "o")))
    reader = StatusReader(tmp_path / "o")
    assert reader.read().num_units_done == 3
    (tmp_path / "o" / "markers" / "a.json").unlink()
    (tmp_path / "o" / "markers" / "b.json").write_text("{")  # the run does such a unit again
    (tmp_path / "o" / "manifest.json").unlink()
    assert reader.read().num_units_done == 2  # b was read before
    assert status_of(tmp_path / "o").num_units_done == 1


def test_an_output_in_a_store(bucket: str) -> None:
    url = f"{bucket}/labels"
    output = folder_at(url)  # type: ignore[arg-type]
    with output.claim(UNITS):
        output.note_run(record(done=10))
        with output.writing(UNITS[0]) as part:
            part.path.write_text("a")
            part.rows = 5
        status = status_of(url)
    assert (status.state, status.done, status.total, status.num_units_done) == ("running", 10, 30, 1)


def test_what_is_no_output_of_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=r"status needs an output folder of a run: got .*/none, which is not there"):
        status_of(tmp_path / "none")
    with pytest.raises(ValueError, match=r"must hold settings\.json, got .* without"):
        status_of(tmp_path)
    other = OutputFolder(
        tmp_path / "agent", kind="training", fingerprint=Fingerprint({"weights": "w"}), settings={}, extension="txt"
    )
    with other.claim(()):
        with pytest.raises(
            ValueError, match=r"needs an output of record, label or hindsight: got .*/agent with training"
        ):
            status_of(tmp_path / "agent")
    with folder_at(tmp_path / "o").claim(UNITS):
        write_atomically(run_record_path(tmp_path / "o"), '{"title": 1}')
        with pytest.raises(ValueError, match=rf"{RUN_RECORD} must be the record of a run, got '\{{\"title\": 1\}}'"):
            read_run_record(tmp_path / "o")
    assert main(["status", str(tmp_path / "none")]) == 2
    assert "vlm-rewards status: error: status needs an output folder" in capsys.readouterr().err


def test_watching_ends_with_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(Work(folder_at(tmp_path / "o")))
    finished = status_of(tmp_path / "o")
    states = iter(["running", "running", "finished"])

    def read(self: StatusReader) -> RunStatus:
        return type(finished)(**{**vars(finished), "state": next(states)})

    monkeypatch.setattr(StatusReader, "read", read)
    monkeypatch.setattr(command, "INTERVAL_S", 0.0)
    assert main(["status", str(tmp_path / "o"), "--watch", "--json"]) == 0
    assert [json.loads(line)["state"] for line in capsys.readouterr().out.splitlines()] == [
        "running",
        "running",
        "finished",
    ]
