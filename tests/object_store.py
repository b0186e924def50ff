"""A real object store on loopback: SeaweedFS with its S3 gateway, on disk, which survives its clients."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_STARTED_S = 180.0
_SOCKETS = Path("/tmp")  # where the server puts them, whatever TMPDIR says
_PORTS = ("master", "volume", "filer", "s3")


class ObjectStore(NamedTuple):
    """A running store: its address, and the environment of a client, by what it may do."""

    endpoint: str
    owner: dict[str, str]
    reader: dict[str, str]


@contextlib.contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """Runs a store that keeps its data in a folder; the bucket "bucket" exists, and its owner may make others."""
    ports = _free_ports(2 * len(_PORTS))
    config = folder / "s3.json"
    config.write_text(
        json.dumps({"identities": [_identity("owner", ["Admin"]), _identity("reader", ["Read", "List"])]})
    )
    numbers = [
        option
        for name, port, grpc in zip(_PORTS, ports[: len(_PORTS)], ports[len(_PORTS) :], strict=True)
        for option in (f"-{name}.port={port}", f"-{name}.port.grpc={grpc}")
    ]
    weed = Path(sys.executable).with_name("weed")
    command = [weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", *numbers]
    command += [
        f"-s3.config={config}",
        "-master.telemetry=false",
        "-s3.autoCreateBucket=false",
        "-s3.port.iceberg=0",  # whose port is the same for all servers of a machine
        "-s3.port.lance=0",
        "-master.volumeSizeLimitMB=64",
    ]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log, cwd=folder)
    try:
        endpoint = f"http://127.0.0.1:{ports[_PORTS.index('s3')]}"
        store = ObjectStore(endpoint, _client(endpoint, "owner"), _client(endpoint, "reader"))
        _make_bucket(store, server, folder / "server.log")
        yield store
    finally:
        server.kill()  # on a signal that it can catch, it waits 10 s for its volumes
        server.wait()
        for port in ports:
            for left in _SOCKETS.glob(f"seaweedfs-*-{port}.sock"):
                left.unlink()


def _identity(name: str, actions: list[str]) -> dict[str, object]:
    return {"name": name, "credentials": [{"accessKey": name, "secretKey": f"{name}-secret"}], "actions": actions}


def _client(endpoint: str, name: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": name,
        "AWS_SECRET_ACCESS_KEY": f"{name}-secret",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _make_bucket(store: ObjectStore, server: subprocess.Popen, log: Path) -> None:
    code = "import s3fs; s3fs.S3FileSystem().mkdir('bucket')"
    started = time.monotonic()
    while True:
        assert server.poll() is None, log.read_text()
        with contextlib.suppress(OSError, urllib.error.URLError):
            with urllib.request.urlopen(f"{store.endpoint}/healthz", timeout=1):
                break
        assert time.monotonic() - started < _STARTED_S, log.read_text()
        time.sleep(0.1)
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **store.owner}, check=True)
