"""A small Hugging Face hub on this machine: the parts of its interface that downloading a model needs, over HTTP."""

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse


class SmallHub:
    """Serves folders as models.

    Attributes:
        models: Folders by "owner/name".
        requests: Paths asked for so far.
        url: Address of the server.
    """

    def __init__(self, models: dict[str, Path], status: int) -> None:
        self.models = models
        self.status = status
        self.requests: list[str] = []
        self.url = ""

    def commit(self, hub_id: str) -> str:
        """The commit of a model: a digest of its files."""
        digest = hashlib.sha1()
        for path in sorted(self.models[hub_id].iterdir()):
            digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content for a path."""
        self.requests.append(path)
        parts = [unquote(part) for part in urlparse(path).path.strip("/").split("/")]
        if self.status != 200:
            return self.status, {}, b""
        api = parts[:2] == ["api", "models"]
        hub_id = "/".join(parts[2:4] if api else parts[:2])
        revision = (parts[5:6] if api else parts[3:4]) or ["main"]
        if hub_id not in self.models or revision[0] not in ("main", self.commit(hub_id)):
            code = "RepoNotFound" if hub_id not in self.models else "RevisionNotFound"
            return 404, {"X-Error-Code": code}, b""
        commit, folder = self.commit(hub_id), self.models[hub_id]
        if api:
            entries = [
                {
                    "type": "file",
                    "path": file.name,
                    "rfilename": file.name,
                    "size": file.stat().st_size,
                    "oid": "0" * 40,
                }
                for file in sorted(folder.iterdir())
            ]
            body = entries if parts[4:5] == ["tree"] else {"id": hub_id, "sha": commit, "siblings": entries}
            return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()
        if not (folder / parts[4]).is_file():
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b""
        content = (folder / parts[4]).read_bytes()
        etag = hashlib.sha1(content).hexdigest()
        return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": commit}, content


@contextlib.contextmanager
def serve(models: dict[str, Path], status: int = 200) -> Iterator[SmallHub]:
    """A running hub.

    Args:
        models: Folders by "owner/name".
        status: What every request is answered with; 200 to serve.
    """
    hub = SmallHub(models, status)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, content = hub.answer(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hub.url = f"http://127.0.0.1:{server.server_port}"
        yield hub
        server.shutdown()
