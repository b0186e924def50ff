"""Peak memory of `vlm-rewards label` at 4,000 and at 40,000 frames, each in a process of its own.

python benchmarks/memory.py [--output FILE]
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from corpora import write_distinct_frames
from report_result import machine, parse_arguments, write_result

from vlm_rewards.labelers.domains.babyai.goals import goal_bank
from vlm_rewards.schemas.goals import write_goals

LIMIT = 1.10


def peak_mib(arguments: list[str]) -> float:
    """Peak resident memory of a command, in MiB."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise RuntimeError(f"the command must end with status 0, got {status}: {' '.join(arguments)}")
    return usage.ru_maxrss / 1024


def main() -> None:
    """Measures both sizes and prints the ratio."""
    output = parse_arguments(__doc__).output
    command = str(Path(sys.executable).with_name("vlm-rewards"))
    peaks = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_goals(goal_bank(), folder / "goals.jsonl")
        for num_frames in (4_000, 40_000):
            corpus = write_distinct_frames(folder / f"corpus-{num_frames}", num_frames, 56, num_shards=4)
            arguments = [
                command,
                "label",
                "--input",
                str(corpus),
                "--goals",
                str(folder / "goals.jsonl"),
                "--workers",
                "2",
            ]
            peaks[num_frames] = peak_mib([*arguments, "--output", str(folder / f"labels-{num_frames}")])
            print(f"{num_frames:,} frames: peak memory {peaks[num_frames]:,.0f} MiB", flush=True)
    ratio = peaks[40_000] / peaks[4_000]
    print(f"ratio {ratio:.3f} (limit {LIMIT})")
    write_result(output, "memory", {"machine": machine(), "peak_mib": peaks, "ratio": ratio, "limit": LIMIT})


if __name__ == "__main__":
    main()
