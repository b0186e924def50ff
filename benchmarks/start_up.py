"""How long `label` takes to its first frame, and `label --dry-run` to its end, by phase.

    python ──► imports ──► model loaded ──► goals embedded ──► first frames at the encoder

python benchmarks/start_up.py [--output FOLDER]

Each run is a process of its own, ended where its first frames reach the encoder. Processor time is that of all its threads; it
depends less on what else the machine does than seconds on the clock. The goals are the 342 of BabyAI.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from corpora import save_vit_b32, write_distinct_frames
from report_result import machine, parse_arguments, write_result

from vlm_rewards.labelers.domains.babyai.goals import goal_bank
from vlm_rewards.schemas.goals import goals_to_lines

REPEATS = 3
LIMITS_S = {"reference-s": 4.0, "ViT-B/32's shape": 6.0}
DRY_RUN_LIMIT_S = 5.0
PROGRAM = """
import json, os, sys, time
started = float(sys.argv[1])
marks = {}

def mark(phase):
    marks.setdefault(phase, [time.process_time(), time.monotonic() - started])

def tell(phase):
    mark(phase)
    print("MARKS " + json.dumps(marks), flush=True)

from vlm_rewards.cli import main
mark("python and the command line")
from vlm_rewards.pipelines.label import lanes, planning, shared_labelers
mark("corpora, labels and scoring")
import torch
mark("torch")

load, build, embed = shared_labelers.load_encoder, shared_labelers.Labeler, lanes.Lanes.embed

def load_encoder(settings):
    import vlm_rewards.labelers.encoders.dual_encoder
    mark("transformers")
    encoder = load(settings)
    mark("model loaded")
    return encoder

def make(*arguments):
    labeler = build(*arguments)
    mark("goals embedded")
    return labeler

def first_frames(self, pixels):
    if "--dry-run" not in sys.argv:
        tell("first frames at the encoder")
        os._exit(0)
    return embed(self, pixels)

shared_labelers.load_encoder, shared_labelers.Labeler, lanes.Lanes.embed = load_encoder, make, first_frames
main(sys.argv[2:])
tell("end")
"""


def measure(words: list[str]) -> dict[str, list[float]]:
    """Runs the command once; by phase, processor time and seconds on the clock since its start."""
    command = [sys.executable, "-c", PROGRAM, str(time.monotonic()), "label", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (marks,) = [line for line in done.stdout.splitlines() if line.startswith("MARKS ")]
    found: dict[str, list[float]] = json.loads(marks.removeprefix("MARKS "))
    return found


def main() -> None:
    """Measures every case in turns and prints the medians."""
    output = parse_arguments(__doc__).output
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "goals.jsonl").write_text(goals_to_lines(goal_bank()))
        models = {"reference-s": ("reference-s", 56), "ViT-B/32's shape": (str(save_vit_b32(folder / "vit")), 224)}
        cases: dict[str, tuple[list[str], float]] = {}
        for title, (model, size) in models.items():
            corpus = write_distinct_frames(folder / f"corpus-{size}", 256, size, frames_per_episode=64)
            words = ["--input", str(corpus), "--goals", str(folder / "goals.jsonl"), "--model", model]
            words += ["--output", str(folder / f"labels-{size}")]
            cases[f"{title}: first frames"] = (words, LIMITS_S[title])
            cases[f"{title}: --dry-run"] = ([*words, "--dry-run"], DRY_RUN_LIMIT_S)
        runs: dict[str, list[dict[str, list[float]]]] = {case: [] for case in cases}
        for turn in range(REPEATS):
            for case, (words, _) in cases.items():
                of_turn = [word if word != str(folder / "labels-224") else f"{word}-{turn}" for word in words]
                runs[case].append(measure(of_turn))
    results = {}
    for case, (_, limit_s) in cases.items():
        phases = {
            phase: [round(statistics.median(run[phase][kind] for run in runs[case]), 2) for kind in (0, 1)]
            for phase in runs[case][0]
        }
        processor_s, clock_s = list(phases.values())[-1]
        results[case] = {
            "processor_s": processor_s,
            "clock_s": clock_s,
            "limit_s": limit_s,
            "phases": {phase: {"processor_s": cpu, "clock_s": clock} for phase, (cpu, clock) in phases.items()},
        }
        print(
            f"{case}: {processor_s:.1f} s of the processor, {clock_s:.1f} s (limit {limit_s:g} s); {phases}", flush=True
        )
    write_result(output, "start_up", {"machine": machine(), "results": results})


if __name__ == "__main__":
    main()
