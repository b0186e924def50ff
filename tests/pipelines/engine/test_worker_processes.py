"""Worker processes that end before their time, and what code they run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vlm_rewards.pipelines.engine.worker_processes import EndedWorker

RUN = """
import os, signal, sys, time
from pathlib import Path
from vlm_rewards.pipelines.engine.driver import run_units
from vlm_rewards.pipelines.engine.outputs import OutputFolder
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.manifests import Unit

class Work:
    def __init__(self, folder):
        self.folder = folder

    def __call__(self, unit, part):
        part.path.write_text(unit.name)
        part.advance(1)
        part.episodes += 1
        {work}

if __name__ == "__main__":
    out = Path(sys.argv[1])
    units = [Unit(name=f"u{{i}}") for i in range(6)]
    folder = OutputFolder(out, kind="labels", fingerprint=Fingerprint({{"a": 1}}), settings={{}}, extension="txt")
    run = run_units(
        units, Work(out.parent), folder, workers=2, in_processes=True, title="try", counted_name="rows", total=6
    )
    print("rows", run.manifest["rows"])
"""
KILLED_ONCE = """
        if unit.name == "u2" and not (self.folder / "was-killed").exists():
            (self.folder / "was-killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
"""
KILLED_WHEN_OTHERS_ARE_DONE = """
        with (self.folder / "begun").open("a") as file:
            file.write(unit.name + "\\n")
        if unit.name == "u2" and not (self.folder / "done-before").exists():
            markers = self.folder / "out" / "markers"
            while len(list(markers.glob("*.json"))) < 2:
                time.sleep(0.05)
            (self.folder / "done-before").write_text(" ".join(path.stem for path in markers.glob("*.json")))
            os.kill(os.getpid(), signal.SIGKILL)
"""
KILLED_ALWAYS = """
        if unit.name == "u2":
            os.kill(os.getpid(), signal.SIGKILL)
"""
OF_A_COLLEAGUE = """
        import colleague
        part.path.write_text(colleague.WORD)
"""
TIMEOUT_S = 240


def run(folder: Path, work: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "script").mkdir()
    script = folder / "script" / "run.py"
    script.write_text(RUN.format(work=work.strip()))
    return subprocess.run(
        [sys.executable, str(script), str(folder / "out")],
        env={**os.environ, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "out" / "parts").iterdir())


def test_what_ended_a_process_is_said() -> None:
    assert str(EndedWorker(7, -9)) == "a worker process was killed by SIGKILL, as the system does where memory is short"
    assert str(EndedWorker(7, -11)) == "a worker process was killed by SIGSEGV"
    assert str(EndedWorker(7, 3)) == "a worker process has ended by itself, with status 3"


def test_the_unit_of_a_process_that_ended_is_done_again(tmp_path: Path) -> None:
    done = run(tmp_path, KILLED_ONCE)
    assert done.returncode == 0, done.stderr
    assert "rows 6" in done.stdout
    assert parts(tmp_path) == [f"u{number}.txt" for number in range(6)]
    (line,) = [line for line in done.stderr.splitlines() if "UserWarning" in line]
    assert "a worker process was killed by SIGKILL" in line
    assert line.endswith("unit u2 is done again")
    assert "Traceback" not in done.stderr.replace("Failed to read inputs in the data plane.\nTraceback", "")
    assert not list((tmp_path / "out").rglob("*.tmp-*"))


def test_units_that_were_done_before_a_process_ended_are_not_done_again(tmp_path: Path) -> None:
    done = run(tmp_path, KILLED_WHEN_OTHERS_ARE_DONE)
    assert done.returncode == 0, done.stderr
    begun = (tmp_path / "begun").read_text().split()
    before = (tmp_path / "done-before").read_text().split()
    assert len(before) >= 2
    assert [begun.count(name) for name in before] == [1] * len(before)
    assert begun.count("u2") == 2
    assert sorted(set(begun)) == [f"u{number}" for number in range(6)]


def test_a_unit_that_ends_its_process_twice_fails_by_name_and_the_others_are_done(tmp_path: Path) -> None:
    done = run(tmp_path, KILLED_ALWAYS)
    assert done.returncode == 1
    assert (
        "RuntimeError: a unit must be done without an end of its worker process, got 2 ends in unit 'u2': a worker process was "
        "killed by SIGKILL, as the system does where memory is short. Take fewer workers"
    ) in done.stderr
    assert parts(tmp_path) == [f"u{number}.txt" for number in (0, 1, 3, 4, 5)]
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_processes_that_cannot_begin_end_the_run(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sitecustomize.py").write_text(
        "import sys\nif 'vlm_rewards.pipelines.engine.worker' in sys.orig_argv:\n    sys.exit('broken')\n"
    )
    paths = os.pathsep.join([str(tmp_path / "broken"), os.environ.get("PYTHONPATH", "")])
    done = run(tmp_path, "pass", PYTHONPATH=paths)
    assert done.returncode == 1
    assert "RuntimeError: worker processes must stay until the run ends" in done.stderr
    assert "has ended by itself, with status 1" in done.stderr
    assert not (tmp_path / "out").exists()  # nothing was made, so the folder is not claimed


def test_no_code_of_the_current_folder_is_run_and_a_colleagues_environment_works(tmp_path: Path) -> None:
    for name in ("random", "json", "apache_beam", "vlm_rewards", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(
            f"import pathlib; pathlib.Path({str(tmp_path / 'was-run')!r}).touch(); raise RuntimeError({name!r})\n"
        )
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "colleague.py").write_text("WORD = 'hello'\n")
    paths = os.pathsep.join([str(tmp_path / "library"), os.environ.get("PYTHONPATH", "")])
    done = run(tmp_path, OF_A_COLLEAGUE, PYTHONPATH=paths.strip(os.pathsep))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "parts" / "u0.txt").read_text() == "hello"
    assert not (tmp_path / "was-run").exists()


def children(pid: int) -> list[int]:
    """The worker processes of a process."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = status.read_text().rpartition(")")[2].split()
            line = status.with_name("cmdline").read_bytes()
        except OSError:  # it has just ended
            continue
        if int(words[1]) == pid and words[0] != "Z" and b"engine.worker" in line:
            found.append(int(status.parent.name))
    return sorted(found)


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[subprocess.Popen]:
    """A command that records in two processes, both at work."""
    script = "import sys; from vlm_rewards.cli import main; sys.exit(main())"
    words = [
        "record",
        "--env",
        "BabyAI-GoToLocal-v0",
        "--episodes",
        "200",
        "--episodes-per-shard",
        "2",
        "--workers",
        "2",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", script, *words, "--output", str(tmp_path / "corpus")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + TIMEOUT_S
    while len(list((tmp_path / "corpus" / "markers").glob("*.json"))) < 6 and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    yield process
    process.kill()
    process.communicate()


def test_a_recording_whose_worker_is_killed_from_outside_ends_whole(
    tmp_path: Path, recording: subprocess.Popen
) -> None:
    first = children(recording.pid)[0]
    os.kill(first, signal.SIGKILL)
    _, errors = recording.communicate(timeout=TIMEOUT_S)
    assert recording.returncode == 0, errors
    assert len(list((tmp_path / "corpus" / "parts").iterdir())) == 100
    assert "vlm-rewards record: warning: a worker process was killed by SIGKILL" in errors
    assert "Traceback" not in errors


def test_an_interrupt_with_worker_processes_prints_one_line_and_leaves_none(
    recording: subprocess.Popen,
) -> None:
    workers = children(recording.pid)
    assert len(workers) == 2
    os.killpg(recording.pid, signal.SIGINT)  # as a terminal does: the workers get it too
    _, errors = recording.communicate(timeout=30)
    assert recording.returncode == 130
    assert [line for line in errors.splitlines() if not line.startswith("record: ")] == [
        "vlm-rewards record: interrupted; what is finished is kept: run the same command again to resume"
    ]
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}/cmdline").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in workers if Path(f"/proc/{pid}/cmdline").exists()]
