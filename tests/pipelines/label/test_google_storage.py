"""Labels in Google Cloud Storage, as far as its emulator tells: gcsfs against `gcp-storage-emulator` on loopback."""

import dataclasses
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from small_corpora import plain_episode
from tiny_models import save_tiny_clip

from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.evaluate.evaluation import evaluate
from vlm_rewards.pipelines.hindsight.relabelling import hindsight
from vlm_rewards.pipelines.label.labelling import label
from vlm_rewards.schemas.episodes import CorpusFeatures
from vlm_rewards.schemas.files import stores
from vlm_rewards.schemas.files.remote_paths import RemotePath
from vlm_rewards.schemas.formats.corpus import write_episodes
from vlm_rewards.schemas.formats.relabelled_parts.reader import read_relabelled
from vlm_rewards.schemas.goals import Goal

gcsfs = pytest.importorskip("gcsfs", reason="the extra gs is not installed")
pytest.importorskip("gcp_storage_emulator", reason="the emulator of Google Cloud Storage is not installed")

_STARTED_S = 60.0
_COMMAND = "import sys; from gcp_storage_emulator.__main__ import main; main(sys.argv[1:])"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an emulator whose one bucket is "bucket"; what it holds is in memory."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["start", "--host=127.0.0.1", f"--port={port}", "--in-memory", "--default-bucket=bucket", "--quiet"]
    log = tmp_path_factory.mktemp("emulator") / "log"
    with log.open("wb") as out:
        server = subprocess.Popen([sys.executable, "-c", _COMMAND, *words], stdout=out, stderr=out)
    try:
        started = time.monotonic()
        while True:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() - started < _STARTED_S, log.read_text()
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """URL of a folder that nothing is in."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", endpoint)
    _forget()
    yield f"gs://bucket/{tmp_path.name}"
    _forget()


def _forget() -> None:
    stores._stores.clear()
    gcsfs.GCSFileSystem.clear_instance_cache()


def test_labels_have_the_bytes_of_those_on_a_disk_and_are_resumed(tmp_path: Path, bucket: str) -> None:
    (tmp_path / "corpus").mkdir()
    for shard in range(2):
        episodes = [plain_episode(index) for index in (2 * shard, 2 * shard + 1)]
        features = dataclasses.replace(CorpusFeatures.of(episodes[0]), truth_goals=("find-ball", "lift-key"))
        write_episodes(tmp_path / f"corpus/shard-{shard}.parquet", features, episodes, "parquet")
    files, inner = fsspec.core.url_to_fs(bucket)
    files.put(str(tmp_path / "corpus"), f"{inner}/corpus", recursive=True)
    texts = {"find-ball": "a red ball", "lift-key": "a green ball", "g2": "a blue ball", "g3": "a grey ball"}
    goals = tuple(Goal(name, text) for name, text in texts.items())
    settings = LabelerSettings(
        model=str(save_tiny_clip(tmp_path)), goals=goals, batch_size=16, precision="float32", threshold=0.25
    )
    label(tmp_path / "corpus", settings, output=tmp_path / "labels", embeddings=tmp_path / "kept")
    label(f"{bucket}/corpus", settings, output=f"{bucket}/labels", embeddings=f"{bucket}/kept")
    for name in ("labels", "kept"):
        parts = RemotePath(f"{bucket}/{name}/parts")
        here = {path.name: path.read_bytes() for path in (tmp_path / name / "parts").iterdir()}
        assert parts.read_each(parts.files_below()) == here
        assert len(here) == 2

    again = label(f"{bucket}/corpus", settings, output=f"{bucket}/labels", embeddings=f"{bucket}/kept")
    assert again.num_skipped == 2
    RemotePath(f"{bucket}/labels/markers/shard-1.json").unlink()
    assert label(f"{bucket}/corpus", settings, output=f"{bucket}/labels").num_skipped == 1
    with pytest.raises(ValueError, match=r"rule.thresholds is 0.25 there and 0.5 here"):
        label(f"{bucket}/corpus", dataclasses.replace(settings, threshold=0.5), output=f"{bucket}/labels")

    found = evaluate(f"{bucket}/corpus", f"{bucket}/labels", output=tmp_path / "report")
    assert found["overall"] == evaluate(tmp_path / "corpus", tmp_path / "labels", output=tmp_path / "here")["overall"]
    hindsight(f"{bucket}/corpus", f"{bucket}/labels", output=f"{bucket}/relabelled")
    hindsight(tmp_path / "corpus", tmp_path / "labels", output=tmp_path / "relabelled")
    ids = [
        [episode.episode_id for episode in read_relabelled(where)]
        for where in (f"{bucket}/relabelled", tmp_path / "relabelled")
    ]
    assert ids[0] == ids[1] != []


def test_a_bucket_that_is_not_there_is_refused(tmp_path: Path, bucket: str) -> None:
    assert os.environ["STORAGE_EMULATOR_HOST"]
    with pytest.raises(FileNotFoundError, match=r"in a bucket that is there, got gs://nowhere/a .*Check the path"):
        RemotePath("gs://nowhere/a").write_bytes(b"x")
    assert RemotePath("gs://nowhere/a").entries() == []
