"""1,000 videos of which three are broken: 997 episodes are labelled, and the three are reported with both numbers of frames.

python benchmarks/many_videos.py [--output FOLDER]

    000123.mp4   its end is missing             promised 20 frames, and fewer could be decoded
    000456.mp4   a frame was dropped            time for 20 frames, and 19 are there
    000789.mp4   cut by an edit list            promised 20 frames, and 15 are shown

The command is `vlm-rewards label` with reference-s, in a process of its own. Every other video is whole.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import corpora  # noqa: F401 (lays tests/ on the path)
from report_result import machine, parse_arguments, write_result
from small_videos import copy_packets, numbered_frame, write_video

import vlm_rewards as vr
from vlm_rewards.schemas.goals import Goal, write_goals

NUM_VIDEOS = 1000
NUM_FRAMES = 20
BROKEN = {
    "000123": "promises 20 frames",
    "000456": "has time for 20 frames, got 19",
    "000789": "promises 20 frames, got 15",
}
"""What the reason of each broken video says."""


def write_videos(folder: Path) -> None:
    """Writes the videos; a whole one shows frames that tell its number."""
    folder.mkdir()
    for number in range(NUM_VIDEOS):
        frames = [numbered_frame((number + t) % 256) for t in range(NUM_FRAMES)]
        write_video(folder / f"{number:06d}.mp4", frames)
    whole = folder / "000000.mp4"
    data = whole.read_bytes()
    (folder / "000123.mp4").write_bytes(data[: len(data) - 300])
    copy_packets(whole, folder / "000456.mp4", kept=[number for number in range(NUM_FRAMES) if number != 7])
    copy_packets(whole, folder / "000789.mp4", shift=5)


def main() -> None:
    """Labels the videos, and compares what was labelled and reported with what was written."""
    output = parse_arguments(__doc__).output
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_videos(folder / "videos")
        write_goals([Goal("red", "a red ball"), Goal("key", "a blue key")], folder / "goals.jsonl")
        command = [str(Path(sys.executable).with_name("vlm-rewards")), "label", "--input", str(folder / "videos")]
        command += [
            "--model",
            "reference-s",
            "--goals",
            str(folder / "goals.jsonl"),
            "--output",
            str(folder / "labels"),
        ]
        started = time.perf_counter()
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
        if ended.returncode != 0:
            raise RuntimeError(f"label must end with status 0, got {ended.returncode}: {ended.stderr[-2000:]}")
        labelled = [episode.episode_id for episode in vr.open_labels(folder / "labels").episodes()]
        lines = [line for path in (folder / "labels/failures").iterdir() for line in path.read_text().splitlines()]
    failures = {record["episode_id"]: record["detail"] for record in map(json.loads, lines)}
    for episode_id, detail in sorted(failures.items()):
        print(f"{episode_id}: {detail}")
    for episode_id, words in BROKEN.items():
        if words not in failures.get(episode_id, ""):
            raise RuntimeError(f"{episode_id} must be reported with {words!r}, got {failures.get(episode_id)!r}")
    whole = {f"{number:06d}" for number in range(NUM_VIDEOS)} - BROKEN.keys()
    if set(labelled) != whole or len(failures) != len(BROKEN):
        raise RuntimeError(f"{len(whole)} videos must be labelled, got {len(labelled)}, and {len(failures)} reported")
    print(f"{len(labelled)} videos are labelled, {len(failures)} reported, in {seconds:.0f} s")
    result = {
        "machine": machine(),
        "videos": NUM_VIDEOS,
        "labelled": len(labelled),
        "reported": failures,
        "seconds": seconds,
    }
    write_result(output, "many_videos", result)


if __name__ == "__main__":
    main()
