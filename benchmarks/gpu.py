"""What a GPU gives: the encoder's speed, labelling by it, that its bits hold, and learning on it.

    encoder     frames a second of ViT-B/32's shape, by precision and batch size, from uint8 pixels in main memory
    exactness   a row's bits by order, by the number of rows and by threads at once; the cosine to the CPU's float32
    labelling   PNG frames of 224x224 to labels for 342 goals, by batch size and workers, and where the workers' time goes
    learning    IQL's updates a second there and on one thread of the CPU, and how far the first losses are apart

Needs a CUDA device; without one it refuses. What must hold and does not ends it with an error.

python benchmarks/gpu.py [--output FOLDER]
"""

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from corpora import save_vit_b32, write_distinct_frames
from noise_batches import CASES, random_batch
from report_result import machine, parse_arguments, write_result

from vlm_rewards.labelers.domains.babyai.goals import goal_bank
from vlm_rewards.labelers.encoders.dual_encoder import DualEncoder
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.offline_rl.algorithms.iql import Iql, IqlSettings
from vlm_rewards.pipelines.evaluate.evaluation import run_statistics
from vlm_rewards.pipelines.label.labelling import label
from vlm_rewards.pipelines.label.shared_labelers import shared_labeler

SECONDS = 3.0
NUM_FRAMES = 25_600
NUM_SHARDS = 32
MIN_COSINE = 1 - 1e-5
UPDATES = 100
MAX_LOSS_DIFFERENCE = 1e-3
"""Of the first update's losses, relative where they are above 1: torch lets a GPU's convolutions round to TF32."""


def encoder_speeds(model: Path) -> dict[str, float]:
    """Frames a second by precision and batch size."""
    speeds = {}
    for precision in ("float32", "bfloat16"):
        for batch_size in (64, 256, 1024):
            encoder = DualEncoder.load(str(model), precision=precision, batch_size=batch_size, device="cuda")
            pixels = random_pixels(4 * batch_size)
            encoder.embed_images(pixels)
            frames, started = 0, time.perf_counter()
            while time.perf_counter() - started < SECONDS:
                encoder.embed_images(pixels)
                frames += len(pixels)
            name = f"{precision}, batch {batch_size}"
            speeds[name] = frames / (time.perf_counter() - started)
            print(f"ViT-B/32's shape, {name}: {speeds[name]:,.0f} frames/s", flush=True)
    return speeds


def check_bits(model: Path) -> dict[str, float]:
    """Checks that a row depends on its picture alone, in both precisions; the least cosine to the CPU's float32, by precision."""
    pixels = random_pixels(200)
    expected = DualEncoder.load(str(model), precision="float32").embed_images(pixels)
    order = np.random.default_rng(1).permutation(len(pixels))
    cosines = {}
    for precision in ("float32", "bfloat16"):
        encoder = DualEncoder.load(str(model), precision=precision, device="cuda")
        rows = encoder.embed_images(pixels)
        found = {
            "in another order": encoder.embed_images(pixels[order])[np.argsort(order)],
            "a few at a time": np.concatenate([encoder.embed_images(part) for part in np.array_split(pixels, 7)]),
        }
        with ThreadPoolExecutor(8) as pool:
            parts = pool.map(encoder.embed_images, np.array_split(pixels, 40))
            found["by eight threads"] = np.concatenate(list(parts))
        for way, other in found.items():
            if not np.array_equal(other, rows):
                raise SystemExit(f"a row's bits must depend on its picture alone, got others {way} in {precision}")
        cosines[precision] = float((rows.astype(np.float64) * expected).sum(axis=1).min())
        print(f"bits hold in {precision}; least cosine to the CPU's float32 {cosines[precision]:.7f}", flush=True)
    if cosines["float32"] < MIN_COSINE:
        raise SystemExit(f"float32 must have a cosine of {MIN_COSINE} to the CPU's, got {cosines['float32']}")
    return cosines


