"""What a GPU gives: its matrix rate, the encoder's speed by engine, labelling from JPEG, that bits hold, and learning on it.

    matrix      operations a second of products in bfloat16 and float32, bytes a second of uploads
    encoder     frames a second of both shapes by engine, precision and batch: from pixels in main memory, from page-locked pixels,
                and of the computation alone; a row's bits by order, number and threads; cosines to float32
    label       224x224 JPEG to labels for 342 goals, beside the encoder alone in the same process
    learning    IQL's updates a second there and on one thread of the CPU, and how far the first losses are apart

Every stage is a process of its own with a limit of time, and what it has found is in gpu.json after every measurement. A stage that
fails or ends late is named there, and the next one begins. Stages, in this order unless named:

    matrix encoder-vit-b32 label-vit-b32 encoder-vit-l14 label-vit-l14 learning more-vit-b32

python benchmarks/gpu.py [--output FOLDER] [--stages NAME ...] [--limit SECONDS] [--device cuda]
"""

import argparse
import copy
import dataclasses
import hashlib
import json
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from corpora import build_tokenizer
from gpu_work import SHAPES, random_pixels, save_clip, seconds_per_call
from noise_batches import CASES, random_batch
from report_result import RESULTS, machine

from vlm_rewards.labelers.domains.babyai.goals import goal_bank
from vlm_rewards.labelers.encoders.checkpoints.loading import load_checkpoint
from vlm_rewards.labelers.encoders.dual_encoder import DualEncoder
from vlm_rewards.labelers.encoders.engines.loading import load_towers
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.offline_rl.algorithms.iql import Iql, IqlSettings

STAGES = {
    "matrix": 40,
    "encoder-vit-b32": 110,
    "label-vit-b32": 90,
    "encoder-vit-l14": 110,
    "label-vit-l14": 100,
    "learning": 45,
    "more-vit-b32": 110,
}
"""Stages and their limits in seconds."""

ENGINES = {  # engine, precision, batch; the first is the one that is compared with others
    "encoder-vit-b32": [("compile", "bfloat16", 1024), ("torch", "bfloat16", 1024), ("compile", "bfloat16", 256)],
    "encoder-vit-l14": [("compile", "bfloat16", 256), ("torch", "bfloat16", 256)],
    "more-vit-b32": [("torch", "float32", 1024), ("compile", "float32", 1024), ("compile", "bfloat16", 64)],
}
FRAMES = {"vit-b32": (8_192, 131_072), "vit-l14": (4_096, 24_576)}
"""Frames of a short and a long run: their difference has no start in it."""
BATCHES = {"vit-b32": 1024, "vit-l14": 256}
SHARDS = 32
UPDATES = 100
_TINY_LIMITS = 10
"""How many times as long a stage may take where nothing is measured: on a busy CPU imports alone fill its limit."""
MAX_LOSS_DIFFERENCE = 1e-3
"""Of the first update's losses, relative where they are above 1: torch lets a GPU's convolutions round to TF32."""


@dataclasses.dataclass
class Stage:
    """A stage at work.

    Args:
        name: Its name.
        device: The device that is measured.
        folder: Folder for models and corpora, shared by the stages.
        result: File of the results.
        tiny: Whether to try the stage at a tiny size, which measures nothing.
    """

    name: str
    device: str
    folder: Path
    result: Path
    tiny: bool

    @property
    def model(self) -> str:
        """Name of the shape that the stage works on."""
        return "tiny" if self.tiny else self.name.partition("-")[2]

    @property
    def seconds(self) -> float:
        """Seconds of one measurement."""
        return 0.05 if self.tiny else 1.0

    def note(self, **found: Any) -> None:
        """Adds to the results of the stage, on disk, and prints it."""
        add_result(self.result, self.name, found)
        print(f"{self.name}: {json.dumps(found)}", flush=True)

    def synchronize(self) -> None:
        """Waits for the device."""
        if self.device != "cpu":
            torch.cuda.synchronize()

    def checkpoint(self) -> Path:
        """Returns the folder of the stage's model, made by the first stage that needs it."""
        return save_clip(self.folder / self.model, SHAPES[self.model], build_tokenizer(77))


