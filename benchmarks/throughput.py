"""How close labelling comes to the speed of the bare encoder: the same frames, one worker, in turns.

python benchmarks/throughput.py [--output FILE]
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from corpora import save_vit_b32, write_distinct_frames
from report_result import machine, parse_arguments, write_result

from vlm_rewards.labelers.domains.babyai.goals import goal_bank
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.label.labelling import label
from vlm_rewards.pipelines.label.shared_labelers import shared_labeler

ROUNDS = 5


def main() -> None:
    """Measures both encoders and prints frames a second."""
    output = parse_arguments(__doc__).output
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, model, size, num_frames in (
            ("ViT-B/32's shape", str(save_vit_b32(folder / "vit-b32")), 224, 256),
            ("reference-s", "reference-s", 56, 8000),
        ):
            corpus = write_distinct_frames(folder / f"corpus-{size}", num_frames, size, frames_per_episode=64)
            settings = LabelerSettings(model=model, goals=tuple(goal_bank()))
            shared = shared_labeler(settings)
            pixels = np.random.default_rng(0).integers(
                0, 256, (num_frames, *shared.labeler.encoder.image_size, 3), np.uint8
            )
            shared.labeler.embed(pixels[:64])
            bare, whole = [], []
            for turn in range(ROUNDS):
                started = time.perf_counter()
                shared.labeler.embed(pixels)
                bare.append(num_frames / (time.perf_counter() - started))
                shared.cache.clear()
                started = time.perf_counter()
                label(corpus, settings, output=folder / f"labels-{size}-{turn}", workers=1)
                whole.append(num_frames / (time.perf_counter() - started))
            share = statistics.median(w / b for w, b in zip(whole, bare, strict=True))
            results[title] = {
                "encoder_frames_per_s": statistics.median(bare),
                "label_frames_per_s": statistics.median(whole),
                "share_of_encoder_speed": share,
                "precision": shared.labeler.encoder.precision,
            }
            print(
                f"{title} ({shared.labeler.encoder.precision}, one worker): encoder {results[title]['encoder_frames_per_s']:,.0f} "
                f"frames/s, labelling for 342 goals {results[title]['label_frames_per_s']:,.0f} frames/s ({100 * share:.0f} %)",
                flush=True,
            )
    write_result(output, "throughput", {"machine": machine(), "results": results})


if __name__ == "__main__":
    main()
