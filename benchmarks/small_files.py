"""What many small files cost: 1,500 files of 4 frames against one file of as many, labelled by one worker in this process.

python benchmarks/small_files.py [--output FOLDER]

Both corpora hold the same episodes of distinct frames. What is compared is processor time, which other programs on the machine
disturb least; seconds on the clock are written beside it. The model is loaded before.
"""

import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from report_result import machine, parse_arguments, write_result

from vlm_rewards.labelers.domains.babyai.goals import goal_bank
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.label.labelling import label
from vlm_rewards.pipelines.label.shared_labelers import shared_labeler
from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.formats.corpus import open_corpus, write_episodes
from vlm_rewards.schemas.pictures import encode_png

NUM_FILES = 1500
FRAMES_PER_FILE = 4
REPEATS = 3
LIMIT = 1.3


def write_corpora(folder: Path) -> dict[str, Path]:
    """Writes the same episodes into one file, and into one file each."""
    rng = np.random.default_rng(0)
    episodes = [
        Episode(
            episode_id=f"e{index:05d}",
            images={
                "view": [encode_png(frame) for frame in rng.integers(0, 256, (FRAMES_PER_FILE, 56, 56, 3), np.uint8)]
            },
        )
        for index in range(NUM_FILES)
    ]
    features = CorpusFeatures.of(episodes[0])
    corpora = {"one": folder / "one", "many": folder / "many"}
    for path in corpora.values():
        path.mkdir()
    write_episodes(corpora["one"] / "all.parquet", features, episodes, "parquet")
    for episode in episodes:
        write_episodes(corpora["many"] / f"{episode.episode_id}.parquet", features, [episode], "parquet")
    return corpora


def measure(corpus: Path, output: Path, labeler: LabelerSettings) -> tuple[float, float]:
    """Labels a corpus; processor time, and time on the clock, in seconds."""
    shared_labeler(labeler).cache.clear()
    usage, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    label(corpus, labeler, output=output, workers=1)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime - usage.ru_utime - usage.ru_stime, time.perf_counter() - started


def main() -> None:
    """Measures both in turn, after a run that is not counted, and prints the ratio of the least times."""
    output = parse_arguments(__doc__).output
    labeler = LabelerSettings(model="reference-s", goals=goal_bank(), precision="float32")
    times: dict[str, list[tuple[float, float]]] = {"one": [], "many": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpora = write_corpora(folder)
        measure(corpora["one"], folder / "warm", labeler)
        for repeat in range(REPEATS):
            for which, corpus in corpora.items():
                times[which].append(measure(corpus, folder / f"{which}-{repeat}", labeler))
                print(f"{which}: {times[which][-1][0]:.2f} s of the processor, {times[which][-1][1]:.2f} s", flush=True)
        units = len(open_corpus(corpora["many"]).units())
    least = {which: min(cpu for cpu, _ in measured) for which, measured in times.items()}
    ratio = least["many"] / least["one"]
    print(f"{NUM_FILES} files of {FRAMES_PER_FILE} frames, {units} units: {ratio:.2f} times one file (limit {LIMIT})")
    result = {
        "machine": machine(),
        "files": NUM_FILES,
        "frames_per_file": FRAMES_PER_FILE,
        "units": units,
        "processor_s": {which: [cpu for cpu, _ in measured] for which, measured in times.items()},
        "clock_s": {which: [clock for _, clock in measured] for which, measured in times.items()},
        "ratio": ratio,
        "limit": LIMIT,
    }
    write_result(output, "small_files", result)


if __name__ == "__main__":
    main()