def add_result(path: Path, stage: str, found: dict[str, Any]) -> None:
    """Merges results of a stage into the file."""
    record = json.loads(path.read_text()) if path.is_file() else {"stages": {}}
    record["stages"].setdefault(stage, {}).update(found)
    written = path.with_suffix(".tmp")
    written.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    written.replace(path)


def measure_matrix(stage: Stage) -> None:
    """Measures products of square matrices, and uploads of 256 MiB."""
    side = 256 if stage.tiny else 8192
    for precision in ("bfloat16", "float32"):
        one, two = (torch.randn(side, side, device=stage.device, dtype=getattr(torch, precision)) for _ in range(2))
        per_call = seconds_per_call(lambda one=one, two=two: one @ two, stage.seconds, stage.synchronize)
        stage.note(**{f"tflop_per_s_{precision}": 2 * side**3 / per_call / 1e12})
    size = (1 << 20) if stage.tiny else (1 << 28)
    pageable = torch.zeros(size, dtype=torch.uint8)
    there = torch.empty(size, dtype=torch.uint8, device=stage.device)
    sources = {"pageable": pageable, **({} if stage.device == "cpu" else {"page_locked": pageable.pin_memory()})}
    for name, source in sources.items():
        per_call = seconds_per_call(
            lambda source=source: there.copy_(source, non_blocking=True), stage.seconds / 2, stage.synchronize
        )
        stage.note(**{f"upload_gb_per_s_{name}": size / per_call / 1e9})


def measure_encoder(stage: Stage) -> None:
    """Measures the encoder on its engines, and checks the bits of each."""
    shape, rate = SHAPES[stage.model], matrix_rates(stage.result)
    base = DualEncoder.load(stage.checkpoint(), device=stage.device)
    checkpoint = load_checkpoint(stage.checkpoint())
    pixels = random_pixels(100 if stage.tiny else 4096)
    exact = base.embed_images(pixels[:256])
    stage.note(gflop_per_frame=shape.gflop)
    for engine, precision, rows in ENGINES[stage.name]:
        one = dataclasses.replace(base, precision=precision, batch_size=16 if stage.tiny else rows)
        title = f"{engine}, {precision}, batch {one.batch_size}"
        try:
            found = measure_engine(stage, engine, one, copy.deepcopy(checkpoint.model), pixels, exact)
        except ValueError:
            found = {"refused": traceback.format_exc()[-1500:]}
        if rate.get(precision) and "frames_per_s" in found:
            found["share_of_matrix_rate"] = max(found["frames_per_s"].values()) * shape.gflop / 1e3 / rate[precision]
        stage.note(**{title: found})


def measure_engine(
    stage: Stage, engine: str, base: DualEncoder, model: Any, pixels: np.ndarray, exact: np.ndarray
) -> dict[str, Any]:
    """Returns start, speeds and bits of one engine, in the precision and batch of the encoder that is given."""
    rows, started = base.batch_size, time.perf_counter()
    loaded = load_towers(engine, model, base.preprocessor, device=stage.device, precision=base.precision, rows=rows)
    start_s = time.perf_counter() - started
    encoder = dataclasses.replace(base, towers=loaded.towers)
    few = pixels[: 4 * rows]
    speeds = {"pageable": len(few) / seconds_per_call(lambda: encoder.embed_images(few), stage.seconds, int)}
    if stage.device != "cpu":
        locked = torch.from_numpy(few).pin_memory().numpy()
        speeds["page_locked"] = len(few) / seconds_per_call(lambda: encoder.embed_images(locked), stage.seconds, int)
        speeds["three_threads"] = threads_rate(encoder, locked, stage.seconds)
        graph = getattr(loaded.towers, "_graph", None)
        if graph is not None:  # nothing but what the device computes
            speeds["computation"] = rows / seconds_per_call(graph._graph.replay, stage.seconds, stage.synchronize)
    return {"start_s": start_s, "frames_per_s": speeds, **check_bits(encoder, pixels, exact)}


