"""The same units in one process, on a Dask cluster that loses a worker, and by external workers of the job service."""

import importlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from vlm_rewards.pipelines.engine.driver import run_units
from vlm_rewards.pipelines.engine.outputs import OutputFolder
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.manifests import Unit

ONE_WORKER = ("--runner=FnApiRunner", "--direct_running_mode=in_memory", "--direct_num_workers=1")
NUM_UNITS = 8
WORK = """
import os, signal
from pathlib import Path

class Work:
    def __init__(self, pids, killed):
        self.pids, self.killed = pids, killed

    def __call__(self, unit, part):
        rows = int(unit.name[1:]) + 1
        part.path.write_text(unit.name * rows)
        part.rows, part.episodes = rows, 1
        with Path(self.pids).open("a") as file:
            file.write(f"{os.getpid()}\\n")
        if unit.name == "u3" and self.killed and not Path(self.killed).exists():
            Path(self.killed).touch()
            os.kill(os.getpid(), signal.SIGKILL)
"""
CLUSTER = """
import sys
from dask.distributed import Client, LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        print(cluster.scheduler_address, flush=True)
        sys.stdin.readline()
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module that the workers can import, and their environment."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "work_of_runners.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path / "site")
    path = [str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    yield importlib.import_module("work_of_runners").Work
    del sys.modules["work_of_runners"]


def parts_of(work: Any, output: Path, options: Sequence[str], killed: str = "") -> dict[str, bytes]:
    """Runs all units; returns the bytes of parts and manifest."""
    units = [Unit(name=f"u{number}") for number in range(NUM_UNITS)]
    folder = OutputFolder(output, kind="labels", fingerprint=Fingerprint({"a": 1}), settings={}, extension="txt")
    summary = run_units(
        units, work(f"{output}.pids", killed), folder, beam_options=options, title="try", counted_name="rows", total=36
    )
    assert summary.manifest["rows"] == 36  # 1 + 2 + ... + 8
    files = [*sorted((output / "parts").iterdir()), output / "manifest.json"]
    assert len(files) == NUM_UNITS + 1
    return {path.name: path.read_bytes() for path in files}


def test_a_dask_cluster_that_loses_a_worker_gives_the_same_files(tmp_path: Path, work: Any) -> None:
    expected = parts_of(work, tmp_path / "local", ONE_WORKER)
    (tmp_path / "cluster.py").write_text(CLUSTER)
    killed = tmp_path / "killed"
    with subprocess.Popen(
        [sys.executable, tmp_path / "cluster.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # it tells of the worker that was killed
        text=True,
    ) as cluster:
        assert cluster.stdout is not None
        address = cluster.stdout.readline().strip()
        options = ["--runner=apache_beam.runners.dask.dask_runner.DaskRunner", f"--dask_client_address={address}"]
        assert parts_of(work, tmp_path / "dask", options, str(killed)) == expected
        cluster.communicate("stop\n", timeout=60)
    assert killed.exists()
    assert str(os.getpid()) not in (tmp_path / "dask.pids").read_text().split()


def test_external_workers_of_the_job_service_give_the_same_files(tmp_path: Path, work: Any) -> None:
    expected = parts_of(work, tmp_path / "local", ONE_WORKER)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        pool_port = free.getsockname()[1]
    ready, log = tmp_path / "port", tmp_path / "service.log"
    module = "apache_beam.runners"
    service = [
        sys.executable,
        "-m",
        f"{module}.portability.local_job_service_main",
        "--port",
        "0",
        "--port_file",
        ready,
    ]
    pool = [sys.executable, "-m", f"{module}.worker.worker_pool_main", "--service_port", str(pool_port)]
    started = {"stdout": subprocess.DEVNULL, "stderr": log.open("w"), "start_new_session": True}
    processes = [subprocess.Popen(command, **started) for command in (service, pool)]  # type: ignore[call-overload]
    try:
        deadline = time.monotonic() + 60
        while not ready.is_file() or not ready.read_text().strip():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        options = [
            "--runner=PortableRunner",
            f"--job_endpoint=localhost:{ready.read_text().strip()}",
            "--environment_type=EXTERNAL",
            f"--environment_config=localhost:{pool_port}",
        ]
        assert parts_of(work, tmp_path / "external", options) == expected
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
    assert str(os.getpid()) not in (tmp_path / "external.pids").read_text().split()
