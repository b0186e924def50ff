"""Labels in an object store: the same parts as on a disk, whatever is killed and whoever else writes."""

import dataclasses
import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
from conftest import connect
from small_corpora import plain_episode
from tiny_models import save_tiny_clip

from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.calibrate.calibration import calibrate
from vlm_rewards.pipelines.diff.comparison import diff
from vlm_rewards.pipelines.engine.places import scratch_folder
from vlm_rewards.pipelines.evaluate.evaluation import evaluate
from vlm_rewards.pipelines.hindsight.relabelling import hindsight
from vlm_rewards.pipelines.label.labelling import label
from vlm_rewards.schemas.episodes import CorpusFeatures
from vlm_rewards.schemas.files.remote_paths import RemotePath
from vlm_rewards.schemas.files.stores import ObjectStoreError, StorePermissionError
from vlm_rewards.schemas.formats.corpus import write_episodes
from vlm_rewards.schemas.formats.label_parts.reader import open_labels
from vlm_rewards.schemas.formats.relabelled_parts.reader import read_relabelled
from vlm_rewards.schemas.goals import Goal, write_goals

COMMAND = Path(sys.executable).with_name("vlm-rewards")
TRUTH = ("find-ball", "lift-key")
GOALS = tuple(
    Goal(name, f"a {colour} ball")
    for name, colour in zip((*TRUTH, "g2", "g3"), ("red", "green", "blue", "grey"), strict=True)
)
NUM_SHARDS = 8


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Eight shards of four episodes of 40 frames."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for shard, indices in enumerate(np.array_split(np.arange(4 * NUM_SHARDS), NUM_SHARDS)):
        chosen = [plain_episode(index, num_steps=39) for index in indices]
        features = dataclasses.replace(CorpusFeatures.of(chosen[0]), truth_goals=TRUTH)
        write_episodes(folder / f"shard-{shard}.parquet", features, chosen, "parquet")
    return folder


def settings(clip: Path, **changes: object) -> LabelerSettings:
    return LabelerSettings(**{"model": str(clip), "goals": GOALS, "batch_size": 16, "precision": "float32", **changes})


def parts(folder: Path | str) -> dict[str, bytes]:
    """The bytes of all parts by name."""
    if isinstance(folder, Path):
        return {path.name: path.read_bytes() for path in (folder / "parts").iterdir()}
    below = RemotePath(folder) / "parts"
    return below.read_each(below.files_below())


def upload(corpus: Path, url: str) -> None:
    files, inner = fsspec.core.url_to_fs(url)
    files.put(str(corpus), inner, recursive=True)


def scratch() -> list[str]:
    base = Path(tempfile.gettempdir(), f"vlm-rewards-{os.getuid()}")
    return sorted(path.name for path in base.iterdir()) if base.is_dir() else []


def test_labels_in_a_store_have_the_bytes_of_those_on_a_disk(tmp_path, clip, corpus, bucket, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    upload(corpus, f"{bucket}/corpus")
    chosen = settings(clip, threshold=0.25)
    local = label(corpus, chosen, output=tmp_path / "labels", embeddings=tmp_path / "kept")
    remote = label(f"{bucket}/corpus", chosen, output=f"{bucket}/labels/", embeddings=f"{bucket}/kept")
    assert parts(f"{bucket}/labels") == parts(tmp_path / "labels")
    assert parts(f"{bucket}/kept") == parts(tmp_path / "kept")
    assert len(parts(tmp_path / "labels")) == NUM_SHARDS
    assert remote.manifest == local.manifest
    names = RemotePath(f"{bucket}/labels").files_below()
    of_units = [
        f"{kind}/shard-{n}.{end}" for kind, end in (("markers", "json"), ("parts", "parquet")) for n in range(8)
    ]
    assert sorted(names) == ["goals.jsonl", "manifest.json", *of_units, "settings.json"]
    assert scratch() == []

    again = label(f"{bucket}/corpus", chosen, output=f"{bucket}/labels", embeddings=f"{bucket}/kept")
    assert again.num_skipped == NUM_SHARDS
    RemotePath(f"{bucket}/labels/markers/shard-3.json").unlink()
    assert label(f"{bucket}/corpus", chosen, output=f"{bucket}/labels").num_skipped == NUM_SHARDS - 1
    assert parts(f"{bucket}/labels") == parts(tmp_path / "labels")
    scored = label(None, chosen, output=f"{bucket}/scored", embeddings=f"{bucket}/kept")
    assert scored.manifest["rows"] == 4 * NUM_SHARDS * 40
    assert parts(f"{bucket}/scored") == parts(tmp_path / "labels")

    opened, here = open_labels(f"{bucket}/labels"), open_labels(tmp_path / "labels")
    assert (opened.goals, opened.digest) == (here.goals, here.digest)
    for found, expected in zip(opened.episodes(), here.episodes(), strict=True):
        assert found.episode_id == expected.episode_id
        assert found.scores.tobytes() == expected.scores.tobytes()

    measured = evaluate(f"{bucket}/corpus", f"{bucket}/labels", output=tmp_path / "report")
    assert measured["overall"] == evaluate(corpus, tmp_path / "labels", output=tmp_path / "report-2")["overall"]
    assert diff(f"{bucket}/labels", tmp_path / "labels", output=tmp_path / "diff")["identical"]
    calibrate(f"{bucket}/labels", output=tmp_path / "calibration.json", objective="quantile", quantile=0.9)

    hindsight(corpus, tmp_path / "labels", output=tmp_path / "relabelled")
    hindsight(f"{bucket}/corpus", f"{bucket}/labels", output=f"{bucket}/relabelled")
    episodes = list(read_relabelled(f"{bucket}/relabelled"))
    assert [episode.episode_id for episode in episodes] == [
        episode.episode_id for episode in read_relabelled(tmp_path / "relabelled")
    ]
    assert episodes


def test_parts_are_the_same_after_a_kill_and_beside_another_run(tmp_path, clip, corpus, store, bucket):
    upload(corpus, f"{bucket}/corpus")
    write_goals(GOALS, tmp_path / "goals.jsonl")
    label(corpus, settings(clip), output=tmp_path / "unbroken")
    command = [COMMAND, "label", "--input", f"{bucket}/corpus", "--goals", tmp_path / "goals.jsonl", "--model", clip]
    command += ["--batch-size", "16", "--precision", "float32", "--workers", "1", "--output", f"{bucket}/labels"]
    environment = {**os.environ, **store.owner, "TMPDIR": str(tmp_path)}
    markers = RemotePath(f"{bucket}/labels/markers")
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        deadline = time.monotonic() + 240
        while not markers.files_below():
            assert time.monotonic() < deadline, "no unit was finished"
            assert run.poll() is None, run.communicate()
            time.sleep(0.05)
        run.send_signal(signal.SIGKILL)
    assert run.returncode == -signal.SIGKILL
    assert not RemotePath(f"{bucket}/labels/manifest.json").is_file()
    assert list((tmp_path / f"vlm-rewards-{os.getuid()}").glob("*/parts"))  # what the killed run left

    runs = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)
    ]
    for run in runs:
        _, errors = run.communicate(timeout=240)
        assert run.returncode == 0, errors.decode()
    assert parts(f"{bucket}/labels") == parts(tmp_path / "unbroken")
    assert RemotePath(f"{bucket}/labels/manifest.json").is_file()
    assert list((tmp_path / f"vlm-rewards-{os.getuid()}").iterdir()) == []


