"""Labelling beside the limit of its encoder and beside what a user would write instead: the same frames, goals and weights.

    shapes x pictures x contenders ──► each in a process of its own ──► one table, ratios to the limit first ──► bench.json

python benchmarks/bench.py [--frames N] [--seconds S] [--minutes M] [--shape NAME] [--pictures NAME] [--contender NAME]
                           [--videos FOLDER] [--output FOLDER]

`--frames` is for ViT-B/32's shape; ViT-L/14's shape gets a sixteenth, reference-s eight times as many. `--seconds` ends a
contender other than `label` early: rates are of the frames that it did. What `--minutes` leaves no time for is named and left out.
Processor time is that of the process and of its children. "frames" begins where the first frames reach the model: what comes before
(imports, weights, goals, the engine) counts in "whole". Weights are random but for reference-s: speed does not depend on them.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from bench_contenders import CONTENDERS
from corpora import save_vit_b32, save_vit_l14
from PIL import Image
from report_result import RESULTS, machine, write_result

from vlm_rewards.labelers import reference_models
from vlm_rewards.labelers.domains.babyai.goals import goal_bank
from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.formats.corpus import write_episodes
from vlm_rewards.schemas.goals import goals_to_lines

SHAPES = {"vit-b32": 1.0, "reference-s": 8.0, "vit-l14": 1 / 16}
"""By shape, its frames as a share of --frames."""
PICTURES = {"224x224": (224, 224), "640x480": (480, 640), "video": (0, 0)}
NOT_MEASURED = {"open_clip, clip-retrieval": "they require torchvision, of which PyPI has no build for a CPU torch"}
EPISODE_FRAMES = 64
REFERENCE_MODELS = Path(reference_models.__file__).parent / "weights"


def write_jpegs(folder: Path, num_frames: int, size: tuple[int, int]) -> Path:
    """Writes a corpus of JPEG frames, no two of which are equal, in up to four shards."""
    folder.mkdir(parents=True)
    counts = [min(EPISODE_FRAMES, num_frames - start) for start in range(0, num_frames, EPISODE_FRAMES)]
    for shard, numbers in enumerate(np.array_split(np.arange(len(counts)), min(4, len(counts)))):
        rng = np.random.default_rng(shard)

        def episodes(numbers: Any = numbers, rng: Any = rng) -> Iterator[Episode]:
            for number in numbers.tolist():
                images = [_jpeg(rng, size) for _ in range(counts[number])]
                actions = np.zeros(counts[number] - 1, np.int64)
                yield Episode(episode_id=f"e{number:06d}", images={"view": images}, actions=actions)

        features = CorpusFeatures(cameras=("view",), has_rewards=False, has_instruction=False)
        write_episodes(folder / f"shard-{shard}.parquet", features, episodes(), "parquet")
    return folder


def _jpeg(rng: np.random.Generator, size: tuple[int, int]) -> bytes:
    small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
    file = io.BytesIO()
    small.resize((size[1], size[0]), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def link_videos(folder: Path, source: Path, num_frames: int) -> tuple[Path, int]:
    """Links videos into a folder until they have as many frames; returns it and their number of frames."""
    import av

    folder.mkdir(parents=True)
    total = 0
    for path in sorted(source.rglob("*.mp4")):
        with av.open(str(path)) as container:
            total += container.streams.video[0].frames
        (folder / path.name).symlink_to(path.resolve())
        if total >= num_frames:
            break
    return folder, total


def run(name: str, spec: dict[str, Any], work: Path) -> dict[str, Any]:
    """Runs one contender; returns rates per second on the clock and of the processor, or the error's last line."""
    path = work / "spec.json"
    path.write_text(json.dumps(spec))
    log = work / "log"
    program = Path(__file__).with_name("bench_contenders.py")
    begun = time.time()
    with log.open("w+") as output:
        process = subprocess.Popen([sys.executable, program, name, path], stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    lines = log.read_text(errors="replace").strip().splitlines()
    said = [line for line in lines if line.startswith("BENCH ")]
    if process.returncode or not said:
        return {"failed": lines[-1][:200] if lines else f"status {process.returncode}"}
    found = json.loads(said[-1].removeprefix("BENCH "))
    frames, whole_cpu = found["frames"], used.ru_utime + used.ru_stime
    return {
        "frames": frames,
        "start_s": found["ready"] - begun,
        "start_processor_s": found["ready_cpu"],
        "frames_per_s": frames / (found["done"] - found["ready"]),
        "frames_per_processor_s": frames / (whole_cpu - found["ready_cpu"]),
        "whole_frames_per_s": frames / (found["done"] - begun),
        "whole_frames_per_processor_s": frames / whole_cpu,
        "peak_mib": used.ru_maxrss / 1024,
    }


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The table in Markdown; ratios are to the fastest limit of the same shape."""
    lines = [
        "| shape | pictures | contender | of the limit, processor | whole run | of the limit, clock | whole run "
        "| frames/s | per processor second | start, s | memory, MiB | frames |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        head = f"| {row['shape']} | {row['pictures']} | {row['contender']} |"
        if "failed" in row:
            lines.append(f"{head} {row['failed']} |" + " |" * 8)
            continue
        ratios = " | ".join("" if row[name] is None else f"{row[name]:.2f}" for name in RATIOS)
        rates = f"{row['frames_per_s']:,.1f} | {row['frames_per_processor_s']:,.1f} | {row['start_s']:,.1f}"
        lines.append(f"{head} {ratios} | {rates} | {row['peak_mib']:,.0f} | {row['frames']:,} |")
    return lines


RATIOS = {
    "processor_ratio": ("frames_per_processor_s", "frames_per_processor_s"),
    "whole_processor_ratio": ("whole_frames_per_processor_s", "frames_per_processor_s"),
    "clock_ratio": ("frames_per_s", "frames_per_s"),
    "whole_clock_ratio": ("whole_frames_per_s", "frames_per_s"),
}
"""By ratio, the rate of a contender and the rate of the limit, whose start never counts."""


def add_ratios(rows: list[dict[str, Any]]) -> None:
    """Sets each row's ratios to the fastest limit of its shape, by each rate; None where that was not measured."""
    measured = [row for row in rows if "failed" not in row]
    for row in measured:
        limits = [other for other in measured if other["shape"] == row["shape"] and is_limit(other["contender"])]
        for name, (own, of_limit) in RATIOS.items():
            row[name] = row[own] / max(limit[of_limit] for limit in limits) if limits else None


def is_limit(contender: str) -> bool:
    """Whether a contender is the encoder alone."""
    return contender.startswith("limit ")


def main() -> None:
    """Measures what is asked for, prints the table, and writes it with what is in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=768, help="frames of ViT-B/32's shape")
    parser.add_argument("--seconds", type=float, default=15.0, help="longest time of a contender other than label")
    parser.add_argument("--minutes", type=float, default=60.0, help="time after which no other contender is begun")
    parser.add_argument("--shape", action="append", choices=SHAPES, help="only these shapes")
    parser.add_argument("--pictures", action="append", choices=PICTURES, help="only these pictures")
    parser.add_argument("--contender", action="append", choices=CONTENDERS, help="only these contenders and the limits")
    parser.add_argument("--videos", type=Path, help="folder with mp4 files, for the pictures 'video'")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results as JSON and Markdown")
    options = parser.parse_args()
    begun = time.monotonic()
    here = machine()
    skipped = dict(NOT_MEASURED)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        goals = work / "goals.jsonl"
        goals.write_text(goals_to_lines(goal_bank()))
        for shape in options.shape or SHAPES:
            model, folder = _model(shape, work)
            for pictures in options.pictures or PICTURES:
                frames = max(8, round(options.frames * SHAPES[shape]))
                if pictures == "video" and options.videos is None:
                    skipped["video"] = "no --videos was given"
                    continue
                if pictures == "video":
                    corpus, frames = link_videos(work / f"video-{shape}", options.videos, frames)
                else:
                    corpus = write_jpegs(work / f"{pictures}-{shape}", frames, PICTURES[pictures])
                spec = {
                    "model": model,
                    "model_folder": folder,
                    "corpus": str(corpus),
                    "goals": str(goals),
                    "work": str(work),
                    "frames": frames,
                    "seconds": options.seconds,
                    "is_video": pictures == "video",
                }
                for contender in CONTENDERS:
                    alone = is_limit(contender)
                    if options.contender and not alone and contender not in options.contender:
                        continue
                    if alone and any((row["shape"], row["contender"]) == (shape, contender) for row in rows):
                        continue  # it sees no pictures
                    if "bfloat16" in contender and not here["bfloat16"]:
                        skipped[contender] = "the processor does not compute in bfloat16"
                        continue
                    if "openvino" in contender and find_spec("openvino") is None:
                        skipped[contender] = "OpenVINO is not installed"
                        continue
                    if time.monotonic() - begun > 60 * options.minutes:
                        skipped[f"{shape}, {pictures}, {contender}"] = f"--minutes {options.minutes:g} were over"
                        continue
                    row = {"shape": shape, "pictures": "memory" if alone else pictures, "contender": contender}
                    rows.append({**row, **run(contender, spec, work)})
                    add_ratios(rows)
                    print(table(rows[-1:])[-1], flush=True)
    lines = table(rows)
    print("\n".join(["", *lines, "", *(f"not measured: {what}: {why}" for what, why in skipped.items())]), flush=True)
    record = {
        "machine": here,
        "load": os.getloadavg()[0],
        "frames": options.frames,
        "seconds": options.seconds,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "rows": rows,
        "not_measured": skipped,
    }
    write_result(options.output, "bench", record)
    (options.output / "bench.md").write_text("\n".join(lines) + "\n")


def _model(shape: str, work: Path) -> tuple[str, str]:
    """The name that label takes, and the folder of the checkpoint that everything else takes."""
    if shape == "reference-s":
        return shape, str(REFERENCE_MODELS / shape)
    folder = (save_vit_b32 if shape == "vit-b32" else save_vit_l14)(work / shape)
    return str(folder), str(folder)


if __name__ == "__main__":
    main()
