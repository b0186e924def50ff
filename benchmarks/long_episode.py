"""Peak memory of `label` and `hindsight` for one episode of 1,000 and of 100,000 frames, each in a process of its own.

python benchmarks/long_episode.py [--output FOLDER]
"""

import dataclasses
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from memory import peak_mib
from report_result import machine, parse_arguments, write_result

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from tiny_models import save_tiny_clip

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.formats.corpus import write_episodes
from vlm_rewards.schemas.goals import Goal, write_goals
from vlm_rewards.schemas.pictures import encode_png

LIMIT = 1.10
SIZES = (1_000, 100_000)
EXTENSIONS = {"parquet": "parquet", "webdataset": "tar"}
GOALS = (
    Goal("ball", "a red ball", instructions=("find the ball",)),
    Goal("key", "a green key"),
    Goal("box", "a blue box"),
    Goal("door", "a grey door"),
)


@dataclasses.dataclass(frozen=True)
class NoiseFrames:
    """Frames [32, 32, 3] of 4 x 4 blocks of noise, no two of them equal, made as they stream; some 200 bytes each as PNG."""

    num_frames: int

    def __len__(self) -> int:
        return self.num_frames

    def __iter__(self) -> Iterator[bytes]:
        random = np.random.default_rng(0)
        for _ in range(self.num_frames):
            blocks = random.integers(0, 256, (4, 4, 3), np.uint8)
            yield encode_png(blocks.repeat(8, axis=0).repeat(8, axis=1))


def write_long_episode(folder: Path, num_frames: int, container: str) -> Path:
    """Writes a corpus of one episode with actions, states and an instruction."""
    folder.mkdir()
    episode = Episode(
        episode_id="long",
        images={"front": NoiseFrames(num_frames)},
        actions=np.zeros((num_frames - 1, 2), np.float32),
        states=np.zeros((num_frames, 4), np.float32),
        instruction="find the ball",
    )
    write_episodes(folder / f"a.{EXTENSIONS[container]}", CorpusFeatures.of(episode), [episode], container)
    return folder


def main() -> None:
    """Measures both commands on both containers and prints the ratios."""
    output = parse_arguments(__doc__).output
    command = str(Path(sys.executable).with_name("vlm-rewards"))
    peaks: dict[str, dict[int, float]] = {}
    seconds: dict[str, dict[int, float]] = {}

    def measure(name: str, num_frames: int, *words: object) -> None:
        start = time.perf_counter()
        peak = peak_mib([command, *map(str, words), "--workers", "1"])
        peaks.setdefault(name, {})[num_frames] = peak
        seconds.setdefault(name, {})[num_frames] = time.perf_counter() - start
        print(f"{name}, {num_frames:,} frames: {peak:,.0f} MiB, {seconds[name][num_frames]:,.0f} s", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_goals(GOALS, folder / "goals.jsonl")
        clip = save_tiny_clip(folder / "clip")
        for container in EXTENSIONS:
            for num_frames in SIZES:
                corpus = write_long_episode(folder / f"{container}-{num_frames}", num_frames, container)
                labels, relabelled = folder / f"labels-{corpus.name}", folder / f"relabelled-{corpus.name}"
                words = ["--goals", folder / "goals.jsonl", "--model", clip, "--output", labels]
                measure(f"label, {container}", num_frames, "label", "--input", corpus, *words)
                words = ["--labels", labels, "--output", relabelled, "--format", container]
                measure(f"hindsight, {container}", num_frames, "hindsight", "--input", corpus, *words)
    ratios = {name: peak[SIZES[1]] / peak[SIZES[0]] for name, peak in peaks.items()}
    for name, ratio in ratios.items():
        print(f"{name}: ratio {ratio:.3f} (limit {LIMIT})")
    result = {"machine": machine(), "peak_mib": peaks, "seconds": seconds, "ratio": ratios, "limit": LIMIT}
    write_result(output, "long_episode", result)


if __name__ == "__main__":
    main()
