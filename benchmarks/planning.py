"""What it costs to plan a corpus of many small files: to list them, to group them to units, and to digest their contents.

python benchmarks/planning.py [--files N] [--output FOLDER]

Digests are made when a run is planned, since a run that is resumed, and labels that are used later, must notice a file that was
replaced by one of the same size. The files are pictures of 1 KB to 40 KB, 100 to an episode. Measured are a tenth of them and all:
the time per file must stay as it is. "evicted" is measured after the system was asked to forget the files' contents.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from report_result import RESULTS, machine, write_result

from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.pictures import encode_png

EPISODE_FRAMES = 100
NUM_DISTINCT = 40


def write_pictures(folder: Path, num_files: int) -> None:
    """Writes episodes of pictures of several sizes; of one size, all have other bytes."""
    rng = np.random.default_rng(0)
    pictures = [encode_png(rng.integers(0, 256, (16 + 3 * k, 20 + 3 * k, 3), np.uint8)) for k in range(NUM_DISTINCT)]
    for number in range(num_files):
        path = folder / f"{number // EPISODE_FRAMES:06d}" / f"{number:08d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pictures[number % NUM_DISTINCT] + number.to_bytes(8, "big"))  # decoders stop before it


def forget_contents(folder: Path) -> None:
    """Asks the system to drop the files' contents from memory."""
    os.sync()
    for path in folder.glob("*/*.png"):
        opened = os.open(path, os.O_RDONLY)
        os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(opened)


def measure(folder: Path) -> dict[str, dict[str, float]]:
    """Seconds of the processor and on the clock of each step of planning, for each thousand files."""
    found: dict[str, dict[str, float]] = {}

    def timed(step: str, cpu: float, clock: float) -> None:
        found[step] = {"processor_s": time.process_time() - cpu, "clock_s": time.perf_counter() - clock}

    start = time.process_time(), time.perf_counter()
    corpus = open_corpus(folder)
    timed("list and open", *start)
    start = time.process_time(), time.perf_counter()
    units = corpus.reader.units(256 << 20)
    timed("group", *start)
    names = [name for unit in units for name in unit.files]
    for step in ("digest", "digest evicted"):
        if step == "digest evicted":
            forget_contents(folder)
        start = time.process_time(), time.perf_counter()
        corpus.folder.digests(names)
        timed(step, *start)
    return {step: {name: 1000 * s / len(names) for name, s in seconds.items()} for step, seconds in found.items()}


def main() -> None:
    """Measures a tenth of the files and all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000, help="number of pictures")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results as JSON")
    options = parser.parse_args()
    results = {}
    for num_files in (options.files // 10, options.files):
        with tempfile.TemporaryDirectory() as name:
            write_pictures(Path(name), num_files)
            results[num_files] = measure(Path(name))
        for step, seconds in results[num_files].items():
            print(
                f"{num_files:,} files, {step}: {seconds['processor_s'] * 1000:,.0f} us of the processor per file, "
                f"{seconds['clock_s'] * 1000:,.0f} us on the clock",
                flush=True,
            )
    write_result(
        options.output,
        "planning",
        {"machine": machine(), "seconds_per_1000_files": {str(n): f for n, f in results.items()}},
    )


if __name__ == "__main__":
    main()