def threads_rate(encoder: DualEncoder, pixels: np.ndarray, seconds: float) -> float:
    """Returns frames a second of three threads that share an encoder, as the lanes of a labelling run do."""
    ends = time.perf_counter() + seconds

    def work(_: int) -> int:
        frames = 0
        while time.perf_counter() < ends:
            encoder.embed_images(pixels)
            frames += len(pixels)
        return frames

    started = time.perf_counter()
    with ThreadPoolExecutor(3) as pool:
        frames = sum(pool.map(work, range(3)))
    return frames / (time.perf_counter() - started)


def check_bits(encoder: DualEncoder, pixels: np.ndarray, exact: np.ndarray) -> dict[str, Any]:
    """Returns whether a row depends on its picture alone, the least cosine to float32, and a digest to compare processes by."""
    pixels = pixels[: len(exact)]
    rows = encoder.embed_images(pixels)
    order = np.random.default_rng(1).permutation(len(pixels))
    with ThreadPoolExecutor(8) as pool:
        by_threads = np.concatenate(list(pool.map(encoder.embed_images, np.array_split(pixels, 24))))
    ways = {
        "in another order": encoder.embed_images(pixels[order])[np.argsort(order)],
        "a few at a time": np.concatenate([encoder.embed_images(part) for part in np.array_split(pixels, 7)]),
        "by eight threads": by_threads,
    }
    return {
        "other_bits": [way for way, other in ways.items() if not np.array_equal(other, rows)],
        "least_cosine_to_float32": float((rows.astype(np.float64) * exact).sum(axis=1).min()),
        "digest_of_rows": hashlib.sha256(rows.tobytes()).hexdigest()[:16],
    }


def matrix_rates(path: Path) -> dict[str, float]:
    """Returns the matrix rates that the first stage found, by precision; empty where it was not run."""
    record = json.loads(path.read_text()) if path.is_file() else {"stages": {}}
    found = record["stages"].get("matrix", {})
    return {name: found.get(f"tflop_per_s_{name}", 0.0) for name in ("bfloat16", "float32")}


def measure_label(stage: Stage) -> None:
    """Measures labelling after a run that fills the caches: what the longer run takes more is its pace without a start."""
    from vlm_rewards.pipelines.evaluate.evaluation import run_statistics
    from vlm_rewards.pipelines.label.labelling import label

    short, long = (64, 256) if stage.tiny else FRAMES[stage.model]
    num_shards = 2 if stage.tiny else SHARDS
    started = time.perf_counter()
    corpora = {n: stage.folder / f"jpeg-{n}" for n in (short, long)}
    script = Path(__file__).with_name("jpeg_shards.py")  # its processes import no more than they need
    for number, corpus in corpora.items():
        if not corpus.is_dir():
            subprocess.run([sys.executable, script, corpus, str(number), str(num_shards)], check=True)
    stage.note(corpus_s=time.perf_counter() - started)
    settings = LabelerSettings(
        model=str(stage.checkpoint()),
        goals=tuple(goal_bank()),
        device=stage.device,
        batch_size=16 if stage.tiny else BATCHES[stage.model],
        precision="float32" if stage.tiny else "bfloat16",
        engine="torch" if stage.tiny else "compile",
    )
    seconds = {}
    # The first run compiles what the next ones find compiled, and is told apart from them.
    for title, number in ((f"first run, {short}", short), (str(short), short), (str(long), long)):
        output = stage.folder / f"labels-{stage.model}-{title}"
        started = time.perf_counter()
        label(corpora[number], settings, output=output)
        seconds[number] = time.perf_counter() - started
        stages: Any = run_statistics(output)["seconds"]
        stage.note(
            **{
                f"label {title} frames": {
                    "seconds": seconds[number],
                    "frames_per_s_with_start": number / seconds[number],
                    "seconds_of_all_workers": {name: round(value, 2) for name, value in stages.items()},
                }
            }
        )
    encoder = DualEncoder.load(
        settings.model,
        device=stage.device,
        batch_size=settings.batch_size,
        precision=settings.precision,
        engine=settings.engine,
    )
    pixels = random_pixels(settings.batch_size * 4)
    if stage.device != "cpu":
        pixels = torch.from_numpy(pixels).pin_memory().numpy()
    alone = threads_rate(encoder, pixels, stage.seconds)
    digest = check_bits(encoder, random_pixels(4096)[:256], encoder.embed_images(random_pixels(4096)[:256]))
    stage.note(encoder_frames_per_s=alone, digest_of_rows=digest["digest_of_rows"])
    more_s = seconds[long] - seconds[short]
    if more_s > 0:
        pace = (long - short) / more_s
        stage.note(frames_per_s_without_start=pace, share_of_encoder_speed=pace / alone)
    else:
        stage.note(no_pace=f"{long:,} frames took no longer than {short:,}: the machine was busy, or they are too few")