def labelling_speeds(model: Path, folder: Path) -> list[dict[str, Any]]:
    """Frames a second of the encoder alone and of labelling, by batch size and by workers, as threads and as processes."""
    corpus = write_distinct_frames(folder / "corpus", NUM_FRAMES, 224, num_shards=NUM_SHARDS)
    cores = len(os.sched_getaffinity(0))
    results = []
    for batch_size, workers, mode in (
        (64, 1, "threads"),
        (64, cores, "threads"),
        (256, 1, "threads"),
        (256, 4, "threads"),
        (256, cores, "threads"),
        (256, 4, "processes"),
        (256, cores, "processes"),
    ):
        settings = LabelerSettings(
            model=str(model), goals=tuple(goal_bank()), device="cuda", batch_size=batch_size, precision="bfloat16"
        )
        shared = shared_labeler(settings)
        pixels = random_pixels(4 * batch_size)
        shared.labeler.embed(pixels)
        started = time.perf_counter()
        shared.labeler.embed(pixels)
        bare = len(pixels) / (time.perf_counter() - started)
        shared.cache.clear()
        output = folder / f"labels-{batch_size}-{workers}-{mode}"
        options = ["--direct_running_mode=multi_processing"] if mode == "processes" else []
        started = time.perf_counter()
        label(corpus, settings, output=output, workers=workers, beam_options=options)
        seconds = time.perf_counter() - started
        stages: Any = run_statistics(output)["seconds"]
        result = {
            "batch_size": batch_size,
            "workers": workers,
            "as": mode,
            "encoder_frames_per_s": bare,
            "frames_per_s": NUM_FRAMES / seconds,
            "seconds": seconds,
            "seconds_of_all_workers": {name: round(value, 2) for name, value in stages.items()},
        }
        results.append(result)
        print(
            f"labelling for 342 goals, batch {batch_size}, {workers} {mode}: {NUM_FRAMES / seconds:,.0f} frames/s with the start "
            f"({seconds:.1f} s), encoder alone {bare:,.0f}; {result['seconds_of_all_workers']}",
            flush=True,
        )
    return results


def learning_speeds() -> dict[str, Any]:
    """IQL's updates a second on the GPU and on one thread of the CPU, and how far the first losses are apart."""
    torch.set_num_threads(1)
    results = {}
    for title, spaces in CASES.items():
        batch = random_batch(spaces)
        losses, speeds = {}, {}
        for device in ("cpu", "cuda"):
            agent = Iql(IqlSettings(), spaces, seed=0, device=device)
            losses[device] = agent.update(batch)
            for _ in range(UPDATES // 10):
                agent.update(batch)
            started = time.perf_counter()
            for _ in range(UPDATES):
                agent.update(batch)
            speeds[device] = UPDATES / (time.perf_counter() - started)
        apart = max(abs(losses["cuda"][name] - value) / max(1.0, abs(value)) for name, value in losses["cpu"].items())
        results[title] = {"updates_per_s": speeds, "first_losses_apart": apart}
        print(
            f"IQL on {title}: {speeds['cuda']:.0f} updates/s, CPU {speeds['cpu']:.0f}; first losses apart by {apart:.1e}",
            flush=True,
        )
        if not apart <= MAX_LOSS_DIFFERENCE:
            raise SystemExit(f"losses of CPU and GPU must agree within {MAX_LOSS_DIFFERENCE}, got {losses}")
    return results


def random_pixels(number: int) -> np.ndarray:
    """[N, 224, 224, 3] uint8 of noise."""
    return np.random.default_rng(0).integers(0, 256, (number, 224, 224, 3), np.uint8)


def main() -> None:
    """Measures and checks everything and prints it."""
    output = parse_arguments(__doc__).output
    if not torch.cuda.is_available():
        raise SystemExit(
            "benchmarks/gpu.py must run on a machine with a CUDA device, got none; run benchmarks/throughput.py"
        )
    with tempfile.TemporaryDirectory() as name:
        model = save_vit_b32(Path(name) / "vit-b32")
        results = {  # what can end it with an error comes first, before the long measurements
            "least_cosine_to_cpu_float32": check_bits(model),
            "learning": learning_speeds(),
            "encoder_frames_per_s": encoder_speeds(model),
            "labelling": labelling_speeds(model, Path(name)),
        }
    write_result(output, "gpu", {"machine": machine(), "device": torch.cuda.get_device_name(0), **results})


if __name__ == "__main__":
    main()
