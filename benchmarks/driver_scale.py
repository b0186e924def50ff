"""What the driver of a large run costs: 100 million frames in 10,000 units over 500 workers, with real planning and fake work.

    open ─► units ─► ids ─► claim ─► what is to do ─► [500 workers write parts and markers] ─► count ─► reconcile, manifest

python benchmarks/driver_scale.py [--units N] [--workers N] [--frames N] [--output FOLDER]

The corpus is real: one Parquet shard per unit, with one episode of two frames. The work is fake: 500 threads write a part, its
marker and its heartbeat as workers do, and say that it has its share of the frames. They are not measured: each other step is the
driver's own. "resumed" is what a run over the finished output does before it says that nothing is left.
"""

import argparse
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from report_result import RESULTS, machine, write_result

from vlm_rewards.pipelines.engine.outputs import OutputFolder
from vlm_rewards.pipelines.engine.status import status_of
from vlm_rewards.pipelines.label.planning import check_episode_ids
from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.formats.corpus import open_corpus, write_episodes
from vlm_rewards.schemas.manifests import Unit

T = TypeVar("T")


def write_shards(folder: Path, num_shards: int) -> None:
    """Writes shards of one episode of two frames."""
    folder.mkdir()
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    features = CorpusFeatures(cameras=("view",), has_rewards=False, has_instruction=False)
    for number in range(num_shards):
        episode = Episode(episode_id=f"e{number:06d}", images={"view": frames}, actions=np.zeros(1, np.int64))
        write_episodes(folder / f"shard-{number:06d}.parquet", features, [episode], "parquet")


class Steps:
    """Seconds, processor seconds and highest memory so far, by step."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, float]] = {}

    def time(self, name: str, step: Callable[[], T]) -> T:
        """Does a step and measures it."""
        clock, cpu = time.perf_counter(), time.process_time()
        result = step()
        self.found[name] = {
            "clock_s": round(time.perf_counter() - clock, 3),
            "processor_s": round(time.process_time() - cpu, 3),
            "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        }
        print(f"{name}: {self.found[name]}", flush=True)
        return result


def main() -> None:
    """Measures one run and one over its finished output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=10_000, help="number of units")
    parser.add_argument("--workers", type=int, default=500, help="number of workers")
    parser.add_argument("--frames", type=int, default=100_000_000, help="number of frames")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results as JSON")
    options = parser.parse_args()
    steps = Steps()
    with tempfile.TemporaryDirectory() as name:
        shards, output = Path(name) / "corpus", Path(name) / "labels"
        write_shards(shards, options.units)
        corpus = steps.time("open the corpus", lambda: open_corpus(shards))
        units = steps.time("plan units", lambda: corpus.units(1 << 10))
        assert len(units) == options.units, len(units)
        steps.time("compare ids", lambda: check_episode_ids(corpus, units))
        folder = OutputFolder(
            output, kind="labels", fingerprint=Fingerprint({"weights": "fake"}), settings={}, extension="parquet"
        )
        rows = options.frames // options.units

        def work(unit: Unit) -> None:
            with folder.writing(unit) as part:
                part.path.write_bytes(unit.name.encode())
                part.rows, part.episodes, part.seconds["encode"] = rows, 1, 1.0

        with folder.claim(units):
            to_do = steps.time("find what is to do", lambda: list(folder.to_do(units)))
            steps.time("describe units to Beam", lambda: [unit.to_json() for unit in to_do])
            with ThreadPoolExecutor(options.workers) as pool:
                list(pool.map(work, to_do))
            done: dict[str, int] = {}
            steps.time("count all for progress", lambda: folder.count_so_far(done))
            steps.time("count again", lambda: folder.count_so_far(done))
            manifest = steps.time("reconcile and write the manifest", lambda: folder.finish(units))
        assert manifest["rows"] == rows * options.units
        steps.time("status", lambda: status_of(output))
        again = steps.time("resumed: open and plan", lambda: open_corpus(shards).units(1 << 10))
        with folder.claim(again):
            left = steps.time("resumed: find what is to do", lambda: list(folder.to_do(again)))
        assert not left
        shutil.rmtree(shards)
    driver = [step for name, step in steps.found.items() if not name.startswith(("status", "resumed"))]
    total = {name: round(sum(step[name] for step in driver), 3) for name in ("clock_s", "processor_s")}
    print(f"driver of {options.frames:,} frames: {total}", flush=True)
    record = {"machine": machine(), "units": options.units, "workers": options.workers, "frames": options.frames}
    write_result(options.output, "driver_scale", {**record, "steps": steps.found, "driver": total})


if __name__ == "__main__":
    main()