def measure_learning(stage: Stage) -> None:
    """Measures IQL's updates a second on the device and on one thread of the CPU, and compares the first losses."""
    torch.set_num_threads(1)
    updates = 2 if stage.tiny else UPDATES
    for title, spaces in CASES.items():
        batch = random_batch(spaces)
        losses, speeds = {}, {}
        for device in ("cpu", stage.device):
            agent = Iql(IqlSettings(), spaces, seed=0, device=device)
            losses[device] = agent.update(batch)
            for _ in range(updates // 10):
                agent.update(batch)
            started = time.perf_counter()
            for _ in range(updates):
                agent.update(batch)
            speeds[device] = updates / (time.perf_counter() - started)
        ours = losses[stage.device]
        apart = max(abs(ours[name] - value) / max(1.0, abs(value)) for name, value in losses["cpu"].items())
        stage.note(**{title: {"updates_per_s": speeds, "first_losses_apart": apart}})
        if not apart <= MAX_LOSS_DIFFERENCE:
            stage.note(error=f"losses of CPU and GPU must agree within {MAX_LOSS_DIFFERENCE}, got {losses}")


def run_stage(stage: Stage) -> None:
    """Runs one stage; what goes wrong is in the results too."""
    kind = stage.name.partition("-")[0]
    measures = {
        "matrix": measure_matrix,
        "encoder": measure_encoder,
        "more": measure_encoder,
        "label": measure_label,
        "learning": measure_learning,
    }
    try:
        measures[kind](stage)
    except BaseException:
        stage.note(error=traceback.format_exc()[-3000:])
        raise


def main() -> None:
    """Runs the stages one after the other, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=RESULTS, help="folder for gpu.json (default: benchmarks/results)"
    )
    parser.add_argument(
        "--stages", nargs="+", choices=STAGES, default=list(STAGES), help="stages to run, in this order"
    )
    parser.add_argument("--limit", type=float, default=300, help="seconds for all stages together (default: 300)")
    parser.add_argument("--device", default="cuda", help="device that is measured (default: cuda)")
    parser.add_argument("--tiny", action="store_true", help="try the script at a tiny size, which measures nothing")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device != "cpu" and not torch.cuda.is_available():
        raise SystemExit(
            f"this machine has no CUDA device: got {options.device}. Run it on one, or with --device cpu --tiny"
        )
    result = options.output / "gpu.json"
    if options.folder:
        (name,) = options.stages
        run_stage(Stage(name, options.device, options.folder, result, options.tiny))
        return
    options.output.mkdir(parents=True, exist_ok=True)
    device = "cpu" if options.device == "cpu" else torch.cuda.get_device_name(options.device)
    record = {"device": device, "machine": machine(), "stages": {}}
    result.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    ends = time.monotonic() + options.limit
    with tempfile.TemporaryDirectory() as folder:
        for name in options.stages:
            limit = min(STAGES[name] * (_TINY_LIMITS if options.tiny else 1), ends - time.monotonic())
            if limit < 10:
                add_result(result, name, {"left_out": f"of {options.limit:g} s too little was left"})
                continue
            command = [sys.executable, __file__, "--stages", name, "--folder", folder, "--device", options.device]
            command += ["--output", str(options.output), *(["--tiny"] if options.tiny else [])]
            started = time.monotonic()
            try:
                status: object = subprocess.run(command, timeout=limit).returncode
            except subprocess.TimeoutExpired:
                status = f"ended after {limit:.0f} s"
            add_result(result, name, {"status": status, "seconds": round(time.monotonic() - started, 1)})
            print(f"== {name}: {status}, {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
