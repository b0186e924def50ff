"""What scoring costs beside the least that it could: every formula on embeddings, against its matrix product and its output.

    python benchmarks/scoring.py [--output FOLDER]

100,000 frames and 1,000 goals of 512 numbers, cosines and temperature as CLIP's, two threads with one BLAS thread each, as two
workers would. Each thread takes chunks of 2,048 frames, scores them and writes them to one file of 400 MB, made anew each time.
Two references, in turns with the formulas, in the same process:

    float32    the product in float32, in blocks of the size that was fastest here, and its output written
    float64    the product in float64, in blocks of 64 frames as ours, and its output written as float32

The limit, twice the time of the product and the output, is for the second: it is the product that scoring does. Ratios are
medians over rounds, of elapsed time and, because other work on the machine disturbs that, of processor time. Peak memory is above
that of a fresh process with images and candidates, over ten chunks; the output is a file and does not count.

What was tried, on two cores of an AMD EPYC with AVX-512 (ns of one core for a frame and a goal, D = 512):
- The product takes 10 ns in float32 and 20 in float64, so the cosine alone takes twice the time of the first reference. In
  float64, products of other shapes differ only in digits that scores in float32 do not have.
- Blocks of 32, 64 and 128 frames run at 43, 46 and 49 GFLOP/s a core. 64 fit the second-level cache with their exponentials, and
  a live run with 8 frames, which pays for a whole block, pays for half as many as with 128.
- Exponentials take 0.8 ns in float64, 0.5 in float32: too little to round once more for.
- 31 sampled negatives a goal take 40 ns by a product with the mask, 12 gathered one negative of every goal at a time, 6 by
  SciPy's sparse product, which is used, 5 by torch's, which does not say how it adds.
- All others but those of the goal's group of two take 20 ns by a product with the distinct columns of the mask, and 4 as a wide sum
  less the group's.
"""

import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from report_result import machine, parse_arguments, write_result
from threadpoolctl import threadpool_limits

from vlm_rewards.labelers.scoring.formulas import Context, baselines_of, score_frames
from vlm_rewards.labelers.scoring.negatives import SCORE_BLOCK, NegativeMask, NegativeSettings, choose_negatives
from vlm_rewards.schemas.goals import Goal

NUM_FRAMES, NUM_GOALS, DIM = 100_000, 1_000, 512
CHUNK, WORKERS, ROUNDS, LIVE_FRAMES = 2048, 2, 3, 8
FAMILY, GROUP, SAMPLED = 100, 2, 31
LIMIT = 2.0

Score = Callable[[np.ndarray], np.ndarray]


