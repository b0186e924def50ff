"""A process that has imported the large libraries once, and runs commands and programs in forks of itself.

    shell ── vlm-rewards (a shim) ──► socket: words, folder, environment, streams ──► fork ──► vlm_rewards.cli.main(words)

Imports are most of what a command costs in a page's example; here they are paid once per test process. Commands that are started
from nothing are tested in test_wheel and tests/commands.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

IMPORTED = (
    "apache_beam",
    "minigrid",
    "torch",
    "vlm_rewards.labelers.encoders.dual_encoder",
    "vlm_rewards.offline_rl.training.finetune",
    "vlm_rewards.pipelines.evaluate.evaluation",
    "vlm_rewards.pipelines.label.labelling",
)
_MESSAGE_BYTES = 1 << 17

_SHIM = """#!{python} -S
import json, os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    server.connect({address!r})
    request = dict(words=sys.argv[1:], folder=os.getcwd(), environment=dict(os.environ))
    socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2])
    status = server.recv(1)
sys.exit(status[0] if status else 1)
"""


class WarmProcess:
    """The process, for the length of a `with` block.

    Attributes:
        path: Folder of the shim `vlm-rewards`, to stand first on a PATH.
    """

    def __init__(self, path: Path, address: str) -> None:
        self.path = path
        self._address = address

    def run(self, program: str, folder: Path, environment: Mapping[str, str], output: Path) -> int:
        """Runs a Python program in a fork and returns its exit status; stdout and stderr go to the file `output`."""
        request = {"program": program, "folder": str(folder), "environment": dict(environment)}
        with output.open("wb") as file, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
            server.connect(self._address)
            socket.send_fds(server, [json.dumps(request).encode()], [0, file.fileno(), file.fileno()])
            status = server.recv(1)
        return status[0] if status else 1


@contextlib.contextmanager
def warm_process(root: Path) -> Iterator[WarmProcess]:
    """Starts the process, with the packages below `root`; it ends with the block, or with its parent."""
    with tempfile.TemporaryDirectory(prefix="warm-") as name:
        address, shim = f"{name}/socket", Path(name, "vlm-rewards")
        shim.write_text(_SHIM.format(python=sys.executable, address=address))
        shim.chmod(0o755)
        environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, address]
        with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield WarmProcess(Path(name), address)
            process.terminate()


def _serve(address: str) -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks are not waited for: they answer by the socket
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(address)
        server.listen()
        print("ready", flush=True)
        while (
            sys.stdin not in select.select([server, sys.stdin], [], [])[0]
        ):  # readable at its end, when the parent is gone
            connection, _ = server.accept()
            if os.fork() == 0:
                server.close()
                _answer(connection)
            connection.close()


def _answer(connection: socket.socket) -> None:
    message, streams, _, _ = socket.recv_fds(connection, _MESSAGE_BYTES, 3)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    status = 1
    try:
        status = _run(json.loads(message))
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    connection.send(bytes([status]))
    os._exit(status)


def _run(request: dict) -> int:
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if "program" in request:
        exec(compile(request["program"], "<page>", "exec"), {"__name__": "__main__"})
        return 0
    from vlm_rewards.cli import main

    sys.argv = ["vlm-rewards", *request["words"]]
    return main(request["words"])


if __name__ == "__main__":
    _serve(sys.argv[1])
