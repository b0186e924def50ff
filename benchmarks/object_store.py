"""Labels in an object store that is killed at, and written to by two runs at once: are the parts those of a local run?

    python benchmarks/object_store.py --output benchmarks/results/object_store.json [--units 24]

    local run ─────────────────────────────────────────────────────────► parts ─┐
    run in the store ─ SIGKILL ─ again ─ SIGKILL ... five times ─ again ─► parts ─┼─► compared byte for byte
    two runs at once into one folder of the store ──────────────────────► parts ─┘

The store is SeaweedFS on loopback, which keeps its objects on this disk. The corpus is noise in files of one unit each, the model
reference-s. Each kill waits for another marker, so that every run had begun to write.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fsspec
import numpy as np

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.formats.corpus import write_episodes
from vlm_rewards.schemas.goals import Goal, write_goals
from vlm_rewards.schemas.pictures import encode_png

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from object_store import ObjectStore, object_store  # noqa: E402  (shared with the tests)

KILLS = 5
FRAMES = 400
WAIT_S = 300.0


def main() -> None:
    """Runs the benchmark as its arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="file for the results")
    parser.add_argument("--units", type=int, default=24, help="files of the corpus")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), options.units)
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def measure(folder: Path, units: int) -> dict[str, object]:
    """Compares the parts of all runs; see the module's picture."""
    corpus = _write_corpus(folder / "corpus", units)
    write_goals([Goal("red", "a red ball"), Goal("key", "a blue key")], folder / "goals.jsonl")
    seconds = {"local": _run(folder, str(corpus), str(folder / "labels"), dict(os.environ))}
    expected = {path.name: path.read_bytes() for path in (folder / "labels" / "parts").iterdir()}
    (folder / "store").mkdir()
    with object_store(folder / "store") as store:
        environment = {**os.environ, **store.owner}
        files = _client(store)
        files.put(str(corpus), "bucket/corpus", recursive=True)
        source = "s3://bucket/corpus"
        seconds["store"] = _run(folder, source, "s3://bucket/unbroken", environment)
        done_at_kills = []
        for _ in range(KILLS):
            done_at_kills.append(_run_and_kill(folder, source, "s3://bucket/killed", environment, files))
        seconds["after kills"] = _run(folder, source, "s3://bucket/killed", environment)
        started = time.perf_counter()
        runs = [_start(folder, source, "s3://bucket/two", environment) for _ in range(2)]
        for run in runs:
            _finish(run)
        seconds["two at once"] = time.perf_counter() - started
        found = {name: _parts(files, f"bucket/{name}") for name in ("unbroken", "killed", "two")}
        left = sorted(path for path in files.find("bucket/killed") if "tmp" in path or "progress" in path)
    return {
        "units": units,
        "frames": units * FRAMES,
        "kills": KILLS,
        "units_done_at_kills": done_at_kills,
        "same_parts_as_local": {name: parts == expected for name, parts in found.items()},
        "unfinished_objects_left": left,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "store": "SeaweedFS 4.48 on loopback",
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }


def _write_corpus(folder: Path, units: int) -> Path:
    folder.mkdir()
    for unit in range(units):
        random = np.random.default_rng(unit)
        episode = Episode(
            episode_id=f"episode-{unit:03d}",
            images={"front": [encode_png(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(FRAMES)]},
            actions=random.integers(0, 7, FRAMES - 1),
        )
        write_episodes(folder / f"unit-{unit:03d}.parquet", CorpusFeatures.of(episode), [episode], "parquet")
    return folder


def _start(folder: Path, source: str, output: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    words = [Path(sys.executable).with_name("vlm-rewards"), "label", "--input", source, "--model", "reference-s"]
    words += ["--goals", folder / "goals.jsonl", "--workers", "1", "--output", output]
    return subprocess.Popen(
        [str(word) for word in words],
        env={**environment, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(run: subprocess.Popen[str]) -> None:
    _, errors = run.communicate(timeout=WAIT_S)
    assert run.returncode == 0, errors


def _run(folder: Path, source: str, output: str, environment: dict[str, str]) -> float:
    started = time.perf_counter()
    _finish(_start(folder, source, output, environment))
    return time.perf_counter() - started


def _run_and_kill(
    folder: Path, source: str, output: str, environment: dict[str, str], files: fsspec.AbstractFileSystem
) -> int:
    """Kills a run when it has finished another unit; returns the number of those that are."""
    markers = f"{output.removeprefix('s3://')}/markers"
    before = len(_names(files, markers))
    run = _start(folder, source, output, environment)
    deadline = time.monotonic() + WAIT_S
    while len(_names(files, markers)) <= before:
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline, "no unit was finished"
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert run.returncode == -signal.SIGKILL, "the kill came too late: take more units"
    return len(_names(files, markers))


def _names(files: fsspec.AbstractFileSystem, folder: str) -> list[str]:
    return [path for path in files.find(folder) if path.endswith(".json")]


def _parts(files: fsspec.AbstractFileSystem, folder: str) -> dict[str, bytes]:
    return {path.rpartition("/")[2]: files.cat_file(path) for path in files.find(f"{folder}/parts")}


def _client(store: ObjectStore) -> fsspec.AbstractFileSystem:
    return fsspec.filesystem(
        "s3",
        key=store.owner["AWS_ACCESS_KEY_ID"],
        secret=store.owner["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=store.endpoint,
        use_listings_cache=False,
    )


if __name__ == "__main__":
    main()