def test_what_a_store_does_not_permit_or_hold_is_refused(tmp_path, clip, corpus, store, bucket, monkeypatch):
    upload(corpus, f"{bucket}/corpus")
    with pytest.raises(
        FileNotFoundError, match=r"in a bucket that is there, got s3://nowhere/labels/settings.json .*Check"
    ):
        label(corpus, settings(clip), output="s3://nowhere/labels")
    with pytest.raises(ValueError, match=r"got s3://nowhere/corpus, which is not there. Check the path"):
        label("s3://nowhere/corpus", settings(clip), output=tmp_path / "labels")
    with pytest.raises(
        ValueError, match=r"begin with one of s3://.*: got hf://datasets/a/b. Write it to a local folder"
    ):
        label(corpus, settings(clip), output="hf://datasets/a/b")
    with pytest.raises(ValueError, match=r"must be empty or hold an earlier run .*corpus with 'shard-0.parquet'"):
        label(corpus, settings(clip), output=f"{bucket}/corpus")
    with pytest.raises(ValueError, match=r"must be a folder, got the file .*shard-0.parquet"):
        label(corpus, settings(clip), output=f"{bucket}/corpus/shard-0.parquet")
    label(corpus, settings(clip), output=f"{bucket}/labels")
    with pytest.raises(ValueError, match=r"rule.thresholds is 0.5 there and 0.3 here.*give another"):
        label(corpus, settings(clip, threshold=0.3), output=f"{bucket}/labels")
    connect(monkeypatch, store.reader)
    with pytest.raises(
        StorePermissionError, match=r"does not permit the use of s3://.*other/settings.json: .*Give cred"
    ):
        label(f"{bucket}/corpus", settings(clip), output=f"{bucket}/other")
    connect(monkeypatch, {**store.owner, "AWS_ACCESS_KEY_ID": "nobody"})
    with pytest.raises(StorePermissionError, match=r"s3://.*corpus: got .*AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        label(f"{bucket}/corpus", settings(clip), output=tmp_path / "labels")
    connect(monkeypatch, {**store.owner, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"})
    with pytest.raises(
        ObjectStoreError, match=r"does not answer for s3://.*EndpointConnectionError.* Check the network"
    ):
        label(f"{bucket}/corpus", settings(clip), output=tmp_path / "labels")


def test_a_scratch_folder_of_a_run_that_is_at_work_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_folder("s3://bucket/a") as first:
        (first / "part").write_bytes(b"x")
        with scratch_folder("s3://bucket/a") as second:
            assert (first / "part").is_file()
            assert second != first
    assert not first.exists()
    (left := first).mkdir()
    with scratch_folder("s3://bucket/b"):
        assert left.is_dir()  # of another output
    with scratch_folder("s3://bucket/a"):
        assert not left.exists()


def test_a_full_disk_is_named_and_a_claim_that_made_nothing_is_taken_back(tmp_path, clip, corpus, bucket, monkeypatch):
    def full(self, temporary, part):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(temporary))

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with monkeypatch.context() as patched:
        patched.setattr("vlm_rewards.pipelines.engine.places.StorePlace.publish", full)
        with pytest.raises(RuntimeError, match=rf"cannot use {tmp_path}.*the disk is full. Free some space"):
            label(corpus, settings(clip), output=f"{bucket}/labels")
    assert RemotePath(f"{bucket}/labels").files_below() == {}
    label(corpus, settings(clip, threshold=0.3), output=f"{bucket}/labels")  # settings of its own
