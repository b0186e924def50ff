"""Peak memory of reading one large file of array formats, each in a process of its own.

python benchmarks/large_files.py [--gigabytes N] [--only NAME] [--output FOLDER]

Frames are 480x640; an episode is a file, or half of one. Resident memory counts pages of mapped files, too.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from report_result import RESULTS, machine, write_result

LIMIT_MIB = 1024
HEIGHT, WIDTH = 480, 640
FRAME_BYTES = HEIGHT * WIDTH * 3
BLOCK = 32

READ = """
import json, pathlib, re, sys, time
from vlm_rewards.schemas.formats.corpus import open_corpus
started, count = time.perf_counter(), 0
for episode in open_corpus(sys.argv[1]):
    for frame in next(iter(episode.images.values())):
        count += 1
peak = int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1024
print(json.dumps({"frames": count, "seconds": time.perf_counter() - started, "peak_mib": peak}))
"""


def blocks(num_frames: int) -> Iterator[np.ndarray]:
    """Frames of noise, [BLOCK, H, W, 3] at a time; the same each time."""
    noise = np.random.default_rng(0).integers(0, 256, (BLOCK, HEIGHT, WIDTH, 3), dtype=np.uint8)
    for _ in range(num_frames // BLOCK):
        yield noise


def write_robomimic(folder: Path, num_frames: int) -> None:
    """Writes two demos, in chunks of 4 frames."""
    half = num_frames // 2 // BLOCK * BLOCK
    with h5py.File(folder / "demos.hdf5", "w") as file:
        file.create_group("data").attrs["env_args"] = "{}"
        for index in range(2):
            shape = (half, HEIGHT, WIDTH, 3)
            frames = file.create_dataset(f"data/demo_{index}/obs/front", shape, np.uint8, chunks=(4, *shape[1:]))
            for start, block in zip(range(0, half, BLOCK), blocks(half), strict=True):
                frames[start : start + BLOCK] = block
            file[f"data/demo_{index}/actions"] = np.zeros((half, 7))


def write_buffer(folder: Path, num_frames: int) -> None:
    """Writes a replay buffer of two episodes, in chunks of 16 frames."""
    root = zarr.open_group(folder / "buffer.zarr", mode="w", zarr_format=2)
    shape = (num_frames, HEIGHT, WIDTH, 3)
    frames = root.create_array("data/front", shape=shape, chunks=(16, *shape[1:]), dtype=np.uint8, compressors=None)
    for start, block in zip(range(0, num_frames, BLOCK), blocks(num_frames), strict=True):
        frames[start : start + BLOCK] = block
    ends = root.create_array("meta/episode_ends", shape=(2,), dtype=np.int64)
    ends[:] = (num_frames // 2 + 5, num_frames)


def write_minari(folder: Path, num_frames: int, ending: str) -> None:
    """Writes an episode of pixels as Minari lays it out: all rows in one batch, or row group."""
    space = {"type": "Box", "dtype": "uint8", "shape": [HEIGHT, WIDTH, 3], "low": 0, "high": 255}
    (folder / "data" / "0").mkdir(parents=True)
    (folder / "data" / "metadata.json").write_text(
        json.dumps({"observation_space": json.dumps({"type": "Dict", "subspaces": {"front": space}})})
    )
    flat = np.concatenate([block.reshape(-1) for block in blocks(num_frames)])
    frames = pa.FixedSizeListArray.from_arrays(pa.array(flat), FRAME_BYTES)
    steps = {"actions": np.zeros(num_frames, np.int64), "rewards": np.zeros(num_frames)}
    steps |= {name: np.zeros(num_frames, np.bool_) for name in ("terminations", "truncations")}
    observations = pa.StructArray.from_arrays([frames], names=["front"])
    table = pa.table({"observations": observations, **steps})
    path = folder / "data" / "0" / f"part-0.{ending}"
    if ending == "parquet":
        pq.write_table(table, path, row_group_size=num_frames)
        return
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


CASES: dict[str, tuple[Callable[[Path, int], None], float]] = {
    "robomimic": (write_robomimic, math.inf),
    "zarr": (write_buffer, math.inf),
    "Minari, Arrow": (lambda folder, num_frames: write_minari(folder, num_frames, "arrow"), math.inf),
    "Minari, Parquet": (lambda folder, num_frames: write_minari(folder, num_frames, "parquet"), 0.3),
}
"""What writes each file, and the most gigabytes: to write pixels as Parquet takes ten times their size in memory."""


def main() -> None:
    """Writes and reads a file per case, and prints the peaks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the pictures in each file")
    parser.add_argument("--only", action="append", choices=CASES, help="case to measure; repeat for several")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results as JSON")
    options = parser.parse_args()
    results = {}
    for name, (write, most) in CASES.items():
        if options.only and name not in options.only:
            continue
        num_frames = int(min(options.gigabytes, most) * 1e9 / FRAME_BYTES) // (2 * BLOCK) * 2 * BLOCK
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), num_frames)
            ended = subprocess.run([sys.executable, "-c", READ, folder], capture_output=True, text=True, check=True)
        found = results[name] = json.loads(ended.stdout)
        if found["frames"] != num_frames:
            raise RuntimeError(f"{name} must give {num_frames} frames, got {found['frames']}")
        speed = num_frames / found["seconds"]
        print(
            f"{name}, {num_frames:,} frames: {found['peak_mib']:,.0f} MiB (limit {LIMIT_MIB:,}), {speed:,.0f} frames/s",
            flush=True,
        )
    result = {"machine": machine(), "gigabytes": options.gigabytes, "formats": results, "limit_mib": LIMIT_MIB}
    write_result(options.output, "large_files", result)


if __name__ == "__main__":
    main()
