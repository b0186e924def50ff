"""Runs every benchmark that this machine can run, one after the other; `make measurements` calls it."""

import subprocess
import sys
from pathlib import Path

import torch


def main() -> None:
    """Runs them; the first that fails ends the run."""
    names = [
        "goals",
        "memory",
        "long_episode",
        "small_files",
        "throughput",
        "scoring",
        "ladder",
        "calibration",
        "updates",
        "live_rewards",
        "report_size",
        "reading",
        "playroom",
        "large_files",
        "many_videos",
        "planning",
    ]
    names += ["gpu"] if torch.cuda.is_available() else []
    for name in names:
        print(f"== {name}", flush=True)
        subprocess.run([sys.executable, Path(__file__).with_name(f"{name}.py"), *sys.argv[1:]], check=True)


if __name__ == "__main__":
    main()
