"""Where and on what a figure was measured."""

import argparse
import json
import os
import platform
from pathlib import Path

import torch
import transformers

RESULTS = Path(__file__).resolve().parent / "results"


def parse_arguments(description: str | None, **flags: str) -> argparse.Namespace:
    """The command line of a benchmark: --output, and flags with their help."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=RESULTS, help="folder for the results as JSON (default: benchmarks/results)"
    )
    for flag, text in flags.items():
        parser.add_argument(f"--{flag}", action="store_true", help=text)
    return parser.parse_args()


def machine() -> dict[str, object]:
    """Processor, cores and versions that a figure depends on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "bfloat16": bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def write_result(folder: Path, name: str, result: dict) -> None:
    """Writes one benchmark's result."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
