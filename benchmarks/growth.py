"""How labelling grows with frames, with goals, and with kept embeddings times goals. For files, see small_files.py and planning.py.

    frames       processor time per frame of a longer run against a shorter one, and peak memory, in processes of their own
    goals        processor time before the first frame and per frame, with a few goals and with many (sparse labels)
    embeddings   labelling from kept embeddings against what it cannot do without: one float32 product, and writing the labels

python benchmarks/growth.py [--output FOLDER] [--frames N] [--goals N] [--embeddings N]

Times are of the processor, all threads together: other programs disturb them least. The goals run with ViT-B/32's shape.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from corpora import save_vit_b32, write_distinct_frames
from report_result import RESULTS, machine, write_result

from vlm_rewards.schemas.goals import Goal, goals_to_lines

FEW_GOALS = 10
GOALS_OF_EMBEDDINGS = 1000
FRAMES_OF_GOALS = 64
SPAN = 4
"""By how much the numbers of frames differ."""
LIMITS = {"frames": 1.05, "memory": 1.05, "goals": 1.25, "embeddings": 1.5}
WORDS = ("red", "green", "blue", "purple", "yellow", "grey", "ball", "key", "box", "door", "room", "agent")

LABEL = """
import json, resource, sys, time
from vlm_rewards.cli import main
from vlm_rewards.pipelines.label import lanes

embed, first = lanes.Lanes.embed, []

def noted(self, pixels):
    first.append(time.process_time())
    return embed(self, pixels)

lanes.Lanes.embed = noted
status = main(sys.argv[1:])
end = time.process_time()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print("TOLD " + json.dumps({"status": status, "start_s": first[0] if first else 0.0, "end_s": end, "peak_mib": peak}))
"""
FROM_EMBEDDINGS = """
import json, sys, time
from pathlib import Path
import numpy as np
import vlm_rewards as vr
from vlm_rewards.pipelines.label.labelling import label
from vlm_rewards.pipelines.label.shared_labelers import shared_labeler
from vlm_rewards.schemas.formats.label_parts.writer import RowGroupWriter, Rows, key_columns, score_columns
from vlm_rewards.schemas.labels import label_schema

folder, goals = Path(sys.argv[1]), tuple(vr.read_goals(sys.argv[2]))
settings = vr.LabelerSettings(model="reference-s", goals=goals)
shared_labeler(settings)  # loads the model
started = time.process_time()
label(None, settings, output=folder / "labels", embeddings=folder / "embeddings", workers=1)
whole = time.process_time() - started
found = vr.open_labels(folder / "labels")
rows = json.loads((folder / "labels" / "manifest.json").read_text())["rows"]
images = np.random.default_rng(0).normal(size=(rows, 256)).astype(np.float32)
started = time.process_time()
for first in range(0, rows, 4096):
    scores = images[first : first + 4096] @ images[: len(goals)].T
product = time.process_time() - started
table = next(found.episodes()).scores
writer = RowGroupWriter(folder / "again", label_schema(found.metadata), 4 * len(goals) + 16)
started = time.process_time()
for first in range(0, rows, 512):
    count = min(512, rows - first)
    block = np.resize(table, (count, len(goals)))
    writer.write(key_columns(Rows(["e"] * count, list(range(count)), block)) + score_columns(block, found.metadata))
writer.close()
print("TOLD " + json.dumps({"label_s": whole, "product_s": product, "write_s": time.process_time() - started}))
"""


def told(program: str, words: list[object]) -> dict[str, Any]:
    """Runs a program in a process of its own, on one thread, and returns what it tells."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program, *(str(word) for word in words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    found: dict[str, Any] = json.loads(line.removeprefix("TOLD "))
    assert found.get("status", 0) == 0, done.stdout
    return found


def write_goals(path: Path, number: int) -> Path:
    """Writes goals of three to five words that a small vocabulary has, no two of them the same."""
    goals = []
    for index in range(number):
        words, rest = [], index
        for _ in range(4):
            words.append(WORDS[rest % len(WORDS)])
            rest //= len(WORDS)
        goals.append(Goal(f"g{index}", f"a {' '.join(words)}"))
    path.write_text(goals_to_lines(goals))
    return path


