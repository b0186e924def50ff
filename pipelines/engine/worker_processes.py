"""Worker processes on this machine: how the driver starts them, and what it does when one ends before its time.

    driver ── Popen, with a pipe as standard input ──► python -P -m vlm_rewards.pipelines.engine.worker
       │                                                      └─ the pipe ends with the driver, and the worker with it
       └─ a thread per worker waits for its end: then what is asked of it fails, and the run ends with `WorkerEndedError`

Beam 2.77's own handler of subprocesses waits for the answers of a dead process for ever.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import grpc
from apache_beam import Pipeline
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import endpoints_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.worker_handlers import GrpcWorkerHandler, WorkerHandler
from apache_beam.runners.runner import PipelineResult
from apache_beam.transforms.environments import Environment, python_sdk_capabilities
from google.protobuf import json_format, text_format

_URN = "vlm_rewards:env:worker_process:v1"
_POLL_S = 0.5
_BEAM_THREADS = ("beam_control_read", "read_grpc_client_inputs")


class EndedWorker(NamedTuple):
    """A worker process that has ended before its time.

    Attributes:
        pid: Its number.
        status: As of `subprocess.Popen.returncode`: the negative number of the signal that killed it, or its exit status.
    """

    pid: int
    status: int

    def __str__(self) -> str:
        if self.status >= 0:
            return f"a worker process has ended by itself, with status {self.status}"
        name = signal.Signals(-self.status).name
        short = ", as the system does where memory is short" if name == "SIGKILL" else ""
        return f"a worker process was killed by {name}{short}"


class WorkerEndedError(RuntimeError):
    """A run that has ended because worker processes have.

    Args:
        workers: These.
    """

    def __init__(self, workers: Iterable[EndedWorker]) -> None:
        self.workers = tuple(workers)
        super().__init__("; ".join(str(worker) for worker in self.workers))


_ended: dict[str, list[EndedWorker]] = {}  # by run


class WorkerProcessRunner(FnApiRunner):
    """Beam's FnApiRunner with worker processes that are watched."""

    def __init__(self) -> None:
        self._run = uuid.uuid4().hex
        super().__init__(default_environment=_WorkerProcessEnvironment(self._run, python_sdk_capabilities()))

    def run_pipeline(self, pipeline: Pipeline, options: PipelineOptions) -> PipelineResult:
        """Runs a pipeline.

        Raises:
            WorkerEndedError: A worker process ended before its time.
        """
        ended = _ended.setdefault(self._run, [])
        try:
            with _quiet_connections():
                return super().run_pipeline(pipeline, options)
        except Exception as error:
            if ended:
                raise WorkerEndedError(ended) from error
            raise
        finally:
            del _ended[self._run]


@contextlib.contextmanager
def _quiet_connections() -> Iterator[None]:
    """Context manager that keeps Beam's threads from printing a stack trace each when a worker process has ended."""
    before = threading.excepthook

    def print_others(thrown: threading.ExceptHookArgs) -> None:
        name = "" if thrown.thread is None else thrown.thread.name
        if not (issubclass(thrown.exc_type, grpc.RpcError) and name in _BEAM_THREADS):
            before(thrown)

    threading.excepthook = print_others
    try:
        yield
    finally:
        if threading.excepthook is print_others:
            threading.excepthook = before


@Environment.register_urn(_URN, bytes)
class _WorkerProcessEnvironment(Environment):
    def __init__(self, run: str, *more: Any) -> None:
        super().__init__(*more)
        self._run = run

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _WorkerProcessEnvironment) and super().__eq__(other) and self._run == other._run

    def __hash__(self) -> int:
        return hash((super().__hash__(), self._run))

    def to_runner_api_parameter(self, context: object) -> tuple[str, bytes]:
        return _URN, self._run.encode()

    @staticmethod
    def from_runner_api_parameter(payload: bytes, *more: Any) -> "_WorkerProcessEnvironment":
        return _WorkerProcessEnvironment(payload.decode(), *more[:-1])  # the last is the context


@WorkerHandler.register_environment(_URN, bytes)
class _WorkerProcessHandler(GrpcWorkerHandler):
    def __init__(self, run: bytes, *more: Any) -> None:
        super().__init__(*more)
        self._run = run.decode()
        self._closing = threading.Event()
        self._process: subprocess.Popen | None = None

    def start_worker(self) -> None:
        control = endpoints_pb2.ApiServiceDescriptor(url=self.control_address)
        options = self.provision_info.provision_info.pipeline_options
        environment = {
            **os.environ,
            "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(control),
            "LOGGING_API_SERVICE_DESCRIPTOR": text_format.MessageToString(self.logging_api_service_descriptor()),
            "PIPELINE_OPTIONS": json_format.MessageToJson(options),
            "WORKER_ID": self.worker_id,
        }
        # -P: no module of the folder that the command is run in is taken for one of ours or of a library's.
        command = [sys.executable, "-P", "-m", "vlm_rewards.pipelines.engine.worker"]
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)
        threading.Thread(target=self._watch, args=(self._process,), name="watch-worker", daemon=True).start()

    def _watch(self, process: subprocess.Popen) -> None:
        status = process.wait()
        if self._closing.is_set():
            return
        ended = EndedWorker(process.pid, status)
        _ended.setdefault(self._run, []).append(ended)
        with contextlib.suppress(grpc.RpcError):  # where it has noticed by itself
            self.data_conn.close()
        while not self._closing.wait(_POLL_S):  # what is asked of it from now on has no answer either
            with contextlib.suppress(RuntimeError):  # something is asked just now: next time
                self.control_conn.abort(WorkerEndedError([ended]))

    def close(self) -> None:
        self._closing.set()
        try:
            super().close()
        except grpc.RpcError:  # of the connections of a process that has ended
            if self._process is None or self._process.poll() is None:
                raise
            self.stop_worker()

    def stop_worker(self) -> None:
        if self._process is not None:
            self._process.wait()  # it ends with its control connection, which is closed by now
            assert self._process.stdin is not None
            self._process.stdin.close()