def unit_vectors(random: np.random.Generator, count: int, centre: np.ndarray) -> np.ndarray:
    """`[count, DIM]` float32 of unit length around a centre."""
    rows = random.standard_normal((count, DIM), dtype=np.float32) / np.float32(np.sqrt(DIM)) + centre
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def formulas(candidates: np.ndarray) -> dict[str, Score]:
    """Every formula with what it needs, by name; the softmax with every kind of negatives."""
    goals = [Goal(f"g{i}", f"goal {i}", family=f"f{i // FAMILY}") for i in range(NUM_GOALS)]
    grouped = [Goal(goal.id, goal.text, goal.family, group=f"p{i // GROUP}") for i, goal in enumerate(goals)]
    explicit = ("nothing", "a room")
    kinds = {
        "family": (goals, NegativeSettings(kind="family")),
        "family, groups of two": (grouped, NegativeSettings(kind="family")),
        "all": (goals, NegativeSettings(kind="all")),
        "all, groups of two": (grouped, NegativeSettings(kind="all")),
        "explicit": (goals, NegativeSettings(kind="explicit", explicit=explicit)),
        "sampled": (goals, NegativeSettings(kind="sampled", k=SAMPLED)),
    }
    cases: dict[str, tuple[str, np.ndarray, Context]] = {}
    for kind, (chosen, settings) in kinds.items():
        mask = choose_negatives(settings, chosen).mask
        context = Context(num_goals=NUM_GOALS, negatives=NegativeMask(mask), temperature=0.01)
        cases[f"softmax, {kind}"] = ("softmax", candidates[: len(mask)], context)
    cases["shifted-softmax, sampled"] = ("shifted-softmax", *cases["softmax, sampled"][1:])
    cases["cosine"] = ("cosine", candidates[:NUM_GOALS], Context(num_goals=NUM_GOALS))
    for name, columns in (
        ("goal-baseline, one for all", np.full(NUM_GOALS, NUM_GOALS)),
        ("goal-baseline, one a family", NUM_GOALS + np.arange(NUM_GOALS) // FAMILY),
    ):
        context = Context(num_goals=NUM_GOALS, baselines=baselines_of(candidates, columns), alpha=0.5)
        cases[name] = ("goal-baseline", candidates[: columns.max() + 1], context)
    cases["sigmoid"] = (
        "sigmoid",
        candidates[:NUM_GOALS],
        Context(num_goals=NUM_GOALS, logit_scale=100.0, logit_bias=-16.0),
    )
    return {name: _scoring(*case) for name, case in cases.items()}


def _scoring(formula: str, candidates: np.ndarray, context: Context) -> Score:
    return lambda images: score_frames(formula, images, candidates, context)


def product(candidates: np.ndarray, rows: int) -> Score:
    """The bare product with the goals, in the type of the candidates, in blocks of so many frames."""
    matrix = np.ascontiguousarray(candidates[:NUM_GOALS]).T

    def score(images: np.ndarray) -> np.ndarray:
        scores = np.empty((len(images), NUM_GOALS), dtype=np.float32)
        for start in range(0, len(images), rows):
            block = images[start : start + rows].astype(matrix.dtype, copy=False)
            scores[start : start + rows] = block @ matrix
        return scores

    return score


def seconds_to_write(score: Score, images: np.ndarray, path: Path) -> tuple[float, float]:
    """Elapsed and processor time to score all frames by chunks on the workers and to write the scores to a new file."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)

    def work(start: int) -> None:
        os.pwrite(descriptor, score(images[start : start + CHUNK]), start * NUM_GOALS * 4)

    started, used = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(WORKERS) as pool:
        for _ in pool.map(work, range(0, len(images), CHUNK)):
            pass
    os.close(descriptor)
    return time.perf_counter() - started, time.process_time() - used


def peak_mib(score: Score, images: np.ndarray, path: Path) -> float:
    """Resident memory that scoring frames adds at most to that of a fresh copy of this process, in MiB, sampled."""
    forked = multiprocessing.get_context("fork")
    result = forked.SimpleQueue()

    def measure() -> None:
        samples = [resident_mib()]
        done = threading.Event()

        def sample() -> None:
            while not done.wait(0.005):
                samples.append(resident_mib())

        sampler = threading.Thread(target=sample)
        sampler.start()
        seconds_to_write(score, images, path)
        done.set()
        sampler.join()
        result.put(max(samples) - samples[0])

    process = forked.Process(target=measure)
    process.start()
    peak = result.get()
    process.join()
    return peak


def resident_mib() -> float:
    """Resident memory of this process, in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Measures all and prints the ratios."""
    output = parse_arguments(__doc__).output
    random = np.random.default_rng(0)
    centre = (0.6 * random.standard_normal(DIM) / np.sqrt(DIM)).astype(np.float32)
    images = unit_vectors(random, NUM_FRAMES, centre)
    texts = unit_vectors(random, NUM_GOALS + NUM_GOALS // FAMILY, centre)
    candidates = texts.astype(np.float64)
    with threadpool_limits(limits=1, user_api="blas"), tempfile.TemporaryDirectory() as name:
        path = Path(name) / "scores.bin"
        float32 = {rows: product(texts, rows) for rows in (64, 256, CHUNK)}
        tried = {rows: seconds_to_write(score, images, path)[1] for rows, score in float32.items()}
        rows = min(tried, key=lambda size: tried[size])
        runs = {
            "float32": float32[rows],
            "float64": product(candidates, SCORE_BLOCK),
            "write": lambda part: np.ones((len(part), NUM_GOALS), np.float32),
        }
        runs |= formulas(candidates)
        seconds: dict[str, list[tuple[float, float]]] = {run: [] for run in runs}
        peaks = {run: peak_mib(score, images[: 10 * CHUNK], path) for run, score in runs.items()}
        for _ in range(ROUNDS):
            for run, score in runs.items():
                seconds[run].append(seconds_to_write(score, images, path))
        live = {}
        for run, score in runs.items():
            times = []
            for _ in range(50):
                started = time.perf_counter()
                score(images[:LIVE_FRAMES])
                times.append(time.perf_counter() - started)
            live[run] = 1e3 * statistics.median(times)
    results = {}
    for run, times in seconds.items():
        ratios = {
            f"{clock}_ratio_to_{reference}": statistics.median(
                ours[index] / theirs[index] for ours, theirs in zip(times, seconds[reference], strict=True)
            )
            for index, clock in enumerate(("elapsed", "processor"))
            for reference in ("float32", "float64")
        }
        elapsed, used = (statistics.median(column) for column in zip(*times, strict=True))
        results[run] = {"elapsed_s": elapsed, "processor_s": used, "peak_mib": peaks[run], **ratios}
        results[run][f"ms_for_{LIVE_FRAMES}_frames"] = live[run]
        print(
            f"{run}: {elapsed:.2f} s, of processors {used:.2f} s; "
            + ", ".join(f"{name.replace('_', ' ')} {ratio:.2f}" for name, ratio in ratios.items())
            + f"; peak {peaks[run]:.0f} MiB; {LIVE_FRAMES} frames alone {live[run]:.2f} ms",
            flush=True,
        )
    size = {"frames": NUM_FRAMES, "goals": NUM_GOALS, "dim": DIM, "chunk": CHUNK, "workers": WORKERS}
    facts = {"float32_rows": rows, "processor_s_by_float32_rows": tried, "limit": LIMIT, "load": os.getloadavg()[0]}
    write_result(output, "scoring", {"machine": machine(), "results": results, **size, **facts})


if __name__ == "__main__":
    main()