def label_words(folder: Path, name: str, corpus: Path, goals: Path, model: str) -> list[object]:
    """The words of a run of `label` by one worker."""
    words = ["label", "--input", corpus, "--goals", goals, "--model", model, "--output", folder / name, "--workers", 1]
    return [*words, "--precision", "float32"]


def measure_frames(folder: Path, num_frames: int) -> dict[str, Any]:
    """Labels a part of the frames and all, with reference-s."""
    goals = write_goals(folder / "goals.jsonl", 100)
    runs = []
    for number in (num_frames // SPAN**2, num_frames // SPAN, num_frames):
        corpus = write_distinct_frames(folder / f"frames-{number}", number, 56)
        runs.append(
            told(LABEL, label_words(folder, f"labels-{number}", corpus, goals, "reference-s")) | {"frames": number}
        )
    spent = [run["end_s"] - run["start_s"] for run in runs]
    slopes = [
        (spent[index + 1] - spent[index]) / (runs[index + 1]["frames"] - runs[index]["frames"]) for index in (0, 1)
    ]
    return {
        "runs": runs,
        "ms_per_frame": [1000 * slope for slope in slopes],
        "ratio": slopes[1] / slopes[0],
        "memory_ratio": runs[2]["peak_mib"] / runs[1]["peak_mib"],
    }


def measure_goals(folder: Path, num_goals: int) -> dict[str, Any]:
    """Labels the same frames for a few goals and for many; the ratio is of a run of 10,000 frames."""
    model = str(save_vit_b32(folder / "vit"))
    corpus = write_distinct_frames(
        folder / "frames", FRAMES_OF_GOALS, 224, frames_per_episode=FRAMES_OF_GOALS, num_shards=1
    )
    runs = {}
    for number in (FEW_GOALS, num_goals):
        goals = write_goals(folder / f"goals-{number}.jsonl", number)
        run = told(LABEL, [*label_words(folder, f"labels-{number}", corpus, goals, model), "--sparse"])
        runs[number] = run | {"s_per_frame": (run["end_s"] - run["start_s"]) / FRAMES_OF_GOALS}
    whole = {number: run["start_s"] + 10_000 * run["s_per_frame"] for number, run in runs.items()}
    return {"runs": runs, "ratio": whole[num_goals] / whole[FEW_GOALS]}


def measure_embeddings(folder: Path, num_rows: int) -> dict[str, Any]:
    """Labels from kept embeddings."""
    corpus = write_distinct_frames(folder / "frames", num_rows, 56)
    few, many = write_goals(folder / "few.jsonl", FEW_GOALS), write_goals(folder / "many.jsonl", GOALS_OF_EMBEDDINGS)
    words = label_words(folder, "first", corpus, few, "reference-s")
    told(LABEL, [*words, "--embeddings", folder / "embeddings"])
    found = told(FROM_EMBEDDINGS, [folder, many])
    return {**found, "rows": num_rows, "ratio": found["label_s"] / (found["product_s"] + found["write_s"])}


def main() -> None:
    """Measures all three and prints their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=RESULTS, help="folder for growth.json (default: benchmarks/results)"
    )
    parser.add_argument("--frames", type=int, default=16_000, help="most frames (default: 16,000)")
    parser.add_argument("--goals", type=int, default=1000, help="most goals (default: 1,000)")
    parser.add_argument("--embeddings", type=int, default=20_000, help="kept embeddings (default: 20,000)")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for name, measure, size in (
        ("frames", measure_frames, options.frames),
        ("goals", measure_goals, options.goals),
        ("embeddings", measure_embeddings, options.embeddings),
    ):
        with tempfile.TemporaryDirectory() as folder:
            results[name] = measure(Path(folder), size)
        print(
            f"{name}, {size:,}: ratio {results[name]['ratio']:.2f} (limit {LIMITS[name]}); {results[name]}", flush=True
        )
    write_result(options.output, "growth", {"machine": machine(), "limits": LIMITS, "results": results})


if __name__ == "__main__":
    main()
