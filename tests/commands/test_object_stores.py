"""The commands with their inputs and outputs in a real object store: from `record` to an export and an agent."""

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import connect, forget_connections
from lerobot_datasets import DataSet
from object_store import ObjectStore
from small_corpora import plain_episode
from tiny_models import save_tiny_clip

from vlm_rewards.cli import main
from vlm_rewards.schemas.episodes import CorpusFeatures
from vlm_rewards.schemas.files.remote_paths import RemotePath
from vlm_rewards.schemas.formats.corpus import write_episodes
from vlm_rewards.schemas.goals import Goal, goals_to_lines, read_goals

LEVEL = "BabyAI-GoToObj-v0"
RECORD = ("record", "--env", LEVEL, "--policy", "bot:0.5,random:0.5", "--episodes", 6, "--episodes-per-shard", 3)
SMALL = ("--batch-size", 16, "--num-actions", 7, "--set", "width=32", "--set", "channels=8")


@pytest.fixture(scope="module")
def chain(store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a folder with a recorded corpus, its labels and embeddings, and its relabelled trajectories."""
    url = f"s3://bucket/chain-{tmp_path_factory.mktemp('chain').parent.name}"
    with pytest.MonkeyPatch.context() as patched:
        connect(patched, store.owner)
        label = ("label", "--input", f"{url}/corpus", "--goals", f"{url}/corpus/goals.jsonl", "--model", "reference-s")
        kept = ("--batch-size", 16, "--embeddings", f"{url}/embeddings", "--output", f"{url}/labels")
        told = ("--input", f"{url}/corpus", "--labels", f"{url}/labels")
        for command in (
            (*RECORD, "--output", f"{url}/corpus"),
            (*label, *kept),
            ("hindsight", *told, "--output", f"{url}/relabelled"),
        ):
            assert main([str(word) for word in command]) == 0
        yield url
    forget_connections()


@pytest.fixture(autouse=True)
def _client(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    connect(monkeypatch, store.owner)
    yield
    forget_connections()


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main([str(word) for word in words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def upload(folder: Path, url: str) -> None:
    files, inner = fsspec.core.url_to_fs(url)
    files.put(str(folder), inner, recursive=True)


def test_a_corpus_recorded_in_a_store_has_the_bytes_of_one_on_a_disk(
    chain: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, *RECORD, "--output", tmp_path / "corpus")
    assert status == 0, err
    below = RemotePath(f"{chain}/corpus")
    names = sorted(below.files_below())
    assert names == sorted(
        path.relative_to(tmp_path / "corpus").as_posix() for path in (tmp_path / "corpus").rglob("*") if path.is_file()
    )
    for name in names:
        if not name.startswith("markers/"):  # which hold times
            assert (below / name).read_bytes() == (tmp_path / "corpus" / name).read_bytes(), name

    (below / "markers/episodes-000003-000006.json").unlink()
    status, out, err = run(capsys, *RECORD, "--workers", 2, "--output", f"{chain}/corpus")
    assert status == 0, err
    assert f"in {chain}/corpus/parts (1 of 2 units were done before)" in out
    assert f"next: vlm-rewards label --input {chain}/corpus --goals {chain}/corpus/goals.jsonl" in out
    assert RemotePath(f"{chain}/corpus/manifest.json").is_file()


def test_a_corpus_is_not_recorded_into_a_store_that_can_only_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, *RECORD, "--output", "hf://datasets/a/b")
    assert status == 2
    assert "an output must be a local folder or begin with one of s3://" in err


def test_an_agent_is_trained_on_what_lies_in_a_store(
    chain: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_frames, of_embeddings = tmp_path / "frames", tmp_path / "embeddings"
    train = ("train", "--input", f"{chain}/relabelled", "--steps", 2, *SMALL)
    status, out, err = run(capsys, *train, "--output", of_frames)
    assert status == 0, err
    assert f"trained iql for 2 steps: {of_frames}" in out
    status, _, err = run(capsys, *train, "--embeddings", f"{chain}/embeddings", "--output", of_embeddings)
    assert status == 0, err

    status, _, err = run(capsys, *train, "--output", f"{chain}/agent")
    assert status == 2
    assert f"an agent must be written to a disk of this machine: got {chain}/agent. Write it to a local folder" in err
    for command in ("rollout", "finetune"):
        status, _, err = run(
            capsys, command, "--agent", f"{chain}/agent", "--env", LEVEL, "--output", tmp_path / "none"
        )
        assert status == 2
        assert f"must be read from a disk of this machine: got {chain}/agent. Copy it to a local folder" in err
        status, _, err = run(capsys, command, "--agent", of_frames, "--env", LEVEL, "--output", f"{chain}/played")
        assert status == 2
        assert f"must be written to a disk of this machine: got {chain}/played. Write it to a local" in err


def test_labels_in_a_store_are_evaluated_and_calibrated(
    chain: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_labels = ("--input", f"{chain}/corpus", "--labels", f"{chain}/labels")
    status, out, err = run(capsys, "evaluate", *of_labels, "--output", tmp_path / "report")
    assert status == 0, err
    assert (tmp_path / "report/report.html").is_file()
    status, _, err = run(capsys, "evaluate", *of_labels, "--output", f"{chain}/report")
    assert status == 2
    assert f"an evaluation must be written to a disk of this machine: got {chain}/report." in err

    calibration = tmp_path / "calibration.json"
    status, out, err = run(
        capsys, "calibrate", *of_labels, "--embeddings", f"{chain}/embeddings", "--output", calibration
    )
    assert status == 0, err
    assert f"--goals {chain}/corpus/goals.jsonl" in out  # the command that follows
    assert calibration.is_file()
    status, _, err = run(capsys, "calibrate", *of_labels, "--output", f"{chain}/calibration.json")
    assert status == 2
    assert "a calibration must be written to a disk of this machine" in err

    RemotePath(f"{chain}/calibration.json").upload(calibration)
    goal = read_goals(f"{chain}/corpus/goals.jsonl")[0].id
    label = ("label", "--embeddings", f"{chain}/embeddings", "--goals", f"{chain}/corpus/goals.jsonl")
    again = ("--model", "reference-s", "--batch-size", 16, "--calibration", f"{chain}/calibration.json")
    status, _, err = run(capsys, *label, *again, "--output", f"{chain}/calibrated")
    assert status == 0, err

    marked = pq.read_table(_first_part(f"{chain}/labels", tmp_path), columns=["episode_id", "frame_index"]).to_pylist()
    lines = ["episode_id,frame_index,goal,achieved"]
    lines += [f"{row['episode_id']},{row['frame_index']},{goal},{n % 2}" for n, row in enumerate(marked[:4])]
    RemotePath(f"{chain}/marks.csv").write_bytes("\n".join(lines).encode())
    marks = ("--marks", f"{chain}/marks.csv", "--output", tmp_path / "marked")
    status, out, err = run(capsys, "evaluate", *of_labels, *marks)
    assert status == 0, err
    assert json.loads((tmp_path / "marked/quality.json").read_text())["counts"]["episodes"] >= 1


def _first_part(url: str, folder: Path) -> Path:
    parts = RemotePath(url) / "parts"
    content = (parts / parts.entries()[0]).read_bytes()
    (folder / "part.parquet").write_bytes(content)
    return folder / "part.parquet"


def test_truth_that_a_corpus_in_a_store_does_not_cover_is_told_by_the_goals_beside_it(
    tmp_path: Path, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, episodes = save_tiny_clip(tmp_path), [plain_episode(index) for index in range(2)]
    (tmp_path / "corpus/parts").mkdir(parents=True)
    write_episodes(tmp_path / "corpus/parts/a.parquet", CorpusFeatures.of(episodes[0]), episodes, "parquet")
    upload(tmp_path / "corpus", f"{bucket}/corpus")
    goals = RemotePath(f"{bucket}/goals.jsonl")
    goals.write_bytes(goals_to_lines([Goal("find-ball", "a red ball"), Goal("lift-key", "a blue key")]).encode())
    label = ("label", "--input", f"{bucket}/corpus/parts", "--goals", goals, "--model", clip, "--batch-size", 16)
    status, _, err = run(capsys, *label, "--output", f"{bucket}/labels")
    assert status == 0, err
    of_labels = ("--input", f"{bucket}/corpus/parts", "--labels", f"{bucket}/labels", "--output", tmp_path / "report")
    status, _, err = run(capsys, "evaluate", *of_labels)
    assert status == 2
    assert f"a goals file must exist, got {bucket}/corpus/parts/goals.jsonl" in err
    RemotePath(f"{bucket}/corpus/goals.jsonl").write_bytes(goals.read_bytes())
    status, _, err = run(capsys, "evaluate", *of_labels)
    assert status == 0, err
    assert json.loads((tmp_path / "report/quality.json").read_text())["num_goals"] == 2
    status, out, err = run(capsys, "inspect", f"{bucket}/corpus/parts")
    assert status == 0, err
    assert f"--goals {bucket}/corpus/goals.jsonl" in out
    write = ("inspect", f"{bucket}/corpus", "--write-goals", f"{bucket}/instructions.jsonl")
    status, out, err = run(capsys, *write)
    assert status == 0, err
    assert f"--goals {bucket}/instructions.jsonl" in out
    assert [goal.text for goal in read_goals(f"{bucket}/instructions.jsonl")] == [
        "go to the ball 0",
        "go to the ball 1",
    ]
    assert run(capsys, *write)[0] == 2  # a file that is there stays


def test_a_goal_whose_picture_lies_in_a_store_is_refused(bucket: str) -> None:
    RemotePath(f"{bucket}/goals.jsonl").write_bytes(b'{"id": "a", "text": "a", "images": ["a.png"]}\n')
    with pytest.raises(ValueError, match=r"must be files of this machine: got s3://.*/a.png. Copy the goals file and"):
        read_goals(f"{bucket}/goals.jsonl")


def test_verdicts_and_ra_bc_are_exported_of_a_corpus_in_a_store(
    tmp_path: Path, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = save_tiny_clip(tmp_path)
    tasks = ("a red ball", "a blue key", "a red ball")
    upload(DataSet(cameras={"observation.images.front": "image"}, tasks=tasks).write(tmp_path / "set"), f"{bucket}/set")
    label = ("label", "--input", f"{bucket}/set", "--goals", "from-corpus", "--model", clip, "--batch-size", 16)
    status, _, err = run(capsys, *label, "--output", f"{bucket}/labels")
    assert status == 0, err
    of_labels = ("--input", f"{bucket}/set", "--labels", f"{bucket}/labels")
    status, _, err = run(capsys, "export", *of_labels, "--to", "verdicts", "--output", tmp_path / "verdicts")
    assert status == 0, err
    assert pq.read_table(tmp_path / "verdicts/verdicts.parquet")["num_frames"].to_pylist() == [5, 3, 4]
    status, _, err = run(capsys, "export", *of_labels, "--to", "ra-bc", "--output", tmp_path / "ra-bc")
    assert status == 0, err
    sidecar = pq.read_table(tmp_path / "ra-bc/sarm_progress.parquet")
    np.testing.assert_array_equal(sidecar["index"], np.arange(12))
    for to in ("lerobot", "lerobot-hindsight"):
        for where in (("--output", tmp_path / to), ("--in-place",)):
            status, _, err = run(capsys, "export", *of_labels, "--to", to, *where)
            assert status == 2
            assert f"a corpus is exported from a local folder: got {bucket}/set. Copy it to a local folder first" in err
    status, _, err = run(capsys, "export", *of_labels, "--to", "verdicts", "--output", f"{bucket}/verdicts")
    assert status == 2
    assert f"an export must be written to a disk of this machine: got {bucket}/verdicts" in err
