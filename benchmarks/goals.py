"""What all goals of the bank cost, against one goal: the same frames labelled in turns, the median of the ratios.

python benchmarks/goals.py [--output FILE]
"""

import statistics
import tempfile
import time
from pathlib import Path

from corpora import save_vit_b32, write_distinct_frames
from report_result import machine, parse_arguments, write_result

from vlm_rewards.labelers.domains.babyai.goals import goal_bank
from vlm_rewards.labelers.scoring.negatives import NegativeSettings
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.label.labelling import label
from vlm_rewards.pipelines.label.shared_labelers import shared_labeler

ROUNDS = 7


def seconds_to_label(corpus: Path, output: Path, settings: LabelerSettings) -> float:
    """Time of one labelling run on one worker, its model loaded before."""
    shared_labeler(settings).cache.clear()
    started = time.perf_counter()
    label(corpus, settings, output=output, workers=1)
    return time.perf_counter() - started


def main() -> None:
    """Measures both encoders and prints the ratios."""
    output = parse_arguments(__doc__).output
    bank = tuple(goal_bank())
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = (
            ("ViT-B/32's shape", str(save_vit_b32(folder / "vit-b32")), 224, 256, 1.05),
            ("reference-s", "reference-s", 56, 8000, 1.5),
        )
        for title, model, size, num_frames, limit in cases:
            corpus = write_distinct_frames(folder / f"corpus-{size}", num_frames, size, frames_per_episode=64)
            negatives = NegativeSettings(explicit=("nothing",))
            one = LabelerSettings(model=model, goals=bank[:1], negatives=negatives)
            every = LabelerSettings(model=model, goals=bank, negatives=negatives)
            times: dict[str, list[float]] = {"one goal": [], "all goals": []}
            for turn in range(ROUNDS):
                for key, settings in (("one goal", one), ("all goals", every)):
                    times[key].append(seconds_to_label(corpus, folder / f"{size}-{key}-{turn}", settings))
            ratios = [many / single for single, many in zip(times["one goal"], times["all goals"], strict=True)]
            results[title] = {
                "goals": len(bank),
                "frames": num_frames,
                "ratio": statistics.median(ratios),
                "ratios": ratios,
                "limit": limit,
                "frames_per_s_all_goals": num_frames / statistics.median(times["all goals"]),
            }
            print(
                f"{title}: {len(bank)} goals cost {results[title]['ratio']:.3f} times what one costs (limit {limit})",
                flush=True,
            )
    write_result(output, "goals", {"machine": machine(), "results": results})


if __name__ == "__main__":
    main()
